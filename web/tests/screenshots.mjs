/**
 * Takes the README's pictures from a real call: `node tests/screenshots.mjs`, with the relay built (or MILLIWAY_BIN set).
 * Writes docs/screenshots/{call,low-balance,phone-dark}.png.
 */

import { mkdir } from "node:fs/promises";
import { launch, pause, person, until } from "./e2e/browser.mjs";
import { TestRelay } from "./e2e/relay.mjs";
import { didOf, enter, look, seesAndHears } from "./e2e/room.mjs";

const FOLDER = new URL("../../docs/screenshots/", import.meta.url).pathname;
const PEOPLE = ["Ada Lovelace", "Grace Hopper", "Mary Jackson"];

await mkdir(FOLDER, { recursive: true });
const relay = await TestRelay.start();
const browser = await launch();
const pages = [];
for (const [index, name] of PEOPLE.entries()) {
  const page = await person(browser, index === 2 ? { viewport: { width: 390, height: 844 }, colorScheme: "dark", deviceScaleFactor: 1 } : {});
  await enter(page, relay, "garden", name);
  pages.push(page);
}
for (const page of pages) for (const name of PEOPLE) if (name !== PEOPLE[pages.indexOf(page)]) await seesAndHears(page, name);
await pause(5_000);
await pages[0].screenshot({ path: `${FOLDER}call.png` });
await pages[2].screenshot({ path: `${FOLDER}phone-dark.png` });
for (const page of pages) await page.context().close();
await relay.leave();

const dear = await TestRelay.start({
  tariff: { sfu_msat_per_megabyte_out: 0, sfu_msat_per_second: 1000 },
  ladder: { warned_below_seconds: 17, reduced_below_seconds: 11, audio_only_below_seconds: 6 },
});
const [rich, poor] = [await person(browser), await person(browser)];
await poor.goto(`${dear.url}/room/garden`);
const token = await dear.issue({ sub: await didOf(poor), "balance-msat": 25_000 });
await enter(rich, dear, "garden", PEOPLE[1]);
await enter(poor, dear, "garden", PEOPLE[0], { token });
await seesAndHears(poor, PEOPLE[1]);
await until(async () => (await look(poor)).step === "audio-only", "sound only", { within: 40_000 });
await pause(1_000);
await poor.screenshot({ path: `${FOLDER}low-balance.png` });
await browser.close();
await dear.leave();
