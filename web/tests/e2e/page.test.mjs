/** The page alone, on a stage: what it shows and says in states that a real relay reaches seldom or late. */

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { launch, person, until } from "./browser.mjs";
import { openStage } from "./stage.mjs";
import { look } from "./room.mjs";

/** @type {import("playwright-core").Browser} */ let browser;
let stage;

before(async () => {
  [stage, browser] = await Promise.all([openStage(), launch()]);
});

after(async () => {
  await browser?.close();
  stage?.close();
});

async function open(path = "/room/garden", options = {}, script) {
  const page = await person(browser, options);
  if (script) await page.addInitScript(script);
  await page.goto(stage.url + path);
  return page;
}

async function join(page, name = "Ada") {
  await page.getByLabel("Your name in the room").fill(name);
  await page.getByRole("button", { name: "Join the call" }).click();
}

async function done(page) {
  assert.deepEqual(page.faults, []);
  await page.context().close();
}

test("the front page leads to a room by keyboard alone and shows the prices", async () => {
  const page = await open("/");
  assert.equal(await page.evaluate(() => document.activeElement.id), "room");
  await page.getByRole("row", { name: /Group calls 50 0 8/ }).waitFor();
  await page.keyboard.type("tea-time");
  await page.keyboard.press("Enter");
  await page.waitForURL("**/room/tea-time");
  await page.getByRole("heading", { name: "Room tea-time" }).waitFor();
  await done(page);
});

test("a call is entered, muted and left by keyboard alone, and each change is said aloud", async () => {
  const page = await open();
  const said = () => page.locator("#announcer").textContent();
  const tabTo = async (name) => {
    for (let step = 0; step < 40; step++) {
      await page.keyboard.press("Tab");
      const focused = await page.evaluate(() => document.activeElement.innerText || document.activeElement.getAttribute("aria-label") || document.activeElement.id);
      if (focused.includes(name)) return;
    }
    throw new Error(`no way to “${name}” by Tab`);
  };
  await page.getByLabel("Your name in the room").fill("Ada");
  await page.keyboard.press("Enter");
  await until(async () => (await look(page)).state === "connected", "in the call");
  await until(async () => /You are in room garden/.test(await said()), "the room is announced");
  assert.equal(await page.evaluate(() => document.activeElement.id), "main", "focus is in the call");
  await page.evaluate(() => window.play.call.people(window.play.person("Grace", "#456")));
  await until(async () => (await said()) === "Grace joined.", "a newcomer is announced");
  await tabTo("Mute");
  const outline = await page.evaluate(() => getComputedStyle(document.activeElement).outlineStyle);
  assert.notEqual(outline, "none", "focus is visible");
  await page.keyboard.press("Space");
  await until(async () => (await said()) === "Microphone muted.", "muting is announced");
  await page.getByRole("button", { name: "Unmute" }).waitFor();
  await tabTo("Devices");
  await page.keyboard.press("Enter");
  await page.getByRole("dialog", { name: "Devices" }).waitFor();
  assert.equal(await page.locator("#microphones").evaluate((element) => element === document.activeElement), true);
  await page.keyboard.press("Escape");
  await until(async () => (await page.evaluate(() => document.activeElement.id)) === "open-devices", "focus goes back");
  await tabTo("Leave");
  await page.keyboard.press("Enter");
  await until(async () => (await look(page)).state === "ended", "left");
  assert.equal(await page.evaluate(() => document.activeElement.id), "join");
  await done(page);
});

test("every control has a name, every field a label, and landmarks are there", async () => {
  const page = await open();
  await join(page);
  await until(async () => (await look(page)).state === "connected", "in the call");
  const nameless = await page.evaluate(() => [...document.querySelectorAll("button, input, select, textarea, video, dialog")]
    .filter((element) => !element.hidden && !(element.innerText?.trim() || element.getAttribute("aria-label") || element.getAttribute("aria-labelledby") || element.labels?.length))
    .map((element) => element.outerHTML.slice(0, 120)).filter((html) => !html.includes("problem-action")));
  assert.deepEqual(nameless, []);
  for (const role of ["banner", "main"]) await page.getByRole(role).waitFor();
  await page.getByRole("group", { name: "Call controls" }).waitFor();
  await page.getByRole("switch", { name: "Relay only" }).last().waitFor();
  await done(page);
});

test("each step of the ladder is shown and said in words", async () => {
  const page = await open();
  await join(page);
  await until(async () => (await look(page)).state === "connected", "in the call");
  await page.evaluate(() => window.play.call.people(window.play.person("Grace", "#456")));
  for (const [step, words] of [["full", "Full quality"], ["warned", "getting low"], ["reduced", "Smaller picture"], ["audio-only", "Sound only"], ["held", "Paused"]]) {
    await page.evaluate((now) => window.play.call.money({ available_msat: 1234, runway_seconds: 14, step: now, burn_msat_per_second: 58.4 }), step);
    assert.match(await page.locator("#step-title").textContent(), new RegExp(words));
    assert.match(await page.locator("#announcer").textContent(), new RegExp(words));
  }
  assert.equal(await page.locator("#sat").textContent(), "1.234");
  assert.equal(await page.locator("#msat").textContent(), "1,234 msat");
  assert.equal(await page.locator("#burn").textContent(), "58 msat/s");
  assert.equal(await page.locator("#runway").textContent(), "14 seconds");
  const { tiles } = await look(page);
  assert.equal(tiles.Grace.video, false);
  assert.match(tiles.Grace.flags, /video paused/);
  await done(page);
});

