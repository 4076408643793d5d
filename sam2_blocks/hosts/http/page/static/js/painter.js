// Masks → what is drawn of them: asks the worker once for each mask and colour.

export class Painter {
  #worker = new Worker(new URL("./worker.js", import.meta.url), { type: "module" });
  #waiting = new Map();
  #known = new WeakMap(); // mask → colour → painted, or undefined while it is being painted
  #nextId = 1;

  /** @param {() => void} changed is called when a mask has been painted. */
  constructor(changed) {
    this.#worker.addEventListener("message", ({ data: { id, painted } }) => {
      const { byColour, colour } = this.#waiting.get(id);
      this.#waiting.delete(id);
      const drawn = painted && { ...painted, outline: new Path2D(painted.path) };
      byColour.set(colour, drawn);
      changed();
    });
  }

  /** Return a painted mask; null if it is empty, undefined until it is there. */
  get(mask, rgb) {
    if (!this.#known.has(mask)) this.#known.set(mask, new Map());
    const byColour = this.#known.get(mask);
    const colour = rgb.join();
    if (!byColour.has(colour)) {
      byColour.set(colour, undefined);
      const id = this.#nextId++;
      this.#waiting.set(id, { byColour, colour });
      this.#worker.postMessage({ id, mask, rgb });
    }
    return byColour.get(colour);
  }
}
