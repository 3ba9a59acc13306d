// A case: zoom, evidence map, shortcuts for decisions, and a word when somebody else changes it.

import { tell } from "./app.js";
import { onKeys } from "./keys.js";
import { onNews } from "./live.js";
import { Viewer } from "./viewer.js";

const root = document.querySelector(".viewer");
const viewer = root && new Viewer(root);
const evidence = document.getElementById("evidence");
const map = root?.querySelector(".map");

if (map) {
  const opacity = document.getElementById("opacity");
  opacity.addEventListener("input", () => (map.style.opacity = opacity.value / 100));
  document.getElementById("diagnosis").addEventListener("change", (event) => {
    const address = new URL(map.src);
    address.searchParams.set("diagnosis", event.target.value);
    map.src = address;
    map.alt = `Where the evidence for ${event.target.value} lies`;
  });
  map.addEventListener("error", () => evidence.checked && tell("The evidence map could not be made. Try again in a while."));
}

const choose = (action) => () => {
  const choice = document.querySelector(`input[name=action][value=${action}]`);
  if (!choice) return;
  choice.checked = true;
  choice.dispatchEvent(new Event("change", { bubbles: true }));
  document.getElementById(action === "follow_up" ? "months" : "record-next").focus();
};
const follow = (rel) => () => {
  const link = document.querySelector(`.steps [rel=${rel}]`);
  if (link) link.click();
  else tell(rel === "next" ? "This is the last case of the list." : "This is the first case of the list.");
};

const months = document.getElementById("months");
months?.addEventListener("input", () => (document.querySelector("input[name=action][value=follow_up]").checked = true));
months?.addEventListener("keydown", (event) => {
  if (event.key !== "Enter") return; // as everywhere: record, and open the next
  event.preventDefault();
  document.getElementById("record-next").click();
});

onKeys({
  j: follow("next"),
  k: follow("prev"),
  r: choose("refer"),
  b: choose("biopsy"),
  f: choose("follow_up"),
  n: choose("no_action"),
  z: () => viewer?.cycle(),
  "+": () => viewer?.zoom(1.5),
  "-": () => viewer?.zoom(1 / 1.5),
  0: () => viewer?.fit(),
  e: () => evidence?.click(),
});

const page = document.getElementById("case");
onNews(`/events?case=${page.dataset.case}`, () => {
  const told = document.getElementById("changed");
  if (told.hidden) told.hidden = false; // an alert: said at once, and nothing is replaced under the reader's hands
}, () => {}, 300);