const DENIED = { NotAllowedError: /does not let this page use your microphone and camera/, NotReadableError: /in use by another program/ };
for (const [name, sentence] of Object.entries(DENIED)) {
  test(`a browser that throws ${name} is explained, and one can still listen`, async () => {
    const page = await open("/room/garden", {}, `navigator.mediaDevices.getUserMedia = async () => { throw new DOMException("", "${name}"); };`);
    await join(page);
    await until(async () => (await look(page)).state === "connected", "in the call without devices");
    const { problem, tiles } = await look(page);
    assert.match(problem, sentence);
    assert.match(problem, /still see and hear/);
    assert.match(tiles.Ada.flags, /muted, camera off/);
    assert.equal(await page.locator("#mute").isDisabled(), true);
    await done(page);
  });
}

test("without a camera the microphone is used, and the page says so", async () => {
  const page = await open("/room/garden", {}, () => {
    const real = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
    navigator.mediaDevices.getUserMedia = async (wanted) => {
      if (wanted.video) throw new DOMException("", "NotFoundError");
      return real(wanted);
    };
  });
  await join(page);
  await until(async () => (await look(page)).state === "connected", "in the call");
  const { problem, tiles } = await look(page);
  assert.match(problem, /No camera was found/);
  assert.doesNotMatch(problem, /microphone/);
  assert.match(tiles.Ada.flags, /you, camera off/);
  await done(page);
});

const REFUSALS = [
  ["name-taken", "Somebody else in this room has that name; choose another one.", /choose another one/, "name"],
  ["balance-exhausted", "The balance does not cover five seconds of sound.", /does not cover/, null],
  ["room-forbidden", "The token does not open this room.", /does not open this room/, null],
  ["relay-gone", undefined, /does not answer/, null],
];
for (const [slug, sentence, shown, focus] of REFUSALS) {
  test(`${slug} at the door is explained in the lobby`, async () => {
    const page = await open("/room/garden", {}, `window.play = { refuse: ${JSON.stringify([slug, sentence])} };`);
    await join(page);
    await page.getByRole("alert").filter({ hasText: shown }).waitFor();
    assert.equal((await look(page)).state, "idle");
    assert.equal(await page.getByRole("button", { name: "Join the call" }).isEnabled(), true);
    if (focus) assert.equal(await page.evaluate(() => document.activeElement.id), focus);
    if (slug === "balance-exhausted") await page.locator("#problem").getByRole("button", { name: "Top up" }).waitFor();
    // The camera is not left on.
    assert.equal(await page.evaluate(() => document.getElementById("preview").srcObject), null);
    await done(page);
  });
}

test("a browser that plays nothing before a click is explained, and the click plays it", async () => {
  const page = await open("/room/garden", {}, () => {
    const real = HTMLMediaElement.prototype.play;
    window.allowed = false;
    HTMLMediaElement.prototype.play = function () {
      return window.allowed || this.muted ? real.call(this) : Promise.reject(new DOMException("", "NotAllowedError"));
    };
    // autoplay itself is held back as well
    Object.defineProperty(HTMLMediaElement.prototype, "autoplay", { set() {} });
  });
  await join(page);
  await until(async () => (await look(page)).state === "connected", "in the call");
  await page.evaluate(() => window.play.call.people(window.play.person("Grace", "#456")));
  await page.getByRole("alert").filter({ hasText: /until you allow them/ }).waitFor();
  await page.evaluate(() => (window.allowed = true));
  await page.getByRole("button", { name: "Play", exact: true }).click();
  await until(() => page.evaluate(() => ![...document.querySelectorAll(".tile video")].some((video) => video.paused)), "it plays");
  await done(page);
});

test("a token that the relay no longer takes is not tried again", async () => {
  const page = await open("/room/garden", {}, `window.play = { refuse: ["token-untrusted-issuer", "The issuer of the token is not trusted here."] };`);
  await join(page);
  await page.getByRole("alert").filter({ hasText: /not trusted/ }).waitFor();
  await page.evaluate(async () => {
    const { put } = await import("/static/lib/store.js");
    const { Identity } = await import("/static/lib/identity.js");
    await put("tokens", `did:key:zRelay ${(await Identity.load()).did}`, `e30.${btoa(JSON.stringify({ sub: "s", aud: "a", exp: 9e9 })).replaceAll("=", "")}.c2ln`);
  });
  const kept = () => page.evaluate(async () => {
    const { get } = await import("/static/lib/store.js");
    const { Identity } = await import("/static/lib/identity.js");
    return get("tokens", `did:key:zRelay ${(await Identity.load()).did}`);
  });
  assert.match(await kept(), /^e30/);
  await page.getByRole("button", { name: "Join the call" }).click();
  await until(async () => (await kept()) === undefined, "the token is dropped");
  await done(page);
});

