/**
 * Takes the README's pictures from a real call: `node tests/screenshots.mjs`, with the relay built (or MILLIWAY_BIN set).
 * Writes docs/screenshots/{call,low-balance,phone-dark}.png.
 */

import { mkdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { launch, pause, person, until } from "./e2e/browser.mjs";
import { TestRelay } from "./e2e/relay.mjs";
import { didOf, enter, look, seesAndHears } from "./e2e/room.mjs";

const FOLDER = new URL("../../docs/screenshots/", import.meta.url).pathname;
const PEOPLE = ["Ada Lovelace", "Grace Hopper", "Mary Jackson"];

/** A quiet picture for the fake camera: somebody's outline before a wall (Y'CbCr), swaying a little. @returns {Promise<string>} a Y4M file */
async function portrait(name, wall, shirt) {
  const [width, height, frames] = [640, 360, 60];
  const parts = [Buffer.from(`YUV4MPEG2 W${width} H${height} F20:1 Ip A1:1 C420jpeg\n`)];
  for (let frame = 0; frame < frames; frame++) {
    const middle = 320 + 14 * Math.sin((frame / frames) * 2 * Math.PI);
    const color = (x, y) => {
      if (((x - middle) / 62) ** 2 + ((y - 150) / 78) ** 2 < 1) return [190, 112, 146];
      if (((x - middle) / 165) ** 2 + ((y - 380) / 150) ** 2 < 1) return shirt;
      return [wall[0] - Math.round(y / 12), wall[1], wall[2]];
    };
    const [luma, blue, red] = [Buffer.alloc(width * height), Buffer.alloc((width * height) / 4), Buffer.alloc((width * height) / 4)];
    for (let y = 0; y < height; y++) {
      for (let x = 0; x < width; x++) {
        const [Y, B, R] = color(x, y);
        luma[y * width + x] = Y;
        if (x % 2 === 0 && y % 2 === 0) [blue[(y / 2) * (width / 2) + x / 2], red[(y / 2) * (width / 2) + x / 2]] = [B, R];
      }
    }
    parts.push(Buffer.from("FRAME\n"), luma, blue, red);
  }
  const file = join(tmpdir(), `milliway-${process.pid}-${name.split(" ")[0]}.y4m`);
  await writeFile(file, Buffer.concat(parts));
  return file;
}

const PORTRAITS = [[[170, 140, 118], [70, 150, 110]], [[150, 118, 128], [95, 110, 160]], [[185, 116, 138], [60, 120, 120]]];

await mkdir(FOLDER, { recursive: true });
const relay = await TestRelay.start();
const files = [];
const browsers = [];
const pages = [];
for (const [index, name] of PEOPLE.entries()) {
  files.push(await portrait(name, ...PORTRAITS[index]));
  const browser = await launch([`--use-file-for-fake-video-capture=${files[index]}`]);
  browsers.push(browser);
  const page = await person(browser, index === 2 ? { viewport: { width: 390, height: 844 }, colorScheme: "dark", deviceScaleFactor: 1 } : { viewport: { width: 1180, height: 620 } });
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
const [rich, poor] = [await person(browsers[1]), await person(browsers[0], { viewport: { width: 1180, height: 560 } })];
await poor.goto(`${dear.url}/room/garden`);
const token = await dear.issue({ sub: await didOf(poor), "balance-msat": 25_000 });
await enter(rich, dear, "garden", PEOPLE[1]);
await enter(poor, dear, "garden", PEOPLE[0], { token });
await seesAndHears(poor, PEOPLE[1]);
await until(async () => (await look(poor)).step === "audio-only", "sound only", { within: 40_000 });
await pause(1_000);
await poor.screenshot({ path: `${FOLDER}low-balance.png` });
for (const browser of browsers) await browser.close();
for (const file of files) await rm(file);
await dear.leave();
