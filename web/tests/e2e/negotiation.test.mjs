/**
 * The call's negotiation with a peer that this test controls to the message: a real peer connection in the same page, where the
 * relay's would be. For glare, late answers and goodbyes, which a real relay cannot be asked to time.
 */

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { launch, person, until } from "./browser.mjs";
import { openStage } from "./stage.mjs";

/** Stands in for lib/signalling.js. `rig` is the far side. */
const SIGNALLING = `
const rig = (window.rig = window.rig ?? { said: [], opened: 0, failOpens: 0 });
const complete = (peer) => new Promise((resolve) => {
  const look = () => peer.iceGatheringState === "complete" && resolve(peer.localDescription.sdp);
  peer.addEventListener("icegatheringstatechange", look);
  look();
});
rig.offer = async (seq, ...kinds) => {
  for (const kind of kinds) rig.remote.addTransceiver(kind, { direction: "sendonly" });
  await rig.remote.setLocalDescription();
  rig.pending = { sdp: rig.remote.localDescription.sdp, seq };
};
rig.deliver = () => rig.tell({ type: "dsip.update", id: "relay-offer", changes: { offer: rig.pending } });
rig.tell = (envelope) => rig.handlers.onmessage(envelope);
export class Signalling {
  constructor(identity, relay, handlers) { rig.handlers = handlers; }
  async open() {
    rig.opened++;
    if (rig.failOpens-- > 0) {
      const { MilliwayError } = await import("/static/lib/errors.js");
      throw new MilliwayError("relay-gone");
    }
    return { nonce: "n", tariff: [] };
  }
  async request(body) {
    rig.said.push(body);
    if (body.type === "dsip.resume") {
      const { MilliwayError } = await import("/static/lib/errors.js");
      throw new MilliwayError("session-unknown");
    }
    rig.remote?.close();
    rig.remote = new RTCPeerConnection();
    await rig.remote.setRemoteDescription({ type: "offer", sdp: body.media.sdp });
    await rig.remote.setLocalDescription();
    return { session: "s" + rig.opened, media: { sdp: await complete(rig.remote) }, economics: { available_msat: 5, step: "full" } };
  }
  async send(body) {
    rig.said.push(body);
    const { offer, answer } = body.changes ?? {};
    if (answer) await rig.remote.setRemoteDescription({ type: "answer", sdp: answer.sdp });
    if (!offer || rig.remote.signalingState !== "stable") return; // the loser of glare is ignored
    await rig.remote.setRemoteDescription({ type: "offer", sdp: offer.sdp });
    await rig.remote.setLocalDescription();
    await rig.handlers.onmessage({ type: "dsip.update", changes: { answer: { sdp: await complete(rig.remote), seq: offer.seq } } });
  }
  close() {}
}`;

let stage, browser, page;

before(async () => {
  [stage, browser] = await Promise.all([openStage(), launch()]);
});

after(async () => {
  await browser?.close();
  stage?.close();
});

/** A page with a call that is connected to the rig. */
async function connected() {
  page = await person(browser, { permissions: ["camera", "microphone"] });
  await page.route("**/static/lib/signalling.js", (route) => route.fulfill({ contentType: "text/javascript", body: SIGNALLING }));
  await page.goto(`${stage.url}/`);
  await page.evaluate(async () => {
    const { Call } = await import("/static/real.js");
    const stream = await navigator.mediaDevices.getUserMedia({ audio: true, video: true });
    const relay = { identity: {}, check() {}, turnCredentials: async () => ({ iceServers: [] }) };
    window.states = [];
    window.call = new Call(relay, { room: "r", name: "Ada", token: "e30.e30.e30", stream, pool: { audio: 1, video: 1 } });
    window.call.addEventListener("state", ({ detail }) => window.states.push(detail.error ? `${detail.state}: ${detail.error.slug}` : detail.state));
    await window.call.start();
  });
}

async function done() {
  assert.deepEqual(page.faults, []);
  await page.context().close();
}

const said = (change) => page.evaluate((name) => window.rig.said.filter(({ changes }) => changes?.[name]).map(({ changes, correlates }) => ({ seq: changes[name].seq, correlates })), change);
const stable = () => page.evaluate(() => window.peers[0].signalingState === "stable" && window.rig.remote.signalingState === "stable");

