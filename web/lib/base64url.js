/**
 * Base64url without padding (RFC 4648 section 5), the only binary-to-text form in JWS, DPoP and the DSIP envelopes.
 * Decoding is strict: another spelling of the same bytes is refused.
 */

const ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
const VALUES = new Map([...ALPHABET].map((character, value) => [character, value]));

/** @param {ArrayBuffer | Uint8Array} bytes @returns {string} */
export function encode(bytes) {
  const input = bytes instanceof Uint8Array ? bytes : new Uint8Array(bytes);
  let text = "";
  for (let at = 0; at < input.length; at += 3) {
    const [a, b, c] = [input[at], input[at + 1], input[at + 2]];
    text += ALPHABET[a >> 2] + ALPHABET[((a & 3) << 4) | ((b ?? 0) >> 4)];
    if (b !== undefined) text += ALPHABET[((b & 15) << 2) | ((c ?? 0) >> 6)];
    if (c !== undefined) text += ALPHABET[c & 63];
  }
  return text;
}

/** @param {string} text @returns {Uint8Array} @throws {SyntaxError} on padding, foreign characters or leftover bits */
export function decode(text) {
  if (text.length % 4 === 1) throw new SyntaxError("base64url text has an impossible length");
  const bytes = new Uint8Array(Math.floor((text.length * 3) / 4));
  let [held, bits, at] = [0, 0, 0];
  for (const character of text) {
    const value = VALUES.get(character);
    if (value === undefined) throw new SyntaxError("base64url text holds a character outside its alphabet");
    held = ((held << 6) | value) & 0xffff;
    bits += 6;
    if (bits >= 8) {
      bits -= 8;
      bytes[at++] = (held >> bits) & 255;
    }
  }
  if (held & ((1 << bits) - 1)) throw new SyntaxError("base64url text ends in bits that mean nothing");
  return bytes;
}

/** @param {string} text @returns {Uint8Array} UTF-8 */
export function utf8(text) {
  return new TextEncoder().encode(text);
}

/** @param {unknown} value @returns {string} base64url of its JSON */
export function encodeJson(value) {
  return encode(utf8(JSON.stringify(value)));
}

/** @param {string} text @returns {any} @throws {SyntaxError} */
export function decodeJson(text) {
  return JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(decode(text)));
}

/** @param {number} [size] bytes @returns {string} fresh randomness, base64url */
export function random(size = 16) {
  return encode(crypto.getRandomValues(new Uint8Array(size)));
}
