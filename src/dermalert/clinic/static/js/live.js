// Word from the server that cases have changed. The browser connects again by itself when the stream ends.

/**
 * Calls `changed` after the server's stamp has moved, at most once in `every` milliseconds, and `state` with "on" or
 * "off" when the connection comes and goes. Only a page in sight listens: browsers open six connections to a server,
 * and a reader may have more tabs than that. One that comes back into sight hears what it has missed.
 */
export function onNews(address, changed, state, every = 2000) {
  let stamp = null;
  let due = null;
  let stream = null;
  const heard = (event) => {
    if (stamp !== null && event.data !== stamp) due ??= setTimeout(() => ((due = null), changed()), every);
    stamp = event.data;
  };
  const listen = () => {
    stream?.close();
    stream = document.hidden ? null : new EventSource(address);
    stream?.addEventListener("open", () => state("on"));
    stream?.addEventListener("error", () => state("off"));
    stream?.addEventListener("stamp", heard);
  };
  document.addEventListener("visibilitychange", listen);
  addEventListener("pageshow", listen);
  addEventListener("pagehide", () => stream?.close());
}
