/**
 * Who this browser is: an Ed25519 did:key whose private half never leaves WebCrypto. It is kept in IndexedDB, not
 * extractable, so a script that gets onto the page can use the key while it runs there but cannot carry it away.
 */

import { didKey, didKeyId } from "./did.js";
import { encode } from "./base64url.js";
import { MilliwayError } from "./errors.js";
import { get, insert } from "./store.js";

export class Identity {
  /** @param {CryptoKeyPair} keys @param {Uint8Array} publicKey raw, 32 bytes */
  constructor(keys, publicKey) {
    this.#keys = keys;
    /** @type {string} */
    this.did = didKey(publicKey);
    /** DID URL of the key @type {string} */
    this.kid = didKeyId(this.did);
    /** Public JWK, as a DPoP header carries it. */
    this.jwk = Object.freeze({ kty: "OKP", crv: "Ed25519", x: encode(publicKey) });
  }

  #keys;

  /** A new identity that lives as long as this object. @returns {Promise<Identity>} */
  static async generate() {
    return Identity.#from(await generateKeys());
  }

  /**
   * The identity of this browser profile, made at the first call.
   * @param {string} [name] several may live side by side
   * @returns {Promise<Identity>}
   */
  static async load(name = "default") {
    let keys = await get("keys", name);
    // Two tabs may race at the first visit: the one that stores first wins, for both.
    if (!keys) keys = await insert("keys", name, await generateKeys());
    return Identity.#from(keys);
  }

  static async #from(keys) {
    return new Identity(keys, new Uint8Array(await crypto.subtle.exportKey("raw", keys.publicKey)));
  }

  /** @param {Uint8Array} message @returns {Promise<Uint8Array>} 64 bytes */
  async sign(message) {
    return new Uint8Array(await crypto.subtle.sign({ name: "Ed25519" }, this.#keys.privateKey, message));
  }
}

async function generateKeys() {
  if (!globalThis.crypto?.subtle) throw new MilliwayError("insecure-context");
  try {
    return await crypto.subtle.generateKey({ name: "Ed25519" }, false, ["sign", "verify"]);
  } catch (cause) {
    throw new MilliwayError("browser-unsupported", undefined, { cause });
  }
}
