/**
 * A certificate authority that only one browser of one test trusts: made with openssl, put into the certificate database of a
 * home folder of its own, which Chromium is started with. The machine's own trust is not touched.
 */

import { execFile } from "node:child_process";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";

const run = promisify(execFile);
const KEY = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"];

export class Authority {
  /** @param {string} ip the address that its one server is called by @returns {Promise<Authority>} */
  static async forServer(ip) {
    const one = new Authority();
    one.home = await mkdtemp(join(tmpdir(), "milliway-home-"));
    const file = (name) => join(one.home, name);
    await run("openssl", ["req", "-x509", ...KEY, "-subj", "/CN=Milliway test authority", "-keyout", file("ca.key"), "-out", file("ca.pem"),
      "-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign"]);
    await run("openssl", ["req", ...KEY.slice(0, -2), "-subj", `/CN=${ip}`, "-keyout", file("server.key"), "-out", file("server.csr")]);
    await writeFile(file("extensions"), `subjectAltName=IP:${ip}\nextendedKeyUsage=serverAuth\nbasicConstraints=CA:FALSE\n`);
    await run("openssl", ["x509", "-req", "-in", file("server.csr"), "-CA", file("ca.pem"), "-CAkey", file("ca.key"), "-CAcreateserial",
      "-days", "2", "-extfile", file("extensions"), "-out", file("server.pem")]);
    const database = file(".pki/nssdb");
    await mkdir(database, { recursive: true });
    await run("certutil", ["-d", `sql:${database}`, "-N", "--empty-password"]);
    await run("certutil", ["-d", `sql:${database}`, "-A", "-n", "authority", "-t", "C,,", "-i", file("ca.pem")]);
    [one.certificate, one.key] = [file("server.pem"), file("server.key")];
    return one;
  }

  leave() {
    return rm(this.home, { recursive: true, force: true });
  }
}
