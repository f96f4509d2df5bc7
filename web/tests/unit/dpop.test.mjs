import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { test } from "node:test";
import "../webcrypto.mjs";
import { decode, decodeJson, utf8 } from "../../lib/base64url.js";
import { verificationKey, verifySignature } from "../../lib/did.js";
import { dpopProof, SignedHttp } from "../../lib/dpop.js";
import { Identity } from "../../lib/identity.js";

const sha256 = (text) => createHash("sha256").update(text).digest("base64url");
const identity = await Identity.generate();

function parts(proof) {
  const [header, claims] = proof.split(".");
  return { header: decodeJson(header), claims: decodeJson(claims) };
}

test("a proof carries method, URL without query, token hash, nonce and body hash, and its signature holds", async () => {
  const body = utf8('{"token":"x"}');
  const proof = await dpopProof(identity, {
    method: "POST", url: "https://relay.example/v1/topup?x=1#y", token: "a.b.c", nonce: "n1", body, now: 1_800_000_000.9,
  });
  const { header, claims } = parts(proof);
  assert.deepEqual(header, { typ: "dpop+jwt", alg: "EdDSA", jwk: identity.jwk });
  assert.deepEqual(Object.keys(header.jwk), ["kty", "crv", "x"]);
  const { jti, ...rest } = claims;
  assert.deepEqual(rest, {
    htm: "POST", htu: "https://relay.example/v1/topup", iat: 1_800_000_000, ath: sha256("a.b.c"), nonce: "n1", bdh: sha256(body),
  });
  assert.ok(jti.length >= 16);
  const [protectedPart, payload, signature] = proof.split(".");
  const key = await verificationKey(identity.kid, identity.did);
  assert.ok(await verifySignature(key, decode(signature), utf8(`${protectedPart}.${payload}`)));
});

test("the nonce of a 401 is used once more, then kept; the proof names the public URL, not the address called", async () => {
  const seen = [];
  const send = async (url, { headers }) => {
    const { claims } = parts(headers.DPoP);
    seen.push({ url, htu: claims.htu, nonce: claims.nonce, jti: claims.jti, authorization: headers.Authorization });
    if (claims.nonce) return Response.json({ ok: true });
    return Response.json({ type: "/problems/use_dpop_nonce" }, { status: 401, headers: { "DPoP-Nonce": "fresh" } });
  };
  const http = new SignedHttp(identity, "http://localhost:8080", "http://127.0.0.1:8080/", send);
  await http.call("POST", "/v1/topup", { token: "t", json: {} });
  await http.call("GET", "/v1/account");
  assert.deepEqual(seen.map(({ nonce }) => nonce), [undefined, "fresh", "fresh"]);
  assert.deepEqual(seen.map(({ url }) => url.startsWith("http://localhost:8080/v1/")), [true, true, true]);
  assert.equal(seen[0].htu, "http://127.0.0.1:8080/v1/topup");
  assert.deepEqual(seen.map(({ authorization }) => authorization), ["DPoP t", "DPoP t", undefined]);
  assert.equal(new Set(seen.map(({ jti }) => jti)).size, 3);
});

test("a relay that keeps asking for another nonce is not asked for ever", async () => {
  let calls = 0;
  const send = async () => {
    calls++;
    return Response.json({ type: "/p/use_dpop_nonce", detail: "Use the nonce." }, { status: 401, headers: { "DPoP-Nonce": `n${calls}` } });
  };
  const http = new SignedHttp(identity, "http://r", "http://r", send);
  await assert.rejects(http.call("GET", "/v1/account"), { slug: "use_dpop_nonce", status: 401, message: "Use the nonce." });
  assert.equal(calls, 2);
});

test("a problem keeps the relay's slug, sentence and where to top up; silence is relay-gone", async () => {
  const problem = { type: "https://m.example/problems/balance-exhausted", title: "Payment Required", detail: "Top up.", topup: "/v1/topup" };
  const refuse = async () => Response.json(problem, { status: 402 });
  const http = new SignedHttp(identity, "http://r", "http://r", refuse);
  await assert.rejects(http.call("GET", "/v1/account"), { slug: "balance-exhausted", status: 402, message: "Top up.", topup: "/v1/topup" });
  const gone = new SignedHttp(identity, "http://r", "http://r", async () => { throw new TypeError("fetch failed"); });
  await assert.rejects(gone.call("GET", "/v1/account"), { slug: "relay-gone", transient: true });
});
