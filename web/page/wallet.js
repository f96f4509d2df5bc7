/** Where the page gets its tokens: the one it kept, the relay's faucet, or one that the person pastes. */

import { MilliwayError, readToken } from "../milliway.js";
import { get, put, remove } from "../lib/store.js";

/** What the faucet is asked for: about an hour and a half of a call of two at the default tariff. */
export const FAUCET_MSAT = 100_000;
/** A token this close to its end is not worth starting with. */
const LEEWAY_SECONDS = 60;

export class Wallet {
  /** @param {import("../milliway.js").Relay} relay @param {() => Promise<string | undefined>} ask shows the paste dialog */
  constructor(relay, ask) {
    this.relay = relay;
    this.#ask = ask;
    this.#slot = `${relay.did} ${relay.identity.did}`;
  }

  #ask;
  #slot;

  /** A token that admits; brings first money where the account has none. @returns {Promise<string>} */
  async token() {
    const kept = await get("tokens", this.#slot);
    if (kept && readToken(kept).exp > Date.now() / 1000 + LEEWAY_SECONDS) return kept;
    // An account the relay has never seen is a refusal, and as empty as an empty one.
    const available = await this.relay.account().then((account) => account.available_msat, () => 0);
    return this.fresh(available > 0 ? 0 : FAUCET_MSAT);
  }

  /** A further token. @param {number} [msat] @returns {Promise<string>} */
  async fresh(msat = FAUCET_MSAT) {
    try {
      return await this.keep(await this.relay.faucet(msat));
    } catch (error) {
      if (error.status !== 404 && error.status !== 405) throw error;
    }
    const pasted = await this.#ask();
    if (!pasted) throw new MilliwayError("balance-exhausted", "A token is needed to join. Ask an issuer that this relay trusts.");
    return this.keep(pasted);
  }

  /** @param {string} token @returns {Promise<string>} the same, kept for the next visit */
  async keep(token) {
    this.relay.check(token);
    await put("tokens", this.#slot, token);
    return token;
  }

  /** Drops the kept token: the relay does not take it any more. */
  async forget() {
    await remove("tokens", this.#slot);
  }
}
