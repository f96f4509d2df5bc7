/**
 * The call page: wires the document to the library. Everything others wrote (names, sentences of the relay) reaches the
 * document through textContent.
 */

import { Call, formatSat, Identity, MilliwayError, Relay } from "./milliway.js";
import { showAccount, showBalance, showIdle } from "./page/balance.js";
import { deviceSentence, fillPicker, openDevices, openOne } from "./page/devices.js";
import { Tiles } from "./page/tiles.js";
import { Wallet } from "./page/wallet.js";

const $ = (id) => document.getElementById(id);
const room = roomOf(location.pathname);
const tiles = new Tiles($("tiles"), () =>
  showProblem("The browser holds the others' sound and picture back until you allow them.", { label: "Play", act: draw }));
/** What is captured here; stays open through reconnections. */
let local = new MediaStream();
/** @type {Relay | undefined} */ let relay;
/** @type {Wallet | undefined} */ let wallet;
/** @type {Call | undefined} */ let call;
/** Lets go of the name that this tab holds. */ let releaseName = () => {};

$("room-name").textContent = room;
document.title = `${room} · Milliway`;
$("name").value = remembered();

/** @param {string} path @returns {string} the room's name; as it stands where its escapes are broken */
function roomOf(path) {
  const written = path.split("/")[2] ?? "";
  try {
    return decodeURIComponent(written);
  } catch {
    return written;
  }
}

// Telling

/** For those who do not see it. @param {string} text */
function announce(text) {
  $("announcer").textContent = text;
}

/** @param {string} text @param {{label: string, act: () => void}} [action] */
function showProblem(text, action) {
  $("problem-text").textContent = text;
  const button = $("problem-action");
  button.hidden = !action;
  button.textContent = action?.label ?? "";
  button.onclick = action ? () => (hideProblem(), action.act()) : null;
  $("problem").hidden = false;
}

function hideProblem() {
  $("problem").hidden = true;
}
$("problem-close").onclick = hideProblem;

const CONNECTION = {
  idle: "Not joined", connecting: "Joining…", connected: "Connected", reconnecting: "Connection lost. Reconnecting…", ended: "Call ended",
};

function showState(state) {
  document.body.dataset.state = state;
  $("connection").textContent = CONNECTION[state];
  const inside = state === "connected" || state === "reconnecting";
  $("stage").hidden = $("controls").hidden = !inside;
  $("lobby").hidden = inside;
  $("join").disabled = state === "connecting";
  $("join").textContent = state === "connecting" ? "Joining…" : state === "ended" ? "Join again" : "Join the call";
}

/** What the page says about an error, and what it offers to do. @param {MilliwayError} error */
function explain(error) {
  if (error.slug === "balance-exhausted") {
    showProblem(error.message, { label: "Top up", act: topUp });
  } else if (error.slug === "name-taken" || error.slug === "bad-name") {
    showProblem(error.message);
    $("name").focus();
    $("name").select();
  } else {
    const again = error.transient || error.slug === "replaced";
    showProblem(error.message, again ? { label: "Join again", act: join } : undefined);
  }
}

// Account

async function reach() {
  if (relay) return;
  const identity = await Identity.load();
  relay = await Relay.open(location.origin, identity);
  wallet = new Wallet(relay, askForToken);
}

async function refreshAccount() {
  try {
    await reach();
    showAccount(await relay.account());
  } catch (error) {
    // A stranger has no account yet; that is no problem to report before a call.
    if (error.slug === "relay-gone" || error.slug === "insecure-context" || error.slug === "browser-unsupported") explain(error);
    else showAccount({ available_msat: 0 });
  }
}

async function topUp() {
  await credit(() => wallet.fresh());
}

async function useToken() {
  await reach().catch(explain);
  if (!relay) return;
  const pasted = await askForToken();
  if (pasted) await credit(() => wallet.keep(pasted));
}

/** @param {() => Promise<string>} source where the token comes from */
async function credit(source) {
  $("topup").disabled = true;
  $("topup-status").textContent = "Topping up…";
  try {
    await reach();
    const token = await source();
    const live = call?.state === "connected";
    const { credited_msat, available_msat, repeated } = await (live ? call.topup(token) : relay.topup(token));
    if (!live) showAccount({ available_msat });
    if (!live && document.body.dataset.step === "ended") showIdle();
    $("topup-status").textContent = repeated ? "That token was used before; nothing was added." : `Added ${formatSat(credited_msat)} sat.`;
    hideProblem();
  } catch (error) {
    $("topup-status").textContent = `Not topped up. ${error.message}`;
  } finally {
    $("topup").disabled = false;
  }
}
$("topup").onclick = topUp;
$("use-token").onclick = useToken;

