// The state of one picture and what people do to it: pure functions from state to state.
//
// An object is either clicked (points, a box, or both; its mask is what the model makes of them) or
// found (its mask came without clicks). Coordinates are whole pixels of the picture.

export const DEFAULT_CLASS = "object";
export const PROPOSALS = 3;

export function emptyState(classes = [DEFAULT_CLASS], className = classes[0]) {
  return { objects: [], selected: null, corner: null, classes, className, nextId: 1 };
}

export function selectedObject(state) {
  return state.objects.find((one) => one.id === state.selected) ?? null;
}

/** Put a click into the selected object, or begin one with it. */
export function addPoint(state, point) {
  const object = selectedObject(state);
  if (!object) return begin(state, { points: [point], box: null });
  const clicked = object.found ? { points: [], box: object.found.box } : object;
  const points = [...clicked.points, point];
  return replace(state, { ...object, points, box: clicked.box, choice: 0, found: null });
}

/** Begin an object with a box. */
export function addBox(state, box) {
  const tidy = tidyBox(box);
  if (tidy[0] === tidy[2] || tidy[1] === tidy[3]) return { ...state, corner: null };
  return { ...begin(state, { points: [], box: tidy }), corner: null };
}

/** Set the first corner of a box, an unfinished shape, or finish it with the second. */
export function setCorner(state, [x, y]) {
  return state.corner ? addBox(state, [...state.corner, x, y]) : { ...state, corner: [x, y] };
}

export function dropCorner(state) {
  return state.corner ? { ...state, corner: null } : state;
}

/** Take in objects that were found without clicks: `{className, mask, confidence, origin, box}`. */
export function addFound(state, rows) {
  const objects = rows.map(({ className, ...found }, index) => ({
    id: state.nextId + index,
    className: className ?? state.className,
    points: [],
    box: null,
    choice: 0,
    found,
  }));
  const names = objects.map((one) => one.className);
  return {
    ...state,
    classes: [...new Set([...state.classes, ...names])],
    objects: [...state.objects, ...objects],
    nextId: state.nextId + objects.length,
  };
}

/** Leave out what an earlier search found, if nobody has touched it. */
export function dropFound(state, origin) {
  const objects = state.objects.filter((one) => one.found?.origin !== origin);
  return { ...state, objects, selected: keepSelection(state, objects) };
}

export function removeObject(state, id) {
  if (!state.objects.some((one) => one.id === id)) return state;
  const objects = state.objects.filter((one) => one.id !== id);
  return { ...state, objects, selected: keepSelection(state, objects) };
}

/** Show another of the masks that the model proposed for the selected object. */
export function chooseNext(state, step = 1) {
  const object = selectedObject(state);
  if (!object || object.found) return state;
  const choice = (object.choice + step + PROPOSALS) % PROPOSALS;
  return replace(state, { ...object, choice });
}

export function select(state, id) {
  const object = state.objects.find((one) => one.id === id);
  return { ...state, selected: object?.id ?? null, className: object?.className ?? state.className };
}

/** Select the object before or after the selected one. */
export function selectNext(state, step) {
  if (!state.objects.length) return state;
  const ids = state.objects.map((one) => one.id);
  const place = ids.indexOf(state.selected);
  const next = place < 0 ? (step > 0 ? 0 : ids.length - 1) : place + step;
  return select(state, ids[(next + ids.length) % ids.length]);
}

/** Give the selected object a class, and those that come. */
export function assignClass(state, className) {
  const object = selectedObject(state);
  const chosen = { ...state, className };
  return object ? replace(chosen, { ...object, className }) : chosen;
}

export function addClass(state, name) {
  if (!name || state.classes.includes(name)) return state;
  return assignClass({ ...state, classes: [...state.classes, name] }, name);
}

export function renameClass(state, before, name) {
  if (!name || before === name || state.classes.includes(name)) return state;
  const renamed = (one) => (one === before ? name : one);
  return {
    ...state,
    classes: state.classes.map(renamed),
    className: renamed(state.className),
    objects: state.objects.map((one) => ({ ...one, className: renamed(one.className) })),
  };
}

export function tidyBox([x0, y0, x1, y1]) {
  return [Math.min(x0, x1), Math.min(y0, y1), Math.max(x0, x1), Math.max(y0, y1)];
}

function begin(state, { points, box }) {
  const object = {
    id: state.nextId,
    className: state.className,
    points,
    box,
    choice: 0,
    found: null,
  };
  return {
    ...state,
    objects: [...state.objects, object],
    selected: object.id,
    nextId: state.nextId + 1,
  };
}

function replace(state, object) {
  const objects = state.objects.map((one) => (one.id === object.id ? object : one));
  return { ...state, objects };
}

function keepSelection(state, objects) {
  return objects.some((one) => one.id === state.selected) ? state.selected : null;
}
