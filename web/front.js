/** The front page: enter a room's name, see what the relay charges. */

import { formatMsat } from "./milliway.js";

const SERVICES = { sfu: "Group calls", turn: "Relaying past a firewall" };
const room = document.querySelector("#room");
room.value = `room-${crypto.getRandomValues(new Uint32Array(1))[0].toString(36).slice(0, 5)}`;
room.select();

document.querySelector("#enter").addEventListener("submit", (event) => {
  event.preventDefault();
  location.assign(`/room/${encodeURIComponent(room.value.trim())}`);
});

try {
  const response = await fetch("/v1/tariff", { signal: AbortSignal.timeout(8000) });
  if (!response.ok) throw new Error(String(response.status));
  const { tariffs } = await response.json();
  const table = document.querySelector("#tariff");
  for (const tariff of tariffs) {
    const row = table.tBodies[0].insertRow();
    const head = document.createElement("th");
    head.scope = "row";
    head.textContent = SERVICES[tariff.service] ?? tariff.service;
    row.append(head);
    for (const member of ["msat_per_megabyte_out", "msat_per_megabyte_in", "msat_per_second"]) {
      row.insertCell().textContent = formatMsat(tariff[member]);
    }
  }
  table.hidden = false;
} catch {
  document.querySelector("#tariff-error").textContent = "The relay did not say its prices. Is it running?";
}
