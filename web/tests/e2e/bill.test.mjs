/** What the relay bills is what a witness on the wire counts, to the byte; and what the receipt says costs what it says, to the msat. */

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { launch, pause, person, until } from "./browser.mjs";
import { Capture, goodbye, sfuUsage, turnUsage } from "./capture.mjs";
import { TestRelay } from "./relay.mjs";
import { account, candidatePair, enter, leave, receipt, seesAndHears } from "./room.mjs";

/** Times differ by what a packet needs from the wire to the relay's clock, and back. */
const SECONDS_OFF_MAX = 0.05;
const MEDIA_MS = 6_000;
const FAUCET_MSAT = 100_000;

/** @type {TestRelay} */ let relay;
/** @type {import("playwright-core").Browser} */ let browser;

before(async () => {
  // Prices at which every byte and every millisecond shows in the bill.
  const tariff = {
    sfu_msat_per_megabyte_out: 977, sfu_msat_per_megabyte_in: 0, sfu_msat_per_second: 331,
    turn_msat_per_megabyte_out: 757, turn_msat_per_megabyte_in: 613, turn_msat_per_second: 101,
  };
  [relay, browser] = await Promise.all([TestRelay.start({ tariff, turn: { tcp: false } }), launch()]);
});

after(async () => {
  await browser?.close();
  await relay?.leave();
});

/** The bill of one receipt by the formula, done here and not by the library. */
function formula(receiptClaims) {
  return receiptClaims.segments.reduce((sum, segment) => {
    const terms = receiptClaims.terms.find(({ service, tariff }) => service === segment.service && tariff === segment.tariff);
    const owed =
      1000n * (BigInt(segment.bytes_out) * BigInt(terms.msat_per_megabyte_out) + BigInt(segment.bytes_in) * BigInt(terms.msat_per_megabyte_in)) +
      BigInt(segment.nanoseconds) * BigInt(terms.msat_per_second);
    return sum + (owed + 999_999_999n) / 1_000_000_000n;
  }, 0n);
}

async function settled(page, session) {
  let claims;
  await until(async () => (claims = await receipt(page, session).catch(() => undefined))?.ended, `the receipt of ${session} is final`);
  return claims;
}

/** Live sessions of the page's account, by service. */
async function sessionsOf(page) {
  const { sessions } = await account(page);
  return sessions.map((entry) => (typeof entry === "string" ? entry : entry.session ?? entry.id));
}

test("each account pays what the wire shows, directly and through TURN, to the byte and the msat", { timeout: 120_000 }, async () => {
  const [ada, grace] = [await person(browser), await person(browser)];
  const { sfu, turn, http } = relay.ports;
  const capture = await Capture.start({ udp: [sfu, turn], tcp: [http] });
  await enter(ada, relay, "bill", "Ada");
  await enter(grace, relay, "bill", "Grace", { relayOnly: true });
  await Promise.all([seesAndHears(ada, "Grace"), seesAndHears(grace, "Ada")]);
  const adasPort = (await candidatePair(ada)).local.port;
  const relayedPort = (await candidatePair(grace)).local.port;
  const sessions = { ada: await sessionsOf(ada), grace: await sessionsOf(grace) };
  await pause(MEDIA_MS);

  const people = { ada: { page: ada, client: adasPort }, grace: { page: grace, client: relayedPort } };
  for (const who of Object.values(people)) {
    await leave(who.page);
    who.left = Date.now() / 1000;
    await pause(1_500);
  }
  const packets = await capture.stop();

  for (const [name, { page, client, left }] of Object.entries(people)) {
    const receipts = await Promise.all([...new Set(sessions[name])].map((session) => settled(page, session)));
    const segments = receipts.flatMap((claims) => claims.segments);
    const sum = (service, member) => segments.filter((one) => one.service === service).reduce((total, one) => total + one[member], 0);
    let billed = 0n;
    for (const claims of receipts) {
      assert.equal(BigInt(claims.msat), formula(claims), `${name}'s receipt of ${claims.session} follows the formula`);
      billed += formula(claims);
    }
    const { available_msat, reserved_msat, spent_msat } = await account(page);
    assert.equal(BigInt(spent_msat), billed, `${name}'s account was charged what the receipts say`);
    assert.equal(reserved_msat, 0, `nothing of ${name}'s stays reserved`);
    assert.equal(available_msat + spent_msat, FAUCET_MSAT, `${name}'s money is all there`);

    const seen = sfuUsage(packets, sfu, [client]);
    const bye = goodbye(packets, http, left + 0.2);
    if (name === "ada") {
      assert.equal(sum("sfu", "bytes_out"), seen.bytesOut, "the SFU billed Ada the bytes on the wire");
      const off = sum("sfu", "nanoseconds") / 1e9 - (bye - seen.first);
      assert.ok(Math.abs(off) < SECONDS_OFF_MAX, `Ada's seconds are ${off.toFixed(4)} s off the wire's`);
      assert.equal(sum("turn", "nanoseconds"), 0);
    } else {
      const witnessed = turnUsage(packets, turn);
      assert.deepEqual(
        { out: sum("turn", "bytes_out"), in: sum("turn", "bytes_in") }, { out: witnessed.bytesOut, in: witnessed.bytesIn },
        "TURN billed Grace the application bytes on the wire");
      const seconds = witnessed.allocations.map((one) => one.seconds).sort((a, b) => a - b);
      const billedSeconds = segments.filter(({ service }) => service === "turn").map(({ nanoseconds }) => nanoseconds / 1e9).sort((a, b) => a - b);
      assert.equal(billedSeconds.length, seconds.length, "one segment an allocation");
      billedSeconds.forEach((time, index) => {
        const off = time - seconds[index];
        assert.ok(Math.abs(off) < SECONDS_OFF_MAX, `Grace's allocation is ${off.toFixed(4)} s off the wire's`);
      });
      assert.ok(sum("sfu", "bytes_out") > 0, "the SFU meters what it sends to a relayed client, too");
      assert.equal(seen.bytesOut, 0, "what the SFU sends her does not meet the wire before TURN sends it on");
      assert.equal(sum("sfu", "bytes_out"), witnessed.sfuBytesOut, "the SFU billed Grace the media that TURN sent on");
    }
  }
  assert.deepEqual([...ada.faults, ...grace.faults], []);
  await Promise.all([ada.context().close(), grace.context().close()]);
});
