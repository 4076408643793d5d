// One picture being worked on.

import { ApiError } from "./api.js";
import { findByText, findEverything } from "./finding.js";
import { Masks } from "./masks.js";
import * as objects from "./objects.js";
import { Painter } from "./painter.js";
import { describe, Panel } from "./panel.js";
import { loadPicture } from "./picture.js";
import { Pointer } from "./pointer.js";
import { fromClicks, Saver, toClicks } from "./saving.js";
import { note, noteError, say } from "./say.js";
import { Stage } from "./stage.js";
import { Store } from "./store.js";
import { View } from "./view.js";

const CLASSES = "sam2-blocks-classes";
const KEY_STEP_PX = 10; // on the screen

export class Editor {
  element = document.getElementById("stage");
  store = new Store(objects.emptyState(knownClasses()));
  onOpened = () => {};
  onSaved = () => {};
  onKept = () => {};
  tool = "in";
  previewing = true;
  #api;
  #session;
  #picture = null; // {name, blob, width, height, imageId, model, saves}
  #opening = 0;
  #brought = null; // a file that is being kept, and opened then
  #spaceHeld = false;
  #clicked = null; // {id, key, time} of the last click, until its mask is drawn
  #view = new View();
  #masks;
  #painter;
  #stage;
  #panel;
  #pointer;
  #saver;

