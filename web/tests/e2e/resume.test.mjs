/** The page's socket breaks, its media do not: the session goes on over another socket, on the same peer connection. */

import assert from "node:assert/strict";
import { after, test } from "node:test";
import { launch, person, until } from "./browser.mjs";
import { TestRelay } from "./relay.mjs";
import { connectionsMade, enter, look, seesAndHears } from "./room.mjs";

const [relay, browser] = await Promise.all([TestRelay.start(), launch()]);
after(async () => {
  await browser.close();
  await relay.leave();
});

test("a broken socket costs nobody picture or sound, and what is said afterwards arrives", { timeout: 90_000 }, async () => {
  const [ada, grace] = [await person(browser), await person(browser)];
  await ada.addInitScript(() => {
    const Real = WebSocket;
    window.sockets = [];
    window.WebSocket = class extends Real {
      constructor(...whereto) {
        super(...whereto);
        window.sockets.push(this);
      }
    };
  });
  await enter(ada, relay, "resume", "Ada");
  await enter(grace, relay, "resume", "Grace");
  await Promise.all([seesAndHears(ada, "Grace"), seesAndHears(grace, "Ada")]);

  await ada.evaluate(() => window.sockets.at(-1).close(4000));
  await until(async () => (await ada.evaluate(() => window.sockets.length)) === 2, "the page opens another socket");
  await until(async () => (await look(ada)).state === "connected", "the call goes on");
  assert.equal(await connectionsMade(ada), 1, "on the same peer connection");
  assert.ok((await look(grace)).tiles.Ada, "Ada never left the room");
  await Promise.all([seesAndHears(ada, "Grace"), seesAndHears(grace, "Ada")]);

  await ada.getByRole("button", { name: /camera/i }).first().click();
  await until(async () => !(await look(grace)).tiles.Ada.video, "Grace hears that Ada's camera is off");
  assert.deepEqual([...ada.faults, ...grace.faults], []);
  await Promise.all([ada.context().close(), grace.context().close()]);
});
