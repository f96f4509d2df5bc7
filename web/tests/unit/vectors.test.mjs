/** The vectors of dsip/vectors that the relay's own library passes too: receipts, and which credentials answer a request. */

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import "../webcrypto.mjs";
import { fittingCredentials } from "../../lib/credentials.js";
import { checkReceipt, counted } from "../../lib/receipt.js";

const vectors = (name) => JSON.parse(readFileSync(new URL(`../../../dsip/vectors/${name}`, import.meta.url), "utf8"));

const receipts = vectors("receipts.json");
for (const { name, jws, before, seen, warnings, fault } of receipts.cases) {
  test(`the receipt: ${name}`, async () => {
    const { relay, session, service, quoted } = receipts;
    const audit = await checkReceipt(jws, { relay, session, before: before ?? undefined, quoted, seen: seen ? { [service]: seen } : {} });
    assert.equal(audit.fault ?? null, fault);
    assert.deepEqual(audit.fault ? null : audit.warnings, warnings);
  });
}

const { now, wanted, cases } = vectors("credentials.json");
for (const { name, held, fitting } of cases) {
  test(`the credentials that answer a request: ${name}`, () => assert.deepEqual(fittingCredentials(wanted, held, now), fitting));
}

test("what a connection carried is counted as the relay bills it: header, padding and tag included", () => {
  const stats = new Map([
    ["a", { type: "inbound-rtp", bytesReceived: 1000, headerBytesReceived: 24, packetsReceived: 2, packetsLost: 1 }],
    ["b", { type: "inbound-rtp", bytesReceived: 50, headerBytesReceived: 12, packetsReceived: 1, packetsLost: -3 }],
    ["c", { type: "outbound-rtp", bytesSent: 999, headerBytesSent: 12, packetsSent: 1 }],
    ["d", { type: "transport", srtpCipher: "AES_CM_128_HMAC_SHA1_80" }],
  ]);
  assert.deepEqual(counted(stats), { bytes_out: 1000 + 24 + 50 + 12 + 30, bytes_in: 999 + 12 + 10, lost: 1 });
});
