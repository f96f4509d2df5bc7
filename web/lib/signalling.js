/**
 * One DSIP connection: a WebSocket that speaks `dsip.v0.3`. Says hello, has the relay prove its DID over our nonce, and
 * then carries signed envelopes both ways: requests that await the envelope which `correlates` to them, and what the relay
 * tells of its own accord, in order. Knows nothing of media.
 */

import { random } from "./base64url.js";
import { openEnvelope, seal } from "./envelope.js";
import { MilliwayError } from "./errors.js";

const SUBPROTOCOL = "dsip.v0.3";
/** The relay answers a request within this, or is gone. */
const ANSWER_TIMEOUT_MS = 10_000;
/** Envelopes waiting for their signature check; a relay that sends more than this at once is broken. */
const QUEUE_MAX = 256;

export class Signalling {
  /**
   * @param {import("./identity.js").Identity} identity
   * @param {{did: string, document?: any, socketUrl: string, socketUrls: string[]}} relay `socketUrls`: the names the relay gives its socket
   * @param {{onmessage?: (envelope: any) => void | Promise<void>, onclose?: (error: MilliwayError) => void}} [handlers]
   */
  constructor(identity, relay, handlers = {}) {
    this.identity = identity;
    this.relay = relay;
    this.#handlers = handlers;
  }

  #handlers;
  /** @type {WebSocket} */ #socket;
  /** @type {Map<string, {resolve: Function, reject: Function, timer: any}>} */ #waiting = new Map();
  #inbox = Promise.resolve();
  #queued = 0;
  #closed = false;

  /**
   * Connects and has the relay prove who it is.
   * @returns {Promise<any>} the dsip.challenge: its `nonce` goes into the invite, its `tariff` is what will be charged
   * @throws {MilliwayError} relay-gone, relay-identity, relay-signature
   */
  async open() {
    await this.#connect();
    return this.challenge();
  }

  /** Another challenge on the same connection: one serves one invite. @returns {Promise<any>} as `open` */
  async challenge() {
    const nonce = random(24);
    const challenge = await this.request({ type: "dsip.hello", nonce }, "dsip.challenge");
    const proven =
      challenge.relay === this.relay.did && challenge.hello_nonce === nonce &&
      [this.relay.socketUrl, ...this.relay.socketUrls].includes(challenge.url);
    if (!proven) throw this.#fail(new MilliwayError("relay-identity"));
    return challenge;
  }

  #connect() {
    return new Promise((resolve, reject) => {
      const gone = (cause) => this.#fail(new MilliwayError("relay-gone", undefined, { cause }));
      const socket = new WebSocket(this.relay.socketUrl, SUBPROTOCOL);
      const timer = setTimeout(() => reject(gone("no connection in time")), ANSWER_TIMEOUT_MS);
      socket.onopen = () => (clearTimeout(timer), resolve());
      socket.onclose = (event) => (clearTimeout(timer), reject(gone(`closed ${event.code}`)));
      socket.onmessage = (event) => this.#receive(event.data);
      this.#socket = socket;
    });
  }

  #receive(data) {
    if (typeof data !== "string" || ++this.#queued > QUEUE_MAX) {
      this.#fail(new MilliwayError("relay-protocol"));
      return;
    }
    // One after the other: checking a signature takes time, and order carries meaning.
    this.#inbox = this.#inbox.then(async () => {
      this.#queued--;
      if (this.#closed) return;
      try {
        const envelope = await openEnvelope(data, this.relay.did, this.relay.document);
        if (envelope.to !== undefined && envelope.to !== this.identity.did) throw new MilliwayError("relay-signature");
        if (!this.#settle(envelope)) await this.#handlers.onmessage?.(envelope);
      } catch (error) {
        this.#fail(error instanceof MilliwayError ? error : new MilliwayError("relay-protocol", undefined, { cause: error }));
      }
    });
  }

  #settle(envelope) {
    const waiting = this.#waiting.get(envelope.correlates);
    if (!waiting) return false;
    clearTimeout(waiting.timer);
    this.#waiting.delete(envelope.correlates);
    if (envelope.type === "dsip.error") waiting.reject(MilliwayError.fromDsip(envelope));
    else if (envelope.type === waiting.expected) waiting.resolve(envelope);
    else waiting.reject(new MilliwayError("relay-protocol"));
    return true;
  }

  /**
   * @param {Record<string, unknown>} body @param {string} expected type of the answer
   * @returns {Promise<any>} the answer @throws {MilliwayError} the relay's refusal, or relay-gone
   */
  async request(body, expected) {
    const envelope = await seal(this.identity, { to: this.relay.did, ...body });
    return new Promise((resolve, reject) => {
      if (this.#closed) return reject(new MilliwayError("relay-gone"));
      const timer = setTimeout(() => {
        this.#waiting.delete(envelope.id);
        reject(new MilliwayError("relay-gone", undefined, { cause: `no answer to ${body.type}` }));
      }, ANSWER_TIMEOUT_MS);
      this.#waiting.set(envelope.id, { resolve, reject, timer, expected });
      this.#transmit(envelope);
    });
  }

  /** Sends without waiting. @param {Record<string, unknown>} body @returns {Promise<string>} the envelope's id */
  async send(body) {
    const envelope = await seal(this.identity, { to: this.relay.did, ...body });
    this.#transmit(envelope);
    return envelope.id;
  }

  #transmit(envelope) {
    if (this.#socket?.readyState === WebSocket.OPEN) this.#socket.send(JSON.stringify(envelope));
  }

  /** Ends the connection; nothing is reported. */
  close() {
    this.#closed = true;
    this.#drop(new MilliwayError("relay-gone", "The call was left."));
  }

  #fail(error) {
    if (this.#closed) return error;
    this.#closed = true;
    this.#drop(error);
    this.#handlers.onclose?.(error);
    return error;
  }

  #drop(error) {
    for (const { reject, timer } of this.#waiting.values()) {
      clearTimeout(timer);
      reject(error);
    }
    this.#waiting.clear();
    this.#socket?.close();
  }
}
