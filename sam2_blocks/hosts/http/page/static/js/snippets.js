// What was clicked, as text that runs elsewhere: a pipeline, a request, a few lines of Python.

import { toRequest, toRow } from "./prompts.js";

/**
 * Each takes `{objects, fileName, model, origin, hasKey}` and returns the text.
 */
export const SNIPPETS = { pipeline, curl, python };

function pipeline({ objects, fileName, model }) {
  const rows = objects.map((one) => `        - ${JSON.stringify(toRow(one))}`);
  return `# sam2-blocks run clicks.yaml --input ${shellQuote(fileName)} --out out
pipeline_version: 1
inputs:
  image: {kind: image}
steps:
  segment:
    use: sam2/segment@v1
    with:
      image: $inputs.image
      model: ${JSON.stringify(model)}
      prompts:${notes(objects, "        # ")}
${rows.join("\n")}
outputs:
  predictions: $steps.segment.predictions
`;
}

function curl({ objects, fileName, origin, hasKey }) {
  const clicks = objects.map((one) => (one.found ? { points: [], box: one.found.box } : one));
  const prompts = JSON.stringify({ prompts: clicks.map(toRequest) });
  const key = hasKey ? `\n  -H "Authorization: Bearer $SAM2_BLOCKS_API_KEY" \\` : "";
  const file = fileName.replace(/["\\]/g, "\\$&");
  return `curl -s ${shellQuote(`${origin}/sam2/segment_image`)} \\${key}
  -F ${shellQuote(`image=@"${file}"`)} \\
  -F format=rle \\
  -F candidates=true \\
  -F ${shellQuote(`prompts=${prompts}`)}
`;
}

function python({ objects, fileName, model }) {
  const rows = objects.map((one) => `    ${JSON.stringify(toRow(one))},`);
  const names = objects.map((one) => one.className);
  return `from sam2_blocks import segment

prompts = [${notes(objects, "    # ")}
${rows.join("\n")}
]
found = segment(${JSON.stringify(fileName)}, prompts, model=${JSON.stringify(model)})
found.data["class_name"][:] = ${JSON.stringify(names)}
print(found.xyxy, found.mask.shape)
`;
}

/** Say where the text gives another mask than the page. */
function notes(objects, before) {
  const said = objects.flatMap((one, index) => {
    if (one.found) return [`object ${index} was found without clicks; the box of its mask stands in`];
    if (one.choice) return [`object ${index}: on the page, proposal ${one.choice + 1} was chosen`];
    return [];
  });
  return said.map((text) => `\n${before}${text}`).join("");
}

function shellQuote(text) {
  return /^[\w./-]+$/.test(text) ? text : `'${text.replaceAll("'", `'\\''`)}'`;
}
