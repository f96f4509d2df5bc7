/**
 * A relay for a test: the real program, on free ports, with a data folder of its own. Leaving it stops it politely and has
 * `milliway ledger verify` prove that its books balance, so every end-to-end test ends with that proof.
 */

import assert from "node:assert/strict";
import { execFile, spawn } from "node:child_process";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";

const run = promisify(execFile);
export const PROGRAM = process.env.MILLIWAY_BIN ?? new URL("../../../target/release/milliway", import.meta.url).pathname;
const READY_MS = 15_000;
const STOP_MS = 20_000;

export class TestRelay {
  /**
   * @param {Record<string, Record<string, unknown>>} [settings] sections and keys of the configuration
   * @param {{space?: string, ip?: string}} [where] a network namespace, and the relay's address there
   * @returns {Promise<TestRelay>} ready
   */
  static async start(settings = {}, { space, ip = "127.0.0.1" } = {}) {
    const relay = new TestRelay();
    [relay.space, relay.ip] = [space, ip];
    relay.folder = await mkdtemp(join(tmpdir(), "milliway-e2e-"));
    relay.data = join(relay.folder, "data");
    relay.config = join(relay.folder, "milliway.toml");
    const sections = { ...settings, relay: { drain_seconds: 1, ...settings.relay } };
    const toml = Object.entries(sections).map(([section, keys]) =>
      `[${section}]\n${Object.entries(keys).map(([key, value]) => `${key} = ${JSON.stringify(value)}\n`).join("")}`);
    await writeFile(relay.config, toml.join("\n"));
    await relay.#spawn(`${ip}:0`, `${ip}:0`, `${ip}:0`);
    return relay;
  }

  log = "";

  async #spawn(http, sfu, turn) {
    const words = [PROGRAM, "dev", "--http", http, "--sfu", sfu, "--turn", turn, "--quic", `${this.ip}:0`, "--data", this.data, "--config", this.config];
    const [program, ...rest] = this.space ? ["ip", "netns", "exec", this.space, ...words] : words;
    const child = spawn(program, rest, {
      stdio: ["ignore", "pipe", "pipe"],
    });
    this.child = child;
    this.exited = new Promise((resolve) => child.once("exit", (code, signal) => resolve({ code, signal })));
    child.stderr.on("data", (text) => (this.log = (this.log + text).slice(-200_000)));
    this.ready = JSON.parse(await firstLine(child, () => this.log));
    this.url = this.ready.http;
  }

  /** UDP port of the calls, of TURN, and TCP port of the front door. */
  get ports() {
    const port = (address) => Number(String(address).split(":").pop());
    return { sfu: port(this.ready.sfu), turn: port(this.ready.turn), http: Number(new URL(this.url).port) };
  }

  /** kill -9, then the same relay again: same folder, same ports. */
  async killAndRestart() {
    this.child.kill("SIGKILL");
    await this.exited;
    const { sfu, turn, http } = this.ports;
    await this.#spawn(`${this.ip}:${http}`, `${this.ip}:${sfu}`, `${this.ip}:${turn}`);
  }

  /** @param {string[]} words @returns {Promise<string>} what the program says */
  async command(...words) {
    return (await run(PROGRAM, words)).stdout;
  }

  /** A token of the relay's own issuer. @param {Record<string, string>} flags */
  async issue(flags) {
    const words = Object.entries({ "issuer-key": this.ready.issuer_key, aud: this.ready.did, ...flags }).flatMap(([name, value]) => [`--${name}`, String(value)]);
    return (await this.command("token", "issue", ...words)).trim().split("\n").pop();
  }

  /** The issuer's private key, for tokens that no honest issuer would make. @returns {Promise<any>} JWK */
  async issuerKey() {
    return JSON.parse(await readFile(this.ready.issuer_key, "utf8"));
  }

  /** Stops the relay, and checks that it stopped well, did not panic, and that its books balance. */
  async leave() {
    if (!this.child) return;
    this.child.kill("SIGTERM");
    const late = new Promise((resolve) => setTimeout(resolve, STOP_MS, { code: "still running" }).unref());
    const { code, signal } = await Promise.race([this.exited, late]);
    if (code === "still running") this.child.kill("SIGKILL");
    assert.deepEqual({ code, signal }, { code: 0, signal: null }, `the relay did not stop well:\n${this.log.slice(-4000)}`);
    assert.doesNotMatch(this.log, /panicked/, `the relay panicked:\n${this.log.slice(-4000)}`);
    await this.verify();
    await rm(this.folder, { recursive: true });
  }

  /** Has the program prove the books of the stopped relay, and does the sum again. */
  async verify() {
    const proof = await this.command("ledger", "verify", "--data", this.data);
    assert.match(proof, /issued = available \+ reserved \+ earned \+ refunded/);
    assert.match(proof, /memo accounts/);
    const [issued, ...parts] = /^(\d+) = (\d+) \+ (\d+) \+ (\d+) \+ (\d+)/m.exec(proof).slice(1).map(BigInt);
    assert.equal(issued, parts.reduce((sum, part) => sum + part));
    assert.ok(issued > 0n, "money was in play");
  }
}

function firstLine(child, log) {
  return new Promise((resolve, reject) => {
    let text = "";
    const fail = (why) => reject(new Error(`the relay is not ready: ${why}\n${log().slice(-4000)}`));
    const timer = setTimeout(() => (child.kill("SIGKILL"), fail("no ready line in time")), READY_MS);
    child.once("error", (error) => (clearTimeout(timer), fail(`${error.message}. Build it: cargo build --release -p milliway`)));
    child.once("exit", (code) => (clearTimeout(timer), fail(`exit ${code}`)));
    child.stdout.on("data", (chunk) => {
      text += chunk;
      const end = text.indexOf("\n");
      if (end >= 0) (clearTimeout(timer), resolve(text.slice(0, end)));
    });
  });
}
