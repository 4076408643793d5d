// Everything by keys. On the stage, arrows move a crosshair and Enter clicks there.

const CLASS_KEYS = 9;

/**
 * Listen to keys.
 *
 * @param {HTMLElement} stage takes arrows, Enter, Tab and Space while it has the focus.
 * @param actions what keys do, by name.
 */
export function listen(stage, actions) {
  document.addEventListener("keydown", (event) => {
    if (document.querySelector("dialog[open]") || isTyping(event.target)) return;
    const onStage = event.target === stage;
    const act = (onStage && stageAction(event, actions)) || pageAction(event, actions);
    if (!act) return;
    if (act() !== false) event.preventDefault();
  });
  document.addEventListener("keyup", (event) => {
    if (event.key === " ") actions.holdSpace(false);
  });
  window.addEventListener("blur", () => actions.holdSpace(false));
}

function isTyping(target) {
  return target.matches?.("input:not([type=range]):not([type=checkbox]):not([type=radio]), textarea, select");
}

function stageAction(event, actions) {
  const arrows = {
    ArrowLeft: [-1, 0],
    ArrowRight: [1, 0],
    ArrowUp: [0, -1],
    ArrowDown: [0, 1],
  };
  if (event.key in arrows) return () => actions.moveCrosshair(arrows[event.key], event.shiftKey);
  const keys = {
    Enter: () => actions.clickCrosshair(!(event.shiftKey || event.altKey)),
    Tab: () => actions.propose(event.shiftKey ? -1 : 1),
    " ": () => actions.holdSpace(true),
    b: () => actions.corner(),
  };
  return event.ctrlKey || event.metaKey ? null : keys[event.key];
}

function pageAction(event, actions) {
  const key = event.key.toLowerCase();
  if (event.ctrlKey || event.metaKey) {
    const keys = { z: event.shiftKey ? actions.redo : actions.undo, y: actions.redo };
    return { ...keys, s: actions.save, o: actions.open }[key];
  }
  if (event.altKey) return null;
  if (/^[1-9]$/.test(key) && Number(key) <= CLASS_KEYS) {
    return () => actions.assignClass(Number(key) - 1);
  }
  return {
    n: actions.newObject,
    escape: actions.escape,
    delete: actions.remove,
    backspace: actions.remove,
    c: () => actions.propose(1),
    e: actions.everything,
    h: actions.togglePreview,
    "[": () => actions.selectNext(-1),
    "]": () => actions.selectNext(1),
    "+": () => actions.zoom(1.25),
    "=": () => actions.zoom(1.25),
    "-": () => actions.zoom(0.8),
    0: actions.fit,
    pageup: () => actions.nextPicture(-1),
    pagedown: () => actions.nextPicture(1),
    "?": actions.help,
  }[key];
}
