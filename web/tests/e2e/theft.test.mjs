/** Tokens in the wrong hands: a token without its key, and tokens in which an issuer names somebody else's account. */

import assert from "node:assert/strict";
import { createPrivateKey, randomUUID, sign } from "node:crypto";
import { after, before, test } from "node:test";
import "../webcrypto.mjs";
import { Identity, Relay } from "../../milliway.js";
import { launch, person } from "./browser.mjs";
import { TestRelay } from "./relay.mjs";

const MONEY = 500_000;

/** @type {TestRelay} */ let relay;
/** @type {import("playwright-core").Browser} */ let browser;
/** @type {import("playwright-core").Page} */ let page;
/** @type {Relay} */ let victim;
/** @type {Relay} */ let thief;

before(async () => {
  [relay, browser] = await Promise.all([TestRelay.start(), launch()]);
  page = await person(browser);
  await page.goto(`${relay.url}/room/heist`);
  victim = await Relay.open(relay.url, await Identity.generate());
  thief = await Relay.open(relay.url, await Identity.generate());
  await victim.topup(await victim.faucet(MONEY));
});

after(async () => {
  await browser?.close();
  const untouched = await victim.account();
  assert.deepEqual(
    { available: untouched.available_msat, spent: untouched.spent_msat, reserved: untouched.reserved_msat },
    { available: MONEY, spent: 0, reserved: 0 }, "nothing of the victim's was ever spent");
  await relay?.leave();
});

/** Tries every door with a token under the thief's key. @returns {Promise<string[]>} the slugs of the refusals */
async function tryDoors(token) {
  const sdp = new TextEncoder().encode("v=0\r\n");
  const doors = {
    turn: () => thief.http.call("POST", "/v1/turn/credentials", { token, json: {} }),
    whip: () => thief.http.call("POST", "/whip/heist/mallory", { token, body: sdp, type: "application/sdp" }),
    whep: () => thief.http.call("POST", "/whep/heist/mallory", { token, body: sdp, type: "application/sdp" }),
    topup: () => thief.http.call("POST", "/v1/topup", { token, json: { token } }),
  };
  const slugs = [];
  for (const [door, open] of Object.entries(doors)) {
    const slug = await open().then(() => "OPEN", (error) => `${error.status} ${error.slug}`);
    assert.match(slug, /^40[013] /, `${door} answered ${slug}`);
    slugs.push(`${door}: ${slug}`);
  }
  return slugs;
}

/** Tries to join a call over DSIP with it, from a browser with a key of its own. */
function tryCall(token) {
  return page.evaluate(async (stolen) => {
    const { Call, Identity, Relay } = await import("/static/milliway.js");
    const relay = await Relay.open(location.origin, await Identity.load());
    const call = new Call(relay, { room: "heist", name: "Mallory", token: stolen, stream: new MediaStream() });
    return call.start().then(() => "OPEN", ({ status, slug, message }) => ({ status, slug, message }));
  }, token);
}

function refusedInWords(outcome) {
  assert.ok([401, 403].includes(outcome.status), JSON.stringify(outcome));
  assert.ok(outcome.message.length > 15, `a sentence says what to do: ${outcome.message}`);
}

test("a stolen token without its key opens nothing, by proof or as a bearer", { timeout: 60_000 }, async () => {
  const token = await victim.faucet(1000);
  await tryDoors(token);
  refusedInWords(await tryCall(token));
  const bare = await fetch(`${relay.url}/v1/turn/credentials`, {
    method: "POST", headers: { Authorization: `Bearer ${token}`, "Content-Type": "application/json" }, body: "{}",
  });
  assert.equal(bare.status, 401);
  const unproved = await fetch(`${relay.url}/v1/turn/credentials`, {
    method: "POST", headers: { Authorization: `DPoP ${token}`, "Content-Type": "application/json" }, body: "{}",
  });
  assert.equal(unproved.status, 401);
  assert.match((await unproved.json()).type, /proof-missing$/);
});

test("a token of a trusted issuer that names somebody else's account opens nothing", { timeout: 60_000 }, async () => {
  const key = createPrivateKey({ key: await relay.issuerKey(), format: "jwk" });
  const honest = await victim.faucet(1);
  const [head, body] = honest.split(".").slice(0, 2).map((part) => JSON.parse(Buffer.from(part, "base64url")));
  const mint = (claims) => {
    const input = [head, { ...body, jti: randomUUID(), ...claims }].map((part) => Buffer.from(JSON.stringify(part)).toString("base64url")).join(".");
    return `${input}.${sign(null, Buffer.from(input), key).toString("base64url")}`;
  };
  const [attacker, theirs] = [thief.identity, victim.identity.did];
  const forged = {
    "payer without a grant": { sub: attacker.did, payer: theirs },
    "payer with a grant that the attacker signed": { sub: attacker.did, payer: theirs, payer_grant: mint({ sub: attacker.did, max_msat: 1e6 }) },
    "cnf of another key without a delegation": { sub: theirs, cnf: { kid: attacker.kid } },
  };
  for (const [what, claims] of Object.entries(forged)) {
    await assert.doesNotReject(() => tryDoors(mint(claims)), what);
  }
  // In the browser the page's own key is the attacker's.
  const own = await page.evaluate(async () => (await (await import("/static/milliway.js")).Identity.load()).did);
  refusedInWords(await tryCall(mint({ sub: own, payer: theirs })));
  // A bearer token for the victim's name spends only its own voucher.
  const bearer = mint({ sub: theirs, bearer: true, balance_msat: 5 });
  await fetch(`${relay.url}/v1/turn/credentials`, {
    method: "POST", headers: { Authorization: `Bearer ${bearer}`, "Content-Type": "application/json" }, body: "{}",
  });
});

test("a token for another relay is not even shown to this one", async () => {
  const key = createPrivateKey({ key: await relay.issuerKey(), format: "jwk" });
  const [head, body] = (await thief.faucet(1)).split(".").slice(0, 2).map((part) => JSON.parse(Buffer.from(part, "base64url")));
  const elsewhere = { ...body, aud: "did:key:z6MkiTBz1ymuepAQ4HEHYSF1H8quG5GLVVQR3djdX3mDooWp", jti: randomUUID() };
  const input = [head, elsewhere].map((part) => Buffer.from(JSON.stringify(part)).toString("base64url")).join(".");
  const token = `${input}.${sign(null, Buffer.from(input), key).toString("base64url")}`;
  await assert.rejects(thief.turnCredentials(token), { slug: "relay-identity" });
  await assert.rejects(thief.http.call("POST", "/v1/turn/credentials", { token, json: {} }), { slug: "token-audience", status: 401 });
});
