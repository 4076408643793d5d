// Run lengths → pixels of a colour, and the outline as a path. Runs in the worker.

import { decodeCounts, measure } from "./rle.js";

const MOST_SIDE = 2048; // a larger mask is painted smaller, and drawn larger
const INSIDE_ALPHA = 150;

/**
 * Paint one mask.
 *
 * @param {{size: number[], counts: string}} mask COCO run lengths.
 * @param {number[]} rgb colour of the pixels.
 * @returns {{pixels: ImageData, box: number[], scale: number, path: string, area: number} | null}
 *   what covers `box` of the picture, one pixel for `scale` of it; null for an empty mask.
 */
export function paint(mask, rgb) {
  const counts = decodeCounts(mask.counts);
  const { area, box } = measure({ size: mask.size, counts });
  if (!area) return null;
  const longest = Math.max(box[2] - box[0], box[3] - box[1]);
  const scale = Math.max(1, 2 ** Math.ceil(Math.log2(longest / MOST_SIDE)));
  const grid = fillGrid(counts, mask.size[0], box, scale);
  return { pixels: colour(grid, rgb), box, scale, path: outline(grid, box, scale), area };
}

/** The mask in its box, with a clear border of one cell: `{cells, width, height}`. */
function fillGrid(counts, pictureHeight, [x0, y0, x1, y1], scale) {
  const width = Math.ceil((x1 - x0) / scale) + 2;
  const height = Math.ceil((y1 - y0) / scale) + 2;
  const cells = new Uint8Array(width * height);
  let start = 0;
  counts.forEach((length, index) => {
    if (index % 2) fillRun(start, start + length);
    start += length;
  });
  return { cells, width, height };

  function fillRun(from, to) {
    for (let at = from; at < to; ) {
      const x = Math.floor(at / pictureHeight);
      const end = Math.min(to, (x + 1) * pictureHeight);
      if ((x - x0) % scale === 0) {
        const column = (x - x0) / scale + 1;
        const top = at - x * pictureHeight - y0;
        const bottom = end - x * pictureHeight - y0;
        for (let row = Math.ceil(top / scale); row * scale < bottom; row++) {
          cells[(row + 1) * width + column] = 1;
        }
      }
      at = end;
    }
  }
}

/** Pixels of a colour: half clear inside, and full along the border. */
function colour({ cells, width, height }, [red, green, blue]) {
  const pixels = new ImageData(width - 2, height - 2);
  const words = new Uint32Array(pixels.data.buffer); // little endian everywhere browsers run
  const rgb = (blue << 16) | (green << 8) | red;
  const inside = ((INSIDE_ALPHA << 24) | rgb) >>> 0;
  const border = ((255 << 24) | rgb) >>> 0;
  for (let y = 1, word = 0; y < height - 1; y++) {
    for (let at = y * width + 1, end = at + width - 2; at < end; at++, word++) {
      if (!cells[at]) continue;
      const within = cells[at - 1] & cells[at + 1] & cells[at - width] & cells[at + width];
      words[word] = within ? inside : border;
    }
  }
  return pixels;
}

/** The edges between inside and outside as an SVG path in pixels of the picture. */
function outline({ cells, width, height }, [x0, y0], scale) {
  const parts = [];
  const begun = new Int32Array(width); // row in which the edge left of a column began
  for (let y = 1; y < height; y++) {
    let from = 0;
    for (let x = 1, at = y * width + 1; x < width; x++, at++) {
      if (cells[at] !== cells[at - width]) from ||= x;
      else if (from) from = across(from, x, y);
      if (cells[at] !== cells[at - 1]) begun[x] ||= y;
      else if (begun[x]) begun[x] = down(begun[x], x, y);
    }
  }
  return parts.join("");

  function across(from, x, y) {
    parts.push(`M${x0 + (from - 1) * scale} ${y0 + (y - 1) * scale}h${(x - from) * scale}`);
    return 0;
  }

  function down(from, x, y) {
    parts.push(`M${x0 + (x - 1) * scale} ${y0 + (from - 1) * scale}v${(y - from) * scale}`);
    return 0;
  }
}
