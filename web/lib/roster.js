/**
 * Who is in the room and which receive line carries whom. Lines are a pool: the relay says by `tracks` whom each carries
 * now, and may say so before the line itself has been negotiated; `refresh` looks again.
 */

/**
 * @typedef {object} Participant
 * @property {string} name unique in the room; untrusted text
 * @property {boolean} audio they have an open microphone
 * @property {boolean} video they have an open camera
 * @property {MediaStream} stream what is received of them; the same object as long as they stay
 */

/** A room holds no more people; a relay that says otherwise is not believed. */
const PEOPLE_MAX = 64;

export class Roster {
  /** @param {(mid: string) => MediaStreamTrack | undefined} trackOf the receiver's track of a line */
  constructor(trackOf) {
    this.#trackOf = trackOf;
  }

  #trackOf;
  /** @type {Map<string, Participant>} */ #people = new Map();
  /** @type {Array<{mid: string, kind: string, name: string}>} */ #tracks = [];

  /** @returns {Participant[]} in the order they came */
  list() {
    return [...this.#people.values()].map((person) => ({ ...person }));
  }

  /**
   * @param {Array<{name: string, audio: boolean, video: boolean}>} people the whole list @param {string} [self] left out
   * @returns {boolean} something changed
   */
  setPeople(people, self) {
    const others = people.filter(({ name }) => typeof name === "string" && name !== self).slice(0, PEOPLE_MAX);
    const before = this.#people;
    this.#people = new Map(others.map(({ name, audio, video }) => {
      const stream = before.get(name)?.stream ?? new MediaStream();
      return [name, { name, audio: Boolean(audio), video: Boolean(video), stream }];
    }));
    this.refresh();
    return true;
  }

  /** @param {Array<{mid: string, kind: string, name: string}>} tracks the whole mapping @returns {boolean} something changed */
  setTracks(tracks) {
    this.#tracks = tracks.filter(({ mid, name }) => typeof mid === "string" && typeof name === "string");
    return this.refresh();
  }

  /** Puts the tracks of the lines into the streams of the people. @returns {boolean} something changed */
  refresh() {
    let changed = false;
    for (const { name, stream } of this.#people.values()) {
      const wanted = this.#tracks.filter((track) => track.name === name).map(({ mid }) => this.#trackOf(mid)).filter(Boolean);
      for (const track of stream.getTracks()) if (!wanted.includes(track)) (stream.removeTrack(track), (changed = true));
      for (const track of wanted) if (!stream.getTracks().includes(track)) (stream.addTrack(track), (changed = true));
    }
    return changed;
  }

  /** @returns {boolean} somebody was there */
  clear() {
    const had = this.#people.size > 0;
    [this.#people, this.#tracks] = [new Map(), []];
    return had;
  }
}
