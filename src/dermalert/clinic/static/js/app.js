// On every page: the menu, the list of shortcuts, forms that submit by themselves, and word of a lost connection.

import { keysAreOn, onKeys, turnKeys } from "./keys.js";

const toast = document.getElementById("toast");

/** Says something in a corner, and to screen readers. */
export function tell(text, seconds = 6) {
  toast.textContent = text;
  clearTimeout(tell.timer);
  if (seconds) tell.timer = setTimeout(() => (toast.textContent = ""), 1000 * seconds);
}

for (const button of document.querySelectorAll("[data-only-without-script]")) button.hidden = true;

document.addEventListener("change", (event) => {
  if (event.target.closest("form[data-submits]") && event.target.matches("select")) event.target.form.requestSubmit();
});

const menu = document.querySelector(".menu");
if (menu) {
  document.addEventListener("click", (event) => menu.contains(event.target) || (menu.open = false));
  menu.addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    menu.open = false;
    menu.querySelector("summary").focus();
  });
}

const keys = document.getElementById("keys");
if (keys) {
  for (const button of document.querySelectorAll("[data-opens=keys]")) {
    button.hidden = false;
    button.addEventListener("click", () => keys.showModal());
  }
  const on = document.getElementById("keys-on");
  on.checked = keysAreOn();
  on.addEventListener("change", () => turnKeys(on.checked));
  onKeys({
    "?": () => keys.showModal(),
    w: () => (location.href = "/worklist"),
  });
}

addEventListener("offline", () => tell("No connection. What you see may be old; nothing that you recorded is lost.", 0));
addEventListener("online", () => tell("Connected again."));
