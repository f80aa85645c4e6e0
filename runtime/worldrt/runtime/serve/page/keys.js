// The keys that are held down, on the keyboard and on the pad.

const CODES = {
  KeyW: "W", KeyA: "A", KeyS: "S", KeyD: "D",
  ArrowUp: "W", ArrowLeft: "A", ArrowDown: "S", ArrowRight: "D",
};

export class Keys {
  // `changed(keys)` gets the held ones as a string such as "WA".
  constructor(buttons, changed) {
    Object.assign(this, { buttons, changed, held: new Set(), fingers: new Map(), told: "" });
    addEventListener("keydown", (event) => this.key(event, true));
    addEventListener("keyup", (event) => this.key(event, false));
    addEventListener("blur", () => this.release());
    document.addEventListener("visibilitychange", () => document.hidden && this.release());
    for (const button of buttons) this.listen(button);
  }

  key(event, down) {
    const key = CODES[event.code];
    if (!key || (down && (writes(event.target) || event.ctrlKey || event.altKey || event.metaKey))) return;
    if (down) event.preventDefault();
    if (event.repeat) return;
    if (down) this.held.add(key);
    else this.held.delete(key);
    this.tell();
  }

  listen(button) {
    const let_go = ({ pointerId }) => this.fingers.delete(pointerId) && this.tell();
    button.addEventListener("pointerdown", (event) => {
      button.setPointerCapture(event.pointerId);
      this.fingers.set(event.pointerId, button.dataset.key);
      this.tell();
    });
    for (const name of ["pointerup", "pointercancel", "lostpointercapture"]) button.addEventListener(name, let_go);
    button.addEventListener("contextmenu", (event) => event.preventDefault());
  }

  release() {
    this.held.clear();
    this.fingers.clear();
    this.tell();
  }

  tell() {
    const all = new Set([...this.held, ...this.fingers.values()]);
    for (const button of this.buttons) button.classList.toggle("held", all.has(button.dataset.key));
    const keys = [..."WASD"].filter((key) => all.has(key)).join("");
    if (keys !== this.told) this.changed((this.told = keys));
  }
}

function writes(target) {
  return target instanceof HTMLTextAreaElement || target instanceof HTMLInputElement;
}