/** @returns {Promise<string | undefined>} what the person pasted */
function askForToken() {
  const dialog = $("token-dialog");
  $("account-did").value = relay.identity.did;
  $("token").value = $("token-error").textContent = "";
  dialog.returnValue = "";
  dialog.showModal();
  $("token").focus();
  $("token-form").onsubmit = (event) => {
    if (event.submitter?.value !== "use") return;
    try {
      relay.check($("token").value.trim());
    } catch (error) {
      event.preventDefault();
      $("token-error").textContent = error.message;
    }
  };
  return new Promise((resolve) => {
    dialog.onclose = () => resolve(dialog.returnValue === "use" ? $("token").value.trim() : undefined);
  });
}

// Joining and leaving

async function join() {
  hideProblem();
  $("topup-status").textContent = "";
  const name = $("name").value.trim();
  if (!name) return $("name").focus();
  showState("connecting");
  try {
    await reach();
    if (!local.getTracks().length) await capture();
    const own = await holdName(name);
    remember(name);
    call = new Call(relay, {
      room, name: own, stream: local, relayOnly: $("lobby-relay-only").checked, token: () => wallet.token(),
    });
    listen(call);
    $("relay-only").checked = call.relayOnly;
    await call.start();
    $("main").focus({ preventScroll: true });
    announce(`You are in room ${room}.`);
  } catch (error) {
    releaseName();
    call = undefined;
    stopCapture();
    showState("idle");
    showIdle(error.slug === "balance-exhausted");
    if (error.slug?.startsWith("token-")) await wallet?.forget(); // the next try gets another one
    explain(error instanceof MilliwayError ? error : new MilliwayError("relay-protocol", undefined, { cause: error }));
    refreshAccount();
  }
}

function listen(current) {
  current.addEventListener("state", ({ detail }) => {
    if (detail.state === "ended") return;
    showState(detail.state);
    draw();
  });
  current.addEventListener("notice", ({ detail }) => {
    if (detail.kind === "attempt") $("connection").textContent = `Connection lost. Reconnecting, attempt ${detail.attempt} of ${detail.of}…`;
    if (detail.kind === "draining") announce("The relay restarts in a moment. The call comes back by itself.");
    if (detail.kind === "error") explain(detail.error);
  });
  current.addEventListener("receipt", ({ detail }) => {
    if (detail.fault) announce("The receipt of this call does not add up. Ask the relay's operator, with the receipt.");
    else if (detail.warnings.length) announce("The relay billed over 1 % more than arrived here: some of it was lost on the way, or was never sent.");
  });
  current.addEventListener("participants", ({ detail }) => {
    announceChange(detail.map(({ name }) => name));
    draw();
  });
  current.addEventListener("balance", ({ detail }) => {
    const words = showBalance(detail);
    if (detail.stepChanged) announce(words);
    draw();
  });
  current.addEventListener("ended", ({ detail }) => ended(current, detail));
}

function ended(over, { error }) {
  if (call !== over) return;
  const joined = document.body.dataset.state !== "connecting";
  if (!joined) return; // join() tells
  const spent = error?.slug === "balance-exhausted";
  releaseName();
  call = undefined;
  stopCapture();
  present = [];
  draw();
  showState("ended");
  showIdle(spent);
  if (error) explain(error);
  else announce("You left the call.");
  $(spent ? "problem-action" : "join").focus();
  if (error?.slug !== "relay-gone") refreshAccount();
}

$("lobby").addEventListener("submit", (event) => (event.preventDefault(), join()));
$("leave").onclick = () => call?.leave();
addEventListener("pagehide", () => void call?.leave("page-closed"));

let present = [];
function announceChange(names) {
  const came = names.filter((name) => !present.includes(name));
  const left = present.filter((name) => !names.includes(name));
  present = names;
  const words = [...came.map((name) => `${name} joined.`), ...left.map((name) => `${name} left.`)];
  if (words.length && call?.state === "connected") announce(words.join(" "));
}

function draw() {
  const others = call?.participants ?? [];
  const muted = call?.muted ?? { audio: false, video: false };
  const has = (kind) => local.getTracks().some((track) => track.kind === kind && track.readyState === "live");
  const self = { name: call?.name ?? "", audio: has("audio") && !muted.audio, video: has("video") && !muted.video, stream: local };
  if (call) tiles.show(self, others, call.balance?.step ?? "full");
  $("alone").hidden = others.length > 0 || call?.state !== "connected";
  toggle($("mute"), muted.audio, muted.audio ? "Unmute" : "Mute", has("audio"));
  toggle($("camera"), muted.video, muted.video ? "Camera on" : "Camera off", has("video"));
}

