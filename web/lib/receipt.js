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
