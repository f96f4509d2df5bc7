/**
 * Credentials that a relay asks for in a call: which of a holder's fit, unverified as they are to their own holder. What
 * they say is the relay's to judge.
 */

import { decodeJson } from "./base64url.js";

/** Most credentials in one presentation. */
export const CREDENTIALS_MAX = 4;

/**
 * @typedef {{services: {service: "sfu" | "turn", score_min?: number, roles?: string[], organizations?: string[]}[],
 *   issuers: {did: string, types: string[]}[]}} Wanted
 * @typedef {{nonce: string, expires: number, reason: string, ends: boolean, wanted: Wanted}} CredentialRequest
 */

/**
 * Those by a listed issuer, of a type that its word counts for, and not expired, in their order.
 * @param {Wanted} wanted @param {string[]} held VC-JWTs @param {number} [now] unix seconds @returns {string[]}
 */
export function fittingCredentials(wanted, held, now = Date.now() / 1000) {
  const fits = (text) => {
    const seen = glance(text);
    if (!seen || (seen.expires !== undefined && seen.expires <= now)) return false;
    return wanted.issuers.some(({ did, types }) => did === seen.issuer && seen.types.some((type) => types.includes(type)));
  };
  return held.filter(fits).slice(0, CREDENTIALS_MAX);
}

/** Issuer, types and end of a VC-JWT of data model 2.0 or 1.1. @returns {{issuer: string, types: string[], expires?: number} | undefined} */
function glance(text) {
  try {
    const parts = text.split(".");
    if (parts.length !== 3) return undefined;
    const claims = decodeJson(parts[1]);
    const body = claims.vc ?? claims;
    const issuer = claims.iss ?? body.issuer?.id ?? body.issuer;
    const dates = [body.validUntil, body.expirationDate].filter((date) => date !== undefined).map((date) => Date.parse(date) / 1000);
    const ends = [...(claims.exp === undefined ? [] : [claims.exp]), ...dates];
    if (typeof issuer !== "string" || ends.some((end) => !Number.isFinite(end))) return undefined;
    return { issuer, types: [body.type ?? []].flat(), expires: ends.length ? Math.min(...ends) : undefined };
  } catch {
    return undefined;
  }
}
