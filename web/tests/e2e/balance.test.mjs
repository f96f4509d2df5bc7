/** Money runs low in a call: the page says so at every step, a top-up brings everything back, and at nothing it ends. */

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { launch, pause, person, until } from "./browser.mjs";
import { TestRelay } from "./relay.mjs";
import { account, connectionsMade, didOf, enter, look, received, seesAndHears } from "./room.mjs";

/** 1,000 msat each second and nothing for bytes, so that seconds of runway are seconds of the clock. */
const TARIFF = { sfu_msat_per_megabyte_out: 0, sfu_msat_per_megabyte_in: 0, sfu_msat_per_second: 1000 };
/** Under what the fake camera's picture takes, so that a reduction shows. */
const REDUCED = 60_000;
const LADDER = { warned_below_seconds: 17, reduced_below_seconds: 11, audio_only_below_seconds: 6, rise_seconds: 1, held_seconds: 25, sfu_reduced_bits_per_second: REDUCED };

/** @type {import("playwright-core").Browser} */ let browser;
before(async () => (browser = await launch()));
after(() => browser?.close());

/** A person with exactly this much money. */
async function withMoney(relay, balance) {
  const page = await person(browser);
  await page.goto(`${relay.url}/room/purse`);
  const token = await relay.issue({ sub: await didOf(page), "balance-msat": balance });
  return { page, token };
}

/** Follows the page's step until `last`, noting each step once with what the page said. */
async function watch(page, last, within) {
  const seen = [];
  await until(async () => {
    const { step, problem } = await look(page);
    if (step && seen.at(-1)?.step !== step) {
      seen.push({ step, problem, title: await page.locator("#step-title").textContent(), heard: await page.locator("#announcer").textContent() });
    }
    return step === last;
  }, `the step ${last}, after ${JSON.stringify(seen)}`, { within, every: 40 });
  return seen;
}

test("a low balance warns, reduces, leaves only sound, holds; a top-up brings the picture back on the same connection", { timeout: 150_000 }, async () => {
  const relay = await TestRelay.start({ tariff: TARIFF, ladder: LADDER });
  const rich = await withMoney(relay, 10_000_000);
  const poor = await withMoney(relay, 27_000);
  await enter(rich.page, relay, "ladder", "Rich", { token: rich.token });
  await enter(poor.page, relay, "ladder", "Poor", { token: poor.token });
  await seesAndHears(poor.page, "Rich");
  const full = (await received(poor.page, "Rich")).width;

  const steps = await watch(poor.page, "reduced", 45_000);
  await pause(1_000);
  const reduced = await received(poor.page, "Rich");
  steps.push(...(await watch(poor.page, "audio-only", 20_000)).slice(1));
  const end = await received(poor.page, "Rich");
  const rate = ((end.videoBytes - reduced.videoBytes) * 8_000) / (end.at - reduced.at);
  assert.ok(end.frames > reduced.frames, "there is still a picture while reduced");
  assert.ok(rate < REDUCED * 1.1, `video takes ${Math.round(rate)} bit/s while reduced`);
  assert.deepEqual(steps.map(({ step }) => step), ["full", "warned", "reduced", "audio-only"]);
  assert.deepEqual(steps.map(({ title }) => title), ["Full quality", "Balance is getting low", "Smaller picture", "Sound only"]);
  for (const { title, heard } of steps.slice(1)) assert.ok(heard.startsWith(title), `a screen reader hears “${title}”`);

  await pause(1_000);
  const [before, rest] = [await received(poor.page, "Rich"), 2_000];
  await pause(rest);
  const after_ = await received(poor.page, "Rich");
  assert.equal(after_.frames, before.frames, "no video while there is only sound");
  assert.ok(after_.energy > before.energy, "sound goes on");

  await watch(poor.page, "held", 20_000);
  await pause(700);
  const held = { first: await received(poor.page, "Rich"), money: (await account(poor.page)).spent_msat };
  await pause(1_500);
  assert.equal((await received(poor.page, "Rich")).bytes, held.first.bytes, "nothing is relayed while held");
  assert.equal((await account(poor.page)).spent_msat, held.money, "nothing is charged while held");
  assert.equal((await look(poor.page)).state, "connected");

  const clicked = Date.now();
  await poor.page.getByRole("button", { name: "Top up", exact: true }).click();
  await until(async () => (await look(poor.page)).step === "full", "full quality after the top-up");
  await until(async () => (await received(poor.page, "Rich")).frames > after_.frames, "the picture is back");
  const took = Date.now() - clicked;
  assert.ok(took < 4_000, `the picture came back after ${took} ms`);
  await Promise.all([seesAndHears(poor.page, "Rich"), seesAndHears(rich.page, "Poor")]);
  assert.ok((await received(poor.page, "Rich")).width >= full / 2);
  assert.equal(await connectionsMade(poor.page), 1, "no new peer connection");
  assert.deepEqual([...rich.page.faults, ...poor.page.faults], []);
  await Promise.all([rich.page.context().close(), poor.page.context().close()]);
  await relay.leave();
});

test("at nothing the relay ends the session, the page says why, and the others go on", { timeout: 120_000 }, async () => {
  const relay = await TestRelay.start({ tariff: TARIFF, ladder: { ...LADDER, held_seconds: 2 } });
  const rich = await withMoney(relay, 10_000_000);
  const poor = await withMoney(relay, 12_000);
  await enter(rich.page, relay, "end", "Rich", { token: rich.token });
  await enter(poor.page, relay, "end", "Poor", { token: poor.token });
  await until(async () => (await look(poor.page)).state === "ended", "the call ends", { within: 40_000 });
  const shown = await look(poor.page);
  assert.match(shown.problem, /balance/i);
  assert.match(shown.problem, /top up/i);
  assert.equal(shown.step, "ended");
  assert.equal(await poor.page.evaluate(() => document.activeElement?.id), "problem-action", "the way out has the focus");
  await until(async () => !("Poor" in (await look(rich.page)).tiles), "Poor's tile goes");
  const { available_msat, reserved_msat, spent_msat } = await account(poor.page);
  assert.equal(available_msat + spent_msat, 12_000);
  assert.equal(reserved_msat, 0);
  assert.ok(available_msat >= 0 && available_msat < 2_000, `what is left, ${available_msat} msat, is too little for anything`);

  // Joining again without money is refused in words; with money it works.
  await poor.page.getByRole("button", { name: "Join again" }).first().click();
  await until(async () => /balance/i.test((await look(poor.page)).problem) && (await look(poor.page)).state !== "connecting", "refused in words");
  await poor.page.locator("#problem").getByRole("button", { name: "Top up" }).click();
  await until(async () => /Added/.test(await poor.page.locator("#topup-status").textContent()), "money is there");
  await poor.page.getByRole("button", { name: /^Join/ }).click();
  await until(async () => (await look(poor.page)).state === "connected", "in the room again");
  await seesAndHears(poor.page, "Rich");
  assert.deepEqual([...rich.page.faults, ...poor.page.faults], []);
  await Promise.all([rich.page.context().close(), poor.page.context().close()]);
  await relay.leave();
});
