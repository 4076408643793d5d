// Two canvases on top of each other: the picture, and what is said of it.

import { colourOf, toCss } from "./colours.js";
import { Layer } from "./layer.js";
import { tidyBox } from "./objects.js";

const PREVIEW = [255, 255, 255];
const POINT_RADIUS = 7;
const DARK = "rgb(0 0 0 / 0.65)";

export class Stage {
  picture = null;
  opacity = 0.6;
  crosshair = null; // a pixel, for people without a pointer
  draft = null; // a box being dragged, in pixels of the picture
  preview = null; // {mask} of where the pointer is
  onDrawn = () => {};
  #pictureContext;
  #masksContext;
  #view;
  #masks;
  #painter;
  #state;
  #stale = { picture: true, masks: true };
  #asked = false;
  #others = new Layer();

  constructor({ pictureCanvas, masksCanvas, view, masks, painter, state }) {
    this.#pictureContext = pictureCanvas.getContext("2d", { alpha: false });
    this.#masksContext = masksCanvas.getContext("2d");
    this.#view = view;
    this.#masks = masks;
    this.#painter = painter;
    this.#state = state;
  }

  /** Draw anew before the next frame: all of it, or the masks alone. */
  redraw(what = "all") {
    this.#stale.masks = true;
    this.#stale.picture ||= what === "all";
    if (this.#asked) return;
    this.#asked = true;
    requestAnimationFrame(() => this.#draw());
  }

  /** Have new masks painted at once; until they are, what is on the canvas stays there. */
  prepare() {
    const state = this.#state();
    for (const object of state.objects) this.#paintedOf(state, object);
  }

  /** Whether a mask of an object is on the canvas. */
  isPainted({ mask }, { className }) {
    return this.#painter.get(mask, colourOf(this.#state().classes, className)) !== undefined;
  }

  /** Take in that there is more or less room, in CSS pixels. */
  resize(width, height) {
    for (const { canvas } of [this.#pictureContext, this.#masksContext]) {
      canvas.width = Math.max(1, Math.round(width * devicePixelRatio));
      canvas.height = Math.max(1, Math.round(height * devicePixelRatio));
    }
    this.#view.resize(width, height);
    this.redraw();
  }

  #draw() {
    this.#asked = false;
    if (this.#stale.picture) this.#drawPicture();
    if (this.#stale.masks) this.#drawMasks();
    this.#stale = { picture: false, masks: false };
    this.onDrawn();
  }

  #drawPicture() {
    const context = this.#pictureContext;
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.fillStyle = getComputedStyle(context.canvas).backgroundColor;
    context.fillRect(0, 0, context.canvas.width, context.canvas.height);
    if (!this.picture) return;
    this.#inPicture(context);
    this.picture.draw(context, this.#view.visible(), this.#view.scale * devicePixelRatio);
  }

  #drawMasks() {
    const context = this.#masksContext;
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, context.canvas.width, context.canvas.height);
    if (!this.picture) return;
    const state = this.#state();
    const selected = state.objects.find((one) => one.id === state.selected);
    this.#drawOthers(context, state);
    this.#inPicture(context);
    if (selected) this.#drawSelected(context, state, selected);
    this.#drawPreview(context);
    if (selected) this.#drawClicks(context, selected);
    this.#drawUnfinished(context, state);
    this.#drawCrosshair(context);
  }

  #inPicture(context) {
    const { scale, x, y } = this.#view;
    const ratio = devicePixelRatio;
    context.setTransform(scale * ratio, 0, 0, scale * ratio, x * ratio, y * ratio);
  }

  /** The masks of all objects but the selected one, which is on top of them. */
  #drawOthers(context, state) {
    const others = state.objects.filter((one) => one.id !== state.selected);
    const painted = others.map((one) => this.#paintedOf(state, one)).filter(Boolean);
    const { scale, x, y } = this.#view;
    const { width, height } = context.canvas;
    const where = [scale, x, y, width, height, devicePixelRatio, this.opacity].join();
    this.#others.copyTo(context, painted, where, (layer, one) => {
      this.#inPicture(layer);
      layer.globalAlpha = this.opacity;
      this.#drawPainted(layer, one);
    });
  }

  #drawSelected(context, state, object) {
    const painted = this.#paintedOf(state, object);
    if (!painted) return;
    context.globalAlpha = this.opacity;
    this.#drawPainted(context, painted);
    context.globalAlpha = 1;
    const colour = colourOf(state.classes, object.className);
    this.#strokeOutline(context, painted.outline, toCss(colour));
  }

  #paintedOf(state, object) {
    const shown = this.#masks.shownOf(object);
    return shown && this.#painter.get(shown.mask, colourOf(state.classes, object.className));
  }

  #drawPainted(context, { bitmap, box: [x0, y0], scale }) {
    context.imageSmoothingEnabled = this.#view.scale < 1;
    context.drawImage(bitmap, x0, y0, bitmap.width * scale, bitmap.height * scale);
  }

  #strokeOutline(context, outline, colour) {
    context.strokeStyle = "#fff";
    context.lineWidth = 3.5 / this.#view.scale;
    context.stroke(outline);
    context.strokeStyle = colour;
    context.lineWidth = 1.75 / this.#view.scale;
    context.stroke(outline);
  }

  #drawPreview(context) {
    const painted = this.preview && this.#painter.get(this.preview.mask, PREVIEW);
    if (!painted) return;
    context.globalAlpha = 0.45;
    this.#drawPainted(context, painted);
    context.globalAlpha = 1;
    context.setLineDash([6 / this.#view.scale, 4 / this.#view.scale]);
    context.strokeStyle = "#fff";
    context.lineWidth = 1.5 / this.#view.scale;
    context.stroke(painted.outline);
    context.setLineDash([]);
  }

  #drawClicks(context, { points, box }) {
    if (box) this.#drawBox(context, box);
    for (const point of points) this.#drawPoint(context, point);
  }

  #drawUnfinished(context, state) {
    if (this.draft) this.#drawBox(context, tidyBox(this.draft));
    if (!state.corner) return;
    const other = this.crosshair ?? state.corner;
    this.#drawBox(context, tidyBox([...state.corner, ...other]));
  }

  #drawBox(context, [x0, y0, x1, y1]) {
    const unit = 1 / this.#view.scale;
    for (const [colour, dash] of [[DARK, []], ["#fff", [5 * unit, 4 * unit]]]) {
      context.setLineDash(dash);
      context.strokeStyle = colour;
      context.lineWidth = 1.5 * unit;
      context.strokeRect(x0, y0, x1 - x0, y1 - y0);
    }
    context.setLineDash([]);
  }

  /** A plus on a light disc is in, a minus on a dark one is out: told apart without colours. */
  #drawPoint(context, { x, y, positive }) {
    const unit = 1 / this.#view.scale;
    const [cx, cy] = [x + 0.5, y + 0.5];
    context.beginPath();
    context.arc(cx, cy, POINT_RADIUS * unit, 0, 2 * Math.PI);
    context.fillStyle = positive ? "#fff" : "#b3261e";
    context.fill();
    context.strokeStyle = positive ? DARK : "#fff";
    context.lineWidth = 1.5 * unit;
    context.stroke();
    context.beginPath();
    context.moveTo(cx - 3.5 * unit, cy);
    context.lineTo(cx + 3.5 * unit, cy);
    if (positive) {
      context.moveTo(cx, cy - 3.5 * unit);
      context.lineTo(cx, cy + 3.5 * unit);
    }
    context.strokeStyle = positive ? "#0b6b3a" : "#fff";
    context.lineWidth = 2 * unit;
    context.stroke();
  }

  #drawCrosshair(context) {
    if (!this.crosshair) return;
    const [x, y] = this.crosshair.map((value) => value + 0.5);
    const unit = 1 / this.#view.scale;
    for (const [colour, width] of [["#000", 4], ["#fff", 2]]) {
      context.beginPath();
      for (const [dx, dy] of [[1, 0], [-1, 0], [0, 1], [0, -1]]) {
        context.moveTo(x + dx * 4 * unit, y + dy * 4 * unit);
        context.lineTo(x + dx * 16 * unit, y + dy * 16 * unit);
      }
      context.strokeStyle = colour;
      context.lineWidth = width * unit;
      context.stroke();
    }
  }
}
