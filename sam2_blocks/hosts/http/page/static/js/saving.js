// What is kept: in the server's folder while one works, and in files of others on demand.

import { emptyState } from "./objects.js";
import { fromRow, toRow } from "./prompts.js";
import { withMeasures } from "./masks.js";

const QUIET_MS = 700;

/** The saved form of a picture's objects; see `sam2_blocks.formats.clicks`. */
export function toClicks({ name, imageId, width, height, model }, state, masks) {
  const objects = state.objects.map((object) => {
    const { mask, confidence } = masks.answerOf(object);
    const row = { class_name: object.className, mask, choice: object.choice };
    return { ...row, found: object.found !== null, ...(confidence != null && { confidence }) };
  });
  const picture = { file_name: name, width, height, image_id: imageId, model };
  return { clicks_version: 1, ...picture, prompts: state.objects.map(toRow), objects };
}

/** The state that was saved; the masks are remembered as they were. */
export function fromClicks(clicks, state, masks) {
  const objects = clicks.objects.map((row, index) => {
    const object = {
      id: index + 1,
      className: row.class_name,
      choice: row.choice ?? 0,
      ...fromRow(clicks.prompts[index]),
      found: null,
    };
    const answer = { mask: row.mask, confidence: row.confidence ?? null };
    if (row.found) {
      return { ...object, points: [], box: null, found: { ...withMeasures(answer), origin: "saved" } };
    }
    masks.remember(object, answer);
    return object;
  });
  const classes = [...new Set([...state.classes, ...objects.map((one) => one.className)])];
  return { ...emptyState(classes, state.className), objects, nextId: objects.length + 1 };
}

/** Saves a moment after the last change, one save at a time. */
export class Saver {
  #save;
  #failed;
  #show;
  #timer = 0;
  #running = null;
  #again = false;

  /**
   * @param {() => Promise<void>} save writes what there is.
   * @param {(state: "saved" | "saving" | "unsaved") => void} show tells how it stands.
   */
  constructor(save, show, failed) {
    this.#save = save;
    this.#show = show;
    this.#failed = failed;
  }

  soon() {
    clearTimeout(this.#timer);
    this.#show("unsaved");
    this.#timer = setTimeout(() => this.now(), QUIET_MS);
  }

  get waits() {
    return this.#timer !== 0;
  }

  /** Save what is unsaved before something else is opened. */
  async flush() {
    if (this.#timer || this.#running) await this.now();
  }

  now() {
    clearTimeout(this.#timer);
    this.#timer = 0;
    if (this.#running) {
      this.#again = true;
      return this.#running;
    }
    this.#running = this.#run().finally(() => {
      this.#running = null;
    });
    return this.#running;
  }

  async #run() {
    do {
      this.#again = false;
      this.#show("saving");
      try {
        await this.#save();
        this.#show(this.#timer ? "unsaved" : "saved");
      } catch (error) {
        this.#show("unsaved");
        this.#failed(error);
      }
    } while (this.#again);
  }
}

/** Let the browser keep a file. */
export function keepFile(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}
