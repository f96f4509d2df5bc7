/**
 * DPoP proofs (RFC 9449) over fetch: every call is signed with the holder's key over method, URL, the relay's nonce and,
 * where there is one, the body (`bdh`), so that a proxy cannot swap what is sent.
 */

import { encode, encodeJson, random, utf8 } from "./base64url.js";
import { MilliwayError } from "./errors.js";

/** A relay that says nothing for this long is gone. */
const REQUEST_TIMEOUT_MS = 10_000;

/** @param {Uint8Array} bytes @returns {Promise<string>} base64url(SHA-256) */
export async function sha256(bytes) {
  return encode(await crypto.subtle.digest("SHA-256", bytes));
}

/**
 * @param {import("./identity.js").Identity} identity
 * @param {{method: string, url: string, token?: string, nonce?: string, body?: Uint8Array, now?: number}} call
 *   `url` as the relay's public URL writes it; `now` in unix seconds
 * @returns {Promise<string>} the `DPoP` header
 */
export async function dpopProof(identity, { method, url, token, nonce, body, now = Date.now() / 1000 }) {
  const header = { typ: "dpop+jwt", alg: "EdDSA", jwk: identity.jwk };
  const claims = { htm: method, htu: url.split(/[?#]/)[0], iat: Math.floor(now), jti: random() };
  if (token) claims.ath = await sha256(utf8(token));
  if (nonce) claims.nonce = nonce;
  if (body) claims.bdh = await sha256(body);
  const input = `${encodeJson(header)}.${encodeJson(claims)}`;
  return `${input}.${encode(await identity.sign(utf8(input)))}`;
}

/** Signed calls to one relay. Keeps its latest nonce, so that only the first call takes two trips. */
export class SignedHttp {
  /**
   * @param {import("./identity.js").Identity} identity
   * @param {string} base where requests go @param {string} proofBase the relay's public URL, which proofs name
   * @param {typeof fetch} [send] for tests
   */
  constructor(identity, base, proofBase, send = (...call) => fetch(...call)) {
    this.identity = identity;
    this.base = base.replace(/\/$/, "");
    this.proofBase = proofBase.replace(/\/$/, "");
    this.#send = send;
  }

  #send;
  #nonce;

  /**
   * @param {string} method @param {string} path starts with "/"
   * @param {{token?: string, json?: unknown, body?: Uint8Array, type?: string}} [content]
   * @returns {Promise<Response>} an answer of 200 to 299 @throws {MilliwayError} anything else
   */
  async call(method, path, { token, json, body, type } = {}) {
    if (json !== undefined) [body, type] = [utf8(JSON.stringify(json)), "application/json"];
    for (let attempt = 0; ; attempt++) {
      const url = this.proofBase + path;
      const headers = { DPoP: await dpopProof(this.identity, { method, url, token, nonce: this.#nonce, body }) };
      if (token) headers.Authorization = `DPoP ${token}`;
      if (type) headers["Content-Type"] = type;
      const response = await request(this.#send, this.base + path, { method, headers, body });
      const fresh = response.headers.get("DPoP-Nonce");
      const retry = response.status === 401 && fresh && fresh !== this.#nonce && attempt === 0;
      if (fresh) this.#nonce = fresh;
      if (retry) continue;
      if (!response.ok) throw await problemOf(response);
      return response;
    }
  }
}

/**
 * fetch with a deadline, its failures typed.
 * @param {typeof fetch} send @param {string} url @param {RequestInit} [init] @returns {Promise<Response>}
 */
export async function request(send, url, init = {}) {
  try {
    return await send(url, {
      cache: "no-store", credentials: "omit", redirect: "error", referrerPolicy: "no-referrer", ...init,
      signal: AbortSignal.timeout(REQUEST_TIMEOUT_MS),
    });
  } catch (cause) {
    throw new MilliwayError("relay-gone", undefined, { cause });
  }
}

/** @param {Response} response @returns {Promise<MilliwayError>} */
export async function problemOf(response) {
  return MilliwayError.fromProblem(response.status, await response.json().catch(() => undefined));
}
