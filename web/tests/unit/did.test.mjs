import assert from "node:assert/strict";
import { test } from "node:test";
import "../webcrypto.mjs";
import { decode, encode } from "../../lib/base64url.js";
import { base58, didKey, didKeyId, ed25519OfDidKey, shortDid, unbase58, verificationKey } from "../../lib/did.js";
import { Identity } from "../../lib/identity.js";

test("did:key is that of the method's own example", () => {
  // https://w3c-ccg.github.io/did-key-spec/ , Ed25519 example 0
  const did = "did:key:z6MkiTBz1ymuepAQ4HEHYSF1H8quG5GLVVQR3djdX3mDooWp";
  const raw = Buffer.from("3b6a27bcceb6a42d62a3a8d02a6f0d73653215771de243a63ac048a18b59da29", "hex");
  assert.equal(didKey(raw), did);
  assert.deepEqual(Buffer.from(ed25519OfDidKey(did)), raw);
  assert.equal(didKeyId(did), `${did}#z6MkiTBz1ymuepAQ4HEHYSF1H8quG5GLVVQR3djdX3mDooWp`);
  assert.equal(shortDid(did), "did:key:z6Mk…ooWp");
});

test("base58 and base64url give back what went in, leading zeros too", () => {
  for (const bytes of [[], [0], [0, 0, 1], [255, 255], [0, 0, 0, 7, 200]]) {
    assert.deepEqual([...unbase58(base58(new Uint8Array(bytes)))], bytes);
    assert.deepEqual([...decode(encode(new Uint8Array(bytes)))], bytes);
    assert.equal(encode(new Uint8Array(bytes)), Buffer.from(bytes).toString("base64url"));
  }
});

test("other spellings of base64url are refused", () => {
  for (const text of ["A", "AA==", "A+/A", "AB", "AAB", "A A"]) assert.throws(() => decode(text), SyntaxError);
});

test("other DIDs are not taken for an Ed25519 did:key", () => {
  for (const did of [
    "did:web:example.org", "did:key:z", "did:key:zQ3shokFTS3brHcDQrn82RUDfCZESWL1ZdCEJwekUDPQiYBme",
    "did:key:z0OIl", `did:key:z${"1".repeat(5000)}`, "did:key:u7QE7aie8zrakLWKjqNAqbw1zZTIVdx3iQ6Y6wEihi1naKQ",
  ]) assert.throws(() => ed25519OfDidKey(did), SyntaxError);
});

test("a key id of somebody else is refused", async () => {
  const [a, b] = [await Identity.generate(), await Identity.generate()];
  await assert.rejects(verificationKey(b.kid, a.did), SyntaxError);
  const document = { id: "did:web:relay.example", verificationMethod: [{ id: "#n1", publicKeyJwk: a.jwk }] };
  await verificationKey("did:web:relay.example#n1", "did:web:relay.example", document);
  await assert.rejects(verificationKey("did:web:relay.example#n2", "did:web:relay.example", document), SyntaxError);
  await assert.rejects(verificationKey("did:web:evil.example#n1", "did:web:relay.example", document), SyntaxError);
});
