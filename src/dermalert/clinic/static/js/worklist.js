// The worklist without reloading: when cases change, the list is fetched anew, and the reader's place in it kept.

import { tell } from "./app.js";
import { onKeys } from "./keys.js";
import { onNews } from "./live.js";

const list = document.getElementById("list");
const live = document.getElementById("live");
const links = () => [...list.querySelectorAll(".cases .who a")];
const known = () => new Set([...list.querySelectorAll("[data-case]")].map((row) => row.dataset.case));

async function renew() {
  const answer = await fetch(location.href, { headers: { Accept: "text/html" }, cache: "no-store" }).catch(() => null);
  if (!answer?.ok || answer.redirected) return;
  const fresh = new DOMParser().parseFromString(await answer.text(), "text/html").getElementById("list");
  const typing = document.activeElement?.closest?.(".sieve");
  if (!fresh || (typing && list.contains(typing))) return; // not under the hands of somebody who types or chooses
  const before = known();
  const focused = document.activeElement?.closest?.("[data-case]")?.dataset.case;
  list.replaceChildren(...fresh.childNodes);
  for (const button of list.querySelectorAll("[data-only-without-script]")) button.hidden = true;
  const arrived = [...list.querySelectorAll("[data-case]")].filter((row) => !before.has(row.dataset.case));
  arrived.forEach((row) => row.classList.add("new"));
  if (focused) list.querySelector(`[data-case="${focused}"] .who a`)?.focus({ preventScroll: true });
  const refer = arrived.filter((row) => row.matches(".refer")).length;
  if (arrived.length) tell(`${arrived.length} more ${arrived.length === 1 ? "case" : "cases"} in this view${refer ? `, ${refer} to refer` : ""}.`);
}

if (live) {
  live.hidden = false;
  onNews(live.dataset.events, renew, (state) => {
    live.dataset.state = state;
    live.textContent = state === "on" ? "Live" : "Not connected: trying again";
  });
}

function step(by) {
  const all = links();
  if (!all.length) return;
  const at = all.indexOf(document.activeElement);
  all[Math.min(Math.max(at + by, 0), all.length - 1)].focus();
}

onKeys({
  j: () => step(1),
  k: () => step(-1),
  o: () => (links().includes(document.activeElement) ? document.activeElement : links()[0])?.click(),
  "/": () => document.getElementById("text").focus(),
});
