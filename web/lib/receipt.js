/**
 * Receipts: what a session cost, signed by the relay. The holder checks the signature and does the sum again:
 * owed = 1000 * (bytes_out * rate_out + bytes_in * rate_in) + ns * rate_second, in 10^-9 msat, rounded up once a segment.
 * Then it looks whether the receipt follows the one before, and whether it bills more than was seen here.
 */

import { decode, decodeJson, encode, utf8 } from "./base64url.js";
import { verificationKey, verifySignature } from "./did.js";
import { MilliwayError } from "./errors.js";

/**
 * What a closed segment costs. Exact: BigInt, no floating point.
 * @param {{bytes_out: number | string, bytes_in: number | string, nanoseconds: number | string}} usage
 * @param {{out: number, in: number, second: number}} rates msat per megabyte out and in, msat per second
 * @returns {bigint} msat
 */
export function rate(usage, rates) {
  return (owed(usage, rates) + 999_999_999n) / 1_000_000_000n;
}

function rateDown(usage, rates) {
  return owed(usage, rates) / 1_000_000_000n;
}

function owed(usage, rates) {
  const [out, inward, second] = [BigInt(rates.out), BigInt(rates.in), BigInt(rates.second)];
  return 1000n * (BigInt(usage.bytes_out) * out + BigInt(usage.bytes_in) * inward) + BigInt(usage.nanoseconds) * second;
}

/**
 * The sum of a whole receipt, done again from its bytes, nanoseconds and terms. A recovered segment (the relay was killed
 * and bills what had been reported) is rounded down.
 * @param {any} receipt claims of a receipt @returns {bigint} msat
 * @throws {MilliwayError} receipt-invalid where a segment names no terms, or costs other than its terms say
 */
export function auditReceipt(receipt) {
  let total = 0n;
  for (const segment of receipt.segments) {
    const terms = receipt.terms.find(({ service, tariff }) => service === segment.service && tariff === segment.tariff);
    if (!terms) throw new MilliwayError("receipt-invalid");
    const rates = { out: terms.msat_per_megabyte_out, in: terms.msat_per_megabyte_in, second: terms.msat_per_second };
    const [up, down] = [rate(segment, rates), rateDown(segment, rates)];
    if (BigInt(segment.msat) !== (segment.recovered ? down : up)) throw new MilliwayError("receipt-invalid");
    total += BigInt(segment.msat);
  }
  if (BigInt(receipt.msat) !== total) throw new MilliwayError("receipt-invalid");
  return total;
}

/**
 * @param {string} jws compact, signed by the relay @param {string} relay its DID @param {any} [document] its DID document
 * @returns {Promise<any>} the claims, signature checked
 */
export async function openReceipt(jws, relay, document) {
  try {
    const [protectedPart, payload, signature, ...rest] = jws.trim().split(".");
    if (!signature || rest.length) throw new SyntaxError("not a compact JWS");
    const header = decodeJson(protectedPart);
    const key = await verificationKey(header.kid, relay, document);
    if (header.alg !== key.alg || header.crit !== undefined) throw new SyntaxError("not the key's algorithm");
    if (!(await verifySignature(key, decode(signature), utf8(`${protectedPart}.${payload}`)))) {
      throw new SyntaxError("the signature does not match");
    }
    return decodeJson(payload);
  } catch (cause) {
    throw new MilliwayError("receipt-invalid", undefined, { cause });
  }
}

/** The JWS `typ` of a receipt. */
const TYP = "milliway-receipt+jws";
/** What may be billed beyond what was seen: 1 %, since packets are lost on the way, and what was on its way at the end. */
const TOLERANCE = 1.01;
const SLACK = { bytes: 3_000, nanoseconds: 1e9 };
/** SRTP's authentication tag, by the cipher of the transport. */
const TAG_BYTES = { AEAD_AES_128_GCM: 16, AEAD_AES_256_GCM: 16, AES_CM_128_HMAC_SHA1_80: 10, AES_CM_128_HMAC_SHA1_32: 4 };

/**
 * @typedef {{bytes_out: number, bytes_in: number, nanoseconds: number}} Seen what this side counted of one service
 * @typedef {{claims?: any, fault?: "malformed" | "signature" | "session" | "arithmetic" | "chain",
 *   warnings: ("bytes-out" | "bytes-in" | "seconds" | "terms")[]}} Audit `fault`: it proves nothing. `warnings`: it bills
 *   over 1 % more than was seen, or at other prices than were quoted.
 */

/**
 * Checks a receipt against everything that is known here.
 * @param {string} jws
 * @param {{relay: string, document?: any, session: string, before?: string, seen?: Record<string, Seen>, quoted?: any[]}} expected
 *   `before`: the receipt of the session that came before; `seen`: by service; `quoted`: the tariff of the signed challenge
 * @returns {Promise<Audit>} never throws
 */
