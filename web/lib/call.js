/**
 * A call: one room, one peer connection for publishing and subscribing, one DSIP connection, and the money that runs.
 *
 *     const call = new Call(relay, { room: "garden", name: "Ada", token, stream });
 *     call.addEventListener("participants", ({ detail }) => ...);
 *     await call.start();
 *
 * Negotiation: the first offer is ours and holds a sendonly line for microphone and camera each (tracks come and go in them
 * without renegotiation) and a pool of receive lines. The relay says by `tracks` whom each line carries now, and offers
 * more lines when the pool is used up. Where both sides offer at once, ours is rolled back and made again (polite peer).
 *
 * Loss: when the relay or the path is gone, the whole call is set up anew with the same tracks, a bounded number of times.
 *
 * Events (all CustomEvent, what they carry in `detail`):
 * - "state" {state, error?}: idle, connecting, connected, reconnecting, ended
 * - "participants": the list of everyone else, each with name, audio, video and stream
 * - "balance" {available_msat, runway_seconds, step, burn_msat_per_second, stepChanged}
 * - "notice" {kind: "attempt", attempt, of} | {kind: "draining", seconds} | {kind: "error", error}
 * - "request": credentials that the relay asks for, where `credentials` of the options does not answer by itself
 * - "verify": what came of those that were presented {credentials, services}
 * - "receipt" {session, jws, claims, fault?, warnings, lost}: a receipt, checked; a fault or a warning is on the console too
 * - "ended" {error?, reason?}: for good; without an error the call was left from here
 */

import { fittingCredentials } from "./credentials.js";
import { MilliwayError } from "./errors.js";
import { trimOffer } from "./lines.js";
import { Signalling } from "./signalling.js";
import { counted } from "./receipt.js";
import { Roster } from "./roster.js";
import { readToken } from "./token.js";

/** Receive lines in the first offer. A call of five needs no renegotiation; more would make the offer long. */
const POOL = { audio: 4, video: 4 };
/** Pauses before each attempt to come back, in ms: about 40 s in all, longer than a relay takes to restart. */
const BACKOFF_MS = [300, 700, 1500, 3000, 5000, 8000, 8000, 8000];
/** ICE, DTLS and the first check fit well within this, or the path is closed. */
const MEDIA_TIMEOUT_MS = 12_000;
/** ICE reports "disconnected" for a lost packet or two as well; this long is more than that. */
const SILENCE_MAX_MS = 7_000;
/** After one of these goodbyes the call comes back by itself; any other is meant. */
const RETURNING = ["draining", "connection-lost", "slow-client", "internal"];
/** Goodbyes that mean: the relay is there, but media does not reach it. */
const UNREACHABLE = ["setup-timeout", "handshake-failed"];
/** The relay issues a receipt each ten minutes; the last a moment after the end, when it has settled. */
const AUDIT_EVERY_MS = 10 * 60_000;
const AUDIT_AFTER_MS = 1_500;
/** What is on its way when a call is left arrives, and is counted, within this. */
const LAST_PACKETS_MS = 150;
/** What this page sends at most; a tile is seldom larger than a quarter of a screen. */
const VIDEO_BITRATE_MAX = 1_500_000;

/**
 * @typedef {"idle" | "connecting" | "connected" | "reconnecting" | "ended"} CallState
 * @typedef {{available_msat: number, runway_seconds: number | null, step: "full" | "warned" | "reduced" | "audio-only" | "held" | "ended", burn_msat_per_second?: number}} Balance
 */

