/**
 * JSON Canonicalization Scheme (RFC 8785): the bytes that an envelope's signature covers.
 * JavaScript's own number and string forms are the scheme's; what is left is member order and refusing what has no
 * single meaning: lone surrogates, numbers that are not finite or beyond what a double holds exactly.
 */

/** Deeper than any envelope; keeps a hostile one from exhausting the stack. */
const DEPTH_MAX = 32;

/** @param {unknown} value plain JSON @returns {string} @throws {TypeError} */
export function canonicalize(value, depth = 0) {
  if (depth > DEPTH_MAX) throw new TypeError("JSON is nested too deeply to sign");
  if (value === null || typeof value === "boolean") return String(value);
  if (typeof value === "number") return number(value);
  if (typeof value === "string") return string(value);
  if (Array.isArray(value)) return `[${value.map((item) => canonicalize(item, depth + 1)).join(",")}]`;
  if (typeof value === "object") {
    const members = Object.keys(value)
      .filter((name) => value[name] !== undefined)
      .sort() // by UTF-16 code units, as the scheme asks
      .map((name) => `${string(name)}:${canonicalize(value[name], depth + 1)}`);
    return `{${members.join(",")}}`;
  }
  throw new TypeError(`a ${typeof value} has no place in JSON`);
}

function number(value) {
  if (!Number.isFinite(value)) throw new TypeError("a number that is not finite has no JSON form");
  // However it was written: a parser has rounded it already.
  if (Math.abs(value) > Number.MAX_SAFE_INTEGER) throw new TypeError("a number beyond 2^53-1 cannot be signed");
  return JSON.stringify(value);
}

function string(value) {
  for (let at = 0; at < value.length; at++) {
    const unit = value.charCodeAt(at);
    if (unit < 0xd800 || unit > 0xdfff) continue;
    const next = value.charCodeAt(at + 1);
    if (unit > 0xdbff || !(next >= 0xdc00 && next <= 0xdfff)) throw new TypeError("a lone surrogate cannot be signed");
    at++;
  }
  return JSON.stringify(value);
}

/**
 * JSON.parse that refuses repeated members, of which it would silently keep the last.
 * @param {string} text @returns {any} @throws {SyntaxError}
 */
export function parseStrict(text) {
  const value = JSON.parse(text);
  let members = 0;
  for (const [, colon] of text.matchAll(/"(?:[^"\\]|\\.)*"(\s*:)?/g)) if (colon) members++;
  if (members !== countMembers(value)) throw new SyntaxError("a member is repeated");
  return value;
}

function countMembers(value) {
  if (value === null || typeof value !== "object") return 0;
  const inside = Object.values(value).reduce((sum, item) => sum + countMembers(item), 0);
  return Array.isArray(value) ? inside : inside + Object.keys(value).length;
}
