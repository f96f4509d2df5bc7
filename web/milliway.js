/**
 * Milliway's browser client: plain ES modules, no build step, no dependency.
 *
 *     import { Call, Identity, Relay } from "https://relay.example/static/milliway.js";
 *
 *     const identity = await Identity.load();                    // a did:key, kept by this browser
 *     const relay = await Relay.open("https://relay.example", identity);
 *     const stream = await navigator.mediaDevices.getUserMedia({ audio: true, video: true });
 *     const call = new Call(relay, { room: "garden", name: "Ada", token, stream });
 *     call.addEventListener("participants", ({ detail }) => show(detail));   // [{name, audio, video, stream}]
 *     call.addEventListener("balance", ({ detail }) => price(detail));
 *     await call.start();                                        // throws a MilliwayError with slug and sentence
 *
 * Each module is usable alone, in a browser or in Node 18 and later, as far as it needs no camera.
 */

export { Call } from "./lib/call.js";
export { fittingCredentials } from "./lib/credentials.js";
export { MilliwayError } from "./lib/errors.js";
export { Identity } from "./lib/identity.js";
export { formatMsat, formatRunway, formatSat, STEPS } from "./lib/money.js";
export { auditReceipt, checkReceipt, counted, openReceipt, rate } from "./lib/receipt.js";
export { Relay } from "./lib/relay.js";
export { readToken } from "./lib/token.js";
