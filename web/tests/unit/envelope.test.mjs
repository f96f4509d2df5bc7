import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import "../webcrypto.mjs";
import { decodeJson, encode, encodeJson, utf8 } from "../../lib/base64url.js";
import { openEnvelope, seal } from "../../lib/envelope.js";
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
