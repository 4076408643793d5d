// Where the picture is on the screen: `screen = picture * scale + offset`, in CSS pixels.

const MOST_SCALE = 40;
const MARGIN = 24;
const FOOT = 64; // of the room, for the tools

export class View {
  scale = 1;
  x = 0;
  y = 0;
  #picture = { width: 1, height: 1 };
  #room = { width: 1, height: 1 };
  #fitted = true;

  /** Show a picture of another size, whole. */
  show(width, height) {
    this.#picture = { width, height };
    this.fit();
  }

  /** Take in that there is more or less room. */
  resize(width, height) {
    const [dx, dy] = [(width - this.#room.width) / 2, (height - this.#room.height) / 2];
    this.#room = { width, height };
    if (this.#fitted) this.fit();
    else this.pan(dx, dy);
  }

  fit() {
    const { width, height } = this.#picture;
    this.scale = Math.min(this.#leastScale() * 2, MOST_SCALE);
    this.x = (this.#room.width - width * this.scale) / 2;
    this.y = (this.#room.height - FOOT - height * this.scale) / 2;
    this.#fitted = true;
  }

  /** Zoom so that the picture stays where it is under the pointer. */
  zoomAt(screenX, screenY, factor) {
    const least = Math.min(this.#leastScale(), 1);
    const scale = Math.min(Math.max(this.scale * factor, least), MOST_SCALE);
    this.x = screenX - (screenX - this.x) * (scale / this.scale);
    this.y = screenY - (screenY - this.y) * (scale / this.scale);
    this.scale = scale;
    this.#fitted = false;
    this.#keepInSight();
  }

  zoom(factor) {
    this.zoomAt(this.#room.width / 2, this.#room.height / 2, factor);
  }

  pan(dx, dy) {
    this.x += dx;
    this.y += dy;
    this.#fitted = false;
    this.#keepInSight();
  }

  /** Pan as far as needed to have a pixel of the picture in sight. */
  reveal([x, y]) {
    const [screenX, screenY] = this.toScreen([x, y]);
    const { width, height } = this.#room;
    const inside = (at, most) => Math.min(Math.max(at, MARGIN), most - MARGIN);
    const [dx, dy] = [inside(screenX, width) - screenX, inside(screenY, height) - screenY];
    if (dx || dy) this.pan(dx, dy);
  }

  toScreen([x, y]) {
    return [x * this.scale + this.x, y * this.scale + this.y];
  }

  /** The place in the picture, which may be outside of it. */
  toPicture([screenX, screenY]) {
    return [(screenX - this.x) / this.scale, (screenY - this.y) / this.scale];
  }

  /** The pixel of the picture, the nearest where the pointer is outside. */
  toPixel(screen) {
    const [x, y] = this.toPicture(screen);
    return [clampPixel(x, this.#picture.width), clampPixel(y, this.#picture.height)];
  }

  /** The part of the picture in sight: `[x0, y0, x1, y1]`. */
  visible() {
    const [x0, y0] = this.toPicture([0, 0]);
    const [x1, y1] = this.toPicture([this.#room.width, this.#room.height]);
    const { width, height } = this.#picture;
    return [Math.max(0, x0), Math.max(0, y0), Math.min(width, x1), Math.min(height, y1)];
  }

  #leastScale() {
    const { width, height } = this.#picture;
    const across = (this.#room.width - 2 * MARGIN) / width;
    const down = (this.#room.height - FOOT - 2 * MARGIN) / height;
    return Math.max(Math.min(across, down), 0.001) / 2;
  }

  #keepInSight() {
    const { width, height } = this.#picture;
    const within = (at, side, room) => Math.min(Math.max(at, 2 * MARGIN - side), room - 2 * MARGIN);
    this.x = within(this.x, width * this.scale, this.#room.width);
    this.y = within(this.y, height * this.scale, this.#room.height);
  }
}

function clampPixel(value, side) {
  return Math.min(Math.max(Math.floor(value), 0), side - 1);
}
