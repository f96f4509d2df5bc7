/** Browsers that may only be relayed, over each transport to the TURN server: with each other, and in a call on the SFU. */

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { Authority } from "./authority.mjs";
import { launch, person } from "./browser.mjs";
import { describe, exchange, open } from "./peers.mjs";
import { TestRelay } from "./relay.mjs";
import { candidatePair, enter, seesAndHears } from "./room.mjs";

/** The URL of each transport, as the relay names it. */
const URLS = { udp: /^turn:.*(\?transport=udp|:\d+)$/, tcp: /^turn:.*\?transport=tcp$/, tls: /^turns:/ };
const MESSAGES = 40;
const BYTES = 1000;

/** @type {TestRelay} */ let relay;
/** @type {Authority} */ let authority;
/** @type {import("playwright-core").Browser} */ let browser;

before(async () => {
  authority = await Authority.forServer("127.0.0.1");
  const turn = { tls_certificate: authority.certificate, tls_key: authority.key, tls_listen: ["127.0.0.1:0"] };
  [relay, browser] = await Promise.all([TestRelay.start({ turn }), launch([], { environment: { HOME: authority.home } })]);
});

after(async () => {
  await browser?.close();
  await relay?.leave();
  await authority?.leave();
});

/** A page whose connections are relayed only, over this transport and no other. */
async function relayed(transport, by = browser) {
  const page = await person(by);
  await page.addInitScript((url) => {
    window.offered = [];
    window.RTCPeerConnection = class extends RTCPeerConnection {
      constructor(configuration) {
        const of = (urls) => [urls].flat().filter((one) => new RegExp(url).test(one));
        const iceServers = configuration.iceServers.map((server) => ({ ...server, urls: of(server.urls) }));
        window.offered.push(...iceServers.flatMap(({ urls }) => urls));
        super({ ...configuration, iceServers, iceTransportPolicy: "relay" });
      }
    };
  }, URLS[transport].source);
  return page;
}

/** The path that was taken is a relayed one, over this transport. */
async function isRelayedOver(page, transport) {
  const { local } = await candidatePair(page);
  assert.deepEqual([local.candidateType, local.relayProtocol], ["relay", transport]);
  assert.match(local.url, URLS[transport]);
}

/** TURN credentials of the page's own account. @returns {Promise<{iceServers: RTCIceServer[]}>} */
function credentials(page) {
  return page.evaluate(async () => {
    const { Identity, Relay } = await import("/static/milliway.js");
    const relay = await Relay.open(location.origin, await Identity.load());
    const { iceServers } = await relay.turnCredentials(await relay.faucet(1_000_000));
    return { iceServers };
  });
}

for (const transport of ["udp", "tcp", "tls"]) {
  test(`two browsers reach each other over ${transport} through their relayed addresses alone`, { timeout: 60_000 }, async () => {
    const [ada, grace] = [await relayed(transport), await relayed(transport)];
    for (const page of [ada, grace]) {
      await page.goto(relay.url);
      await open(page, await credentials(page));
    }
    const offer = await describe(ada);
    assert.match(offer.sdp, / typ relay /, `Ada got a relayed address from ${await ada.evaluate(() => window.offered.join())}`);
    assert.doesNotMatch(offer.sdp, / typ (host|srflx) /);
    await describe(ada, await describe(grace, offer));
    await exchange([ada, grace], MESSAGES, BYTES);
    for (const page of [ada, grace]) {
      await isRelayedOver(page, transport);
      assert.deepEqual(page.faults, []);
      await page.context().close();
    }
  });
}

test("a browser that does not know the authority gets no relayed address over tls", { timeout: 60_000 }, async () => {
  const stranger = await launch();
  try {
    const page = await relayed("tls", stranger);
    await page.goto(relay.url);
    await open(page, await credentials(page));
    assert.doesNotMatch((await describe(page)).sdp, /a=candidate/);
    assert.match(await page.evaluate(() => window.offered.join()), URLS.tls);
  } finally {
    await stranger.close();
  }
});

test("three people who are relayed over UDP, TCP and TLS are in one call on the SFU", { timeout: 90_000 }, async () => {
  const people = { Ada: "udp", Grace: "tcp", Mary: "tls" };
  const pages = {};
  for (const [name, transport] of Object.entries(people)) {
    pages[name] = await relayed(transport);
    await enter(pages[name], relay, "relayed", name, { relayOnly: true });
  }
  const names = Object.keys(people);
  await Promise.all(names.flatMap((name) => names.filter((other) => other !== name).map((other) => seesAndHears(pages[name], other))));
  for (const name of names) {
    await isRelayedOver(pages[name], people[name]);
    assert.deepEqual(pages[name].faults, []);
    await pages[name].context().close();
  }
});
