// The lists beside the picture: classes and objects.

import { colourOf, toCss } from "./colours.js";
import { selectedObject } from "./objects.js";
import { percent } from "./say.js";

export class Panel {
  #classes = document.getElementById("classes");
  #objects = document.getElementById("objects");
  #empty = document.getElementById("no-objects");
  #count = document.getElementById("object-count");
  #masks;
  #on;

  /** @param on `assignClass(index)`, `renameClass(name, to)`, `select(id)`, `remove(id)`. */
  constructor(masks, on) {
    this.#masks = masks;
    this.#on = on;
  }

  show(state, pixels) {
    this.#showClasses(state);
    this.#showObjects(state, pixels);
  }

  #showClasses(state) {
    const current = selectedObject(state)?.className ?? state.className;
    const rows = state.classes.map((name, index) => {
      const count = state.objects.filter((one) => one.className === name).length;
      const button = make("button", "row", { "aria-pressed": String(name === current) });
      button.append(
        swatch(colourOf(state.classes, name)),
        make("span", "name", {}, name),
        make("span", "count", { "aria-label": `${count} objects` }, String(count)),
        ...(index < 9 ? [make("kbd", "", {}, String(index + 1))] : []),
      );
      button.addEventListener("click", () => this.#on.assignClass(index));
      button.addEventListener("keydown", (event) => {
        if (event.key === "F2") this.#on.renameClass(name);
      });
      const rename = iconButton(`Rename ${name}`, "✎", () => this.#on.renameClass(name));
      return inItem(button, rename);
    });
    refill(this.#classes, rows);
  }

  #showObjects(state, pixels) {
    this.#empty.hidden = state.objects.length > 0;
    this.#count.textContent = state.objects.length || "";
    const rows = state.objects.map((object, index) => {
      const isSelected = object.id === state.selected;
      const button = make("button", "row", { "aria-pressed": String(isSelected) });
      const shown = this.#masks.shownOf(object);
      button.append(
        swatch(colourOf(state.classes, object.className)),
        make("span", "name", {}, `${object.className} ${index + 1}`),
        make("span", "detail", {}, describe(object, shown, pixels)),
      );
      button.addEventListener("click", () => this.#on.select(isSelected ? null : object.id));
      const label = `Delete ${object.className} ${index + 1}`;
      const remove = iconButton(label, "×", () => this.#on.remove(object.id));
      return inItem(button, remove);
    });
    refill(this.#objects, rows);
    this.#objects.querySelector("[aria-pressed=true]")?.scrollIntoView({ block: "nearest" });
  }
}

/** What an object is, in a few words. */
export function describe(object, shown, pixels) {
  if (!shown) return "…";
  const parts = [percent(shown.area / pixels)];
  if (shown.confidence != null) parts.push(`sure ${shown.confidence.toFixed(2)}`);
  if (object.choice) parts.push(`proposal ${object.choice + 1}`);
  return parts.join(" · ");
}

function swatch(rgb) {
  const made = make("span", "swatch", { "aria-hidden": "true" });
  made.style.background = toCss(rgb);
  return made;
}

function iconButton(label, sign, act) {
  const made = make("button", "icon-button", { "aria-label": label, title: label }, sign);
  made.addEventListener("click", act);
  return made;
}

function inItem(...content) {
  const item = document.createElement("li");
  item.append(...content);
  return item;
}

function make(tag, className, attributes = {}, text = null) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  if (text !== null) made.textContent = text;
  return made;
}

/** Put other rows into a list; the keyboard's focus stays in its place. */
function refill(list, rows) {
  const focusable = () => [...list.querySelectorAll("button")];
  const place = focusable().indexOf(document.activeElement);
  list.replaceChildren(...rows);
  if (place >= 0) focusable()[Math.min(place, focusable().length - 1)]?.focus();
}
