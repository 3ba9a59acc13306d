// Shortcuts of single letters: never while somebody types, never with Ctrl, Alt or ⌘, and off where the reader says so.

const OFF = "dermalert.keys";

export const keysAreOn = () => localStorage.getItem(OFF) !== "off";
export const turnKeys = (on) => localStorage.setItem(OFF, on ? "on" : "off");

const takesLetters = (element) =>
  element.isContentEditable ||
  element.matches("textarea, select, input:not([type=checkbox], [type=radio], [type=range], [type=file])");

/** Calls actions[key] when its key is pressed. */
export function onKeys(actions) {
  document.addEventListener("keydown", (event) => {
    const action = actions[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (!action || event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey) return;
    if (!keysAreOn() || takesLetters(event.target) || document.querySelector("dialog[open]")) return;
    event.preventDefault();
    action(event);
  });
}
