/**
 * Money and time in words. 1 sat = 1,000 msat; amounts stay integers, the point is put into the text.
 */

/** @param {number} msat integer @returns {string} e.g. "1,234.567" */
export function formatSat(msat) {
  const sign = msat < 0 ? "-" : "";
  const whole = Math.floor(Math.abs(msat) / 1000);
  return `${sign}${group(whole)}.${String(Math.abs(msat) % 1000).padStart(3, "0")}`;
}

/** @param {number} msat integer @returns {string} e.g. "1,234,567" */
export function formatMsat(msat) {
  return `${msat < 0 ? "-" : ""}${group(Math.abs(msat))}`;
}

function group(integer) {
  return String(integer).replace(/\B(?=(\d{3})+$)/g, ",");
}

/** @param {number | null | undefined} seconds how long the money lasts @returns {string} rounded down, never flattering */
export function formatRunway(seconds) {
  if (seconds === null || seconds === undefined || !Number.isFinite(seconds)) return "nothing is being spent";
  if (seconds < 1) return "nothing left";
  if (seconds < 120) return plural(Math.floor(seconds), "second");
  if (seconds < 120 * 60) return plural(Math.floor(seconds / 60), "minute");
  if (seconds < 48 * 3600) return plural(Math.floor(seconds / 3600), "hour");
  return plural(Math.floor(seconds / 86400), "day");
}

function plural(count, unit) {
  return `${group(count)} ${unit}${count === 1 ? "" : "s"}`;
}

/** The low-balance ladder: what each step is called and what it means for the call. */
export const STEPS = Object.freeze({
  full: { title: "Full quality", text: "Everything is on." },
  warned: { title: "Balance is getting low", text: "Everything is still on. Top up to keep it so." },
  reduced: { title: "Smaller picture", text: "Video is reduced so that the call lasts longer. Top up for full quality." },
  "audio-only": { title: "Sound only", text: "Video is off so that you can keep talking. Top up to see each other again." },
  held: { title: "Paused", text: "The balance is used up. Nothing is relayed and nothing is charged. Top up within a minute to go on." },
  ended: { title: "Ended", text: "The balance is used up and the relay has ended the call. Top up to join again." },
});