export async function checkReceipt(jws, { relay, document, session, before, seen = {}, quoted = [] }) {
  const fault = (word) => ({ fault: word, warnings: [] });
  if (!isReceipt(jws)) return fault("malformed");
  const claims = await opened(jws, relay, document);
  if (!claims) return fault("signature");
  if (claims.session !== session) return fault("session");
  const settlements = claims.segments.map((segment) => segment.settlement ?? 0);
  const rising = settlements.every((number, at) => at === 0 || number === 0 || number > settlements[at - 1]);
  try {
    auditReceipt(claims);
  } catch {
    return fault("arithmetic");
  }
  if (!rising) return fault("arithmetic");
  if (!(await follows(claims, jws, before, relay, document))) return fault("chain");
  const warnings = Object.entries(seen).flatMap(([service, counted]) => compare(claims, service, counted));
  const prices = ["service", "msat_per_megabyte_out", "msat_per_megabyte_in", "msat_per_second"];
  const same = (terms, quote) => (quote.tariff ?? quote.id) === terms.tariff && prices.every((name) => quote[name] === terms[name]);
  if (quoted.length && !claims.terms.every((terms) => quoted.some((quote) => same(terms, quote)))) warnings.push("terms");
  return { claims, warnings };
}

function isReceipt(jws) {
  try {
    const [header, payload, signature, ...rest] = jws.split(".");
    const claims = decodeJson(payload);
    return typeof decodeJson(header).alg === "string" && decode(signature) && !rest.length && Array.isArray(claims.segments) && Array.isArray(claims.terms);
  } catch {
    return false;
  }
}

/** @returns {Promise<any>} the claims of a receipt that this relay signed as one, or undefined */
async function opened(jws, relay, document) {
  try {
    const claims = await openReceipt(jws, relay, document);
    return decodeJson(jws.split(".")[0]).typ === TYP && claims.iss === relay ? claims : undefined;
  } catch {
    return undefined;
  }
}

async function follows(claims, jws, before, relay, document) {
  // Only the first follows nothing.
  if ((claims.number === 0) !== (claims.prev === null || claims.prev === undefined)) return false;
  if (before === undefined || before === null || before === jws) return true;
  const old = await opened(before, relay, document);
  const grows =
    old && old.session === claims.session && claims.number > old.number &&
    old.segments.every((segment, at) => JSON.stringify(segment) === JSON.stringify(claims.segments[at]));
  if (!grows) return false;
  // Of a receipt in between that was not fetched only the hash is known.
  return claims.number !== old.number + 1 || claims.prev === encode(await crypto.subtle.digest("SHA-256", utf8(before)));
}

function compare(claims, service, seen) {
  const segments = claims.segments.filter((segment) => segment.service === service);
  const sum = (name, of = segments) => of.reduce((total, segment) => total + Number(segment[name]), 0);
  const above = (billed, counted, slack) => billed > counted * TOLERANCE + slack;
  const billedIn = claims.terms.some((terms) => terms.service === service && terms.msat_per_megabyte_in > 0);
  // Meters that run side by side (allocations of one TURN session) each count their own time.
  const longest = Math.max(0, ...grouped(segments).map((of) => sum("nanoseconds", of)));
  return [
    above(sum("bytes_out"), seen.bytes_out, SLACK.bytes) && "bytes-out",
    billedIn && above(sum("bytes_in"), seen.bytes_in, SLACK.bytes) && "bytes-in",
    above(longest, seen.nanoseconds, SLACK.nanoseconds) && "seconds",
  ].filter(Boolean);
}

function grouped(segments) {
  const meters = new Map();
  for (const segment of segments) {
    const name = JSON.stringify(segment.lease);
    meters.set(name, [...(meters.get(name) ?? []), segment]);
  }
  return [...meters.values()];
}

/**
 * What a peer connection carried, as the SFU bills it: whole SRTP packets, with header, padding and authentication tag.
 * @param {Iterable<[string, any]>} stats of `RTCPeerConnection.getStats()`
 * @returns {{bytes_out: number, bytes_in: number, lost: number}} to here, from here, and packets that were lost on the way here
 */
export function counted(stats) {
  const all = [...stats].map(([, entry]) => entry);
  const cipher = all.find(({ type, srtpCipher }) => type === "transport" && srtpCipher)?.srtpCipher;
  const tag = TAG_BYTES[cipher] ?? 16;
  const sum = (kind, count) => all.filter(({ type }) => type === kind).reduce((total, stream) => total + count(stream), 0);
  const whole = (payload = 0, headers = 0, packets = 0) => payload + headers + packets * tag;
  return {
    bytes_out: sum("inbound-rtp", (stream) => whole(stream.bytesReceived, stream.headerBytesReceived, stream.packetsReceived)),
    bytes_in: sum("outbound-rtp", (stream) => whole(stream.bytesSent, stream.headerBytesSent, stream.packetsSent)),
    lost: sum("inbound-rtp", ({ packetsLost = 0 }) => Math.max(0, packetsLost)),
  };
}
