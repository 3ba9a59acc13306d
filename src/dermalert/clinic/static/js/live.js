// Word from the server that cases have changed. The browser connects again by itself when the stream ends.

/**
 * Calls `changed` after the server's stamp has moved, at most once in `every` milliseconds, and `state` with "on" or
 * "off" when the connection comes and goes.
 */
export function onNews(address, changed, state, every = 2000) {
  let stamp = null;
  let due = null;
  const stream = new EventSource(address);
  stream.addEventListener("open", () => state("on"));
  stream.addEventListener("error", () => state("off"));
  stream.addEventListener("stamp", (event) => {
    if (stamp !== null && event.data !== stamp) due ??= setTimeout(() => ((due = null), changed()), every);
    stamp = event.data;
  });
  addEventListener("pagehide", () => stream.close());
}
