/**
 * Receipts: what a session cost, signed by the relay. The holder checks the signature and does the sum again:
 * owed = 1000 * (bytes_out * rate_out + bytes_in * rate_in) + ns * rate_second, in 10^-9 msat, rounded up once a segment.
 */

import { decode, decodeJson, utf8 } from "./base64url.js";
import { verificationKey, verifySignature } from "./did.js";
import { MilliwayError } from "./errors.js";

/**
 * What a closed segment costs. Exact: BigInt, no floating point.
 * @param {{bytes_out: number | string, bytes_in: number | string, nanoseconds: number | string}} usage
 * @param {{out: number, in: number, second: number}} rates msat per megabyte out and in, msat per second
 * @returns {bigint} msat
 */
export function rate(usage, rates) {
  const [out, inward, second] = [BigInt(rates.out), BigInt(rates.in), BigInt(rates.second)];
  const owed =
    1000n * (BigInt(usage.bytes_out) * out + BigInt(usage.bytes_in) * inward) + BigInt(usage.nanoseconds) * second;
  return (owed + 999_999_999n) / 1_000_000_000n;
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
