import assert from "node:assert/strict";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { test } from "node:test";
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

const vectors = new URL("../../../dsip/vectors/", import.meta.url);
const files = existsSync(vectors) ? readdirSync(vectors).filter((name) => name.endsWith(".json")) : [];

test("the vectors shared with the relay", { skip: files.length === 0 && "dsip/vectors is not there" }, async (t) => {
  for (const file of files) {
    const content = JSON.parse(readFileSync(new URL(file, vectors), "utf8"));
    for (const [index, vector] of [content].flat().entries()) {
      await t.test(`${file} ${vector.name ?? index}`, () => checkVector(vector));
    }
  }
});

async function checkVector(vector) {
  if (vector.jcs !== undefined && vector.value !== undefined) assert.equal(canonicalize(vector.value), vector.jcs);
  if (vector.envelope === undefined) return;
  const text = typeof vector.envelope === "string" ? vector.envelope : JSON.stringify(vector.envelope);
  const from = vector.from ?? JSON.parse(text).from;
  if (vector.valid === false) await refused(text, from);
  else await openEnvelope(text, from);
}
