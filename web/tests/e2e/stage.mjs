/**
 * A stage for the page alone: the static files over HTTP with the relay's content security policy, and a relay that is only a
 * script in the page, told by the test what to do. For what a real relay shows too rarely or too late to wait for.
 */

import { createServer } from "node:http";
import { readFile } from "node:fs/promises";
import { extname } from "node:path";

export const POLICY =
  "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; media-src 'self' blob:; " +
  "base-uri 'none'; form-action 'self'; frame-ancestors 'none'";
const WEB = new URL("../../", import.meta.url);
const TYPES = { ".html": "text/html; charset=utf-8", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml" };

const PRETEND = `
export * from "/static/real.js";
import { MilliwayError } from "/static/real.js";
const play = (window.play = window.play ?? {});
export class Relay {
  static async open(url, identity) {
    if (play.refuseOpen) throw new MilliwayError(play.refuseOpen);
    return Object.assign(new Relay(), { did: "did:key:zRelay", identity });
  }
  async account() { return { available_msat: play.available ?? 0 }; }
  async faucet() { return "e30.e30.e30"; }
  async topup() { return { credited_msat: 100000, available_msat: 100000 }; }
  check() {}
}
export class Call extends EventTarget {
  constructor(relay, options) {
    super();
    Object.assign(this, { relay, options, name: options.name, relayOnly: options.relayOnly, muted: { audio: false, video: false } });
    this.participants = [];
    play.call = this;
  }
  say(type, detail) { this.dispatchEvent(new CustomEvent(type, { detail })); }
  enter(state, error) { this.state = state; this.say("state", { state, error }); }
  async start() {
    if (play.refuse) throw new MilliwayError(play.refuse[0], play.refuse[1]);
    this.enter("connected");
  }
  async mute(kind, muted) { this.muted[kind] = muted; }
  async replaceTrack() {}
  async setRelayOnly(on) { this.relayOnly = on; }
  async topup() { return { credited_msat: 100000, available_msat: 100000 }; }
  async leave() { this.enter("ended"); this.say("ended", {}); }
  people(...people) { this.participants = people; this.say("participants", people); }
  money(balance) { this.balance = balance; this.say("balance", { ...balance, stepChanged: true }); }
}
play.person = (name, color, audio = true, video = true) => {
  const canvas = Object.assign(document.createElement("canvas"), { width: 640, height: 360 });
  const draw = canvas.getContext("2d");
  setInterval(() => {
    draw.fillStyle = color;
    draw.fillRect(0, 0, 640, 360);
    draw.fillStyle = "rgb(255 255 255 / .35)";
    draw.beginPath();
    draw.arc(320 + 90 * Math.sin(Date.now() / 900), 200, 80, 0, 7);
    draw.fill();
  }, 60);
  return { name, audio, video, stream: canvas.captureStream(15) };
};
`;

/** @returns {Promise<{url: string, close: () => void}>} */
export async function openStage() {
  const server = createServer(async (request, response) => {
    const { pathname } = new URL(request.url, "http://stage");
    const headers = { "Content-Security-Policy": POLICY, "Cache-Control": "no-store", "X-Stage": "1" };
    const send = (type, body) => response.writeHead(200, { ...headers, "Content-Type": type }).end(body);
    try {
      if (pathname === "/static/milliway.js") return send("text/javascript", PRETEND);
      if (pathname === "/v1/tariff") return send("application/json", JSON.stringify({ tariffs: TARIFFS }));
      const file = pathname === "/" ? "index.html" : pathname.startsWith("/room/") ? "room.html"
        : pathname === "/static/real.js" ? "milliway.js" : pathname.replace("/static/", "");
      send(TYPES[extname(file)] ?? "text/plain", await readFile(new URL(file, WEB)));
    } catch {
      response.writeHead(404, headers).end();
    }
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  return { url: `http://127.0.0.1:${server.address().port}`, close: () => server.close() };
}

const TARIFFS = [
  { id: "sfu-1", service: "sfu", msat_per_megabyte_out: 50, msat_per_megabyte_in: 0, msat_per_second: 8, valid_until: 2e9 },
  { id: "turn-1", service: "turn", msat_per_megabyte_out: 50, msat_per_megabyte_in: 50, msat_per_second: 2, valid_until: 2e9 },
];
