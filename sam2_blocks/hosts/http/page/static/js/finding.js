// Objects without clicks: everything in the picture, or what a phrase says.

import { withMeasures } from "./masks.js";

const MOST_TEXT = 20;

/** Segment everything; the grid is as fine as the person chose. */
export async function findEverything(api, { imageId }) {
  const side = Number(document.getElementById("grid").value);
  const strict = Number(document.getElementById("sureness").value);
  const automatic = {
    points_per_side: side,
    pred_iou_thresh: strict,
    stability_score_thresh: strict,
  };
  const rows = await api.segment(imageId, { automatic_masks: automatic });
  return rows.map((row) => found({ mask: row.masks, confidence: row.confidence }, "everything"));
}

/** Find what phrases say, separated by commas, and segment it. */
export async function findByText(api, { blob }, { grounding, model, text }) {
  const phrases = text.split(",").map((one) => one.trim()).filter(Boolean).slice(0, MOST_TEXT);
  const outputs = await api.run(textPipeline(grounding, model, phrases), blob);
  const rows = outputs.predictions.filter((row) => row.area_px > 0);
  return rows.map((row) => ({
    ...found({ mask: row.segmentation, confidence: row.confidence }, "text"),
    className: row.class_name,
  }));
}

function found(answer, origin) {
  return { ...withMeasures(answer), origin };
}

function textPipeline(grounding, model, phrases) {
  const ground = { image: "$inputs.image", phrases, model: grounding };
  const segment = { image: "$inputs.image", boxes: "$steps.ground.detections", model };
  return {
    pipeline_version: 1,
    inputs: { image: { kind: "image" } },
    steps: {
      ground: { use: "transformers/ground@v1", with: ground },
      segment: { use: "sam2/segment@v1", with: segment },
    },
    outputs: { predictions: "$steps.segment.predictions" },
  };
}