function toggle(button, pressed, text, usable) {
  button.dataset.off = String(pressed);
  button.querySelector(".text").textContent = text;
  button.disabled = !usable;
}

// Devices

async function capture(chosen) {
  const { stream, problems } = await openDevices(chosen);
  local = stream;
  for (const track of local.getTracks()) watchTrack(track);
  if (problems.length) showProblem(`${problems.join(" ")} You can still see and hear the others.`);
}

function watchTrack(track) {
  track.onended = () => {
    showProblem(`Your ${track.kind === "audio" ? "microphone" : "camera"} was unplugged or stopped. Pick another under Devices.`);
    draw();
  };
}

function stopCapture() {
  for (const track of local.getTracks()) (track.onended = null), track.stop();
  local = new MediaStream();
  showPreview();
}

function showPreview() {
  const on = local.getVideoTracks().length > 0;
  $("preview").srcObject = on ? local : null;
  $("preview").hidden = !on;
  $("preview-text").hidden = on;
  $("preview-camera").setAttribute("aria-pressed", String(on));
  $("preview-camera").textContent = on ? "Stop camera" : "Try my camera";
}

$("preview-camera").onclick = async () => {
  if (local.getTracks().length) return stopCapture();
  hideProblem();
  await capture();
  showPreview();
};

$("mute").onclick = async () => {
  await call?.mute("audio", !call.muted.audio);
  announce(call?.muted.audio ? "Microphone muted." : "Microphone on.");
  draw();
};

$("camera").onclick = async () => {
  await call?.mute("video", !call.muted.video);
  announce(call?.muted.video ? "Camera off." : "Camera on.");
  draw();
};

$("relay-only").onchange = async (event) => {
  const wanted = event.target.checked;
  try {
    await call?.setRelayOnly(wanted);
    announce(wanted ? "Everything now goes through the relay's TURN server." : "Direct paths to the relay are allowed again.");
  } catch (error) {
    event.target.checked = !wanted;
    explain(error);
  }
};

async function fillPickers() {
  const inUse = (kind) => local.getTracks().find((track) => track.kind === kind)?.getSettings().deviceId;
  await fillPicker($("microphones"), "audioinput", inUse("audio"));
  await fillPicker($("cameras"), "videoinput", inUse("video"));
  const speakers = "setSinkId" in HTMLMediaElement.prototype ? await fillPicker($("speakers"), "audiooutput", $("speakers").value) : 0;
  $("speaker-field").hidden = speakers === 0;
}

$("open-devices").onclick = async () => {
  await fillPickers();
  $("devices").showModal();
};
navigator.mediaDevices?.addEventListener("devicechange", () => $("devices").open && fillPickers());

async function switchDevice(kind, deviceId) {
  try {
    const track = await openOne(kind, deviceId);
    for (const old of local.getTracks().filter((one) => one.kind === kind)) (old.onended = null), old.stop(), local.removeTrack(old);
    local.addTrack(track);
    watchTrack(track);
    await call?.replaceTrack(kind, track);
    hideProblem();
  } catch (error) {
    showProblem(deviceSentence(kind === "audio" ? "microphone" : "camera", error));
  }
  draw();
}
$("microphones").onchange = (event) => switchDevice("audio", event.target.value);
$("cameras").onchange = (event) => switchDevice("video", event.target.value);
$("speakers").onchange = (event) => tiles.setSpeaker(event.target.value).catch((error) => showProblem(deviceSentence("speaker", error)));

// Names

/** A name for this tab; another tab of the same browser is another person in the room. */
function remembered() {
  const guest = `Guest ${crypto.getRandomValues(new Uint32Array(1))[0].toString(36).slice(0, 4)}`;
  return sessionStorage.getItem("milliway.name") ?? localStorage.getItem("milliway.name") ?? guest;
}

function remember(name) {
  sessionStorage.setItem("milliway.name", name);
  localStorage.setItem("milliway.name", name);
}

/** Two tabs share the key, and joining twice under one name replaces: so the second tab gets another name. */
async function holdName(name) {
  if (!navigator.locks) return name;
  for (let number = 1; number <= 9; number++) {
    const candidate = number === 1 ? name : `${name} ${number}`;
    const held = await new Promise((answer) => {
      navigator.locks.request(`milliway ${room} ${candidate}`, { ifAvailable: true }, (lock) => {
        answer(Boolean(lock));
        return lock ? new Promise((release) => (releaseName = release)) : undefined;
      });
    });
    if (held) return candidate;
  }
  return name;
}

showState("idle");
showIdle();
draw();
$("name").select();
refreshAccount();
