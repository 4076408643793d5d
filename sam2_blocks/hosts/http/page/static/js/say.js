// What the page tells people: in a line that screen readers read, and in notes that go away.

const NOTE_MS = 6000;

const live = document.getElementById("live");
const notes = document.getElementById("notes");

/** Tell people who listen. */
export function say(text) {
  live.textContent = text;
}

/** Tell everybody; an error stays until it is closed. */
export function note(text, { isError = false } = {}) {
  const shown = document.createElement("div");
  shown.className = isError ? "note error" : "note";
  shown.setAttribute("role", isError ? "alert" : "status");
  const words = document.createElement("span");
  words.textContent = text;
  const close = document.createElement("button");
  close.className = "icon-button";
  close.setAttribute("aria-label", "Close this note");
  close.textContent = "×";
  close.addEventListener("click", () => shown.remove());
  shown.append(words, close);
  notes.append(shown);
  if (!isError) setTimeout(() => shown.remove(), NOTE_MS);
}

export function noteError(error) {
  console.error(error);
  note(error.message, { isError: true });
}

/** Say how large a share is, as people do. */
export function percent(share) {
  return share < 0.001 ? "less than 0.1 %" : `${(share * 100).toFixed(share < 0.1 ? 1 : 0)} %`;
}
