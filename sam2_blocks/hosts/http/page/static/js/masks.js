// Which masks the objects have: what the model makes of their clicks, asked for once.
//
// A mask is a function of the clicks, so undo finds it again here, and an answer to clicks that are
// no longer there can do no harm. Requests that nobody needs any more are aborted.

import { isAborted } from "./api.js";
import { PROPOSALS } from "./objects.js";
import { promptKey, toRequest } from "./prompts.js";
import { hasPixel, measure } from "./rle.js";

export class Masks {
  #api;
  #changed;
  #failed;
  #imageId = null;
  #answers = new Map(); // key → {mask, confidence, area, box}
  #proposals = new Map(); // key → several of these, the surest first
  #asked = new Map(); // key → AbortController
  #shown = new Map(); // id of an object → its last answer, while the next one is on its way
  #preview = null;

  /**
   * @param {Api} api
   * @param {() => void} changed is called when there is another mask.
   * @param {(error: Error) => void} failed is told what went wrong.
   */
  constructor(api, changed, failed) {
    this.#api = api;
    this.#changed = changed;
    this.#failed = failed;
  }

  /** Begin anew with a picture; null while it is being embedded. */
  reset(imageId) {
    for (const controller of this.#asked.values()) controller.abort();
    for (const map of [this.#answers, this.#proposals, this.#asked, this.#shown]) map.clear();
    this.#imageId = imageId;
    this.cancelPreview();
  }

  get ready() {
    return this.#imageId !== null;
  }

  get pending() {
    return this.#asked.size > 0;
  }

  /** The answer to an object's clicks as they are now, if it is there. */
  answerOf(object) {
    if (object.found) return object.found;
    const key = promptKey(object);
    if (!object.choice) return this.#answers.get(key);
    const proposals = this.#proposals.get(key);
    return proposals?.[object.choice % proposals.length];
  }

  /** What to draw: the answer, or the last one while the next is on its way. */
  shownOf(object) {
    return this.answerOf(object) ?? this.#shown.get(object.id);
  }

  /** Remember the mask of clicks that were saved with it. */
  remember(object, answer) {
    const found = withMeasures(answer);
    const key = promptKey(object);
    if (!object.choice) this.#answers.set(key, found);
    else this.#proposals.set(key, Object.assign(Array(PROPOSALS), { [object.choice]: found }));
    this.#shown.set(object.id, found);
  }

  /** Ask for what the state lacks, and stop asking for what it does not need. */
  follow(state) {
    const needed = new Map();
    this.keepShown(state);
    for (const object of state.objects) {
      if (!this.answerOf(object)) needed.set(`${object.choice > 0}${promptKey(object)}`, object);
    }
    for (const [key, controller] of this.#asked) {
      if (!needed.has(key)) {
        controller.abort();
        this.#asked.delete(key);
      }
    }
    if (!this.ready) return;
    for (const [key, object] of needed) if (!this.#asked.has(key)) this.#ask(key, object);
  }

  /** Know the picture from now on; what was remembered of it stays. */
  begin(imageId) {
    this.#imageId = imageId;
  }

  /** Keep what is drawn while the next answer is on its way. */
  keepShown(state) {
    for (const object of state.objects) {
      const answer = this.answerOf(object);
      if (answer) this.#shown.set(object.id, answer);
    }
  }

  /** Whether a mask has a pixel. */
  covers({ mask }, x, y) {
    return hasPixel(mask, x, y);
  }

  /** Wait until every mask is there. */
  async settled(state) {
    while (this.pending || !state().objects.every((one) => this.answerOf(one))) {
      if (!this.pending) throw new Error("some masks are missing; undo, or click again.");
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }

  /** Return what the model would make of clicks; null if it was asked anew meanwhile. */
  async preview(object) {
    this.cancelPreview();
    if (!this.ready) return null;
    const key = promptKey(object);
    if (this.#answers.has(key)) return this.#answers.get(key);
    const controller = new AbortController();
    this.#preview = controller;
    try {
      const request = { prompts: [toRequest(object)] };
      const [row] = await this.#api.segment(this.#imageId, request, controller.signal);
      const answer = withMeasures({ mask: row.masks, confidence: row.confidence });
      this.#answers.set(key, answer);
      return controller.signal.aborted ? null : answer;
    } catch (error) {
      if (!isAborted(error)) this.#failed(error);
      return null;
    }
  }

  cancelPreview() {
    this.#preview?.abort();
    this.#preview = null;
  }

  async #ask(key, object) {
    const controller = new AbortController();
    this.#asked.set(key, controller);
    try {
      await this.#answer(object, controller.signal);
    } catch (error) {
      if (!isAborted(error)) this.#failed(error);
    }
    if (this.#asked.get(key) === controller) this.#asked.delete(key);
    if (!controller.signal.aborted) this.#changed();
  }

  async #answer(object, signal) {
    const request = { prompts: [toRequest(object)] };
    if (object.choice) request.candidates = true;
    const [row] = await this.#api.segment(this.#imageId, request, signal);
    const key = promptKey(object);
    const made = ({ masks, confidence }) => withMeasures({ mask: masks, confidence });
    if (!this.#answers.has(key)) this.#answers.set(key, made(row));
    if (row.candidates) this.#proposals.set(key, row.candidates.map(made));
  }
}

/** Add area and box of the mask. */
export function withMeasures(answer) {
  return { ...answer, ...measure(answer.mask) };
}
