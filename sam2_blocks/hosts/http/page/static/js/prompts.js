// One object's clicks, as the service, the saved file and the snippets write them.

/** What two objects with the same clicks share. */
export function promptKey({ points, box }) {
  return JSON.stringify([box, points.map((one) => [one.x, one.y, one.positive])]);
}

/** For `/sam2/segment_image`: a box by its centre, and points. */
export function toRequest({ points, box }) {
  const prompt = {};
  if (box) {
    const [x0, y0, x1, y1] = box;
    prompt.box = { x: (x0 + x1) / 2, y: (y0 + y1) / 2, width: x1 - x0, height: y1 - y0 };
  }
  if (points.length) prompt.points = points.map(({ x, y, positive }) => ({ x, y, positive }));
  return prompt;
}

/** A row of prompts as pipelines and Python read it; what was found has the box of its mask. */
export function toRow({ points, box, found }) {
  const row = {};
  const corners = found ? found.box : box;
  if (corners) row.box_xyxy = corners;
  if (points.length) {
    row.point_coords = points.map(({ x, y }) => [x, y]);
    row.point_labels = points.map(({ positive }) => Number(positive));
  }
  return row;
}

/** The clicks of such a row. */
export function fromRow(row) {
  const labels = row.point_labels ?? [];
  const points = (row.point_coords ?? []).map(([x, y], index) => ({
    x,
    y,
    positive: (labels[index] ?? 1) === 1,
  }));
  return { points, box: row.box_xyxy ?? null };
}
