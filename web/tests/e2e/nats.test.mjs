/** Two browsers, each behind a symmetric NAT of its own: they can only meet through the relay. */

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { after, before, test } from "node:test";
import { launch, pause, person, until } from "./browser.mjs";
import { Internet, PUBLIC } from "./nats.mjs";
import { describe, exchange, open } from "./peers.mjs";
import { TestRelay } from "./relay.mjs";
import { candidatePair } from "./room.mjs";

/** How long a pair without TURN may try. With it, it takes about one second. */
const BOUND_MS = 10_000;
const ALTERNATE_PORT = 3479;

/** @type {Internet} */ let internet;
/** @type {TestRelay} */ let relay;
const browsers = [];

before(async () => {
  internet = await Internet.with(2);
  const turn = { discovery_alternate: [`${PUBLIC[1]}:${ALTERNATE_PORT}`] };
  relay = await TestRelay.start({ turn }, { space: internet.public, ip: PUBLIC[0] });
  for (const home of internet.homes) browsers.push(await launch([], { program: await internet.chromium(home) }));
});

after(async () => {
  for (const browser of browsers) await browser.close();
  await relay?.leave();
  await internet?.leave();
});

/** Calls the relay from the public network. */
async function call(path, headers, body) {
  const script = `fetch(${JSON.stringify(relay.url + path)}, ${JSON.stringify({ method: "POST", headers, body })})
    .then((answer) => answer.text()).then((text) => process.stdout.write(text))`;
  return JSON.parse(await internet.in(internet.public, process.execPath, "-e", script));
}

/** TURN credentials of an account of their own. @returns {Promise<RTCIceServer[]>} */
async function iceServers(n) {
  const sub = (await relay.command("did", "new", "--out", `${relay.folder}/holder${n}.jwk`)).match(/did:key:\w+/)[0];
  const { token } = await call("/v1/dev/faucet", { "content-type": "application/json" }, JSON.stringify({ sub, balance_msat: 1_000_000, bearer: true }));
  return (await call("/v1/turn/credentials", { authorization: `Bearer ${token}` })).iceServers;
}

/** One page in each home, connected as far as these servers bring them. */
async function pair(configurations) {
  const pages = await Promise.all(browsers.map((browser) => person(browser)));
  await Promise.all(pages.map(async (page, n) => {
    await page.goto("about:blank");
    await open(page, configurations[n]);
  }));
  const offer = await describe(pages[0]);
  const answer = await describe(pages[1], offer);
  await describe(pages[0], answer);
  return { pages, descriptions: [offer, answer] };
}

const state = (page) => page.evaluate(() => window.connection.iceConnectionState);

/** What `turnutils_natdiscovery` concludes in a home about its NAT, asking this server. */
async function verdicts(home, port) {
  const ask = (what) => internet.in(home.space, "timeout", "30", "turnutils_natdiscovery", what, "-L", home.inside, "-p", String(port), PUBLIC[0]);
  const said = await Promise.all([ask("-m"), ask("-f")]);
  return said.map((text) => text.match(/.*NAT.*!$/gm).at(-1));
}

test("a symmetric NAT is found to be one, by our relay as by coturn", { timeout: 60_000 }, async () => {
  const port = 4478;
  const words = ["-n", "--no-cli", "-L", PUBLIC[0], "-L", PUBLIC[1], "-p", port, "--alt-listening-port", port + 1, "--no-tls", "--no-dtls",
    "-a", "-u", "user:pass", "-r", "coturn.test", "--pidfile", `${relay.folder}/coturn.pid`, "--log-file", "stdout"];
  const coturn = spawn("ip", ["netns", "exec", internet.public, "turnserver", ...words.map(String)], { stdio: "ignore" });
  try {
    const open = `:${(port + 1).toString(16).toUpperCase()} `;
    await until(async () => (await internet.in(internet.public, "cat", "/proc/net/udp")).includes(open), "coturn listens");
    const [ours, theirs] = await Promise.all([verdicts(internet.homes[0], relay.ports.turn), verdicts(internet.homes[0], port)]);
    assert.deepEqual(ours, theirs);
    assert.deepEqual(ours, ["NAT with Address and Port Dependent Mapping!", "NAT with Address and Port Dependent Filtering!"]);
  } finally {
    coturn.kill("SIGKILL");
  }
});

test("two browsers behind symmetric NATs meet through the relay, and not without it", { timeout: 90_000 }, async () => {
  const stun = { iceServers: [{ urls: `stun:${relay.ready.turn}` }] };
  const since = Date.now();
  const alone = await pair([stun, stun]);
  alone.descriptions.forEach(({ sdp }, n) => {
    assert.match(sdp, new RegExp(` ${internet.homes[n].outside.replaceAll(".", "\\.")} \\d+ typ srflx`), "it knows its NAT's address");
  });
  const turn = await Promise.all([1, 2].map(async (n) => ({ iceServers: await iceServers(n) })));
  const relayed = await pair(turn);
  await exchange(relayed.pages, 40, 1000);
  const paths = await Promise.all(relayed.pages.map(candidatePair));
  for (const { local, remote } of paths) assert.ok([local, remote].some(({ candidateType }) => candidateType === "relay"), JSON.stringify([local, remote]));
  await pause(Math.max(0, BOUND_MS - (Date.now() - since)));
  for (const page of alone.pages) assert.match(await state(page), /checking|failed|disconnected/, "without TURN they do not meet");
  for (const page of [...alone.pages, ...relayed.pages]) assert.deepEqual(page.faults, []);
});
