/**
 * An independent witness: tcpdump on loopback, its file read back here, bytes sorted by the first bytes of each datagram as the
 * money rules say (what a session pays for is visible on the wire). Knows nothing of the relay's own counters.
 *
 * On loopback a GSO send shows as one datagram that holds several of equal size (the last may be shorter); they are of one kind,
 * so its length stands for their sum. ChannelData is walked message by message.
 */

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";

/** Enough for one GSO send whole, so that each ChannelData header in it is seen. */
const SNAPLEN = 65_535;

export class Capture {
  /** @param {{udp: number[], tcp: number[]}} ports whatever goes to or from these */
  static async start({ udp, tcp }) {
    const capture = new Capture();
    capture.folder = await mkdtemp(join(tmpdir(), "milliway-capture-"));
    capture.file = join(capture.folder, "lo.pcap");
    const filter = [...udp.map((port) => `udp port ${port}`), ...tcp.map((port) => `tcp port ${port}`)].join(" or ");
    const words = ["-i", "lo", "-n", "-U", "-B", "65536", "-s", String(SNAPLEN), "-Z", "root", "-w", capture.file, filter];
    capture.child = spawn("tcpdump", words, { stdio: ["ignore", "ignore", "pipe"] });
    capture.exited = new Promise((resolve) => capture.child.once("exit", resolve));
    await new Promise((resolve, reject) => {
      let said = "";
      const timer = setTimeout(() => reject(new Error(`tcpdump does not start: ${said}`)), 10_000);
      capture.child.once("error", reject);
      capture.exited.then((code) => reject(new Error(`tcpdump ended with ${code}: ${said}`)));
      capture.child.stderr.on("data", (text) => {
        said += text;
        capture.said = said;
        if (/listening on/.test(said)) (clearTimeout(timer), resolve());
      });
    });
    return capture;
  }

  /** Ends the capture. @returns {Promise<Packet[]>} all packets in order of time; none was missed */
  async stop() {
    await new Promise((resolve) => setTimeout(resolve, 1_200)); // what the kernel still holds
    this.child.kill("SIGINT");
    await this.exited;
    assert.match(this.said, /\b0 packets dropped by kernel/, "the capture missed packets, so it proves nothing");
    const packets = readPcap(await readFile(this.file));
    await rm(this.folder, { recursive: true });
    return packets;
  }
}

/** @typedef {{time: number, protocol: "udp" | "tcp", source: number, destination: number, payload: Buffer, length: number}} Packet `time` in seconds, ports, `length` of the payload on the wire */

/** @param {Buffer} file classic pcap, Ethernet @returns {Packet[]} */
export function readPcap(file) {
  const magic = file.readUInt32LE(0);
  assert.ok(magic === 0xa1b2c3d4 || magic === 0xa1b23c4d, "not a little-endian pcap file");
  assert.equal(file.readUInt32LE(20), 1, "loopback is captured as Ethernet");
  const fraction = magic === 0xa1b2c3d4 ? 1e-6 : 1e-9;
  const packets = [];
  for (let at = 24; at + 16 <= file.length; ) {
    const time = file.readUInt32LE(at) + file.readUInt32LE(at + 4) * fraction;
    const captured = file.readUInt32LE(at + 8);
    const packet = readFrame(file.subarray(at + 16, at + 16 + captured));
    if (packet) packets.push({ time, ...packet });
    at += 16 + captured;
  }
  return packets.sort((a, b) => a.time - b.time);
}

function readFrame(frame) {
  const type = frame.readUInt16BE(12);
  let protocol, start, end;
  if (type === 0x0800) {
    protocol = frame[23];
    start = 14 + (frame[14] & 15) * 4;
    // A send of more than 64 KiB has no room for its length in the header.
    end = 14 + (frame.readUInt16BE(16) || frame.length - 14);
  } else if (type === 0x86dd) {
    [protocol, start] = [frame[20], 54];
    end = 54 + (frame.readUInt16BE(18) || frame.length - 54);
  } else return undefined;
  const [source, destination] = [frame.readUInt16BE(start), frame.readUInt16BE(start + 2)];
  if (protocol === 17) return { protocol: "udp", source, destination, payload: frame.subarray(start + 8, end), length: end - start - 8 };
  if (protocol !== 6) return undefined;
  const header = (frame[start + 12] >> 4) * 4;
  return { protocol: "tcp", source, destination, payload: frame.subarray(start + header, end), length: end - start - header };
}

