// The service, as the page asks it. Everything goes to the origin that the page came from.

const KEY = "sam2-blocks-key";

export class ApiError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/** Whether an error only says that nobody waits for the answer any more. */
export function isAborted(error) {
  return error?.name === "AbortError";
}

export class Api {
  #askForKey;

  /** @param {(again: boolean) => Promise<string>} askForKey asks for the server's key. */
  constructor(askForKey) {
    this.#askForKey = askForKey;
  }

  get hasKey() {
    return sessionStorage.getItem(KEY) !== null;
  }

  session() {
    return this.#json("page/api/session");
  }

  async picture(name) {
    const response = await this.#ask(`page/api/pictures/${encodePath(name)}`);
    return response.blob();
  }

  /** Have the server keep a picture; return the name it has there. */
  async keep(name, blob) {
    const form = new FormData();
    form.append("name", name);
    form.append("image", blob, "image");
    return (await this.#json("page/api/pictures", { method: "POST", body: form })).name;
  }

  async clicks(name) {
    return (await this.#json(`page/api/clicks/${encodePath(name)}`)).clicks;
  }

  save(clicks) {
    return this.#json("page/api/clicks", { method: "PUT", ...asJson(clicks) });
  }

  /** Return `{name, blob}` of a file to download. */
  async download(request) {
    const response = await this.#ask("page/api/export", { method: "POST", ...asJson(request) });
    const named = response.headers.get("Content-Disposition")?.split("''")[1];
    return { name: decodeURIComponent(named ?? request.form), blob: await response.blob() };
  }

  exportToFolder(request) {
    const body = asJson({ ...request, save: true });
    return this.#json("page/api/export", { method: "POST", ...body });
  }

  /** Embed a picture, and return the id by which it is known from then on. */
  async embed(blob, signal) {
    const form = new FormData();
    form.append("image", blob, "image");
    const answer = await this.#json("sam2/embed_image", { method: "POST", body: form, signal });
    return answer.image_id;
  }

  /** Segment a picture that was embedded; `request` has what goes beside its id. */
  async segment(imageId, request, signal) {
    const body = { image_id: imageId, format: "rle", ...request };
    const options = { method: "POST", signal, ...asJson(body) };
    return (await this.#json("sam2/segment_image", options)).predictions;
  }

  /** Run a pipeline on a picture; return its outputs. */
  async run(pipeline, blob, signal) {
    const form = new FormData();
    form.append("image", blob, "image");
    form.append("pipeline", JSON.stringify(pipeline));
    return (await this.#json("pipelines/run", { method: "POST", body: form, signal })).outputs;
  }

  async #json(path, options) {
    return (await this.#ask(path, options)).json();
  }

  async #ask(path, options = {}) {
    const response = await this.#send(path, options);
    if (response.ok) return response;
    if (response.status === 401) {
      sessionStorage.setItem(KEY, await this.#askForKey(this.hasKey));
      return this.#ask(path, options);
    }
    const { message } = await response.json().catch(() => ({ message: response.statusText }));
    throw new ApiError(response.status, message);
  }

  #send(path, options) {
    const key = sessionStorage.getItem(KEY);
    const headers = { ...options.headers, ...(key && { Authorization: `Bearer ${key}` }) };
    return fetch(new URL(`../${path}`, document.baseURI), { ...options, headers });
  }
}

function asJson(value) {
  return { body: JSON.stringify(value), headers: { "Content-Type": "application/json" } };
}

function encodePath(name) {
  return name.split("/").map(encodeURIComponent).join("/");
}
