// The page, put together: what people do becomes steps of the store, and what the store has becomes
// masks, drawings, lists and files.

import { Api } from "./api.js";
import { Editor } from "./editor.js";
import { exportMenu } from "./exporting.js";
import { Files } from "./files.js";
import { listen } from "./keyboard.js";
import { note, noteError } from "./say.js";
import { wireToolbar } from "./toolbar.js";

async function askForKey(again) {
  document.getElementById("key-question").textContent = again
    ? "The server does not take this key. Try another."
    : "This server asks for a key.";
  const dialog = document.getElementById("key-dialog");
  const input = document.getElementById("key-input");
  input.value = "";
  if (!dialog.open) dialog.showModal();
  await new Promise((resolve) => dialog.addEventListener("close", resolve, { once: true }));
  return input.value;
}

async function start() {
  const api = new Api(askForKey);
  const session = await api.session();
  const editor = new Editor(api, session);
  const files = new Files({
    openNamed: (name) => editor.openNamed(name).catch(noteError),
    openFile: (file) => editor.openFile(file).catch(noteError),
  });
  editor.onOpened = (name, isListed) => files.markOpen(isListed ? name : null);
  editor.onSaved = (name) => files.markSaved(name);
  editor.onKept = (name) => files.add(name);
  files.showFolder(session.pictures, session.saved);
  const actions = {
    ...editor.actions(),
    open: () => files.choose(),
    nextPicture: (step) => files.openNext(step),
    help: () => document.getElementById("help-dialog").showModal(),
  };
  wireToolbar(editor, actions, session);
  exportMenu(editor, api, session);
  listen(editor.element, actions);
  document.body.dataset.ready = "true";
  if (session.pictures.length) await editor.openNamed(session.pictures[0]);
}

window.addEventListener("unhandledrejection", ({ reason }) => noteError(reason));
start().catch((error) => note(`The page cannot start: ${error.message}`, { isError: true }));