/** What a receiving session of the SFU pays for: RTP, and DTLS application data. @param {Buffer} payload */
export function isBillable(payload) {
  const [first, second] = payload;
  if (first >= 128 && first <= 191) return !(second >= 192 && second <= 223);
  return first === 23 || (first >= 32 && first <= 63);
}

/**
 * The SFU's bill as the wire shows it.
 * @param {Packet[]} packets @param {number} sfu its port @param {number[]} ports of the client
 * @returns {{bytesOut: number, first: number, last: number}} times in seconds
 */
export function sfuUsage(packets, sfu, ports) {
  const paid = packets.filter((packet) =>
    packet.protocol === "udp" && packet.source === sfu && ports.includes(packet.destination) && isBillable(packet.payload));
  return { bytesOut: paid.reduce((sum, packet) => sum + packet.length, 0), first: paid[0]?.time, last: paid.at(-1)?.time };
}

/**
 * TURN's bill as the wire shows it: application bytes each way, and each allocation's life. `sfuBytesOut`: what of them the SFU
 * bills as well, where it is the only peer; it hands them over within the relay, so that no port of its own carries them.
 * @param {Packet[]} packets @param {number} turn its port
 * @returns {{bytesOut: number, bytesIn: number, sfuBytesOut: number, allocations: Array<{port: number, seconds: number}>}}
 */
export function turnUsage(packets, turn) {
  const usage = { bytesOut: 0, bytesIn: 0, sfuBytesOut: 0, allocations: [] };
  const open = new Map();
  for (const { protocol, source, destination, payload, time } of packets) {
    if (protocol !== "udp" || (source !== turn && destination !== turn)) continue;
    const toClient = source === turn;
    for (const data of applicationData(payload)) {
      if (!toClient) usage.bytesIn += data.length;
      else usage.bytesOut += data.length;
      if (toClient && isBillable(data)) usage.sfuBytesOut += data.length;
    }
    const type = payload.readUInt16BE(0);
    if (toClient && type === ALLOCATED && !open.has(destination)) open.set(destination, time);
    if (!toClient && type === REFRESH && open.has(source) && lifetime(payload) === 0) {
      usage.allocations.push({ port: source, seconds: time - open.get(source) });
      open.delete(source);
    }
  }
  return usage;
}

const [SEND, DATA, ALLOCATED, REFRESH] = [0x0016, 0x0017, 0x0103, 0x0004];
const [ATTRIBUTE_DATA, ATTRIBUTE_LIFETIME] = [0x0013, 0x000d];

/** What a message or datagram carries for, or from, a peer. */
function* applicationData(payload) {
  const type = payload.readUInt16BE(0);
  if (type === SEND || type === DATA) {
    const data = attribute(payload, ATTRIBUTE_DATA);
    if (data) yield data;
    return;
  }
  for (let at = 0; at + 4 <= payload.length && payload[at] >= 0x40 && payload[at] <= 0x4f; ) {
    const length = payload.readUInt16BE(at + 2);
    if (at + 4 + length > payload.length) return;
    yield payload.subarray(at + 4, at + 4 + length);
    at += 4 + length;
    // A client may pad to four bytes over UDP as well (RFC 8656 section 12.5).
    while (at % 4 && at < payload.length && payload[at] === 0) at++;
  }
}

function lifetime(payload) {
  return attribute(payload, ATTRIBUTE_LIFETIME)?.readUInt32BE(0);
}

function attribute(payload, wanted) {
  for (let at = 20; at + 4 <= payload.length; ) {
    const [type, length] = [payload.readUInt16BE(at), payload.readUInt16BE(at + 2)];
    if (type === wanted) return payload.subarray(at + 4, at + 4 + length);
    at += 4 + length + ((4 - (length % 4)) % 4);
  }
  return undefined;
}

/**
 * When a page said goodbye: its last long text frame on the DSIP connection (a masked WebSocket frame of 126 bytes or more).
 * @param {Packet[]} packets @param {number} http port of the front door @param {number} before seconds
 */
export function goodbye(packets, http, before) {
  const frames = packets.filter(({ protocol, destination, payload, time }) =>
    protocol === "tcp" && destination === http && payload[0] === 0x81 && payload[1] === 0xfe && time < before);
  return frames.at(-1)?.time;
}