export class Call extends EventTarget {
  /**
   * @param {import("./relay.js").Relay} relay
   * @param {{room: string, name?: string, token: string | (() => Promise<string>), stream?: MediaStream,
   *   relayOnly?: boolean, pool?: {audio: number, video: number}, maxMsatPerSecond?: number, emergency?: boolean,
   *   credentials?: () => string[] | Promise<string[]>}} options
   *   `token`: or where to get one; asked again when the old one has expired
   *   `credentials`: the holder's VC-JWTs; of those the ones that fit are presented when the relay asks for them
   */
  constructor(relay, options) {
    super();
    this.relay = relay;
    this.room = options.room;
    this.name = options.name;
    this.relayOnly = options.relayOnly ?? false;
    /** @type {CallState} */ this.state = "idle";
    /** The relay's name for this session; its receipt is asked for under it. @type {string | undefined} */ this.session = undefined;
    /** Sessions of this call at the relay, reconnections and TURN included. @type {Set<string>} */ this.sessions = new Set();
    /** @type {Balance | undefined} */ this.balance = undefined;
    /** What is charged, as the relay signed it. @type {any[]} */ this.tariff = [];
    this.muted = { audio: false, video: false };
    this.#options = options;
    this.#tracks = {
      audio: options.stream?.getAudioTracks()[0] ?? null,
      video: options.stream?.getVideoTracks()[0] ?? null,
    };
    this.#roster = new Roster((mid) => this.#receiverTrack(mid));
  }

  #options;
  /** @type {{audio: MediaStreamTrack | null, video: MediaStreamTrack | null}} */ #tracks;
  /** @type {Roster} */ #roster;
  /** @type {Signalling | undefined} */ #signalling;
  /** @type {RTCPeerConnection | undefined} */ #peer;
  /** @type {{audio: RTCRtpSender, video: RTCRtpSender} | undefined} */ #senders;
  #token;
  /** @type {import("./credentials.js").CredentialRequest | undefined} */ #asked;
  /** Presented last: an invite brings them along. @type {string[]} */ #shown = [];
  /** What this side counted, by session. @type {Map<string, {began: number, sfu: import("./receipt.js").Seen, lost: number}>} */ #seen = new Map();
  /** The last receipt of each session, verified. @type {Map<string, string>} */ #receipts = new Map();
  #auditing;
  /** TURN after a direct path failed: kept for the life of the call. */ #turnNeeded = false;
  #offering = false;
  #offerAgain = false;
  #offerSeq = 0;
  #generation = 0;
  #silence;
  /** The relay's answer taking effect; what it says after that waits for it. */ #applied;
  /** Ends the wait for media early, with the true reason. @type {((error: MilliwayError) => void) | undefined} */ #abort;

  /** Everyone else in the room. @returns {import("./roster.js").Participant[]} */
  get participants() {
    return this.#roster.list();
  }

  /**
   * Joins. @returns {Promise<void>} once media flows
   * @throws {MilliwayError} why not; the call is "ended" then
   */
  async start() {
    this.#enter("connecting");
    try {
      try {
        await this.#establish();
      } catch (error) {
        if (error.slug !== "media-unreachable" || this.relayOnly || this.state !== "connecting") throw error;
        this.#turnNeeded = true; // no direct path: once more, by way of TURN
        this.#tearDown();
        await this.#establish();
      }
      this.#enter("connected");
    } catch (error) {
      if (this.state !== "ended") await this.#end(typed(error));
      throw typed(error);
    }
  }

  /** Says goodbye and ends the call. @param {string} [reason] */
  async leave(reason = "hangup") {
    if (this.state === "ended") return;
    await this.#end(undefined, reason);
  }

  /**
   * Silences or shows. What is muted is not sent, so nobody pays for it; the track itself stays with its owner.
   * @param {"audio" | "video"} kind @param {boolean} muted
   */
  async mute(kind, muted) {
    this.muted[kind] = muted;
    await this.#senders?.[kind].replaceTrack(muted ? null : this.#tracks[kind]);
    await this.#tell({ mute: this.#silent() });
  }

  /** Sends another microphone or camera from now on. @param {"audio" | "video"} kind @param {MediaStreamTrack | null} track */
  async replaceTrack(kind, track) {
    this.#tracks[kind] = track;
    if (!this.muted[kind]) await this.#senders?.[kind].replaceTrack(track);
    await this.#tell({ mute: this.#silent() });
  }

  /**
   * Adds money during the call. @param {string} token a further token of this holder
   * @returns {Promise<{credited_msat: number, available_msat: number, repeated?: boolean}>}
   */
  async topup(token) {
    this.relay.check(token);
    const answer = await this.#request({ topup: { token } });
    this.#token = token; // the newest lasts longest
    return answer.changes.topup;
  }

  /**
   * A service that this call is going to use. Where it asks for credentials, those that fit are presented.
   * @param {"sfu" | "turn"} service @returns {Promise<boolean>} whether it is open
   * @throws {MilliwayError} the relay's refusal of what was presented
   */
  async want(service) {
    let { changes } = await this.#request({ want: { service } });
    if (changes.request) {
      this.#asked = changes.request;
      const fitting = await this.#fitting(changes.request.wanted);
      if (!fitting.length) return false;
      changes = { verify: await this.present(fitting) };
    }
    return changes.verify?.services.find((one) => one.service === service)?.open ?? false;
  }

  /**
   * Presents credentials in answer to the relay's request, which that uses up.
   * @param {string[]} credentials VC-JWTs about this holder, at most four
   * @returns {Promise<{credentials: {accepted: boolean, reason?: string, detail?: string}[], services: {service: string, open: boolean, reason?: string}[]}>}
   * @throws {MilliwayError} none of them counts
   */
  async present(credentials) {
    if (!this.#asked) throw new MilliwayError("presentation-stale", "The relay asks for no credentials now.");
    const { nonce } = this.#asked;
    this.#asked = undefined;
    const { changes } = await this.#request({ present: { nonce, credentials } });
    this.#shown = credentials.filter((_, at) => changes.verify.credentials[at]?.accepted);
    this.#send("verify", changes.verify);
    return changes.verify;
  }

  /**
   * Fetches the receipts of this call's sessions and checks them against what was counted here. Happens by itself every ten
   * minutes and at the end.
   * @returns {Promise<(import("./receipt.js").Audit & {session: string, jws: string, lost: number})[]>}
   */
  async audit() {
    await this.#count();
    const audits = [];
    for (const [session, { sfu, lost }] of this.#seen) {
      const known = { before: this.#receipts.get(session), seen: { sfu }, quoted: this.tariff };
      const audit = { session, lost, ...(await this.relay.auditedReceipt(session, known)) };
      if (!audit.fault) this.#receipts.set(session, audit.jws);
      if (audit.fault || audit.warnings.length) {
        console.warn(`milliway: the receipt of session ${session}: ${audit.fault ?? audit.warnings.join(", ")}`, audit);
      }
      audits.push(audit);
      this.#send("receipt", audit);
    }
    return audits;
  }

  /** Whose audio and video to receive; both by default. @param {string} name @param {{audio?: boolean, video?: boolean}} wanted */
  async subscribe(name, { audio = true, video = true }) {
    await this.#tell({ subscribe: { name, audio, video } });
  }

  /** Sends all media through the relay's TURN, or no longer. The peer connection stays. @param {boolean} relayOnly */
  async setRelayOnly(relayOnly) {
    this.relayOnly = relayOnly;
    if (!this.#peer || this.state !== "connected") return;
    this.#peer.setConfiguration(await this.#configuration());
    this.#peer.restartIce();
    await this.#offer();
  }

  // Setting up

  async #establish() {
    const generation = ++this.#generation;
    this.#roster.clear();
    await this.#currentToken();
    const signalling = this.#listen(generation);
    this.#signalling = signalling;
    const [challenge, offer] = await Promise.all([signalling.open(), this.#prepare(generation)]);
    this.tariff = challenge.tariff ?? [];
    const invite = { type: "dsip.invite", room: this.room, token: this.#token, nonce: challenge.nonce, media: { sdp: offer } };
    if (this.name) invite.name = this.name;
    if (this.#options.emergency) invite.priority = "emergency";
    if (this.#options.maxMsatPerSecond) invite.max_msat_per_second = this.#options.maxMsatPerSecond;
    const began = performance.now();
    const answer = await this.#invite(signalling, invite);
    this.session = answer.session;
    this.sessions.add(answer.session);
    this.#seen.set(answer.session, { began, sfu: { bytes_out: 0, bytes_in: 0, nanoseconds: 0 }, lost: 0 });
    clearInterval(this.#auditing);
    this.#auditing = setInterval(() => this.audit().catch(() => {}), AUDIT_EVERY_MS);
    if (answer.economics) this.#account(answer.economics);
    this.#applied = this.#peer.setRemoteDescription({ type: "answer", sdp: answer.media.sdp });
    await this.#applied;
    if (this.#roster.refresh()) this.#announce();
    if (this.muted.audio || this.muted.video || !this.#tracks.audio || !this.#tracks.video) {
      await this.#tell({ mute: this.#silent() });
    }
    await this.#mediaFlows(generation);
  }

  /** Invites, and once more with credentials where the relay says which would do. */
  async #invite(signalling, invite) {
    const withShown = (body) => (this.#shown.length ? { ...body, identity: { credentials: this.#shown } } : body);
    try {
      return await signalling.request(withShown(invite), "dsip.answer");
    } catch (refusal) {
      const fitting = refusal.wanted ? await this.#fitting(refusal.wanted) : [];
      if (!fitting.length || fitting.join() === this.#shown.join()) throw refusal;
      this.#shown = fitting;
      const { nonce } = await signalling.challenge();
      return signalling.request(withShown({ ...invite, nonce }), "dsip.answer");
    }
  }

  async #fitting(wanted) {
    return fittingCredentials(wanted, (await this.#options.credentials?.()) ?? []);
  }

  /** The relay asks of its own accord. What is presented is not awaited: more may be said meanwhile. */
  async #answerRequest(request) {
    this.#asked = request;
    const fitting = await this.#fitting(request.wanted);
    if (!fitting.length) return this.#send("request", request);
    this.present(fitting).catch((error) => this.#send("notice", { kind: "error", error: typed(error) }));
  }

  /** Notes what the peer connection has carried so far. */
  async #count(peer = this.#peer) {
    const seen = this.#seen.get(this.session);
    if (!seen || !peer || peer.connectionState === "closed") return;
    const stats = await peer.getStats().catch(() => undefined);
    if (!stats) return;
    const { lost, ...bytes } = counted(stats);
    seen.sfu = { ...bytes, nanoseconds: (performance.now() - seen.began) * 1e6 };
    seen.lost = lost;
  }

  #listen(generation) {
    return new Signalling(this.relay.identity, this.relay, {
      onmessage: (envelope) => this.#hear(envelope),
      onclose: (error) => generation === this.#generation && (this.#abort?.(error), this.#lost(error)),
    });
  }

  async #currentToken() {
    const { token } = this.#options;
    const renewable = typeof token === "function";
    const fresh = this.#token && (!renewable || readToken(this.#token).exp > Date.now() / 1000 + 5);
    if (!fresh) this.#token = renewable ? await token() : token;
    this.relay.check(this.#token);
    return this.#token;
  }

  async #configuration() {
    const turn = this.relayOnly || this.#turnNeeded ? await this.#turnCredentials() : undefined;
    if (turn?.session) this.sessions.add(turn.session);
    return {
      iceServers: turn?.iceServers ?? [],
      iceTransportPolicy: this.relayOnly ? "relay" : "all",
      bundlePolicy: "max-bundle",
      rtcpMuxPolicy: "require",
    };
  }

  /** In a call, a threshold is something to present credentials for. */
  async #turnCredentials() {
    const token = await this.#currentToken();
    try {
      return await this.relay.turnCredentials(token);
    } catch (error) {
      const may = error.slug === "reputation-too-low" && this.state === "connected" && (await this.want("turn"));
      if (!may) throw error;
      return this.relay.turnCredentials(token);
    }
  }

  /** Makes the peer connection and the first offer. @returns {Promise<string>} SDP */
  async #prepare(generation) {
    const peer = new RTCPeerConnection(await this.#configuration());
    if (generation !== this.#generation) return peer.close(), "";
    this.#peer = peer;
    this.#offering = this.#offerAgain = false;
    const streams = [new MediaStream()];
    const send = (kind, sendEncodings) =>
      peer.addTransceiver((!this.muted[kind] && this.#tracks[kind]) || kind, { direction: "sendonly", streams, sendEncodings });
    const lines = { audio: send("audio"), video: send("video", [{ maxBitrate: VIDEO_BITRATE_MAX }]) };
    this.#senders = { audio: lines.audio.sender, video: lines.video.sender };
    const pool = this.#options.pool ?? POOL;
    const received = ["audio", "video"].flatMap((kind) =>
      Array.from({ length: pool[kind] }, () => peer.addTransceiver(kind, { direction: "recvonly" })));
    for (const line of [lines.audio, lines.video, ...received]) trimOffer(line);
    peer.onconnectionstatechange = () => generation === this.#generation && this.#watch(peer);
    await peer.setLocalDescription();
    return peer.localDescription.sdp;
  }

  #mediaFlows(generation) {
    const peer = this.#peer;
    return new Promise((resolve, reject) => {
      const refuse = () => finish(() => reject(new MilliwayError("media-unreachable")));
      const timer = setTimeout(refuse, MEDIA_TIMEOUT_MS);
      const finish = (settle) => {
        clearTimeout(timer);
        peer.removeEventListener("connectionstatechange", look);
        this.#abort = undefined;
        settle();
      };
      this.#abort = (error) => finish(() => reject(error));
      const look = () => {
        if (peer.connectionState === "connected") finish(resolve);
        else if (["failed", "closed"].includes(peer.connectionState) || generation !== this.#generation) refuse();
      };
      peer.addEventListener("connectionstatechange", look);
      look();
    });
  }

  // Losing and coming back

  #watch(peer) {
    clearTimeout(this.#silence);
    if (this.state !== "connected") return;
    if (peer.connectionState === "failed") this.#lost(new MilliwayError("media-unreachable"));
    if (peer.connectionState === "disconnected") {
      this.#silence = setTimeout(() => this.#lost(new MilliwayError("media-unreachable")), SILENCE_MAX_MS);
    }
  }

  async #lost(error) {
    if (this.state !== "connected") return;
    if (["relay-identity", "relay-signature", "relay-protocol"].includes(error.slug)) return this.#end(error);
    this.#enter("reconnecting", error);
    let last = error;
    for (const [attempt, pause] of BACKOFF_MS.entries()) {
      // Only the socket broke: the media flow on, and the session may be taken up again.
      const flowing = error.slug === "relay-gone" && this.#peer?.connectionState === "connected";
      await this.#count();
      if (!flowing) this.#tearDown();
      await new Promise((resolve) => setTimeout(resolve, pause * (0.75 + Math.random() / 2)));
      if (this.state !== "reconnecting") return;
      this.#send("notice", { kind: "attempt", attempt: attempt + 1, of: BACKOFF_MS.length });
      try {
        if (!flowing || !(await this.#resume())) await this.#establish();
        if (this.state === "reconnecting") this.#enter("connected");
        return;
      } catch (cause) {
        last = typed(cause);
        if (this.state !== "reconnecting") return;
        if (last.slug === "media-unreachable") this.#turnNeeded = true;
        if (last.slug === "token-expired" && typeof this.#options.token === "function") this.#token = undefined;
        else if (!last.transient) break;
      }
    }
    await this.#end(last);
  }

  /** @returns {Promise<boolean>} false where the relay knows the session no longer: everything is torn down then */
  async #resume() {
    const generation = this.#generation;
    const signalling = this.#listen(generation);
    try {
      const { nonce } = await signalling.open();
      const update = await signalling.request({ type: "dsip.resume", session: this.session, nonce }, "dsip.update");
      if (generation !== this.#generation) return signalling.close(), true;
      this.#signalling = signalling;
      this.#offering = this.#offerAgain = false;
      await this.#hear(update);
      await this.#tell({ mute: this.#silent() });
      return true;
    } catch (cause) {
      signalling.close();
      if (typed(cause).slug === "relay-gone") throw cause;
      this.#tearDown();
      return false;
    }
  }

  /** @param {RTCPeerConnection} [kept] is not closed yet */
  #tearDown(kept) {
    this.#generation++;
    clearTimeout(this.#silence);
    this.#abort?.(new MilliwayError("relay-gone", "The call was left."));
    this.#signalling?.close();
    if (this.#peer !== kept) this.#peer?.close();
    this.#signalling = this.#peer = this.#senders = this.#applied = undefined;
    if (this.#roster.clear()) this.#announce();
  }

  async #end(error, reason) {
    const signalling = this.#signalling;
    this.#enter("ended", error);
    // Only the sender's side is awaited: a relay that is gone must not keep us.
    if (reason) await signalling?.send({ type: "dsip.bye", session: this.session, reason }).catch(() => {});
    clearInterval(this.#auditing);
    const peer = reason ? this.#peer : undefined;
    if (!peer) await this.#count();
    this.#tearDown(peer);
    this.#send("ended", { error, reason });
    const auditLater = () => setTimeout(() => this.audit().catch(() => {}), AUDIT_AFTER_MS);
    if (!peer) return void (error?.slug in GOODBYES && !RETURNING.includes(error.slug) && auditLater());
    // What was billed last is still on its way.
    await new Promise((resolve) => setTimeout(resolve, LAST_PACKETS_MS));
    await this.#count(peer);
    peer.close();
    auditLater();
  }

  // What the relay says

  async #hear(envelope) {
    await this.#applied?.catch(() => {});
    if (envelope.type === "dsip.bye") return this.#goodbye(String(envelope.reason ?? ""), envelope.detail);
    if (envelope.type === "dsip.error") return this.#send("notice", { kind: "error", error: MilliwayError.fromDsip(envelope) });
    if (envelope.type !== "dsip.update") return;
    const changes = envelope.changes ?? {};
    if (changes.offer) await this.#accept(changes.offer, envelope.id);
    if (changes.answer) await this.#conclude(changes.answer);
    if (changes.balance) {
      this.#account(changes.balance);
      this.#count();
    }
    if (changes.request) await this.#answerRequest(changes.request);
    if (changes.draining) this.#send("notice", { kind: "draining", seconds: changes.draining.seconds });
    const moved = [
      changes.tracks && this.#roster.setTracks(changes.tracks),
      changes.participants && this.#roster.setPeople(changes.participants, this.name),
    ];
    if (moved.some(Boolean)) this.#announce();
  }

  async #goodbye(reason, detail) {
    const word = reason.split(":").pop() || "hangup";
    const error = UNREACHABLE.includes(word) ? new MilliwayError("media-unreachable") : new MilliwayError(word, detail || GOODBYES[word]);
    if (this.state !== "connected") this.#abort?.(error);
    else if (RETURNING.includes(word)) this.#lost(error);
    else await this.#end(error);
  }

  #account(economics) {
    const { available_msat, runway_seconds = null, step = "full", burn_msat_per_second } = economics;
    const before = this.balance?.step;
    this.balance = { available_msat, runway_seconds, step, burn_msat_per_second };
    this.#send("balance", { ...this.balance, stepChanged: before !== undefined && before !== step });
  }

  // Renegotiation

  async #offer() {
    if (this.#offering) return void (this.#offerAgain = true);
    this.#offering = true;
    await this.#peer.setLocalDescription();
    const { sdp } = this.#peer.localDescription;
    await this.#tell({ offer: { sdp, seq: ++this.#offerSeq } });
  }

  async #accept({ sdp, seq }, id) {
    const peer = this.#peer;
    const glare = peer.signalingState === "have-local-offer";
    await peer.setRemoteDescription({ type: "offer", sdp }); // rolls an offer of ours back
    for (const line of peer.getTransceivers()) if (line.currentDirection === null) trimOffer(line);
    await peer.setLocalDescription();
    await this.#signalling.send({
      type: "dsip.update", correlates: id, session: this.session,
      changes: { answer: { sdp: peer.localDescription.sdp, seq } },
    });
    if (this.#roster.refresh()) this.#announce();
    if (glare) {
      this.#offering = this.#offerAgain = false;
      await this.#offer();
    }
  }

  async #conclude({ sdp, seq }) {
    const stale = this.#peer.signalingState !== "have-local-offer" || (seq !== undefined && seq !== this.#offerSeq);
    if (stale) return;
    await this.#peer.setRemoteDescription({ type: "answer", sdp });
    this.#offering = false;
    if (this.#offerAgain) {
      this.#offerAgain = false;
      await this.#offer();
    }
  }

  // Small things

  #receiverTrack(mid) {
    return this.#peer?.getTransceivers().find((line) => line.mid === mid)?.receiver.track;
  }

  #silent() {
    const silent = (kind) => this.muted[kind] || !this.#tracks[kind];
    return { audio: silent("audio"), video: silent("video") };
  }

  #update(changes) {
    return { type: "dsip.update", session: this.session, changes };
  }

  async #tell(changes) {
    if (this.session) await this.#signalling?.send(this.#update(changes));
  }

  #request(changes) {
    if (!this.#signalling || !this.session) throw new MilliwayError("relay-gone");
    return this.#signalling.request(this.#update(changes), "dsip.update");
  }

  #enter(state, error) {
    this.state = state;
    this.#send("state", { state, error });
  }

  #announce() {
    this.#send("participants", this.participants);
  }

  #send(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}

/** Sentences for goodbyes that come without one. */
const GOODBYES = {
  hangup: "The relay ended the call.",
  "balance-exhausted": "The balance is used up, so the relay ended the call. Top up to join again.",
  replaced: "You joined this room under the same name from another page; the call goes on there.",
  "credentials-missing": "The relay asks for credentials that were not presented.",
  denied: "The operator has stopped this account or token. Ask the operator.",
  draining: "The relay is restarting.",
  "connection-lost": "The connection to the relay was lost.",
  "slow-client": "This device could not keep up with the relay.",
  internal: "The relay had a fault of its own.",
};

function typed(error) {
  return error instanceof MilliwayError ? error : new MilliwayError("relay-protocol", undefined, { cause: error });
}
