/**
 * CBOR (RFC 8949), as far as DSIP envelopes need it: JSON's types, and byte strings for the signature. No tags, nothing of
 * indefinite length is written, names are text and appear once, whole numbers stay within 2^53-1.
 */

/** As deep as JSON may be. */
const DEPTH_MAX = 32;

/** @param {unknown} value plain JSON, or Uint8Array for a byte string @returns {Uint8Array} @throws {TypeError} */
export function encodeCbor(value) {
  const parts = [];
  write(value, parts, 0);
  const bytes = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    bytes.set(part, at);
    at += part.length;
  }
  return bytes;
}

function write(value, parts, depth) {
  if (depth > DEPTH_MAX) throw new TypeError("CBOR is nested too deeply");
  if (value === null) parts.push(Uint8Array.of(0xf6));
  else if (typeof value === "boolean") parts.push(Uint8Array.of(value ? 0xf5 : 0xf4));
  else if (typeof value === "number") writeNumber(value, parts);
  else if (typeof value === "string") writeText(value, parts);
  else if (value instanceof Uint8Array) parts.push(head(2, value.length), value);
  else if (Array.isArray(value)) {
    parts.push(head(4, value.length));
    for (const item of value) write(item, parts, depth + 1);
  } else if (typeof value === "object") {
    const names = Object.keys(value).filter((name) => value[name] !== undefined);
    parts.push(head(5, names.length));
    for (const name of names) {
      writeText(name, parts);
      write(value[name], parts, depth + 1);
    }
  } else throw new TypeError(`a ${typeof value} has no place in CBOR`);
}

function writeText(text, parts) {
  const bytes = new TextEncoder().encode(text);
  parts.push(head(3, bytes.length), bytes);
}

function writeNumber(number, parts) {
  if (Number.isSafeInteger(number) && !Object.is(number, -0)) {
    parts.push(number < 0 ? head(1, -1 - number) : head(0, number));
    return;
  }
  if (!Number.isFinite(number)) throw new TypeError("a number that is not finite has no place in an envelope");
  const bytes = new Uint8Array(9);
  bytes[0] = 0xfb;
  new DataView(bytes.buffer).setFloat64(1, number);
  parts.push(bytes);
}

/** Major type and argument (RFC 8949 section 3), in its shortest form. */
function head(major, argument) {
  const type = major << 5;
  if (argument < 24) return Uint8Array.of(type | argument);
  const size = argument < 0x100 ? 1 : argument < 0x10000 ? 2 : argument < 0x100000000 ? 4 : 8;
  const bytes = new Uint8Array(1 + size);
  bytes[0] = type | { 1: 24, 2: 25, 4: 26, 8: 27 }[size];
  const view = new DataView(bytes.buffer);
  if (size === 1) view.setUint8(1, argument);
  else if (size === 2) view.setUint16(1, argument);
  else if (size === 4) view.setUint32(1, argument);
  else view.setBigUint64(1, BigInt(argument));
  return bytes;
}

/**
 * @param {Uint8Array} bytes one item, and nothing after it
 * @returns {any} plain JSON; byte strings as Uint8Array; maps as objects without a prototype
 * @throws {SyntaxError}
 */
export function decodeCbor(bytes) {
  const reader = { bytes, view: new DataView(bytes.buffer, bytes.byteOffset, bytes.length), at: 0 };
  const value = read(reader, 0);
  if (reader.at !== bytes.length) throw new SyntaxError("something follows the CBOR item");
  return value;
}

function read(reader, depth) {
  if (depth > DEPTH_MAX) throw new SyntaxError("CBOR is nested too deeply");
  const initial = take(reader, 1)[0];
  const [major, info] = [initial >> 5, initial & 31];
  if (major === 7) return simple(reader, info);
  const argument = readArgument(reader, info);
  switch (major) {
    case 0: return safe(argument);
    case 1: return safe(-1 - argument);
    case 2: return take(reader, argument).slice();
    case 3: return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(take(reader, argument));
    case 4: {
      const items = [];
      for (let index = 0; index < argument; index++) items.push(read(reader, depth + 1));
      return items;
    }
    case 5: {
      const members = Object.create(null);
      for (let index = 0; index < argument; index++) {
        const name = read(reader, depth + 1);
        if (typeof name !== "string") throw new SyntaxError("a name is not text");
        if (name in members) throw new SyntaxError("a member is repeated");
        members[name] = read(reader, depth + 1);
      }
      return members;
    }
    default: throw new SyntaxError("a tag has no place in an envelope");
  }
}

function simple(reader, info) {
  if (info === 20 || info === 21) return info === 21;
  if (info === 22) return null;
  const size = { 25: 2, 26: 4, 27: 8 }[info];
  if (!size) throw new SyntaxError("a simple value that JSON lacks");
  const at = reader.at;
  take(reader, size);
  const number = size === 8 ? reader.view.getFloat64(at) : size === 4 ? reader.view.getFloat32(at) : half(reader.view.getUint16(at));
  if (!Number.isFinite(number)) throw new SyntaxError("a number that is not finite");
  return number;
}

function half(bits) {
  const [sign, exponent, fraction] = [bits >> 15 ? -1 : 1, (bits >> 10) & 31, bits & 1023];
  if (exponent === 31) return fraction ? NaN : sign * Infinity;
  return sign * (exponent ? 2 ** (exponent - 15) * (1 + fraction / 1024) : 2 ** -14 * (fraction / 1024));
}

function readArgument(reader, info) {
  if (info < 24) return info;
  const size = { 24: 1, 25: 2, 26: 4, 27: 8 }[info];
  if (!size) throw new SyntaxError("an item of indefinite length");
  return take(reader, size).reduce((sum, byte) => sum * 256 + byte, 0);
}

function safe(number) {
  if (!Number.isSafeInteger(number)) throw new SyntaxError("a whole number beyond 2^53-1");
  return number;
}

function take(reader, count) {
  const end = reader.at + count;
  if (!(end <= reader.bytes.length)) throw new SyntaxError("the CBOR is cut off");
  const bytes = reader.bytes.subarray(reader.at, end);
  reader.at = end;
  return bytes;
}
