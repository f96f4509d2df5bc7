/** kill -9 of the relay in the middle of a call: no balance is lost, and the pages find their way back. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { launch, pause, person, until } from "./browser.mjs";
import { TestRelay } from "./relay.mjs";
import { account, connectionsMade, enter, look, seesAndHears } from "./room.mjs";

const FAUCET_MSAT = 100_000;

test("a killed relay keeps every balance, and the call comes back by itself", { timeout: 120_000 }, async () => {
  // Dear enough that a lost report would show.
  const [relay, browser] = await Promise.all([TestRelay.start({ tariff: { sfu_msat_per_second: 500 } }), launch()]);
  const [ada, grace] = [await person(browser), await person(browser)];
  await enter(ada, relay, "crash", "Ada");
  await enter(grace, relay, "crash", "Grace");
  await Promise.all([seesAndHears(ada, "Grace"), seesAndHears(grace, "Ada")]);
  await pause(4_000);
  const before = await account(ada);
  assert.equal(before.available_msat + before.reserved_msat + before.spent_msat, FAUCET_MSAT);

  await relay.killAndRestart();
  const after = await account(ada);
  // The page may be back already and hold a new lease, so the parts move; the sum does not.
  assert.equal(after.available_msat + after.reserved_msat + after.spent_msat, FAUCET_MSAT, "not one msat is lost");
  assert.ok(after.spent_msat >= before.spent_msat, "what was spent stays spent");

  for (const page of [ada, grace]) {
    await until(async () => (await look(page)).state === "connected" && (await connectionsMade(page)) >= 2, "the page is back", { within: 40_000 });
  }
  await Promise.all([seesAndHears(ada, "Grace"), seesAndHears(grace, "Ada")]);
  assert.deepEqual([...ada.faults, ...grace.faults], []);
  await browser.close();
  await relay.leave();
});

test("a relay that is stopped politely says so, settles, and is waited for", { timeout: 60_000 }, async () => {
  const [relay, browser] = await Promise.all([TestRelay.start(), launch()]);
  const page = await person(browser);
  await enter(page, relay, "drain", "Ada");
  await pause(2_000);
  await relay.leave(); // checks exit code and books
  await until(async () => (await look(page)).state === "reconnecting", "the page waits for the relay");
  assert.deepEqual(page.faults, []);
  await browser.close();
});

test("a relay that stays away is named, and the page stops trying after a while", { timeout: 120_000 }, async () => {
  const [relay, browser] = await Promise.all([TestRelay.start(), launch()]);
  const page = await person(browser);
  await enter(page, relay, "gone", "Ada");
  relay.child.kill("SIGKILL");
  await relay.exited;
  await until(async () => (await look(page)).state === "reconnecting", "the page says that it reconnects");
  assert.match(await page.locator("#connection").textContent(), /Reconnecting/);
  await until(async () => (await look(page)).state === "ended", "the page gives up", { within: 90_000, every: 500 });
  assert.match((await look(page)).problem, /relay does not answer/);
  await page.getByRole("button", { name: "Join again" }).first().waitFor();
  await browser.close();
  await relay.verify();
});