  constructor(api, session) {
    this.#api = api;
    this.#session = session;
    const segment = (...given) => this.#segment(...given);
    this.#masks = new Masks({ segment }, () => this.#masksChanged(), noteError);
    this.#painter = new Painter(() => this.#stage.redraw("masks"));
    this.#stage = new Stage({
      pictureCanvas: document.getElementById("picture-canvas"),
      masksCanvas: document.getElementById("masks-canvas"),
      view: this.#view,
      masks: this.#masks,
      painter: this.#painter,
      state: () => this.store.state,
    });
    this.#stage.onDrawn = () => this.#measureClick();
    this.#panel = new Panel(this.#masks, {
      assignClass: (index) => this.#step((state) => assignNth(state, index)),
      renameClass: (name) => this.#renameClass(name),
      select: (id) => this.store.adjust((state) => objects.select(state, id)),
      remove: (id) => this.#step((state) => objects.removeObject(state, id)),
    });
    this.#pointer = new Pointer(this.element, this.#view, this.#gestures());
    this.#saver = new Saver(() => this.save(), showSaving, noteError);
    this.store.watch((state) => this.#show(state));
    new ResizeObserver(([{ contentRect }]) => {
      this.#stage.resize(contentRect.width, contentRect.height);
    }).observe(this.element);
    this.#show(this.store.state);
  }

  // --- pictures ----------------------------------------------------------------------------------

  /** Open a picture of the server's folder, with what was saved of it. */
  async openNamed(name) {
    this.#brought = null;
    await this.#open({ name, isListed: true }, async () => [
      await this.#api.picture(name),
      await this.#api.clicks(name),
    ]);
  }

  /** Open a picture that the person brings; where the server saves, it keeps the picture, too. */
  async openFile(file) {
    const name = file.name || "pasted.png";
    if (!this.#session.saves) {
      await this.#open({ name, isListed: false }, async () => [file, null]);
      return;
    }
    this.#brought = file;
    const { classList } = document.body;
    classList.add("loading");
    const keeping = this.#api.keep(name, file);
    const kept = await keeping.finally(() => classList.remove("loading"));
    this.onKept(kept);
    if (this.#brought === file) await this.openNamed(kept);
  }

  async #open({ name, isListed }, load) {
    await this.#saver.flush();
    const turn = ++this.#opening;
    document.body.classList.add("loading");
    try {
      const [blob, clicks] = await load();
      const drawn = await loadPicture(blob).catch(() => this.#refuse(name, blob, isListed));
      if (turn !== this.#opening) return;
      const { width, height } = drawn;
      const saves = this.#session.saves && isListed;
      this.#picture = { name, blob, width, height, imageId: null, model: this.#session.model, saves };
      this.#masks.reset(null);
      this.#stage.picture?.close();
      Object.assign(this.#stage, { picture: drawn, crosshair: null, preview: null, draft: null });
      this.#view.show(width, height);
      const { classes, className } = this.store.state;
      const state = objects.emptyState(classes, className);
      this.store.reset(clicks ? fromClicks(clicks, state, this.#masks) : state);
      this.onOpened(name, isListed);
      showPicture(name, width, height);
      this.#stage.redraw();
      await this.#embed(turn, clicks);
    } finally {
      if (turn === this.#opening) document.body.classList.remove("loading");
    }
  }

  /** Say why a picture is not shown: of one that is in the folder, the server knows more. */
  async #refuse(name, blob, isListed) {
    if (!isListed) {
      throw new Error(`${name} is no picture that browsers show; put it into the folder instead.`);
    }
    const reason = await this.#api.embed(blob).then(
      () => "browsers do not show it.",
      (error) => error.message,
    );
    throw new Error(`${name} cannot be opened: ${reason}`);
  }

  async #embed(turn, clicks) {
    const imageId = await this.#api.embed(this.#picture.blob);
    if (turn !== this.#opening) return;
    this.#picture.imageId = imageId;
    this.#masks.begin(imageId);
    this.#masks.follow(this.store.state);
    document.body.dataset.picture = this.#picture.name;
    say(`${this.#picture.name} is ready.`);
    if (clicks?.image_id && clicks.image_id !== imageId) {
      note("The picture has changed since its masks were saved.", { isError: true });
    }
  }

  /** Ask for masks; where the server has forgotten the picture, show it once more. */
  async #segment(imageId, request, signal) {
    try {
      return await this.#api.segment(imageId, request, signal);
    } catch (error) {
      if (!(error instanceof ApiError) || error.status !== 404) throw error;
      await this.#api.embed(this.#picture.blob, signal);
      return this.#api.segment(imageId, request, signal);
    }
  }

  // --- what people do ----------------------------------------------------------------------------

  actions() {
    const step = (change) => () => this.#step(change);
    return {
      undo: () => this.#pointer.drop() || this.store.undo() || say("Nothing to undo."),
      redo: () => void (this.store.redo() || say("Nothing to redo.")),
      newObject: () => {
        this.store.adjust((state) => objects.select(state, null));
        say("The next click begins a new object.");
      },
      escape: () => this.#escape(),
      remove: step((state) => objects.removeObject(state, state.selected)),
      assignClass: (index) => this.#step((state) => assignNth(state, index)),
      selectNext: (by) => this.store.adjust((state) => objects.selectNext(state, by)),
      propose: (by) => this.#propose(by),
      everything: () => this.#find("everything", () => findEverything(this.#api, this.#picture)),
      togglePreview: () => this.setPreview(!this.previewing),
      zoom: (factor) => this.#move(() => this.#view.zoom(factor)),
      fit: () => this.#move(() => this.#view.fit()),
      save: () => void this.#saver.now(),
      holdSpace: (held) => this.#holdSpace(held),
      moveCrosshair: (direction, fine) => this.#moveCrosshair(direction, fine),
      clickCrosshair: (positive) => this.#clickCrosshair(positive),
      corner: () => this.#setCorner(),
    };
  }

  setOpacity(opacity) {
    this.#stage.opacity = opacity;
    this.#stage.redraw("masks");
  }

  setTool(tool) {
    this.tool = tool;
    this.element.dataset.tool = tool;
  }

  setPreview(on) {
    this.previewing = on;
    if (!on) this.#hover(null);
    document.getElementById("preview-switch").checked = on;
  }

  addClass(name) {
    this.#step((state) => objects.addClass(state, name));
  }

  findText(text) {
    const { grounding, model } = this.#session;
    return this.#find("text", () => findByText(this.#api, this.#picture, { grounding, model, text }));
  }

  /** What is on the page, for exports and snippets, once every mask is there. */
  async finished() {
    if (!this.#picture) throw new Error("open a picture first.");
    await this.#masks.settled(() => this.store.state);
    return {
      picture: this.#picture,
      state: this.store.state,
      clicks: toClicks(this.#picture, this.store.state, this.#masks),
    };
  }

  /** Save into the server's folder. */
  async save() {
    if (!this.#picture?.saves) return;
    const { name } = this.#picture;
    const { clicks } = await this.finished();
    if (name !== clicks.file_name) return; // another picture was opened meanwhile
    await this.#api.save(clicks);
    this.onSaved(name);
  }

  #gestures() {
    return {
      tool: () => this.tool,
      spaceHeld: () => this.#spaceHeld,
      click: (pixel, how) => this.#click(pixel, how),
      box: (corners) => this.#step((state) => objects.addBox(state, corners)),
      draft: (corners) => {
        this.#stage.draft = corners;
        this.#stage.redraw("masks");
      },
      hover: (pixel, how) => this.#hover(pixel, how),
      moved: () => this.#stage.redraw(),
    };
  }

  #click([x, y], { positive, time, select }) {
    if (!this.#picture) return;
    this.#stage.crosshair = null;
    if (select) {
      this.store.adjust((state) => objects.select(state, this.#objectAt(x, y)));
    } else if (this.tool === "box") {
      this.#step((state) => objects.setCorner(state, [x, y]));
    } else {
      this.#step((state) => objects.addPoint(state, { x, y, positive }));
      this.#clicked = { object: objects.selectedObject(this.store.state), time };
      say(`Point ${positive ? "in" : "out"} at ${x}, ${y}.`);
    }
  }

  /** The smallest object whose mask has this pixel. */
  #objectAt(x, y) {
    const hit = this.store.state.objects
      .map((object) => ({ id: object.id, shown: this.#masks.shownOf(object) }))
      .filter(({ shown }) => shown && this.#masks.covers(shown, x, y))
      .sort((one, other) => one.shown.area - other.shown.area);
    return hit[0]?.id ?? null;
  }

  async #hover(pixel, { positive } = {}) {
    const drawn = this.#stage.preview;
    this.#stage.preview = null;
    const wanted = pixel && this.previewing && this.#masks.ready && this.tool !== "pan";
    if (!wanted || this.tool === "box" || this.#spaceHeld) {
      this.#masks.cancelPreview();
      if (drawn) this.#stage.redraw("masks"); // a frame for nothing would hold up the click
      return;
    }
    const [x, y] = pixel;
    const tried = objects.addPoint(this.store.state, { x, y, positive });
    this.#stage.preview = await this.#masks.preview(objects.selectedObject(tried));
    this.#stage.redraw("masks");
  }

  #escape() {
    if (this.#pointer.drop()) return;
    if (this.store.state.corner) this.#step(objects.dropCorner);
    else this.store.adjust((state) => objects.select(state, null));
  }

  #propose(by) {
    const object = objects.selectedObject(this.store.state);
    if (!object || object.found) return false; // Tab goes on to the next button
    this.#step((state) => objects.chooseNext(state, by));
    return true;
  }

  #holdSpace(held) {
    this.#spaceHeld = held;
    this.element.classList.toggle("panning", held);
  }

  #moveCrosshair([dx, dy], fine) {
    if (!this.#picture) return;
    const { width, height } = this.#picture;
    const by = fine ? 1 : Math.max(1, Math.round(KEY_STEP_PX / this.#view.scale));
    const [x, y] = this.#stage.crosshair ?? [Math.floor(width / 2), Math.floor(height / 2)];
    const inside = (value, side) => Math.min(Math.max(value, 0), side - 1);
    const at = [inside(x + dx * by, width), inside(y + dy * by, height)];
    this.#stage.crosshair = at;
    this.#view.reveal(at);
    this.#stage.redraw();
    this.#hover(at, { positive: this.tool !== "out" });
    say(`${at[0]}, ${at[1]}`);
  }

  #clickCrosshair(positive) {
    const at = this.#stage.crosshair;
    if (!at) return this.#moveCrosshair([0, 0], true);
    this.#click(at, { positive: positive === (this.tool !== "out"), time: performance.now() });
    this.#stage.crosshair = at;
    this.#stage.redraw("masks");
  }

  #setCorner() {
    const at = this.#stage.crosshair;
    if (!at) return this.#moveCrosshair([0, 0], true);
    this.#step((state) => objects.setCorner(state, at));
    say(this.store.state.corner ? `First corner at ${at[0]}, ${at[1]}.` : "Box drawn.");
  }

  #renameClass(name) {
    const dialog = document.getElementById("rename-dialog");
    const input = document.getElementById("rename-input");
    input.value = name;
    dialog.showModal();
    input.select();
    const rename = () => {
      if (dialog.returnValue !== "ok") return;
      this.#step((state) => objects.renameClass(state, name, input.value.trim()));
    };
    dialog.addEventListener("close", rename, { once: true });
  }

  async #find(origin, find) {
    if (!this.#picture?.imageId) return;
    const turn = this.#opening;
    document.body.classList.add("finding");
    try {
      const found = await find();
      if (turn !== this.#opening) return;
      const anew = (state) => objects.addFound(objects.dropFound(state, origin), found);
      if (found.length) this.#step(anew);
      note(`${found.length || "No"} object${found.length === 1 ? "" : "s"} found.`);
    } catch (error) {
      noteError(error);
    } finally {
      document.body.classList.remove("finding");
    }
  }

  #move(change) {
    change();
    this.#stage.redraw();
  }

  // --- what follows ------------------------------------------------------------------------------

  #step(change) {
    const before = this.store.state;
    this.store.step(change);
    if (this.store.state === before) return;
    this.#stage.preview = null;
  }

  #show(state) {
    this.#masks.follow(state);
    this.#showPanel(state);
    this.#stage.redraw("masks");
    document.getElementById("undo").disabled = !this.store.canUndo;
    document.getElementById("redo").disabled = !this.store.canRedo;
    localStorage.setItem(CLASSES, JSON.stringify(state.classes));
    if (this.#picture?.saves && (this.store.canUndo || this.store.canRedo)) this.#saver.soon();
  }

  #showPanel(state) {
    const { width, height } = this.#picture ?? { width: 1, height: 1 };
    this.#panel.show(state, width * height);
  }

  #masksChanged() {
    const { state } = this.store;
    this.#masks.keepShown(state);
    this.#stage.prepare();
    this.#showPanel(state);
    const object = objects.selectedObject(state);
    const shown = object && this.#masks.answerOf(object);
    const { width, height } = this.#picture;
    if (shown) say(`Mask: ${describe(object, shown, width * height)}.`);
  }

  /** Note how long it took from the click until its mask was drawn, for tests and the curious. */
  #measureClick() {
    if (!this.#clicked) return;
    const answer = this.#masks.answerOf(this.#clicked.object);
    if (!answer || !this.#stage.isPainted(answer, this.#clicked.object)) return;
    performance.measure("pointer-to-mask", { start: this.#clicked.time });
    this.#clicked = null;
  }
}

function assignNth(state, index) {
  const name = state.classes[index];
  return name ? objects.assignClass(state, name) : state;
}

function knownClasses() {
  const kept = JSON.parse(localStorage.getItem(CLASSES) ?? "null");
  return Array.isArray(kept) && kept.length ? kept : [objects.DEFAULT_CLASS];
}

function showPicture(name, width, height) {
  document.title = `${name} · sam2_blocks`;
  document.getElementById("picture-name").textContent = name;
  document.getElementById("picture-size").textContent = `${width} × ${height}`;
  document.body.classList.add("has-picture");
}

function showSaving(how) {
  const words = { saved: "Saved", saving: "Saving…", unsaved: "Unsaved changes" };
  const shown = document.getElementById("saving");
  shown.textContent = words[how];
  shown.dataset.how = how;
}
