/** The handshake against a relay in this process, behind a socket that is only an object. */

import assert from "node:assert/strict";
import { afterEach, test } from "node:test";
import "../webcrypto.mjs";
import { Identity } from "../../lib/identity.js";
import { seal } from "../../lib/envelope.js";
import { Signalling } from "../../lib/signalling.js";

const URL_ = "ws://relay.test/v1/dsip";
const [relay, client] = [await Identity.generate(), await Identity.generate()];
const original = globalThis.WebSocket;
afterEach(() => (globalThis.WebSocket = original));

/** @param {(envelope: any, say: (body: object, by?: Identity) => Promise<void>, socket: any) => any} answer */
function relayThat(answer) {
  globalThis.WebSocket = class {
    static OPEN = 1;
    readyState = 1;
    constructor(url, protocol) {
      Object.assign(this, { url, protocol });
      queueMicrotask(() => this.onopen());
    }
    send(text) {
      const say = async (body, by = relay) => {
        const envelope = await seal(by, { to: client.did, ...body });
        this.onmessage({ data: JSON.stringify(envelope) });
      };
      answer(JSON.parse(text), say, this);
    }
    close() {
      this.readyState = 3;
    }
  };
}

const about = { did: relay.did, socketUrl: URL_, socketUrls: [] };
const challenge = (hello) => ({
  type: "dsip.challenge", correlates: hello.id, nonce: "n", hello_nonce: hello.nonce, url: URL_, relay: relay.did, tariff: [],
});

test("a relay that proves its DID over our nonce is taken", async () => {
  relayThat((hello, say) => say(challenge(hello)));
  const signalling = new Signalling(client, about);
  assert.equal((await signalling.open()).nonce, "n");
  signalling.close();
});

for (const [what, change] of [
  ["another relay's name", { relay: client.did }],
  ["an old nonce", { hello_nonce: "replayed" }],
  ["another URL", { url: "wss://proxy.evil/v1/dsip" }],
]) {
  test(`a challenge with ${what} is refused and nothing more is said`, async () => {
    const heard = [];
    relayThat((envelope, say) => (heard.push(envelope.type), say({ ...challenge(envelope), ...change })));
    await assert.rejects(new Signalling(client, about).open(), { slug: "relay-identity" });
    assert.deepEqual(heard, ["dsip.hello"]);
  });
}

test("a challenge that somebody else signed is refused", async () => {
  const impostor = await Identity.generate();
  relayThat((hello, say) => say(challenge(hello), impostor));
  await assert.rejects(new Signalling(client, about).open(), { slug: "relay-signature" });
});

test("a dsip.error becomes an error with code, slug and sentence", async () => {
  relayThat((envelope, say) =>
    envelope.type === "dsip.hello"
      ? say(challenge(envelope))
      : say({ type: "dsip.error", correlates: envelope.id, code: 402, reason: "payment:balance-exhausted", detail: "Top up first." }));
  const signalling = new Signalling(client, about);
  await signalling.open();
  const invite = signalling.request({ type: "dsip.invite" }, "dsip.answer");
  await assert.rejects(invite, { slug: "balance-exhausted", status: 402, message: "Top up first." });
  signalling.close();
});

test("messages are heard in the order they came, and the end of the socket is told once", async () => {
  const heard = [];
  const closed = [];
  let socket;
  relayThat(async (envelope, say, own) => {
    socket = own;
    await say(challenge(envelope));
    for (let number = 0; number < 20; number++) await say({ type: "dsip.update", number });
  });
  const signalling = new Signalling(client, about, {
    onmessage: async ({ number }) => {
      await new Promise((resolve) => setTimeout(resolve, number % 3));
      heard.push(number);
    },
    onclose: (error) => closed.push(error.slug),
  });
  await signalling.open();
  for (let wait = 0; heard.length < 20 && wait < 200; wait++) await new Promise((resolve) => setTimeout(resolve, 10));
  assert.deepEqual(heard, Array.from({ length: 20 }, (_, number) => number));
  socket.onclose({ code: 1006 });
  socket.onclose({ code: 1006 });
  assert.deepEqual(closed, ["relay-gone"]);
  await assert.rejects(signalling.request({ type: "dsip.update" }, "dsip.update"), { slug: "relay-gone" });
});
