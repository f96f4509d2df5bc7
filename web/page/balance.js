/** The balance, what burns it, how long it lasts and what the ladder makes of it. */

import { formatMsat, formatRunway, formatSat, STEPS } from "../milliway.js";

const part = (id) => document.getElementById(id);

/** @param {{available_msat: number}} account before a call: nothing burns */
export function showAccount({ available_msat }) {
  part("sat").textContent = formatSat(available_msat);
  part("msat").textContent = `${formatMsat(available_msat)} msat`;
}

/** @param {import("../lib/call.js").Balance} balance @returns {string} the step in words, to be announced when it changes */
export function showBalance(balance) {
  showAccount(balance);
  const { step, burn_msat_per_second: burn, runway_seconds: runway } = balance;
  const words = STEPS[step] ?? { title: step, text: "" };
  part("burn").textContent = burn === undefined ? "–" : `${formatMsat(Math.round(burn))} msat/s`;
  part("runway").textContent = formatRunway(runway);
  part("step-title").textContent = words.title;
  part("step-text").textContent = words.text;
  document.body.dataset.step = step;
  return `${words.title}. ${words.text}`;
}

/** The call is over: the amount stays, the rest no longer applies. */
export function showIdle(ended = false) {
  part("burn").textContent = part("runway").textContent = "–";
  const words = ended ? STEPS.ended : { title: "Not in a call", text: "Nothing is being spent." };
  part("step-title").textContent = words.title;
  part("step-text").textContent = words.text;
  document.body.dataset.step = ended ? "ended" : "";
}
