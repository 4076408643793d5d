// Run lengths → pixels of a colour, and the outline as a path. Runs in the worker.

import { decodeCounts, measure } from "./rle.js";

const MOST_SIDE = 2048; // a larger mask is painted smaller, and drawn larger
const INSIDE_ALPHA = 150;
const MOST_CORNERS = 4000; // of an outline; one of more is drawn coarser, or each frame would wait
const TURNS = [1, 0, 3];

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
  let { path, corners } = outline(grid, box, scale);
  for (let coarse = 2 * scale; corners > MOST_CORNERS; coarse *= 2) {
    ({ path, corners } = outline(fillGrid(counts, mask.size[0], box, coarse), box, coarse));
  }
  return { pixels: colour(grid, rgb), box, scale, path, area };
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

/**
 * The edges between inside and outside: `{path, corners}`, closed lines in pixels of the picture.
 *
 * Each edge has the inside on its right, so that at every corner the line goes on somewhere.
 */
function outline(grid, [x0, y0], scale) {
  const { width } = grid;
  const exits = findExits(grid);
  const steps = [1, width, -1, -width]; // right, down, left, up
  const parts = [];
  for (let start = 0; start < exits.length; start++) {
    while (exits[start] & 1) {
      const [x, y] = [start % width, Math.floor(start / width)];
      parts.push(`M${x0 + (x - 1) * scale} ${y0 + (y - 1) * scale}`);
      follow(start);
    }
  }
  return { path: parts.join(""), corners: parts.length };

  /** Follow one line until it is closed; it never crosses itself. */
  function follow(start) {
    let [at, way, length] = [start, 0, 0];
    do {
      exits[at] &= ~(1 << way);
      at += steps[way];
      length++;
      const onward = nextWay(exits[at], way);
      if (at === start || onward !== way) {
        parts.push(`${way & 1 ? "v" : "h"}${(way & 2 ? -length : length) * scale}`);
        [way, length] = [onward, 0];
      }
    } while (at !== start);
    parts.push("z");
  }
}

/** By corner, the ways on which an edge leaves it: bits for right, down, left and up. */
function findExits({ cells, width, height }) {
  const exits = new Uint8Array(width * height);
  for (let y = 1; y < height; y++) {
    for (let x = 1, at = y * width + 1; x < width; x++, at++) {
      const inside = cells[at];
      if (inside !== cells[at - width]) {
        if (inside) exits[at] |= 1;
        else exits[at + 1] |= 4;
      }
      if (inside !== cells[at - 1]) {
        if (inside) exits[at + width] |= 8;
        else exits[at] |= 2;
      }
    }
  }
  return exits;
}

/** To the right if that is possible, else straight on, else to the left. */
function nextWay(exits, way) {
  for (const turn of TURNS) {
    const onward = (way + turn) & 3;
    if (exits & (1 << onward)) return onward;
  }
  return way; // closed
}
