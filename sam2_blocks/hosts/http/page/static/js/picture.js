// A picture as it is drawn: one small copy of all of it, and tiles in full size for close looks.

const MOST_OVERVIEW = 2048;
const TILE = 1024;

/** Decode a picture; upright as its EXIF says, like the service reads it. */
export async function loadPicture(blob) {
  const whole = await createImageBitmap(blob);
  const { width, height } = whole;
  const share = Math.min(1, MOST_OVERVIEW / Math.max(width, height));
  if (share === 1) return new Picture(width, height, whole, []);
  const overview = await createImageBitmap(whole, {
    resizeWidth: Math.max(1, Math.round(width * share)),
    resizeHeight: Math.max(1, Math.round(height * share)),
    resizeQuality: "high",
  });
  const tiles = [];
  for (let y = 0; y < height; y += TILE) {
    for (let x = 0; x < width; x += TILE) {
      const [w, h] = [Math.min(TILE, width - x), Math.min(TILE, height - y)];
      tiles.push({ x, y, bitmap: await createImageBitmap(whole, x, y, w, h) });
    }
  }
  whole.close();
  return new Picture(width, height, overview, tiles);
}

class Picture {
  constructor(width, height, overview, tiles) {
    this.width = width;
    this.height = height;
    this.overview = overview;
    this.tiles = tiles;
  }

  /** Draw what is in sight; the context draws in pixels of the picture. */
  draw(context, [x0, y0, x1, y1], pixelsPerPixel) {
    context.imageSmoothingEnabled = pixelsPerPixel < 3;
    context.imageSmoothingQuality = "high";
    context.fillStyle = "#fff"; // beneath clear pixels, as the service reads them
    context.fillRect(0, 0, this.width, this.height);
    if (!this.tiles.length || pixelsPerPixel * this.width <= this.overview.width * 1.5) {
      context.drawImage(this.overview, 0, 0, this.width, this.height);
      return;
    }
    for (const { x, y, bitmap } of this.tiles) {
      const hidden = x > x1 || y > y1 || x + bitmap.width < x0 || y + bitmap.height < y0;
      if (!hidden) context.drawImage(bitmap, x, y);
    }
  }

  close() {
    for (const { bitmap } of [{ bitmap: this.overview }, ...this.tiles]) bitmap.close();
  }
}
