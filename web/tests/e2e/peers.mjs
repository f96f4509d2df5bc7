/** Two pages that connect to each other, their descriptions carried by the test. */

/**
 * Opens `window.connection` with a data channel that counts what it gets in `window.got`.
 * @param {import("playwright-core").Page} page @param {RTCConfiguration} configuration
 */
export function open(page, configuration) {
  return page.evaluate((with_) => {
    window.connection = new RTCPeerConnection(with_);
    window.channel = window.connection.createDataChannel("data", { negotiated: true, id: 0 });
    window.channel.binaryType = "arraybuffer";
    window.got = 0;
    window.channel.onmessage = ({ data }) => (window.got += data.byteLength);
  }, configuration);
}

/**
 * Takes the other's description, if there is one, and gives the page's own with all its candidates, unless it was an answer.
 * @returns {Promise<RTCSessionDescriptionInit | null>}
 */
export function describe(page, remote) {
  return page.evaluate(async (theirs) => {
    const { connection } = window;
    if (theirs) await connection.setRemoteDescription(theirs);
    if (theirs?.type === "answer") return null;
    await connection.setLocalDescription();
    while (connection.iceGatheringState !== "complete") {
      await new Promise((resolve) => connection.addEventListener("icegatheringstatechange", resolve, { once: true }));
    }
    return connection.localDescription.toJSON();
  }, remote);
}

/** Sends so many messages of so many bytes from both, and waits until both have all. */
export async function exchange(pages, messages, bytes) {
  await Promise.all(pages.map((page) => page.evaluate(async ([count, length]) => {
    const { channel } = window;
    if (channel.readyState !== "open") await new Promise((resolve) => (channel.onopen = resolve));
    for (let n = 0; n < count; n += 1) channel.send(new Uint8Array(length));
  }, [messages, bytes])));
  await Promise.all(pages.map((page) => page.waitForFunction((all) => window.got === all, messages * bytes)));
}
