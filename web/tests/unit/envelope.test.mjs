import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import "../webcrypto.mjs";
import { decodeJson, encode, encodeJson, utf8 } from "../../lib/base64url.js";
import { decodeCbor, encodeCbor } from "../../lib/cbor.js";
import { openCborEnvelope, openEnvelope, seal, sealCbor } from "../../lib/envelope.js";
import { Identity } from "../../lib/identity.js";
import { canonicalize } from "../../lib/jcs.js";

const identity = await Identity.generate();
const body = { type: "dsip.update", to: "did:key:zRelay", changes: { mute: { audio: true, video: false } }, ratio: 0.5, name: "Zoë 😀" };

async function refused(envelope, from = identity.did) {
  const text = typeof envelope === "string" ? envelope : JSON.stringify(envelope);
  await assert.rejects(openEnvelope(text, from), (error) => ["relay-signature", "relay-protocol"].includes(error.slug));
}

test("an envelope of ours opens, and carries type, id, ts, from, to and sig", async () => {
  const envelope = await seal(identity, body);
  assert.deepEqual(await openEnvelope(JSON.stringify(envelope), identity.did), envelope);
  assert.match(envelope.id, /^[0-9a-f-]{36}$/);
  assert.ok(Math.abs(envelope.ts - Date.now() / 1000) < 5 && Number.isInteger(envelope.ts));
  assert.equal(envelope.from, identity.did);
  const [header, payload] = envelope.sig.jws.split(".");
  assert.deepEqual(decodeJson(header), { alg: "EdDSA", kid: identity.kid, typ: "dsip+jws", b64: false, crit: ["b64"] });
  assert.equal(payload, "");
  // The order of members on the wire means nothing.
  assert.ok(await openEnvelope(JSON.stringify(Object.fromEntries(Object.entries(envelope).reverse())), identity.did));
});

test("a changed member, another sender, or somebody else's key is refused", async () => {
  const envelope = await seal(identity, body);
  const other = await Identity.generate();
  await refused({ ...envelope, ts: envelope.ts + 1 });
  await refused({ ...envelope, extra: 1 });
  await refused(envelope, other.did);
  await refused({ ...(await seal(other, body)), from: identity.did });
  await refused({ ...(await seal(other, { ...body, from: identity.did })) });
});

test("a header that differs from an envelope's is refused even where its signature holds", async () => {
  const good = { alg: "EdDSA", kid: identity.kid, typ: "dsip+jws", b64: false, crit: ["b64"] };
  const sign = async (header) => {
    const { sig, ...signed } = await seal(identity, body);
    const part = encodeJson(header);
    const signature = encode(await identity.sign(utf8(`${part}.${canonicalize(signed)}`)));
    return { ...signed, sig: { alg: header.alg, kid: header.kid, jws: `${part}..${signature}` } };
  };
  assert.ok(await openEnvelope(JSON.stringify(await sign(good)), identity.did));
  const { typ, ...untyped } = good;
  for (const header of [
    untyped, { ...good, typ: "JWT" }, { ...good, b64: true }, { ...good, crit: [] }, { ...good, crit: ["b64", "exp"] },
    { ...good, jwk: identity.jwk }, { ...good, alg: "none" }, { ...good, kid: "did:key:zOther#zOther" },
  ]) await refused(await sign(header));
});

test("what is no envelope is refused", async () => {
  for (const text of ["", "{", "null", "[]", '"x"', "{}", '{"type":"dsip.bye"}', `{"type":"${"x".repeat(70_000)}"}`]) await refused(text);
});

const vectors = JSON.parse(readFileSync(new URL("../../../dsip/vectors/envelopes.json", import.meta.url), "utf8"));

for (const [index, { did, envelope_without_sig: signed, jcs, text, envelope }] of vectors.valid.entries()) {
  test(`the relay's vector ${index}, a ${signed.type}, has the same canonical form and opens`, async () => {
    assert.equal(canonicalize(signed), jcs);
    const { sig, ...opened } = await openEnvelope(text ?? JSON.stringify(envelope), did);
    assert.deepEqual(opened, signed);
  });
}

for (const { name, text } of vectors.rejected) {
  test(`the relay's vector of a refusal: ${name}`, async () => refused(text, JSON.parse(text).from));
}

// The same envelopes in CBOR.

const bytes = (hex) => Uint8Array.from(hex.match(/../g) ?? [], (pair) => parseInt(pair, 16));
const refusedCbor = (envelope, from = identity.did) =>
  assert.rejects(openCborEnvelope(envelope, from), (error) => ["relay-signature", "relay-protocol"].includes(error.slug));

test("an envelope of ours in CBOR opens, and a changed one or somebody else's does not", async () => {
  const envelope = await sealCbor(identity, body);
  const opened = await openCborEnvelope(envelope, identity.did);
  assert.deepEqual({ ...opened.changes.mute }, body.changes.mute);
  assert.equal(opened.name, body.name);
  await refusedCbor(envelope, (await Identity.generate()).did);
  for (let at = 0; at < envelope.length; at += 7) {
    const changed = envelope.slice();
    changed[at] ^= 1;
    await refusedCbor(changed);
  }
});

for (const [index, { did, jcs, cbor }] of vectors.valid.entries()) {
  test(`the relay's vector ${index} in CBOR opens and has the same canonical form`, async () => {
    assert.equal(canonicalize(await openCborEnvelope(bytes(cbor), did)), jcs);
  });
}

for (const { name, from, cbor } of vectors.rejected_cbor) {
  test(`the relay's vector of a refusal in CBOR: ${name}`, async () => refusedCbor(bytes(cbor), from));
}

test("CBOR of RFC 8949 appendix A, as far as JSON goes, is read and written", () => {
  for (const [hex, value] of [
    ["00", 0], ["17", 23], ["1818", 24], ["1903e8", 1000], ["1a000f4240", 1000000], ["1b000000e8d4a51000", 1000000000000],
    ["20", -1], ["3863", -100], ["3903e7", -1000], ["fb3ff199999999999a", 1.1], ["fb7e37e43c8800759c", 1e300],
    ["f4", false], ["f5", true], ["f6", null], ["60", ""], ["6449455446", "IETF"], ["62c3bc", "ü"], ["64f0908591", "𐅑"],
    ["80", []], ["83010203", [1, 2, 3]], ["8301820203820405", [1, [2, 3], [4, 5]]],
  ]) {
    assert.deepEqual(decodeCbor(bytes(hex)), value);
    assert.equal(Buffer.from(encodeCbor(value)).toString("hex"), hex);
  }
  assert.equal(decodeCbor(bytes("f93e00")), 1.5);
  assert.equal(decodeCbor(bytes("f90001")), 5.960464477539063e-8);
  assert.equal(decodeCbor(bytes("fa47c35000")), 100000);
  for (const hex of ["", "f97c00", "f7", "c101", "5f4100ff", "9fff", "1bffffffffffffffff", "a101", "62ff", "a2616101616101", "0000", "a10101"]) {
    assert.throws(() => decodeCbor(bytes(hex)), hex);
  }
});
