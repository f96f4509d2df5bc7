/**
 * One relay, seen from its holder: who it is (its DID document), what it charges, what the account holds, vouchers,
 * TURN credentials, receipts. Calls are in call.js.
 */

import { request, problemOf, SignedHttp } from "./dpop.js";
import { MilliwayError } from "./errors.js";
import { checkReceipt, openReceipt } from "./receipt.js";
import { readToken } from "./token.js";

export class Relay {
  /** Use `Relay.open`. */
  constructor(identity, url, document, send) {
    const endpoint = serviceOf(document);
    this.identity = identity;
    /** @type {string} the relay's DID */
    this.did = document.id;
    this.document = document;
    /** Where this page reaches it; its own name for itself may differ (localhost, 127.0.0.1). */
    this.url = url.replace(/\/$/, "");
    this.socketUrl = `${this.url.replace(/^http/, "ws")}/v1/dsip`;
    this.socketUrls = endpoint.ws ?? [];
    this.http = new SignedHttp(identity, this.url, endpoint.http?.[0] ?? this.url, send);
    this.#send = send;
  }

  #send;

  /**
   * @param {string} url e.g. location.origin @param {import("./identity.js").Identity} identity
   * @param {{send?: typeof fetch}} [options] for tests
   * @returns {Promise<Relay>} @throws {MilliwayError} relay-gone
   */
  static async open(url, identity, { send = (...call) => fetch(...call) } = {}) {
    const response = await request(send, `${url.replace(/\/$/, "")}/.well-known/did.json`);
    if (!response.ok) throw await problemOf(response);
    const document = await response.json().catch(() => undefined);
    if (typeof document?.id !== "string") throw new MilliwayError("relay-protocol");
    return new Relay(identity, url, document, send);
  }

  /** @returns {Promise<Array<{id: string, service: "sfu" | "turn", msat_per_megabyte_out: number, msat_per_megabyte_in: number, msat_per_second: number, valid_until: number}>>} */
  async tariffs() {
    const response = await request(this.#send, `${this.url}/v1/tariff`);
    if (!response.ok) throw await problemOf(response);
    return (await response.json()).tariffs;
  }

  /** @returns {Promise<{did: string, available_msat: number, reserved_msat: number, spent_msat: number, runway_seconds: number | null, sessions: any[]}>} */
  async account() {
    return (await this.http.call("GET", "/v1/account")).json();
  }

  /**
   * A token of the relay's own issuer, where the relay runs for trying out (`milliway dev`); elsewhere it is a 404.
   * @param {number} balanceMsat 0 for a token that only admits @returns {Promise<string>}
   */
  async faucet(balanceMsat) {
    const response = await request(this.#send, `${this.url}/v1/dev/faucet`, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ sub: this.identity.did, balance_msat: balanceMsat }),
    });
    if (!response.ok) throw await problemOf(response);
    return (await response.json()).token;
  }

  /** @param {string} token a further token of this holder @returns {Promise<{credited_msat: number, available_msat: number, repeated?: boolean}>} */
  async topup(token) {
    this.check(token);
    return (await this.http.call("POST", "/v1/topup", { token, json: { token } })).json();
  }

  /** @param {string} token @returns {Promise<{iceServers: RTCIceServer[], ttl: number, session: string}>} */
  async turnCredentials(token) {
    this.check(token);
    return (await this.http.call("POST", "/v1/turn/credentials", { token, json: {} })).json();
  }

  /** @param {string} session @returns {Promise<any>} the claims of its receipt, signature checked; `jws` is the signed form */
  async receipt(session) {
    const jws = await this.#receipt(session);
    return { ...(await openReceipt(jws, this.did, this.document)), jws };
  }

  /**
   * The receipt of a session, held against everything that is known here.
   * @param {string} session @param {{before?: string, seen?: Record<string, import("./receipt.js").Seen>, quoted?: any[]}} [known]
   * @returns {Promise<import("./receipt.js").Audit & {jws: string}>}
   */
  async auditedReceipt(session, known = {}) {
    const jws = await this.#receipt(session);
    return { ...(await checkReceipt(jws, { relay: this.did, document: this.document, session, ...known })), jws };
  }

  async #receipt(session) {
    const text = await (await this.http.call("GET", `/v1/receipts/${encodeURIComponent(session)}`)).text();
    return text.trimStart().startsWith("{") ? JSON.parse(text).receipt : text.trim();
  }

  /**
   * Refuses to show a token to another relay than the one it was made for.
   * @param {string} token @throws {MilliwayError} relay-identity, token-malformed
   */
  check(token) {
    const { aud } = readToken(token);
    if (aud !== this.did) throw new MilliwayError("relay-identity");
  }
}

function serviceOf(document) {
  return document.service?.find((service) => service.type === "DSIPService")?.serviceEndpoint ?? {};
}
