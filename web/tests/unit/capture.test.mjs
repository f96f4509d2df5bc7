/** The witness of the end-to-end tests is itself checked: a capture made by hand, byte by byte. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { goodbye, isBillable, readPcap, sfuUsage, turnUsage } from "../e2e/capture.mjs";

const u16 = (value) => [value >> 8, value & 255];

function udp(source, destination, payload) {
  return { protocol: 17, body: [...u16(source), ...u16(destination), ...u16(payload.length + 8), 0, 0, ...payload] };
}

function tcp(source, destination, payload) {
  return { protocol: 6, body: [...u16(source), ...u16(destination), 0, 0, 0, 0, 0, 0, 0, 0, 0x80, 0x18, 0, 0, 0, 0, 0, 0, ...Array(12).fill(1), ...payload] };
}

/** @param {Array<[number, {protocol: number, body: number[]}, (4 | 6)?]>} packets time in seconds, packet, IP version */
function pcap(packets) {
  const file = Buffer.alloc(24);
  file.writeUInt32LE(0xa1b2c3d4, 0);
  file.writeUInt32LE(1, 20);
  const frames = packets.map(([time, { protocol, body }, version = 4]) => {
    const ip = version === 4
      ? [0x45, 0, ...u16(20 + body.length), 0, 0, 0, 0, 64, protocol, 0, 0, 127, 0, 0, 1, 127, 0, 0, 1]
      : [0x60, 0, 0, 0, ...u16(body.length), protocol, 64, ...Array(32).fill(0)];
    const frame = Buffer.from([...Array(12).fill(0), ...u16(version === 4 ? 0x0800 : 0x86dd), ...ip, ...body]);
    const head = Buffer.alloc(16);
    head.writeUInt32LE(Math.floor(time), 0);
    head.writeUInt32LE(Math.round((time % 1) * 1e6), 4);
    head.writeUInt32LE(frame.length, 8);
    head.writeUInt32LE(frame.length, 12);
    return Buffer.concat([head, frame]);
  });
  return readPcap(Buffer.concat([file, ...frames]));
}

test("what a session pays for is told by the first two bytes", () => {
  const paid = [[0x80, 111], [0xbf, 0], [0x80, 191], [0x80, 224], [23, 254], [32, 0], [63, 0]];
  const free = [[0x80, 192], [0x80, 223], [0x81, 200], [0, 1], [1, 1], [20, 254], [22, 254], [64, 0], [0x40, 0], [127, 0], [192, 0]];
  for (const bytes of paid) assert.ok(isBillable(Buffer.from(bytes)), String(bytes));
  for (const bytes of free) assert.ok(!isBillable(Buffer.from(bytes)), String(bytes));
});

test("the SFU's usage counts RTP to the client's ports only, a batch whole, over IPv4 and IPv6", () => {
  const rtp = (size) => [0x80, 111, ...Array(size - 2).fill(7)];
  const packets = pcap([
    [10.25, udp(5004, 40000, rtp(100))],
    [10.5, udp(5004, 40000, rtp(3600))],
    [10.6, udp(5004, 40000, [0x80, 200, 0, 0])],
    [10.7, udp(5004, 40001, rtp(50))],
    [10.8, udp(40000, 5004, rtp(77))],
    [11, udp(5004, 40000, rtp(30)), 6],
  ]);
  const { bytesOut, first, last } = sfuUsage(packets, 5004, [40000]);
  assert.equal(bytesOut, 3730);
  assert.ok(Math.abs(first - 10.25) < 1e-5 && last === 11);
});

test("TURN's usage counts what is inside ChannelData and indications, and times allocations", () => {
  const stun = (type, ...attributes) => [...u16(type), ...u16(attributes.flat().length), ...Array(16).fill(0x21), ...attributes.flat()];
  const attribute = (type, value) => [...u16(type), ...u16(value.length), ...value, ...Array((4 - (value.length % 4)) % 4).fill(0)];
  const channel = (size) => [0x40, 0x01, ...u16(size), ...Array(size).fill(9)];
  const packets = pcap([
    [1, udp(50000, 3478, stun(0x0003))],
    [1.5, udp(3478, 50000, stun(0x0103))],
    [2, udp(50000, 3478, stun(0x0016, attribute(0x0012, Array(8).fill(0)), attribute(0x0013, Array(21).fill(3))))],
    [2.1, udp(3478, 50000, stun(0x0017, attribute(0x0012, Array(8).fill(0)), attribute(0x0013, Array(10).fill(3))))],
    [2.2, udp(50000, 3478, channel(500))],
    [2.3, udp(3478, 50000, [...channel(300), ...channel(300), ...channel(40)])],
    [2.4, udp(50000, 3478, [...channel(5), 0, 0, 0])],
    [3, udp(50000, 3478, stun(0x0004, attribute(0x000d, [0, 0, 2, 88])))],
    [4.5, udp(50000, 3478, stun(0x0004, attribute(0x000d, [0, 0, 0, 0])))],
  ]);
  const usage = turnUsage(packets, 3478);
  assert.deepEqual([usage.bytesOut, usage.bytesIn], [650, 526]);
  assert.equal(usage.allocations.length, 1);
  assert.ok(Math.abs(usage.allocations[0].seconds - 3) < 1e-5);
});

test("a goodbye is the last long masked text frame before the moment", () => {
  const frame = [0x81, 0xfe, 0, 200, ...Array(204).fill(1)];
  const packets = pcap([
    [1, tcp(33000, 8080, frame)], [2, tcp(33000, 8080, frame)], [2.5, tcp(33000, 8080, [0x88, 0x82, 1, 2])],
    [2.6, tcp(33001, 8080, [...Buffer.from("GET / HTTP/1.1")])], [3, tcp(8080, 33000, frame)], [9, tcp(33000, 8080, frame)],
  ]);
  assert.equal(goodbye(packets, 8080, 5), 2);
});
