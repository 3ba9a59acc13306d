// A picture that is zoomed and moved by mouse, wheel, touch and keyboard, with its evidence map on it.

const MOST = 8;

export class Viewer {
  constructor(root) {
    this.stage = root.querySelector(".stage");
    this.layers = [...this.stage.querySelectorAll("img")];
    this.told = root.querySelector("output");
    this.fingers = new Map();
    this.fit();
    for (const button of root.querySelectorAll("[data-zoom]"))
      button.addEventListener("click", () => this.zoom(Number(button.dataset.zoom)));
    this.stage.addEventListener("wheel", (event) => this.#wheel(event), { passive: false });
    this.stage.addEventListener("pointerdown", (event) => this.#down(event));
    this.stage.addEventListener("pointermove", (event) => this.#move(event));
    for (const kind of ["pointerup", "pointercancel"])
      this.stage.addEventListener(kind, (event) => this.fingers.delete(event.pointerId));
    this.stage.addEventListener("dblclick", (event) => this.zoom(this.scale < 2 ? 2 : 0, this.#at(event)));
    this.stage.addEventListener("keydown", (event) => this.#key(event));
  }

  fit() {
    [this.scale, this.x, this.y] = [1, 0, 0];
    this.#draw();
  }

  /** Times `factor` around a point of the stage; 0 for the whole picture. */
  zoom(factor, point = [this.stage.clientWidth / 2, this.stage.clientHeight / 2]) {
    if (!factor) return this.fit();
    const scale = Math.min(Math.max(this.scale * factor, 1), MOST);
    const [x, y] = point;
    this.x = x - (x - this.x) * (scale / this.scale);
    this.y = y - (y - this.y) * (scale / this.scale);
    this.scale = scale;
    this.#draw();
  }

  pan(across, down) {
    this.x += across;
    this.y += down;
    this.#draw();
  }

  /** Closer in three steps, then the whole picture. */
  cycle() {
    this.zoom(this.scale >= 4 ? 0 : 2);
  }

  #draw() {
    const { clientWidth: width, clientHeight: height } = this.stage;
    this.x = Math.min(0, Math.max(this.x, width * (1 - this.scale)));
    this.y = Math.min(0, Math.max(this.y, height * (1 - this.scale)));
    for (const layer of this.layers) layer.style.transform = `translate(${this.x}px, ${this.y}px) scale(${this.scale})`;
    this.told.textContent = `${Math.round(100 * this.scale)} %`;
  }

  #at(event) {
    const box = this.stage.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  }

  #wheel(event) {
    event.preventDefault();
    this.zoom(Math.exp(-event.deltaY / 400), this.#at(event));
  }

  #down(event) {
    this.stage.setPointerCapture(event.pointerId);
    this.fingers.set(event.pointerId, this.#at(event));
  }

  #move(event) {
    const before = this.fingers.get(event.pointerId);
    if (!before) return;
    const now = this.#at(event);
    const other = [...this.fingers].find(([id]) => id !== event.pointerId)?.[1];
    this.fingers.set(event.pointerId, now);
    if (!other) return this.pan(now[0] - before[0], now[1] - before[1]);
    const apart = (point) => Math.hypot(point[0] - other[0], point[1] - other[1]);
    this.zoom(apart(now) / Math.max(apart(before), 1), [(now[0] + other[0]) / 2, (now[1] + other[1]) / 2]);
    this.pan((now[0] - before[0]) / 2, (now[1] - before[1]) / 2);
  }

  #key(event) {
    const step = 60;
    const actions = {
      ArrowLeft: () => this.pan(step, 0),
      ArrowRight: () => this.pan(-step, 0),
      ArrowUp: () => this.pan(0, step),
      ArrowDown: () => this.pan(0, -step),
    };
    if (!actions[event.key] || this.scale === 1) return;
    event.preventDefault();
    actions[event.key]();
  }
}
