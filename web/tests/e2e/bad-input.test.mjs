/** Bad input at every door, while a call runs: a clear refusal each time, and the call notices nothing. */

import assert from "node:assert/strict";
import { connect } from "node:net";
import { after, before, test } from "node:test";
import "../webcrypto.mjs";
import { Identity, Relay } from "../../milliway.js";
import { launch, person } from "./browser.mjs";
import { TestRelay } from "./relay.mjs";
import { connectionsMade, enter, seesAndHears } from "./room.mjs";

/** @type {TestRelay} */ let relay;
/** @type {import("playwright-core").Browser} */ let browser;
/** @type {Relay} */ let client;
/** @type {string} */ let token;
let ada, grace;

before(async () => {
  [relay, browser] = await Promise.all([TestRelay.start(), launch()]);
  client = await Relay.open(relay.url, await Identity.generate());
  token = await client.faucet(100_000);
  [ada, grace] = [await person(browser), await person(browser)];
  await enter(ada, relay, "calm", "Ada");
  await enter(grace, relay, "calm", "Grace");
});

after(async () => {
  await Promise.all([seesAndHears(ada, "Grace"), seesAndHears(grace, "Ada")]);
  assert.deepEqual([await connectionsMade(ada), await connectionsMade(grace)], [1, 1], "nobody was disturbed");
  assert.equal((await fetch(`${relay.url}/healthz`)).status, 200);
  await browser?.close();
  await relay?.leave();
});

const SESSION = "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\n";
const FINGERPRINT = `a=fingerprint:sha-256 ${Array(32).fill("AB").join(":")}\r\n`;
const ICE = `a=ice-ufrag:abcd\r\na=ice-pwd:0123456789012345678901\r\na=setup:actpass\r\na=rtcp-mux\r\n`;

function line(mid, kind, codec) {
  return `m=${kind} 9 UDP/TLS/RTP/SAVPF 96\r\nc=IN IP4 0.0.0.0\r\na=mid:${mid}\r\n${ICE}${FINGERPRINT}a=sendonly\r\na=rtpmap:96 ${codec}\r\n`;
}

const OFFERS = {
  "an SDP of 1 MB": [SESSION + "a=x:".padEnd(1_000_000, "y") + "\r\n", 413, "too-large"],
  "1,000 m-lines": [SESSION + "m=audio 9 RTP/SAVPF 0\r\n".repeat(1000), 400, "bad-sdp"],
  "an unknown codec": [`${SESSION}a=group:BUNDLE 0\r\n${line(0, "video", "HOLOGRAM/90000")}`, 400, "bad-sdp"],
  "a body cut in half": [`${SESSION}a=group:BUNDLE 0\r\n${line(0, "audio", "opus/48000/2")}`.slice(0, 200), 400, "bad-sdp"],
  "no SDP at all": ["<script>alert(1)</script>", 400, "bad-sdp"],
  "nothing": ["", 400, "bad-sdp"],
};

/** A refusal as every client gets it. */
function refusal({ status, slug, message }) {
  assert.ok(message.length > 15 && /[.!]$/.test(message), `a sentence says what to do: “${message}”`);
  return { status, slug };
}

for (const [what, [sdp, status, slug]] of Object.entries(OFFERS)) {
  test(`${what} is refused at WHIP and WHEP`, { timeout: 30_000 }, async () => {
    for (const door of ["whip", "whep"]) {
      const body = new TextEncoder().encode(sdp);
      const outcome = await client.http.call("POST", `/${door}/calm/other`, { token, body, type: "application/sdp" }).then(
        (response) => ({ status: response.status, slug: "OPEN", message: "It was let in, but should not." }), (error) => error);
      assert.deepEqual(refusal(outcome), { status, slug }, door);
    }
  });

  test(`${what} is refused over DSIP`, { timeout: 30_000 }, async () => {
    const outcome = await ada.evaluate(async (offer) => {
      const [{ Identity, Relay }, { Signalling }] = await Promise.all([import("/static/milliway.js"), import("/static/lib/signalling.js")]);
      const relay = await Relay.open(location.origin, await Identity.generate());
      const signalling = new Signalling(relay.identity, relay);
      const { nonce } = await signalling.open();
      const invite = { type: "dsip.invite", room: "calm", name: "other", token: await relay.faucet(100_000), nonce, media: { sdp: offer } };
      const answer = signalling.request(invite, "dsip.answer");
      const found = await answer.then(() => ({ status: 200, slug: "OPEN", message: "It was let in." }), ({ status, slug, message }) => ({ status, slug, message }));
      signalling.close();
      return found;
    }, sdp);
    // An envelope past 64 KiB may also end the connection: then nothing was let in either.
    if (status === 413 && outcome.slug === "relay-gone") return;
    assert.deepEqual(refusal(outcome), { status, slug });
  });
}

