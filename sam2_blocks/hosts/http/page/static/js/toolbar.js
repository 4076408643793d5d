// Buttons, switches and sliders → the same actions as keys.

import { noteError } from "./say.js";

export function wireToolbar(editor, actions, session) {
  const buttons = {
    open: actions.open,
    "open-empty": actions.open,
    undo: actions.undo,
    redo: actions.redo,
    "new-object": actions.newObject,
    everything: actions.everything,
    fit: actions.fit,
    "zoom-in": () => actions.zoom(1.25),
    "zoom-out": () => actions.zoom(0.8),
    proposal: () => actions.propose(1),
    help: actions.help,
  };
  for (const [id, act] of Object.entries(buttons)) {
    document.getElementById(id).addEventListener("click", () => act());
  }
  for (const radio of document.querySelectorAll("[name=tool]")) {
    radio.addEventListener("change", () => editor.setTool(radio.value));
    if (radio.checked) editor.setTool(radio.value);
  }
  const opacity = document.getElementById("opacity");
  opacity.addEventListener("input", () => editor.setOpacity(Number(opacity.value) / 100));
  const preview = document.getElementById("preview-switch");
  preview.addEventListener("change", () => editor.setPreview(preview.checked));
  wireClassForm(editor);
  wireTextForm(editor, session);
}

function wireClassForm(editor) {
  const input = document.getElementById("class-input");
  document.getElementById("class-form").addEventListener("submit", (event) => {
    event.preventDefault();
    editor.addClass(input.value.trim());
    input.value = "";
  });
}

function wireTextForm(editor, session) {
  const form = document.getElementById("text-form");
  form.hidden = !session.grounding;
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const text = document.getElementById("text-input").value;
    if (text.trim()) editor.findText(text).catch(noteError);
  });
}
