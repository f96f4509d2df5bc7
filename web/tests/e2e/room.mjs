/** What a person does in a room, and what a test can see of it: through the page alone, and `getStats` of its connections. */

import { until } from "./browser.mjs";

/**
 * Opens the room's page and joins.
 * @param {import("playwright-core").Page} page @param {import("./relay.mjs").TestRelay} relay
 * @param {string} room @param {string} name @param {{relayOnly?: boolean, token?: string}} [options] `token`: pasted before joining
 */
export async function enter(page, relay, room, name, { relayOnly = false, token } = {}) {
  await page.goto(`${relay.url}/room/${encodeURIComponent(room)}`);
  if (token) await paste(page, token);
  await page.getByLabel("Your name in the room").fill(name);
  if (relayOnly) await page.locator("#lobby-relay-only").check();
  await page.getByRole("button", { name: "Join the call" }).click();
  await until(async () => {
    const { state, problem } = await look(page);
    if (state === "idle" && problem) throw new Error(`${name} could not join: ${problem}`);
    return state === "connected";
  }, `${name} is in the room`, { within: 30_000 });
}

/** Pastes a token into the page, as its person would. */
export async function paste(page, token) {
  await page.getByRole("button", { name: "Use a token" }).click();
  await page.locator("#token").fill(token);
  await page.getByRole("button", { name: "Use this token" }).click();
  await until(async () => /Added|nothing was added|Not topped up/.test(await page.locator("#topup-status").textContent()), "the token was used");
}

/** Leaves by the button. */
export async function leave(page) {
  await page.getByRole("button", { name: "Leave" }).click();
  await page.locator('body[data-state="ended"]').waitFor();
}

/** What the page shows. @returns {Promise<{state: string, step: string, problem: string, tiles: Record<string, {video: boolean, flags: string}>, msat: number}>} */
export function look(page) {
  return page.evaluate(() => ({
    state: document.body.dataset.state,
    step: document.body.dataset.step,
    problem: document.getElementById("problem").hidden ? "" : document.getElementById("problem-text").textContent,
    msat: Number(document.getElementById("msat").textContent.replace(/\D/g, "")),
    tiles: Object.fromEntries([...document.querySelectorAll(".tile")].map((tile) => [
      tile.querySelector("bdi").textContent,
      { video: tile.dataset.video === "true", flags: tile.querySelector(".flags").textContent },
    ])),
  }));
}

/**
 * What arrives of somebody, by the browser's own statistics for the tracks in that person's tile.
 * @returns {Promise<{frames: number, energy: number, width: number, bytes: number, videoBytes: number, at: number}>}
 */
export function received(page, name) {
  return page.evaluate(async (wanted) => {
    const tile = [...document.querySelectorAll(".tile")].find((one) => one.querySelector("bdi").textContent === wanted);
    const tracks = tile?.querySelector("video").srcObject?.getTracks().map(({ id }) => id) ?? [];
    const seen = { frames: 0, energy: 0, width: 0, bytes: 0, videoBytes: 0, at: 0 };
    const stats = await window.peers.at(-1)?.getStats();
    for (const report of stats?.values() ?? []) {
      if (report.type !== "inbound-rtp" || !tracks.includes(report.trackIdentifier)) continue;
      seen.frames += report.framesDecoded ?? 0;
      seen.energy += report.totalAudioEnergy ?? 0;
      seen.width = Math.max(seen.width, report.frameWidth ?? 0);
      seen.bytes += report.bytesReceived ?? 0;
      if (report.kind === "video") [seen.videoBytes, seen.at] = [report.bytesReceived, report.timestamp];
    }
    return seen;
  }, name);
}

/** Waits until pictures and sound of `name` keep coming: `frames` more and audible energy more than now. */
export async function seesAndHears(page, name, { frames = 15, within = 25_000 } = {}) {
  const before = await received(page, name);
  let now = before;
  try {
    await until(async () => {
      now = await received(page, name);
      return now.frames >= before.frames + frames && now.energy > before.energy + 1e-5;
    }, `pictures and sound of ${name} arrive`, { within });
  } catch (error) {
    error.message += ` (before ${JSON.stringify(before)}, now ${JSON.stringify(now)}, page ${JSON.stringify(await look(page))})`;
    throw error;
  }
}

/** The selected candidate pair of the page's connection. @returns {Promise<{local: any, remote: any, ports: number[]} | undefined>} */
export function candidatePair(page) {
  return page.evaluate(async () => {
    const stats = await window.peers.at(-1).getStats();
    const transport = [...stats.values()].find(({ type, selectedCandidatePairId }) => type === "transport" && selectedCandidatePairId);
    const pair = transport && stats.get(transport.selectedCandidatePairId);
    return pair && { local: { ...stats.get(pair.localCandidateId) }, remote: { ...stats.get(pair.remoteCandidateId) } };
  });
}

/** How many peer connections the page has made. */
export function connectionsMade(page) {
  return page.evaluate(() => window.peers.length);
}

/** The page's own account, asked of the relay under the page's own key. */
export function account(page) {
  return page.evaluate(async () => {
    const { Identity, Relay } = await import("/static/milliway.js");
    return (await Relay.open(location.origin, await Identity.load())).account();
  });
}

/** A session's receipt, signature checked in the page. */
export function receipt(page, session) {
  return page.evaluate(async (id) => {
    const { Identity, Relay } = await import("/static/milliway.js");
    return (await Relay.open(location.origin, await Identity.load())).receipt(id);
  }, session);
}

/** @returns {Promise<string>} the page's DID */
export function didOf(page) {
  return page.evaluate(async () => (await (await import("/static/milliway.js")).Identity.load()).did);
}
