/** `milliway serve`: a call on a relay of a did:web operator, over its own HTTPS, with tokens of an issuer that the operator names. */

import assert from "node:assert/strict";
import { execFile, spawn } from "node:child_process";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { promisify } from "node:util";
import { launch, person, until } from "./browser.mjs";
import { PROGRAM } from "./relay.mjs";
import { account, didOf, enter, leave, receipt, seesAndHears } from "./room.mjs";

const run = promisify(execFile);
const HOST = "relay.example";
const folder = await mkdtemp(join(tmpdir(), "milliway-serve-"));
const path = (name) => join(folder, name);

async function freePort() {
  const server = createServer();
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address();
  await new Promise((resolve) => server.close(resolve));
  return port;
}

/** An authority, and a certificate of it for the relay's name. */
async function certify() {
  const openssl = (...words) => run("openssl", words, { cwd: folder });
  const key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
  await openssl("req", "-x509", ...key, "-keyout", "ca.key", "-out", "ca.pem", "-days", "2", "-subj", "/CN=an authority", "-addext", "keyUsage=critical,keyCertSign");
  await openssl("req", "-new", ...key, "-keyout", "key.pem", "-out", "leaf.csr", "-subj", `/CN=${HOST}`, "-addext", `subjectAltName=DNS:${HOST}`);
  await openssl("x509", "-req", "-in", "leaf.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2", "-copy_extensions", "copy", "-out", "chain.pem");
}

const port = await freePort();
const url = `https://${HOST}:${port}`;
const operator = `did:web:${HOST}%3A${port}`;
await certify();
const issuer = JSON.parse((await run(PROGRAM, ["did", "new", "--out", path("issuer.jwk")])).stdout);
const sections = {
  relay: { operator, node: "a", data: path("data"), drain_seconds: 1 },
  http: { listen: `127.0.0.1:${port}`, public_url: url, tls_certificate: path("chain.pem"), tls_key: path("key.pem") },
  sfu: { listen: "127.0.0.1:0" }, turn: { listen: "127.0.0.1:0" }, quic: { listen: "127.0.0.1:0" },
  auth: { issuers: [issuer.did] },
  did: { ca_file: path("ca.pem"), hosts: [`${HOST}=127.0.0.1`], allow_addresses: ["127.0.0.1/32"] },
};
await writeFile(path("relay.toml"), Object.entries(sections).map(([section, keys]) =>
  `[${section}]\n${Object.entries(keys).map(([key, value]) => `${key} = ${JSON.stringify(value)}\n`).join("")}`).join("\n"));
const relay = spawn(PROGRAM, ["serve", "--config", path("relay.toml")], { stdio: ["ignore", "pipe", "pipe"] });
let log = "";
relay.stderr.on("data", (text) => (log += text));
const exited = new Promise((resolve) => relay.once("exit", (code) => resolve(code)));
const ready = await Promise.race([
  new Promise((resolve) => relay.stdout.once("data", (line) => resolve(JSON.parse(line)))),
  exited.then((code) => assert.fail(`exit ${code}: ${log}`)),
]);
const browser = await launch(["--ignore-certificate-errors", `--host-resolver-rules=MAP ${HOST} 127.0.0.1`]);
after(async () => {
  await browser.close();
  relay.kill("SIGTERM");
  assert.equal(await exited, 0, log);
  assert.match((await run(PROGRAM, ["ledger", "verify", "--data", path("data")])).stdout, /issued = available/);
  await rm(folder, { recursive: true });
});

async function joined(name) {
  const page = await person(browser, { ignoreHTTPSErrors: true });
  await page.goto(url);
  const flags = { "issuer-key": path("issuer.jwk"), sub: await didOf(page), aud: operator, "balance-msat": 500_000 };
  const words = Object.entries(flags).flatMap(([flag, value]) => [`--${flag}`, String(value)]);
  const token = (await run(PROGRAM, ["token", "issue", ...words])).stdout.trim().split("\n").pop();
  await enter(page, { url }, "served", name, { token });
  return page;
}

test("two people call through a did:web operator's relay, and its DID signs the receipt", { timeout: 120_000 }, async () => {
  assert.deepEqual([ready.did, ready.kid], [operator, `${operator}#node-a`]);
  const [ada, grace] = [await joined("Ada"), await joined("Grace")];
  await Promise.all([seesAndHears(ada, "Grace"), seesAndHears(grace, "Ada")]);
  const [entry] = (await account(ada)).sessions;
  const session = typeof entry === "string" ? entry : entry.session ?? entry.id;
  const top = (await run(PROGRAM, ["top", "--once", "--json", "--data", path("data")])).stdout.trim().split("\n").map((line) => JSON.parse(line));
  assert.deepEqual(top.slice(1).map(({ room, name }) => `${room}/${name}`).sort(), ["served/Ada", "served/Grace"]);
  await leave(ada);
  const claims = await until(async () => {
    const found = await receipt(ada, session).catch(() => undefined);
    return found?.ended && found;
  }, "the receipt is final");
  assert.equal(claims.iss, operator);
  assert.ok(claims.bytes_out > 0 && claims.msat > 0);
  assert.match(log, /the operator's DID document lists this node/);
  assert.deepEqual([...ada.faults, ...grace.faults], []);
});
