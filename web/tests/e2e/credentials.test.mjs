/** Credentials that a live call presents when the relay asks, and receipts held against what the browser counted itself. */

import assert from "node:assert/strict";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import "../webcrypto.mjs";
import { encode, encodeJson, utf8 } from "../../lib/base64url.js";
import { Identity } from "../../lib/identity.js";
import { launch, pause, person, until } from "./browser.mjs";
import { TestRelay } from "./relay.mjs";

const MEDIA_MS = 6_000;
const scorer = await Identity.generate();
const folder = await mkdtemp(join(tmpdir(), "milliway-policy-"));
const policy = join(folder, "policy.toml");
await writeFile(policy, `[credentials."${scorer.did}"]\ntypes = ["ReputationScore"]\n[turn]\nreputation_min = 300\n`);
const [relay, browser] = await Promise.all([TestRelay.start({ policy: { file: policy } }), launch()]);
after(async () => {
  await browser.close();
  await relay.leave();
  await rm(folder, { recursive: true });
});

/** A ReputationScore (VC 2.0, JOSE) by the scorer. */
async function score(about, value) {
  const claims = {
    "@context": ["https://www.w3.org/ns/credentials/v2"], type: ["VerifiableCredential", "ReputationScore"],
    issuer: scorer.did, validUntil: "2035-01-01T00:00:00Z", credentialSubject: { id: about, score: value },
  };
  const input = `${encodeJson({ alg: "EdDSA", kid: scorer.kid, typ: "vc+jwt" })}.${encodeJson(claims)}`;
  return `${input}.${encode(await scorer.sign(utf8(input)))}`;
}

/** Opens a page and makes its identity; with `join` a call, whose wallet is `held`. */
async function caller(name) {
  const page = await person(browser);
  await page.goto(relay.url);
  const did = await page.evaluate(async () => {
    window.milliway = await import("/static/milliway.js");
    window.identity = await milliway.Identity.load();
    window.relay = await milliway.Relay.open(location.origin, identity);
    return identity.did;
  });
  const enter = (held) => page.evaluate(async ([name, held]) => {
    window.token = await relay.faucet(1_000_000);
    const stream = await navigator.mediaDevices.getUserMedia({ audio: true, video: true });
    window.call = new milliway.Call(relay, { room: "vouched", name, token, stream, credentials: () => held });
    await call.start();
  }, [name, held]);
  return { page, did, enter };
}

/** The slug of the refusal, or "open". */
const turn = (page) => page.evaluate(() => relay.turnCredentials(token).then(() => "open", (error) => error.slug));

test("a call presents what TURN asks for, and its receipt bills within 1 % what the browser counted", { timeout: 120_000 }, async () => {
  const [ada, grace] = [await caller("Ada"), await caller("Grace")];
  await ada.enter([]);
  await grace.enter([await score(ada.did, 900), await score(grace.did, 812)]);
  assert.equal(await turn(grace.page), "reputation-too-low");
  assert.equal(await ada.page.evaluate(() => call.want("turn")), false, "Ada holds nothing that would do");
  assert.equal(await grace.page.evaluate(() => call.want("turn")), true, "what is about Ada is no harm beside what is about Grace");
  assert.equal(await turn(grace.page), "open");
  assert.equal(await turn(ada.page), "reputation-too-low");

  await pause(MEDIA_MS);
  const audits = await until(async () => {
    const left = await grace.page.evaluate(async () => {
      await call.leave();
      return (await call.audit()).map(({ claims, jws, session, ...rest }) => ({ ...rest, ended: claims?.ended, jws, session, bytes: claims?.bytes_out }));
    });
    return left[0]?.ended && left;
  }, "the receipt is final");
  const [{ fault, warnings, jws, session, bytes }] = audits;
  assert.deepEqual({ fault, warnings }, { fault: undefined, warnings: [] });
  assert.ok(bytes > 100_000, `${bytes} bytes of video were billed`);

  // The same receipt to a page that counted less, and a doctored one.
  const verdicts = await grace.page.evaluate(async ([jws, session, bytes]) => {
    const known = { relay: relay.did, document: relay.document, session };
    const seen = (share) => ({ sfu: { bytes_out: bytes * share, bytes_in: 0, nanoseconds: 60e9 } });
    const [header, payload, signature] = jws.split(".");
    const more = payload.slice(0, -1) + (payload.endsWith("A") ? "B" : "A");
    const check = async (receipt, share) => {
      const { fault, warnings } = await milliway.checkReceipt(receipt, { ...known, seen: seen(share) });
      return fault ?? warnings.join();
    };
    return [await check(jws, 0.97), await check(jws, 1), await check([header, more, signature].join("."), 1)];
  }, [jws, session, bytes]);
  assert.deepEqual(verdicts.slice(0, 2), ["bytes-out", ""]);
  assert.ok(["signature", "malformed"].includes(verdicts[2]), verdicts[2]);
  assert.deepEqual([...ada.page.faults, ...grace.page.faults], []);
});
