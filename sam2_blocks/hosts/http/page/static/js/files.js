// Where pictures come from: the folder of the server, a file, the clipboard, or dropped.

export class Files {
  names = [];
  current = null;
  #saved = new Set();
  #list = document.getElementById("pictures");
  #filter = document.getElementById("picture-filter");
  #input = document.getElementById("file-input");
  #on;

  /** @param on `openNamed(name)` of the folder, `openFile(file)` of the person. */
  constructor(on) {
    this.#on = on;
    this.#filter.addEventListener("input", () => this.#show());
    this.#input.addEventListener("change", () => {
      if (this.#input.files.length) on.openFile(this.#input.files[0]);
      this.#input.value = "";
    });
    document.addEventListener("paste", ({ clipboardData }) => this.#take(clipboardData?.files));
    document.addEventListener("dragover", (event) => {
      event.preventDefault();
      document.body.classList.add("dropping");
    });
    document.addEventListener("dragleave", ({ relatedTarget }) => {
      if (!relatedTarget) document.body.classList.remove("dropping");
    });
    document.addEventListener("drop", (event) => {
      event.preventDefault();
      document.body.classList.remove("dropping");
      this.#take(event.dataTransfer?.files);
    });
  }

  showFolder(names, saved) {
    this.names = names;
    this.#saved = new Set(saved);
    this.#show();
  }

  /** Take in a picture that the server keeps from now on. */
  add(name) {
    if (!this.names.includes(name)) this.names = [...this.names, name];
    this.#show();
  }

  markSaved(name) {
    if (this.#saved.has(name)) return;
    this.#saved.add(name);
    this.#show();
  }

  /** Mark what is open; null if it is no picture of the folder. */
  markOpen(name) {
    this.current = name;
    this.#show();
    this.#list.querySelector("[aria-current]")?.scrollIntoView({ block: "nearest" });
  }

  choose() {
    this.#input.click();
  }

  openNext(step) {
    if (!this.names.length) return;
    const place = this.names.indexOf(this.current);
    const next = place < 0 ? 0 : (place + step + this.names.length) % this.names.length;
    this.#on.openNamed(this.names[next]);
  }

  #take(files) {
    const picture = [...(files ?? [])].find((file) => file.type.startsWith("image/"));
    if (picture) this.#on.openFile(picture);
  }

  #show() {
    document.body.classList.toggle("has-folder", this.names.length > 1);
    const wanted = this.#filter.value.trim().toLowerCase();
    const rows = this.names
      .filter((name) => name.toLowerCase().includes(wanted))
      .map((name) => this.#row(name));
    this.#list.replaceChildren(...rows);
  }

  #row(name) {
    const item = document.createElement("li");
    const button = document.createElement("button");
    button.className = "row";
    button.title = name;
    const words = document.createElement("span");
    words.className = "name";
    words.textContent = name;
    button.append(words);
    if (this.#saved.has(name)) {
      const mark = document.createElement("span");
      mark.className = "saved-mark";
      mark.setAttribute("role", "img");
      mark.setAttribute("aria-label", "has masks");
      button.append(mark);
    }
    if (name === this.current) button.setAttribute("aria-current", "true");
    button.addEventListener("click", () => this.#on.openNamed(name));
    item.append(button);
    return item;
  }
}
