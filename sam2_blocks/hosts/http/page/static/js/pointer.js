// Mouse, pen and fingers on the stage.
//
// A click is in, with the right button or Alt it is out, a drag is a box; the middle button, Space
// and the hand pan, the wheel and two fingers zoom. Fingers click and box by the tool that is chosen.

const DRAG_PX = 5;
const PREVIEW_MS = 30;

export class Pointer {
  #element;
  #view;
  #on;
  #pointers = new Map(); // id → last place on the screen
  #gesture = null;
  #pinch = null;
  #hoverTimer = 0;

  /**
   * @param {HTMLElement} element
   * @param {View} view
   * @param on `tool()`, `spaceHeld()`, and what is done: `click(pixel, {positive, time, select})`,
   *   `box(corners)`, `draft(corners | null)`, `hover(pixel | null, {positive})`, `moved()`.
   */
  constructor(element, view, on) {
    this.#element = element;
    this.#view = view;
    this.#on = on;
    const handlers = {
      pointerdown: (event) => this.#down(event),
      pointermove: (event) => this.#move(event),
      pointerup: (event) => this.#up(event),
      pointercancel: (event) => this.#cancel(event),
      pointerleave: () => this.#hover(null),
      contextmenu: (event) => event.preventDefault(),
    };
    for (const [name, handler] of Object.entries(handlers)) element.addEventListener(name, handler);
    element.addEventListener("wheel", (event) => this.#wheel(event), { passive: false });
  }

  /** Drop a box that is being dragged; return whether there was one. */
  drop() {
    const dragging = this.#gesture?.kind === "box";
    this.#gesture = null;
    this.#on.draft(null);
    return dragging;
  }

  #down(event) {
    this.#element.focus({ preventScroll: true });
    this.#element.setPointerCapture(event.pointerId);
    this.#hover(null);
    const at = this.#place(event);
    this.#pointers.set(event.pointerId, at);
    if (this.#pointers.size === 2) {
      this.drop();
      this.#pinch = this.#spread();
    } else if (this.#pointers.size === 1) {
      this.#gesture = { kind: this.#kindOf(event), from: at, last: at, moved: false };
    }
  }

  #move(event) {
    const at = this.#place(event);
    if (!this.#pointers.has(event.pointerId)) {
      this.#hover(at, { positive: this.#isPositive(event) });
      return;
    }
    this.#pointers.set(event.pointerId, at);
    if (this.#pinch) this.#pinchTo(this.#spread());
    else if (this.#gesture) this.#drag(at);
  }

  #up(event) {
    const gesture = this.#gesture;
    const at = this.#place(event);
    this.#release(event);
    if (!gesture) return;
    if (!gesture.moved && gesture.kind !== "pan") {
      const extra = { select: event.ctrlKey || event.metaKey, time: event.timeStamp };
      this.#on.click(this.#view.toPixel(at), { positive: this.#isPositive(event), ...extra });
    } else if (gesture.moved && gesture.kind === "box") {
      this.#on.draft(null);
      this.#on.box([...this.#corner(gesture.from), ...this.#corner(at)]);
    }
  }

  #cancel(event) {
    this.drop();
    this.#release(event);
  }

  #release(event) {
    this.#pointers.delete(event.pointerId);
    if (this.#pointers.size < 2) this.#pinch = null;
    this.#gesture = null;
  }

  #kindOf(event) {
    if (event.button === 1 || this.#on.spaceHeld() || this.#on.tool() === "pan") return "pan";
    const isFinger = event.pointerType === "touch";
    if (event.button === 2 || (isFinger && this.#on.tool() !== "box")) return "press";
    return "box";
  }

  #isPositive(event) {
    const turned = event.button === 2 || event.altKey;
    return (this.#on.tool() === "out") === turned;
  }

  #drag(at) {
    const gesture = this.#gesture;
    const far = Math.hypot(at[0] - gesture.from[0], at[1] - gesture.from[1]);
    gesture.moved ||= far > DRAG_PX;
    if (!gesture.moved) return;
    if (gesture.kind === "box") {
      this.#on.draft([...this.#corner(gesture.from), ...this.#corner(at)]);
    } else {
      this.#view.pan(at[0] - gesture.last[0], at[1] - gesture.last[1]);
      this.#on.moved();
    }
    gesture.last = at;
  }

  #corner(at) {
    return this.#view.toPixel(at);
  }

  #spread() {
    const [[x0, y0], [x1, y1]] = [...this.#pointers.values()];
    return { middle: [(x0 + x1) / 2, (y0 + y1) / 2], distance: Math.hypot(x1 - x0, y1 - y0) };
  }

  #pinchTo(now) {
    const before = this.#pinch;
    this.#pinch = now;
    this.#view.pan(now.middle[0] - before.middle[0], now.middle[1] - before.middle[1]);
    this.#view.zoomAt(...now.middle, now.distance / Math.max(before.distance, 1));
    this.#on.moved();
  }

  #wheel(event) {
    event.preventDefault();
    const lines = event.deltaMode === WheelEvent.DOM_DELTA_LINE ? 20 : 1;
    const delta = Math.max(-200, Math.min(200, event.deltaY * lines));
    this.#view.zoomAt(...this.#place(event), Math.exp(-delta / 300));
    this.#on.moved();
  }

  #hover(at, how) {
    clearTimeout(this.#hoverTimer);
    if (!at) {
      this.#on.hover(null);
      return;
    }
    const pixel = this.#view.toPixel(at);
    this.#hoverTimer = setTimeout(() => this.#on.hover(pixel, how), PREVIEW_MS);
  }

  #place(event) {
    const { left, top } = this.#element.getBoundingClientRect();
    return [event.clientX - left, event.clientY - top];
  }
}
