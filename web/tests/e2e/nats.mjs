/**
 * A small internet in network namespaces of the test's own: a public network where the relay is, and homes behind symmetric NATs
 * (nftables: a random port for each destination, nothing inwards that was not asked for). Names carry the process's id, and
 * everything goes with it.
 *
 *     home 10.N.0.2 -- 10.N.0.1 nat 198.18.0.1N -- bridge 198.18.0.1, 198.18.0.2 (the public network)
 */

import { execFile, execFileSync } from "node:child_process";
import { chmod, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";

const run = promisify(execFile);
/** From the block for benchmarks (RFC 2544), which is nobody's. */
export const PUBLIC = ["198.18.0.1", "198.18.0.2"];

const ENDS = ["exit", "SIGINT", "SIGTERM"];

const NAT = `
table ip nat {
  chain outwards { type nat hook postrouting priority srcnat; oifname "wan" masquerade fully-random; }
}
table ip filter {
  chain through { type filter hook forward priority filter; iifname "wan" ct state != { established, related } drop; }
  chain inwards { type filter hook input priority filter; iifname "wan" ct state != { established, related } drop; }
}`;

export class Internet {
  /** @param {number} homes how many, 9 at most @returns {Promise<Internet>} */
  static async with(homes) {
    const one = new Internet();
    one.folder = await mkdtemp(join(tmpdir(), "milliway-nats-"));
    one.spaces = [];
    one.public = `mw-${process.pid}-public`;
    // A test that is interrupted must leave nothing either.
    one.clean = (signal) => {
      one.#delete();
      if (typeof signal === "string") process.exit(1);
    };
    for (const end of ENDS) process.once(end, one.clean);
    try {
      await one.#space(one.public);
      await one.in(one.public, "ip", "link", "add", "internet", "type", "bridge");
      for (const ip of PUBLIC) await one.in(one.public, "ip", "addr", "add", `${ip}/24`, "dev", "internet");
      await one.in(one.public, "ip", "link", "set", "internet", "up");
      one.homes = [];
      for (let n = 1; n <= homes; n += 1) one.homes.push(await one.#home(n));
      return one;
    } catch (error) {
      await one.leave();
      throw error;
    }
  }

  /** Runs a program in a namespace. @returns {Promise<string>} what it says */
  async in(space, ...words) {
    const { stdout, stderr } = await run("ip", ["netns", "exec", space, ...words]);
    return stdout + stderr;
  }

  /** A program that starts Chromium in a home. @returns {Promise<string>} its path */
  async chromium(home) {
    const path = join(this.folder, `chromium-${home.space}`);
    await writeFile(path, `#!/bin/sh\nexec ip netns exec ${home.space} "\${CHROMIUM:-/usr/bin/chromium}" "$@"\n`);
    await chmod(path, 0o755);
    return path;
  }

  async leave() {
    for (const end of ENDS) process.removeListener(end, this.clean);
    this.#delete();
    await rm(this.folder, { recursive: true, force: true });
  }

  #delete() {
    for (const space of this.spaces.splice(0)) {
      try {
        execFileSync("ip", ["netns", "delete", space], { stdio: "ignore" });
      } catch {
        // It is gone already.
      }
    }
  }

  async #space(name) {
    await run("ip", ["netns", "add", name]);
    this.spaces.push(name);
    await this.in(name, "ip", "link", "set", "lo", "up");
  }

  async #home(n) {
    const [nat, space] = [`mw-${process.pid}-nat${n}`, `mw-${process.pid}-home${n}`];
    await this.#space(nat);
    await this.#space(space);
    await this.in(nat, "ip", "link", "add", "wan", "type", "veth", "peer", "name", `nat${n}`, "netns", this.public);
    await this.in(nat, "ip", "link", "add", "lan", "type", "veth", "peer", "name", "eth0", "netns", space);
    await this.in(this.public, "ip", "link", "set", `nat${n}`, "master", "internet", "up");
    const outside = `198.18.0.1${n}`;
    for (const [at, name, address] of [[nat, "wan", outside], [nat, "lan", `10.${n}.0.1`], [space, "eth0", `10.${n}.0.2`]]) {
      await this.in(at, "ip", "addr", "add", `${address}/24`, "dev", name);
      await this.in(at, "ip", "link", "set", name, "up");
    }
    await this.in(space, "ip", "route", "add", "default", "via", `10.${n}.0.1`);
    await this.in(nat, "sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward");
    const rules = join(this.folder, "nat.nft");
    await writeFile(rules, NAT);
    await this.in(nat, "nft", "-f", rules);
    return { space, inside: `10.${n}.0.2`, outside };
  }
}
