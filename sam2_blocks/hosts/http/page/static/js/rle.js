// COCO's run lengths: down the columns, the first run is background.

/** Decode COCO's text of run lengths. Source: rleFrString of the COCO API. */
export function decodeCounts(text) {
  const counts = [];
  for (let place = 0; place < text.length; ) {
    let value = 0;
    let shift = 0;
    let more = true;
    while (more) {
      const code = text.charCodeAt(place++) - 48;
      value += (code & 31) * 2 ** shift; // may need more than 32 bits
      more = (code & 32) !== 0;
      shift += 5;
      if (!more && code & 16) value -= 2 ** shift;
    }
    if (counts.length > 2) value += counts[counts.length - 2];
    counts.push(value);
  }
  return counts;
}

/** Area and box of a mask: `{area, box: [x0, y0, x1, y1]}`, x1 and y1 behind the last pixel. */
export function measure({ size: [height], counts }) {
  const runs = typeof counts === "string" ? decodeCounts(counts) : counts;
  let [x0, y0, x1, y1] = [Infinity, Infinity, 0, 0];
  let area = 0;
  let start = 0;
  runs.forEach((length, index) => {
    if (index % 2 && length) {
      const [first, last] = [start, start + length - 1];
      const [left, right] = [Math.floor(first / height), Math.floor(last / height)];
      const whole = left !== right; // reaches into another column: its bottom and top are inside
      x0 = Math.min(x0, left);
      x1 = Math.max(x1, right + 1);
      y0 = Math.min(y0, whole ? 0 : first % height);
      y1 = Math.max(y1, whole ? height : (last % height) + 1);
      area += length;
    }
    start += length;
  });
  return { area, box: area ? [x0, y0, x1, y1] : [0, 0, 0, 0] };
}

/** Whether a pixel is inside of a mask. */
export function hasPixel({ size: [height], counts }, x, y) {
  const wanted = x * height + y;
  let end = 0;
  return decodeCounts(counts).findIndex((length) => (end += length) > wanted) % 2 === 1;
}
