// What is on the page, as values that never change: each step of a person makes a new one, and the
// old ones are the history. Undo is therefore over everything, unfinished shapes too.

const MOST_STEPS = 1000;

export class Store {
  #past = [];
  #future = [];
  #present;
  #listeners = new Set();

  constructor(initial) {
    this.#present = initial;
  }

  get state() {
    return this.#present;
  }

  get canUndo() {
    return this.#past.length > 0;
  }

  get canRedo() {
    return this.#future.length > 0;
  }

  /** Take a step that can be undone: `change(state)` returns the new state. */
  step(change) {
    const next = change(this.#present);
    if (next === this.#present) return;
    this.#past = [...this.#past, this.#present].slice(-MOST_STEPS);
    this.#future = [];
    this.#show(next);
  }

  /** Change what is no work of its own, such as which object is selected. */
  adjust(change) {
    const next = change(this.#present);
    if (next !== this.#present) this.#show(next);
  }

  /** Begin anew, with another picture. */
  reset(state) {
    this.#past = [];
    this.#future = [];
    this.#show(state);
  }

  undo() {
    if (!this.canUndo) return false;
    this.#future = [this.#present, ...this.#future];
    const before = this.#past[this.#past.length - 1];
    this.#past = this.#past.slice(0, -1);
    this.#show(before);
    return true;
  }

  redo() {
    if (!this.canRedo) return false;
    this.#past = [...this.#past, this.#present];
    const [next, ...later] = this.#future;
    this.#future = later;
    this.#show(next);
    return true;
  }

  /** Call `listener(state)` after every change. */
  watch(listener) {
    this.#listeners.add(listener);
  }

  #show(state) {
    this.#present = state;
    for (const listener of this.#listeners) listener(state);
  }
}
