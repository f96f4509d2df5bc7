/**
 * DSIP envelopes: JSON with a detached JWS (RFC 7797, `b64` false) over the JCS form (RFC 8785) of everything but `sig`.
 * The protected header is exactly {alg, kid, typ, b64, crit}; `alg` and `kid` equal those of `sig`. The same in CBOR has a
 * detached COSE_Sign1 (RFC 9052) over the same bytes, with the external data "dsip/0.3".
 */

import { decodeCbor, encodeCbor } from "./cbor.js";
import { decode, decodeJson, encode, encodeJson, utf8 } from "./base64url.js";
import { verificationKey, verifySignature } from "./did.js";
import { MilliwayError } from "./errors.js";
import { canonicalize, parseStrict } from "./jcs.js";

/** No envelope is longer, either way. */
export const ENVELOPE_MAX = 64 * 1024;

/**
 * @param {import("./identity.js").Identity} identity
 * @param {Record<string, unknown>} body `type`, `to` and the message's own members; `id`, `ts`, `from` are filled in
 * @returns {Promise<Record<string, any>>} the signed envelope
 */
export async function seal(identity, body) {
  const envelope = { id: crypto.randomUUID(), ts: Math.floor(Date.now() / 1000), from: identity.did, ...body };
  const header = encodeJson({ alg: "EdDSA", kid: identity.kid, typ: "dsip+jws", b64: false, crit: ["b64"] });
  const signature = await identity.sign(utf8(`${header}.${canonicalize(envelope)}`));
  return { ...envelope, sig: { alg: "EdDSA", kid: identity.kid, jws: `${header}..${encode(signature)}` } };
}

/**
 * @param {string} text one envelope @param {string} from the DID that must have signed it
 * @param {any} [document] its DID document, for other methods than did:key
 * @returns {Promise<Record<string, any>>} the envelope, checked
 * @throws {MilliwayError} relay-protocol where it is no envelope, relay-signature where `from` did not sign it
 */
export async function openEnvelope(text, from, document) {
  let envelope;
  try {
    if (text.length > ENVELOPE_MAX) throw new SyntaxError("too long");
    envelope = parseStrict(text);
    if (typeof envelope?.type !== "string" || typeof envelope.sig?.jws !== "string") throw new SyntaxError("no envelope");
  } catch (cause) {
    throw new MilliwayError("relay-protocol", undefined, { cause });
  }
  try {
    const { sig, ...signed } = envelope;
    if (signed.from !== from) throw new SyntaxError("from somebody else");
    const [protectedPart, payload, signature, ...rest] = sig.jws.split(".");
    if (payload !== "" || signature === undefined || rest.length) throw new SyntaxError("not a detached JWS");
    const key = await verificationKey(sig.kid, from, document);
    checkHeader(decodeJson(protectedPart), sig, key.alg);
    const message = utf8(`${protectedPart}.${canonicalize(signed)}`);
    if (!(await verifySignature(key, decode(signature), message))) throw new SyntaxError("the signature does not match");
    return envelope;
  } catch (cause) {
    throw new MilliwayError("relay-signature", undefined, { cause });
  }
}

/** @param {import("./identity.js").Identity} identity @param {Record<string, unknown>} body @returns {Promise<Uint8Array>} */
export async function sealCbor(identity, body) {
  const envelope = { id: crypto.randomUUID(), ts: Math.floor(Date.now() / 1000), from: identity.did, ...body };
  const protectedHeader = coseHeader("EdDSA", identity.kid);
  const signature = await identity.sign(coseInput(protectedHeader, envelope));
  return encodeCbor({ ...envelope, sig: [protectedHeader, {}, null, new Uint8Array(signature)] });
}

/**
 * @param {Uint8Array} bytes one envelope in CBOR @param {string} from the DID that must have signed it
 * @param {any} [document] its DID document, for other methods than did:key
 * @returns {Promise<Record<string, any>>} the envelope without `sig`, checked
 * @throws {MilliwayError} as {@link openEnvelope}
 */
export async function openCborEnvelope(bytes, from, document) {
  let signed, sig;
  try {
    if (bytes.length > ENVELOPE_MAX) throw new SyntaxError("too long");
    ({ sig, ...signed } = decodeCbor(bytes));
    if (typeof signed.type !== "string" || !Array.isArray(sig) || sig.length !== 4) throw new SyntaxError("no envelope");
    canonicalize(signed);
  } catch (cause) {
    throw new MilliwayError("relay-protocol", undefined, { cause });
  }
  try {
    if (signed.from !== from) throw new SyntaxError("from somebody else");
    const [protectedHeader, unprotected, payload, signature] = sig;
    if (payload !== null || !(signature instanceof Uint8Array)) throw new SyntaxError("not a detached COSE_Sign1");
    if (unprotected instanceof Uint8Array || Object.keys(unprotected).length) throw new SyntaxError("an unprotected header");
    const kid = kidOfCoseHeader(protectedHeader);
    const key = await verificationKey(kid, from, document);
    if (encode(coseHeader(key.alg, kid)) !== encode(protectedHeader)) throw new SyntaxError("the protected header is not that of an envelope");
    if (!(await verifySignature(key, signature, coseInput(protectedHeader, signed)))) throw new SyntaxError("the signature does not match");
    return signed;
  } catch (cause) {
    throw new MilliwayError("relay-signature", undefined, { cause });
  }
}

/** COSE's numbers of the two algorithms (RFC 9053 section 2). */
const COSE_ALGORITHMS = { EdDSA: 0x27, ES256: 0x26 };

/** {1: alg, 4: kid}, encoded: the one header that an envelope has. Its keys are numbers, which envelopes themselves lack. */
function coseHeader(alg, kid) {
  return new Uint8Array([0xa2, 0x01, COSE_ALGORITHMS[alg], 0x04, ...encodeCbor(utf8(kid))]);
}

function kidOfCoseHeader(header) {
  if (!(header instanceof Uint8Array) || header[0] !== 0xa2 || header[1] !== 0x01 || header[3] !== 0x04) {
    throw new SyntaxError("the protected header is not that of an envelope");
  }
  return new TextDecoder("utf-8", { fatal: true }).decode(decodeCbor(header.subarray(4)));
}

/** Sig_structure (RFC 9052 section 4.4). */
function coseInput(protectedHeader, signed) {
  return encodeCbor(["Signature1", protectedHeader, utf8("dsip/0.3"), utf8(canonicalize(signed))]);
}

function checkHeader(header, sig, alg) {
  const exact =
    Object.keys(header).sort().join() === "alg,b64,crit,kid,typ" &&
    header.alg === alg && sig.alg === alg && header.kid === sig.kid && header.typ === "dsip+jws" &&
    header.b64 === false && Array.isArray(header.crit) && header.crit.join() === "b64";
  if (!exact) throw new SyntaxError("the protected header is not that of an envelope");
}
