/**
 * Relay tokens as their holder sees them: read, never trusted. Only the relay checks the issuer's signature; the holder
 * looks inside to know which relay the token is for and how long it lasts.
 */

import { decodeJson } from "./base64url.js";
import { MilliwayError } from "./errors.js";

/** Longer than any token the relay takes. */
const TOKEN_MAX = 16 * 1024;

/**
 * @param {string} token compact JWS
 * @returns {{iss: string, sub: string, aud: string, exp: number, jti: string, balance_msat: number}} its claims, unchecked
 * @throws {MilliwayError} token-malformed
 */
export function readToken(token) {
  try {
    if (token.length > TOKEN_MAX) throw new SyntaxError("too long");
    const parts = token.split(".");
    if (parts.length !== 3) throw new SyntaxError("not three parts");
    const claims = decodeJson(parts[1]);
    if (typeof claims?.sub !== "string" || typeof claims.aud !== "string") throw new SyntaxError("no sub or aud");
    return claims;
  } catch (cause) {
    throw new MilliwayError("token-malformed", undefined, { cause });
  }
}
