/** The people in the call, one tile each. Names are untrusted: they reach the page as text only. */

/** Steps of the ladder at which the relay sends no video, whatever others publish. */
const NO_VIDEO = ["audio-only", "held", "ended"];

export class Tiles {
  /** @param {HTMLUListElement} list @param {() => void} onblocked the browser plays no sound before a click */
  constructor(list, onblocked) {
    this.#list = list;
    this.#onblocked = onblocked;
  }

  #list;
  #onblocked;
  /** @type {Map<string, HTMLLIElement>} by key: "self" or "peer:" and the name */ #tiles = new Map();
  #speaker = "";

  /**
   * @param {{name: string, audio: boolean, video: boolean, stream: MediaStream}} self
   * @param {Array<{name: string, audio: boolean, video: boolean, stream: MediaStream}>} others
   * @param {string} step of the ladder
   */
  show(self, others, step) {
    const wanted = new Map([["self", self], ...others.map((person) => [`peer:${person.name}`, person])]);
    for (const [key, tile] of this.#tiles) {
      if (wanted.has(key)) continue;
      tile.querySelector("video").srcObject = null;
      tile.remove();
      this.#tiles.delete(key);
    }
    for (const [key, person] of wanted) {
      const tile = this.#tiles.get(key) ?? this.#make(key);
      const paused = key !== "self" && NO_VIDEO.includes(step);
      this.#fill(tile, person, paused);
    }
    this.#list.dataset.count = String(wanted.size);
  }

  /** @param {string} deviceId where sound comes out */
  async setSpeaker(deviceId) {
    this.#speaker = deviceId;
    const videos = [...this.#tiles].filter(([key]) => key !== "self").map(([, tile]) => tile.querySelector("video"));
    await Promise.all(videos.map((video) => video.setSinkId?.(deviceId)));
  }

  #make(key) {
    const tile = document.createElement("li");
    tile.className = "tile";
    const video = document.createElement("video");
    video.autoplay = video.playsInline = true;
    if (key === "self") {
      tile.classList.add("self");
      video.muted = true;
    } else if (this.#speaker) video.setSinkId?.(this.#speaker).catch(() => {});
    const avatar = document.createElement("span");
    avatar.className = "avatar";
    avatar.setAttribute("aria-hidden", "true");
    const caption = document.createElement("p");
    caption.className = "who";
    const flags = document.createElement("span");
    flags.className = "flags";
    caption.append(document.createElement("bdi"), flags);
    tile.append(avatar, video, caption);
    this.#tiles.set(key, tile);
    this.#list.append(tile);
    return tile;
  }

  #fill(tile, person, paused) {
    const video = tile.querySelector("video");
    // An empty stream would keep the document "loading" for ever.
    const stream = person.stream.getTracks().length ? person.stream : null;
    if (video.srcObject !== stream) video.srcObject = stream;
    video.setAttribute("aria-label", `Video of ${person.name}`);
    const seen = person.video && !paused && person.stream.getVideoTracks().length > 0;
    tile.dataset.video = String(seen);
    tile.querySelector(".avatar").textContent = initials(person.name);
    tile.querySelector("bdi").textContent = person.name;
    const flags = tile.classList.contains("self") ? ["you"] : [];
    if (!person.audio) flags.push("muted");
    if (!person.video) flags.push("camera off");
    else if (paused) flags.push("video paused");
    tile.querySelector(".flags").textContent = flags.length ? ` · ${flags.join(", ")}` : "";
    // Sound comes from the same element, also while its picture is hidden.
    if (stream && video.paused) video.play().catch((error) => error.name === "NotAllowedError" && this.#onblocked());
  }
}

function initials(name) {
  const words = name.trim().split(/\s+/).filter(Boolean);
  return words.slice(0, 2).map((word) => [...word][0].toUpperCase()).join("") || "?";
}