test("the relay's offer is answered under its number, and its lines carry whom the relay says", { timeout: 30_000 }, async () => {
  await connected();
  await page.evaluate(async () => {
    await window.rig.tell({ type: "dsip.update", changes: { participants: [{ name: "Grace", audio: true, video: true }, { name: "Ada", audio: true, video: true }] } });
    await window.rig.offer(7, "audio", "video");
    // Whom a line carries may be told before the line itself is there.
    const mids = window.rig.remote.getTransceivers().slice(-2).map(({ mid }) => mid);
    await window.rig.tell({ type: "dsip.update", changes: { tracks: [{ mid: mids[0], kind: "audio", name: "Grace" }, { mid: mids[1], kind: "video", name: "Grace" }, { mid: "nowhere", kind: "video", name: "Nobody" }] } });
    await window.rig.deliver();
  });
  assert.deepEqual(await said("answer"), [{ seq: 7, correlates: "relay-offer" }]);
  await until(stable, "both sides are stable");
  const people = await page.evaluate(() => window.call.participants.map(({ name, stream }) => [name, stream.getTracks().map(({ kind }) => kind).sort()]));
  assert.deepEqual(people, [["Grace", ["audio", "video"]]], "and I am not in my own list");
  await done();
});

test("on glare the page rolls back, answers, and makes its own offer again", { timeout: 30_000 }, async () => {
  await connected();
  await page.evaluate(async () => {
    await window.rig.offer(1, "video");
    await window.call.setRelayOnly(false); // an ICE restart: our offer crosses the relay's
    await window.rig.deliver();
  });
  await until(stable, "both sides are stable");
  assert.deepEqual(await said("answer"), [{ seq: 1, correlates: "relay-offer" }]);
  assert.deepEqual((await said("offer")).map(({ seq }) => seq), [1, 2]);
  await until(() => page.evaluate(() => window.peers[0].connectionState === "connected"), "connected after the restart");
  assert.deepEqual(await page.evaluate(() => window.states), ["connecting", "connected"]);
  await done();
});

test("an answer to an offer that is no longer ours is ignored", { timeout: 30_000 }, async () => {
  await connected();
  await page.evaluate(() => window.rig.tell({ type: "dsip.update", changes: { answer: { sdp: "v=0", seq: 99 } } }));
  assert.equal(await page.evaluate(() => window.call.state), "connected");
  await done();
});

test("when the socket breaks the call comes back with the same tracks, some tries later", { timeout: 30_000 }, async () => {
  await connected();
  await page.evaluate(async () => {
    const { MilliwayError } = await import("/static/lib/errors.js");
    window.rig.failOpens = 2;
    window.rig.handlers.onclose(new MilliwayError("relay-gone"));
  });
  await until(() => page.evaluate(() => window.call.state === "connected"), "connected again");
  assert.deepEqual(await page.evaluate(() => window.states), ["connecting", "connected", "reconnecting: relay-gone", "connected"]);
  // The first, two that fail, one over which the session cannot be resumed, and the one of a new session.
  assert.equal(await page.evaluate(() => window.rig.opened), 5);
  // The last two are the page's and the rig's.
  const [own, far] = await page.evaluate(() => window.peers.slice(-2).map((peer) => ({
    state: peer.connectionState, sending: peer.getSenders().filter(({ track }) => track?.readyState === "live").length,
  })));
  assert.deepEqual([own, far], [{ state: "connected", sending: 2 }, { state: "connected", sending: 0 }]);
  assert.equal(await page.evaluate(() => window.peers.filter(({ connectionState }) => connectionState !== "closed").length), 2);
  await done();
});

for (const [reason, states] of [
  ["draining", ["connecting", "connected", "reconnecting: draining", "connected"]],
  ["replaced", ["connecting", "connected", "ended: replaced"]],
  ["balance-exhausted", ["connecting", "connected", "ended: balance-exhausted"]],
]) {
  test(`after the goodbye “${reason}” the call ${states.length > 3 ? "comes back" : "is over"}`, { timeout: 30_000 }, async () => {
    await connected();
    await page.evaluate((word) => window.rig.tell({ type: "dsip.bye", reason: word }), reason);
    await until(() => page.evaluate((count) => window.states.length >= count, states.length), "the states");
    assert.deepEqual(await page.evaluate(() => window.states), states);
    if (states.length === 3) assert.equal(await page.evaluate(() => window.peers[0].connectionState), "closed");
    await done();
  });
}
