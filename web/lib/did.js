/**
 * did:key (Ed25519) and what a client needs of a relay's DID document. A did:key is its own proof: its key is read from
 * the name, never from a document that somebody served.
 */

import { decode } from "./base64url.js";

const BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz";
/** multicodec ed25519-pub, as an unsigned varint */
const ED25519 = [0xed, 0x01];
/** A did:key of Ed25519 is 56 characters; nothing longer is decoded, since base58 takes quadratic time. */
const MULTIBASE_MAX = 128;

/** @param {Uint8Array} bytes @returns {string} base58btc */
export function base58(bytes) {
  const digits = [];
  for (const byte of bytes) {
    let carry = byte;
    for (let at = 0; at < digits.length; at++) {
      carry += digits[at] << 8;
      digits[at] = carry % 58;
      carry = Math.floor(carry / 58);
    }
    for (; carry > 0; carry = Math.floor(carry / 58)) digits.push(carry % 58);
  }
  let zeros = 0;
  while (zeros < bytes.length && bytes[zeros] === 0) zeros++;
  return "1".repeat(zeros) + digits.reverse().map((digit) => BASE58[digit]).join("");
}

/** @param {string} text base58btc @returns {Uint8Array} @throws {SyntaxError} */
export function unbase58(text) {
  if (text.length > MULTIBASE_MAX) throw new SyntaxError("base58 text is too long");
  const bytes = [];
  for (const character of text) {
    let carry = BASE58.indexOf(character);
    if (carry < 0) throw new SyntaxError("base58 text holds a character outside its alphabet");
    for (let at = 0; at < bytes.length; at++) {
      carry += bytes[at] * 58;
      bytes[at] = carry & 255;
      carry >>= 8;
    }
    for (; carry > 0; carry >>= 8) bytes.push(carry & 255);
  }
  for (let at = 0; text[at] === "1"; at++) bytes.push(0);
  return new Uint8Array(bytes.reverse());
}

/** @param {Uint8Array} key 32 bytes, raw Ed25519 @returns {string} "did:key:z6Mk..." */
export function didKey(key) {
  if (key.length !== 32) throw new TypeError("an Ed25519 public key is 32 bytes");
  return `did:key:z${base58(new Uint8Array([...ED25519, ...key]))}`;
}

/** @param {string} did @returns {Uint8Array} the raw Ed25519 key @throws {SyntaxError} where it is another kind of DID */
export function ed25519OfDidKey(did) {
  const multibase = /^did:key:z([1-9A-HJ-NP-Za-km-z]+)$/.exec(did)?.[1];
  if (!multibase) throw new SyntaxError("not a did:key");
  return ed25519OfMultibase(multibase);
}

function ed25519OfMultibase(base58Text) {
  const bytes = unbase58(base58Text);
  if (bytes.length !== 34 || bytes[0] !== ED25519[0] || bytes[1] !== ED25519[1]) {
    throw new SyntaxError("the key is not an Ed25519 key");
  }
  return bytes.subarray(2);
}

/** @param {string} did a did:key @returns {string} the DID URL of its one key */
export function didKeyId(did) {
  return `${did}#${did.slice("did:key:".length)}`;
}

/** For people: "did:key:z6Mk…9fQ2". @param {string} did @returns {string} */
export function shortDid(did) {
  return did.length <= 24 ? did : `${did.slice(0, 12)}…${did.slice(-4)}`;
}

/**
 * The key behind a key id, for checking signatures of `did`.
 * @param {string} kid DID URL of a key @param {string} did whose key it must be
 * @param {any} [document] its DID document; needed for every method but did:key
 * @returns {Promise<{key: CryptoKey, alg: "EdDSA" | "ES256"}>}
 */
export async function verificationKey(kid, did, document) {
  if (did.startsWith("did:key:")) {
    if (kid !== didKeyId(did)) throw new SyntaxError("the signature names a key of somebody else");
    return { key: await importEd25519(ed25519OfDidKey(did)), alg: "EdDSA" };
  }
  if (!kid.startsWith(`${did}#`) || document?.id !== did) {
    throw new SyntaxError("the signature names a key of somebody else");
  }
  const method = document.verificationMethod?.find((entry) => entry.id === kid || did + entry.id === kid);
  if (!method) throw new SyntaxError("the signature names a key that the DID document does not list");
  const jwk = method.publicKeyJwk;
  if (method.publicKeyMultibase?.startsWith("z")) {
    return { key: await importEd25519(ed25519OfMultibase(method.publicKeyMultibase.slice(1))), alg: "EdDSA" };
  }
  if (jwk?.kty === "OKP" && jwk.crv === "Ed25519") return { key: await importEd25519(decode(jwk.x)), alg: "EdDSA" };
  if (jwk?.kty === "EC" && jwk.crv === "P-256") {
    const { kty, crv, x, y } = jwk;
    const algorithm = { name: "ECDSA", namedCurve: "P-256" };
    return { key: await crypto.subtle.importKey("jwk", { kty, crv, x, y }, algorithm, false, ["verify"]), alg: "ES256" };
  }
  throw new SyntaxError("the key is of a kind this client does not know");
}

function importEd25519(raw) {
  return crypto.subtle.importKey("raw", raw, { name: "Ed25519" }, false, ["verify"]);
}

/**
 * @param {{key: CryptoKey, alg: "EdDSA" | "ES256"}} by @param {Uint8Array} signature @param {Uint8Array} message
 * @returns {Promise<boolean>}
 */
export function verifySignature(by, signature, message) {
  const algorithm = by.alg === "EdDSA" ? { name: "Ed25519" } : { name: "ECDSA", hash: "SHA-256" };
  return crypto.subtle.verify(algorithm, by.key, signature, message);
}
