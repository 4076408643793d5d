// The menu that writes files and copies text.

import { keepFile } from "./saving.js";
import { note, noteError } from "./say.js";
import { SNIPPETS } from "./snippets.js";

const SAVED = { coco: "coco.json", labelme: "labelme/", yolo: "labels/ and data.yaml", masks: "masks/" };

export function exportMenu(editor, api, session) {
  const menu = document.getElementById("export-menu");
  const run = (act) => () => {
    menu.hidePopover();
    act().catch(noteError);
  };
  for (const button of menu.querySelectorAll("[data-export]")) {
    const form = button.dataset.export;
    button.addEventListener("click", run(() => exportOne(editor, api, form)));
  }
  for (const button of menu.querySelectorAll("[data-export-all]")) {
    const form = button.dataset.exportAll;
    button.addEventListener("click", run(() => exportAll(editor, api, form)));
  }
  document.getElementById("export-all").hidden = !session.saves;
  for (const button of menu.querySelectorAll("[data-copy]")) {
    const snippet = SNIPPETS[button.dataset.copy];
    button.addEventListener("click", run(() => copy(editor, api, snippet)));
  }
}

async function exportOne(editor, api, form) {
  const { clicks, state } = await editor.finished();
  const request = { form, classes: state.classes, pictures: [clicks] };
  const { blob, name } = await api.download(request);
  keepFile(blob, name);
}

async function exportAll(editor, api, form) {
  await editor.save();
  const { classes } = editor.store.state;
  const { folder, pictures } = await api.exportToFolder({ form, classes, everything: true });
  note(`Wrote ${SAVED[form]} of ${pictures} picture${pictures === 1 ? "" : "s"} to ${folder}.`);
}

async function copy(editor, api, snippet) {
  const { picture, state } = await editor.finished();
  if (!state.objects.length) throw new Error("click an object first.");
  const { origin } = new URL(document.baseURI);
  const facts = { fileName: picture.name, model: picture.model, origin, hasKey: api.hasKey };
  await navigator.clipboard.writeText(snippet({ objects: state.objects, ...facts }));
  note("Copied.");
}
