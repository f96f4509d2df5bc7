/**
 * What can go wrong, as one type: a stable slug for programs and a sentence for people. The relay's own slugs
 * (RFC 9457 problems, dsip.error) pass through; those that start in the browser are listed in `LOCAL`.
 */

/** Slugs that this library itself raises, with the sentence each carries. */
export const LOCAL = Object.freeze({
  "insecure-context": "This page must be opened over https or on localhost: browsers give keys and cameras only there.",
  "browser-unsupported": "This browser cannot make Ed25519 keys. Use a current Chrome, Edge, Firefox or Safari.",
  "relay-gone": "The relay does not answer. Check your connection, then try again.",
  "relay-identity": "This relay is not the one your token was made for. Nothing was sent to it.",
  "relay-signature": "An answer came without a valid signature of the relay. The call was stopped.",
  "relay-protocol": "The relay answered something this page does not understand. Reload the page.",
  "media-unreachable": "The relay answered, but no media gets through. Switch on “relay only” and try again.",
  "token-malformed": "That is not a relay token: it should be three parts of text with dots between them.",
  "receipt-invalid": "The receipt does not add up or is not signed by the relay.",
});

export class MilliwayError extends Error {
  /**
   * @param {string} slug stable, e.g. "balance-exhausted"
   * @param {string} [sentence] what happened and what to do; default: the local sentence
   * @param {{status?: number, topup?: string, wanted?: any, cause?: unknown}} [more]
   */
  constructor(slug, sentence, more = {}) {
    super(sentence || LOCAL[slug] || `The relay refused: ${slug}.`, { cause: more.cause });
    this.name = "MilliwayError";
    this.slug = slug;
    /** HTTP status or DSIP code; 0 where the error arose here. */
    this.status = more.status ?? 0;
    /** Where to top up, where the relay says so. */
    this.topup = more.topup;
    /** Credentials that would do, where that is what is missing. @type {import("./credentials.js").Wanted | undefined} */
    this.wanted = more.wanted;
  }

  /** Trying again without a change is worth it. */
  get transient() {
    return ["relay-gone", "capacity", "rate-limited", "media-unreachable"].includes(this.slug) || this.status >= 500;
  }

  /** @param {number} status @param {any} problem body of an `application/problem+json` answer, or undefined */
  static fromProblem(status, problem) {
    const slug = String(problem?.type ?? "").split(/[/:#]/).pop() || `http-${status}`;
    return new MilliwayError(slug, problem?.detail || problem?.title, { status, topup: problem?.topup });
  }

  /** @param {any} envelope a verified dsip.error */
  static fromDsip(envelope) {
    const slug = String(envelope.reason ?? "").split(":").pop() || `dsip-${envelope.code}`;
    return new MilliwayError(slug, envelope.detail, { status: Number(envelope.code) || 0, topup: envelope.topup, wanted: envelope.wanted });
  }
}