test("what is no envelope is answered in words, or the connection ends", { timeout: 30_000 }, async () => {
  const answers = await ada.evaluate(async () => {
    const heard = [];
    for (const text of ["", "{", "null", "[]", '{"type":"dsip.hello"}', '{"type":"dsip.hello","type":"dsip.bye"}', '{"type":"\ud800"}', "x".repeat(100_000)]) {
      heard.push(await new Promise((resolve) => {
        const socket = new WebSocket(`${location.origin.replace("http", "ws")}/v1/dsip`, "dsip.v0.3");
        socket.onopen = () => socket.send(text);
        socket.onmessage = ({ data }) => (resolve(JSON.parse(data).type), socket.close());
        socket.onclose = () => resolve("closed");
        setTimeout(() => (resolve("silence"), socket.close()), 5_000);
      }));
    }
    return heard;
  });
  for (const answer of answers) assert.ok(["dsip.error", "closed"].includes(answer), JSON.stringify(answers));
});

test("names that no room or person can have are refused; markup is only ever text", { timeout: 30_000 }, async () => {
  const offer = new TextEncoder().encode(`${SESSION}a=group:BUNDLE 0\r\n${line(0, "audio", "opus/48000/2")}`);
  const path = `/whip/calm/${encodeURIComponent("<script>alert(1)</script>")}`;
  const response = await client.http.call("POST", path, { token, body: offer, type: "application/sdp" }).then(
    (answer) => answer, (error) => error);
  assert.ok([201, 400].includes(response.status), `status ${response.status}`);
  if (response.status === 201) await client.http.call("DELETE", new URL(response.headers.get("Location"), relay.url).pathname, { token });
  else assert.ok(!response.message.includes("<script>"));
  const page = await fetch(`${relay.url}/room/${encodeURIComponent("<script>alert(1)</script>")}`);
  assert.doesNotMatch(await page.text(), /alert\(1\)/);
  assert.match(page.headers.get("content-security-policy"), /script-src 'self'/);
});

test("a request that stops halfway, a verb that is not known and a path that leads out", { timeout: 30_000 }, async () => {
  const { hostname, port } = new URL(relay.url);
  const raw = (text, end) => new Promise((resolve) => {
    let heard = "";
    const socket = connect(Number(port), hostname, () => (socket.write(text), end && socket.end()));
    socket.on("data", (chunk) => (heard += chunk));
    socket.on("close", () => resolve(heard));
    socket.on("error", () => resolve(heard));
    setTimeout(() => socket.destroy(), 3_000);
  });
  const host = `Host: ${hostname}:${port}\r\n`;
  await raw(`POST /whip/calm/x HTTP/1.1\r\n${host}Content-Length: 5000\r\nContent-Type: application/sdp\r\n\r\nv=0\r\n`, true);
  await raw(`POST /v1/topup HTTP/1.1\r\n${host}Transfer-Encoding: chunked\r\n\r\nfff\r\nhalf`, true);
  assert.match(await raw(`BREW / HTTP/1.1\r\n${host}Connection: close\r\n\r\n`), /^HTTP\/1\.1 4\d\d/);
  for (const path of ["/static/../Cargo.toml", "/static/..%2f..%2fCargo.toml", "/static//etc/passwd", "/static/package.json", "/static/tests/e2e/relay.mjs"]) {
    assert.match(await raw(`GET ${path} HTTP/1.1\r\n${host}Connection: close\r\n\r\n`), /^HTTP\/1\.1 40[04]/, path);
  }
  assert.match(await raw(`GET /${"x".repeat(200_000)} HTTP/1.1\r\n${host}\r\n`), /^(HTTP\/1\.1 4\d\d|$)/);
});

test("every refusal of the API is a problem with a slug and a sentence", { timeout: 30_000 }, async () => {
  const calls = [
    ["GET", "/v1/account", {}, 401, "proof-missing"],
    ["POST", "/v1/turn/credentials", {}, 401, "token-missing"],
    ["POST", "/v1/turn/credentials", { Authorization: "DPoP nonsense", DPoP: "x" }, 401, "token-malformed"],
    ["GET", "/v1/receipts/0000000000000000", {}, 401, "proof-missing"],
    ["GET", "/no/such/page", {}, 404, "not-found"],
  ];
  for (const [method, path, headers, status, slug] of calls) {
    const response = await fetch(relay.url + path, { method, headers, body: method === "POST" ? "{}" : undefined });
    assert.match(response.headers.get("content-type"), /^application\/problem\+json/, path);
    const problem = await response.json();
    assert.deepEqual([response.status, problem.type.split("/").pop()], [status, slug], path);
    assert.ok(problem.detail.length > 15, path);
  }
  await assert.rejects(client.http.call("GET", "/v1/receipts/0000000000000000"), { status: 404 });
  await assert.rejects(client.http.call("POST", "/v1/topup", { token, json: { token: 5 } }), { status: 400 });
});