test("a lost relay is named while the page tries, and its absence in the end", async () => {
  const page = await open();
  await join(page);
  await until(async () => (await look(page)).state === "connected", "in the call");
  await page.evaluate(async () => {
    const { MilliwayError } = await import("/static/lib/errors.js");
    window.play.gone = new MilliwayError("relay-gone");
    window.play.call.enter("reconnecting", window.play.gone);
    window.play.call.say("notice", { kind: "attempt", attempt: 3, of: 8 });
  });
  await page.getByRole("status").filter({ hasText: "Reconnecting, attempt 3 of 8" }).waitFor();
  await page.evaluate(() => {
    window.play.call.enter("ended", window.play.gone);
    window.play.call.say("ended", { error: window.play.gone });
  });
  await page.getByRole("alert").filter({ hasText: "The relay does not answer" }).waitFor();
  await page.locator("#problem").getByRole("button", { name: "Join again" }).waitFor();
  await done(page);
});

test("a name with markup is text in the tile", async () => {
  const page = await open();
  await join(page, `<i id="evil">Ada</i>`);
  await until(async () => (await look(page)).state === "connected", "in the call");
  await page.evaluate(() => window.play.call.people(window.play.person(`<img src=x onerror=alert(1)>`, "#456")));
  const { tiles } = await look(page);
  assert.ok(`<i id="evil">Ada</i>` in tiles && `<img src=x onerror=alert(1)>` in tiles);
  assert.equal(await page.locator("#evil, img[src=x]").count(), 0);
  await done(page);
});

for (const colorScheme of ["light", "dark"]) {
  test(`text keeps its contrast in the ${colorScheme} scheme`, async () => {
    const page = await open("/room/garden", { colorScheme, reducedMotion: "reduce" });
    await join(page);
    await until(async () => (await look(page)).state === "connected", "in the call");
    const weak = [];
    for (const step of ["full", "warned", "held"]) {
      await page.evaluate((now) => window.play.call.money({ available_msat: 1, runway_seconds: 1, step: now, burn_msat_per_second: 1 }), step);
      weak.push(...(await page.evaluate(contrasts)).filter(({ ratio }) => ratio < 4.5));
    }
    assert.deepEqual(weak, []);
    await done(page);
  });
}

/** In the page: every visible text on a plain background, with its contrast (WCAG 2.2). */
function contrasts() {
  const rgba = (color) => color.match(/[\d.]+/g).map(Number);
  const luminance = ([r, g, b]) => {
    const [x, y, z] = [r, g, b].map((value) => (value / 255 <= 0.04045 ? value / 255 / 12.92 : ((value / 255 + 0.055) / 1.055) ** 2.4));
    return 0.2126 * x + 0.7152 * y + 0.0722 * z;
  };
  const found = [];
  for (const element of document.querySelectorAll("body *")) {
    const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
    if (!own || !element.checkVisibility() || element.closest(".tile, .visually-hidden, :disabled")) continue;
    let behind = element;
    while (behind && (rgba(getComputedStyle(behind).backgroundColor)[3] ?? 1) === 0) behind = behind.parentElement;
    const pair = [getComputedStyle(element).color, getComputedStyle(behind ?? document.body).backgroundColor].map((color) => luminance(rgba(color)));
    const [light, dark] = pair.sort((a, b) => b - a);
    found.push({ text: element.textContent.trim().slice(0, 30), ratio: (light + 0.05) / (dark + 0.05) });
  }
  return found;
}

test("at a phone's width nothing is cut off, and buttons are large enough for a thumb", async () => {
  const page = await open("/room/garden", { viewport: { width: 360, height: 740 } });
  await join(page);
  await until(async () => (await look(page)).state === "connected", "in the call");
  await page.evaluate(() => {
    window.play.call.people(window.play.person("Grace", "#456"), window.play.person("A name that is much longer than any tile is wide, really", "#654"));
    window.play.call.money({ available_msat: 9007199254740991, runway_seconds: 14, step: "warned", burn_msat_per_second: 58 });
  });
  const wide = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
  assert.ok(wide <= 0, `the page is ${wide} px too wide`);
  const small = await page.locator("#controls button").evaluateAll((buttons) => buttons.filter((one) => one.getBoundingClientRect().height < 44).length);
  assert.equal(small, 0);
  assert.ok(await page.locator("#step-title").evaluate((element) => element.getBoundingClientRect().bottom < innerHeight), "a low balance is in sight");
  await done(page);
});
