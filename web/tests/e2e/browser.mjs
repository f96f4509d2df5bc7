/**
 * The browser of the end-to-end tests: Debian's Chromium with fake media devices, one process, a fresh profile ("context") per
 * person. Set CHROMIUM to drive another build.
 */

import { chromium } from "playwright-core";

const EXECUTABLE = process.env.CHROMIUM ?? "/usr/bin/chromium";
const ARGUMENTS = [
  "--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking", "--disable-component-update",
  "--disable-sync", "--no-first-run", "--use-fake-device-for-media-stream=device-count=3", "--use-fake-ui-for-media-stream",
  "--autoplay-policy=no-user-gesture-required", "--disable-renderer-backgrounding", "--disable-backgrounding-occluded-windows",
  "--disable-background-timer-throttling", "--disable-features=WebRtcHideLocalIpsWithMdns",
];
/** Nothing in a page of ours takes longer on a loaded two-core machine. */
const WAIT_MS = 20_000;

/**
 * @param {string[]} [extra] further arguments
 * @param {{environment?: Record<string, string>, program?: string}} [how] what is different in its environment; what starts it
 */
export function launch(extra = [], { environment = {}, program = EXECUTABLE } = {}) {
  const env = { ...process.env, ...environment };
  return chromium.launch({ executablePath: program, args: [...ARGUMENTS, ...extra], env, timeout: 60_000 });
}

/**
 * A person: a context with its own key and account.
 * @param {import("playwright-core").Browser} browser @param {object} [options] of the context
 * @returns {Promise<import("playwright-core").Page & {faults: string[]}>} `faults`: script errors and refused loads
 */
export async function person(browser, options = {}) {
  const context = await browser.newContext({ viewport: { width: 1180, height: 760 }, ...options });
  if (process.env.WEB_FROM_DISK) await fromDisk(context);
  const page = await context.newPage();
  page.setDefaultTimeout(WAIT_MS);
  page.faults = [];
  page.on("pageerror", (error) => page.faults.push(String(error)));
  page.on("console", (message) => {
    // A refused request is logged by the browser itself; the tests that provoke one look at the page instead.
    const expected = /Failed to load resource|WebSocket connection to/.test(message.text());
    if (message.type() === "error" && !expected) page.faults.push(message.text());
  });
  await page.addInitScript(recordPeers);
  return page;
}

/** Scripts and styles as they are in the folder now, to try a change without building the program again. */
function fromDisk(context) {
  const folder = new URL("../../", import.meta.url).pathname;
  return context.route("**/static/**", async (route) => {
    const response = await route.fetch();
    if (response.headers()["x-stage"]) return route.fulfill({ response });
    await route.fulfill({ response, path: folder + new URL(route.request().url()).pathname.slice("/static/".length) });
  });
}

/** Runs in the page before its scripts: keeps every peer connection it makes, in order, for the tests to look at. */
function recordPeers() {
  window.peers = [];
  window.RTCPeerConnection = class extends RTCPeerConnection {
    constructor(...configuration) {
      super(...configuration);
      window.peers.push(this);
    }
  };
}

/** Waits until `check` gives something true. @template T @param {() => Promise<T>} check @param {string} what @returns {Promise<T>} */
export async function until(check, what, { within = WAIT_MS, every = 150 } = {}) {
  const deadline = Date.now() + within;
  for (;;) {
    const found = await check();
    if (found) return found;
    if (Date.now() > deadline) throw new Error(`not within ${within / 1000} s: ${what}`);
    await pause(every);
  }
}

/** @param {number} ms */
export function pause(ms) {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
