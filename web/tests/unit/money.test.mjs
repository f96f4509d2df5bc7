import assert from "node:assert/strict";
import { test } from "node:test";
import "../webcrypto.mjs";
import { encode, encodeJson, utf8 } from "../../lib/base64url.js";
import { Identity } from "../../lib/identity.js";
import { formatMsat, formatRunway, formatSat } from "../../lib/money.js";
import { auditReceipt, openReceipt, rate } from "../../lib/receipt.js";
import { readToken } from "../../lib/token.js";

test("a segment is rated exactly and rounded up once", () => {
  const rates = { out: 50, in: 0, second: 8 };
  assert.equal(rate({ bytes_out: 0, bytes_in: 0, nanoseconds: 0 }, rates), 0n);
  assert.equal(rate({ bytes_out: 1, bytes_in: 0, nanoseconds: 0 }, rates), 1n);
  assert.equal(rate({ bytes_out: 1_000_000, bytes_in: 7, nanoseconds: 1_000_000_000 }, rates), 58n);
  assert.equal(rate({ bytes_out: 1_000_001, bytes_in: 0, nanoseconds: 1_000_000_000 }, rates), 59n);
  const large = { out: 2 ** 40, in: 2 ** 40, second: 2 ** 40 };
  assert.equal(rate({ bytes_out: "9007199254740991", bytes_in: 0, nanoseconds: 0 }, large) > 2n ** 63n, true);
});

test("a receipt whose sum or segments are off by one msat is refused", () => {
  const terms = [{ service: "sfu", tariff: "sfu-1", msat_per_megabyte_out: 50, msat_per_megabyte_in: 0, msat_per_second: 8 }];
  const segment = { service: "sfu", tariff: "sfu-1", bytes_out: 1_000_001, bytes_in: 9, nanoseconds: 1_000_000_000, msat: 59 };
  const receipt = { terms, segments: [segment, { ...segment, recovered: true, msat: 58 }], msat: 117 };
  assert.equal(auditReceipt(receipt), 117n);
  const refused = { slug: "receipt-invalid" };
  assert.throws(() => auditReceipt({ ...receipt, msat: 118 }), refused);
  assert.throws(() => auditReceipt({ ...receipt, segments: [{ ...segment, msat: 58 }], msat: 58 }), refused);
  assert.throws(() => auditReceipt({ ...receipt, terms: [] }), refused);
});

test("amounts keep every msat", () => {
  assert.equal(formatSat(1_234_567), "1,234.567");
  assert.equal(formatSat(7), "0.007");
  assert.equal(formatSat(-1500), "-1.500");
  assert.equal(formatSat(Number.MAX_SAFE_INTEGER), "9,007,199,254,740.991");
  assert.equal(formatMsat(1_234_567), "1,234,567");
});

test("a runway is never flattering", () => {
  assert.equal(formatRunway(null), "nothing is being spent");
  assert.equal(formatRunway(0), "nothing left");
  assert.equal(formatRunway(1.99), "1 second");
  assert.equal(formatRunway(119.9), "119 seconds");
  assert.equal(formatRunway(179), "2 minutes");
  assert.equal(formatRunway(7_199), "119 minutes");
});

test("a receipt opens only under the relay's key", async () => {
  const [relay, other] = [await Identity.generate(), await Identity.generate()];
  const sign = async (by, claims) => {
    const input = `${encodeJson({ alg: "EdDSA", kid: by.kid })}.${encodeJson(claims)}`;
    return `${input}.${encode(await by.sign(utf8(input)))}`;
  };
  const jws = await sign(relay, { session: "00000000000000aa" });
  assert.equal((await openReceipt(jws, relay.did)).session, "00000000000000aa");
  await assert.rejects(openReceipt(await sign(other, {}), relay.did), { slug: "receipt-invalid" });
  await assert.rejects(openReceipt(jws.replace(/.$/, (last) => (last === "A" ? "Q" : "A")), relay.did), { slug: "receipt-invalid" });
  await assert.rejects(openReceipt("nonsense", relay.did), { slug: "receipt-invalid" });
});

test("a token is read, and what is none is said to be none", () => {
  const claims = { sub: "did:key:zA", aud: "did:key:zB", exp: 1, jti: "j", iss: "did:key:zC", balance_msat: 5 };
  assert.deepEqual(readToken(`e30.${encodeJson(claims)}.c2ln`), claims);
  for (const text of ["", "a.b", "a.b.c", "e30.e30.e30", "x".repeat(20_000)]) {
    assert.throws(() => readToken(text), { slug: "token-malformed" });
  }
});
