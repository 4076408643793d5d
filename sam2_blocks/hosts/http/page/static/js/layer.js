// Masks that stay as they are, drawn once: a frame copies all of them instead of drawing each anew.

export class Layer {
  #context = new OffscreenCanvas(1, 1).getContext("2d");
  #drawn = [];
  #where = null;

  /**
   * Draw what is not on the layer yet, and copy the layer.
   *
   * @param context where it is copied to.
   * @param {object[]} parts all that shall be on it, from below.
   * @param {string} where the view they are drawn in.
   * @param {(context, part: object) => void} draw draws one of them.
   */
  copyTo(context, parts, where, draw) {
    const { canvas } = this.#context;
    const goesOn = where === this.#where && this.#drawn.every((one, index) => one === parts[index]);
    if (!goesOn) {
      ({ width: canvas.width, height: canvas.height } = context.canvas); // clears it, too
      this.#drawn = [];
      this.#where = where;
    }
    for (const part of parts.slice(this.#drawn.length)) draw(this.#context, part);
    this.#drawn = parts;
    if (!parts.length) return;
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.drawImage(canvas, 0, 0);
  }
}
