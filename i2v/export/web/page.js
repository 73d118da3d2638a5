// What the user sees and does: a video, frame by frame, objects with clicks on them, and their masks.
import { openFiles } from "./frame_source.js";
import { OverlayPainter } from "./overlay.js";
import { MaskTable } from "./results.js";

const OPACITY = 0.5;
const byId = (id) => document.getElementById(id);

export class Page {
  constructor() {
    this.colours = [];
    this.predictor = null;
    this.state = null; // the session, once there are a video and a model
    this.source = null;
    this.masks = null;
    this.frame = 0;
    this.object = 1;
    this.numObjects = 1;
    this.isBusy = false;
    this.stopping = false;
    this.painter = new OverlayPainter(byId("overlay"));
    this.listen();
  }

  listen() {
    byId("files").addEventListener("change", ({ target }) => {
      const files = [...target.files];
      target.value = "";
      this.work(() => this.open(() => openFiles(files)));
    });
    byId("frame").addEventListener("input", ({ target }) => this.attempt(() => this.show(Number(target.value))));
    byId("object").addEventListener("change", ({ target }) => (this.object = Number(target.value)));
    byId("new-object").addEventListener("click", () => this.addObject());
    byId("track").addEventListener("click", () => this.work(() => this.track()));
    byId("stop").addEventListener("click", () => (this.stopping = true));
    byId("reset").addEventListener("click", () => this.work(() => this.reset()));
    byId("download").addEventListener("click", () => this.download());
    byId("stage").addEventListener("click", (event) => this.click(event, event.shiftKey ? 0 : 1));
    byId("stage").addEventListener("contextmenu", (event) => {
      event.preventDefault();
      this.click(event, 0);
    });
  }

  say(text) {
    byId("status").textContent = text;
  }

  // Do something, and tell in a sentence if it does not work.
  async attempt(act) {
    try {
      await act();
    } catch (error) {
      this.say("");
      byId("error").textContent = error.message ?? error;
      if (error.constructor !== Error) console.error(error); // not one of the page's own sentences
    }
  }

  // The same for what takes time, one at a time.
  async work(act) {
    if (this.isBusy) return;
    byId("error").textContent = "";
    this.isBusy = true;
    this.enable();
    await this.attempt(act);
    this.isBusy = false;
    this.enable();
  }

  // What can be done now.
  enable() {
    const ready = this.state !== null && !this.isBusy;
    for (const id of ["new-object", "track", "reset"]) byId(id).disabled = !ready;
    byId("download").disabled = !ready || !this.masks.frames.size;
    byId("stop").disabled = true; // but while tracking
    byId("files").disabled = this.isBusy;
    byId("frame").disabled = this.source === null;
    document.body.dataset.state = this.isBusy ? "busy" : ready ? "ready" : "waiting";
  }

  setPredictor(predictor) {
    this.predictor = predictor;
    byId("model").textContent = predictor.description.name;
    this.begin();
  }

  // A session, as soon as there are a video and a model.
  begin() {
    if (this.source && this.predictor) this.state = this.predictor.initState(this.source);
    const next = this.source ? "click on an object" : "choose a video";
    this.say(this.predictor ? `ready: ${next}` : "loading the model …");
    this.enable();
  }

  async open(opening) {
    this.say("opening the video …");
    const source = await opening();
    this.source?.close();
    this.source = source;
    this.masks = new MaskTable(source);
    for (const id of ["picture", "overlay"]) Object.assign(byId(id), { width: source.width, height: source.height });
    byId("frame").max = source.numFrames - 1;
    this.listObjects(1);
    await this.show(0);
    this.begin();
  }

  async show(frame) {
    this.frame = frame;
    byId("frame").value = frame;
    byId("position").textContent = `frame ${frame} of ${this.source.numFrames}`;
    const picture = await this.source.read(frame);
    if (frame !== this.frame) return; // the user has gone on meanwhile
    byId("picture").getContext("2d").putImageData(picture, 0, 0);
    this.drawMasks();
    byId("stage").dataset.frame = frame;
  }

  drawMasks() {
    const shown = this.masks.get(this.frame);
    const drawn = shown.map(({ id, segmentation }) => ({ object: id, counts: segmentation.counts }));
    const colourOf = (label) => this.colours[(label - 1) % this.colours.length];
    this.painter.draw(drawn, colourOf, OPACITY, this.object);
    byId("stage").dataset.masks = `${this.frame}:${drawn.map(({ object }) => object).join(",")}`;
  }

  listObjects(count) {
    this.numObjects = this.object = count;
    const names = Array.from({ length: count }, (_, i) => new Option(`${i + 1}`, i + 1));
    byId("object").replaceChildren(...names);
    byId("object").value = count;
  }

  addObject() {
    // As many as label maps have: 255, beside the background.
    if (this.numObjects < 255) this.listObjects(this.numObjects + 1);
  }

  click(event, label) {
    if (this.state === null) return;
    const box = byId("picture").getBoundingClientRect();
    const x = ((event.clientX - box.left) / box.width) * this.source.width;
    const y = ((event.clientY - box.top) / box.height) * this.source.height;
    if (x < 0 || y < 0 || x > this.source.width || y > this.source.height) return;
    this.work(() => this.prompt(this.frame, [x, y], label));
  }

  async prompt(frame, point, label) {
    this.say(`segmenting on frame ${frame} …`);
    const points = [[point], [label], { clearOldPoints: false }];
    this.keep(await this.predictor.addNewPoints(this.state, frame, this.object, ...points));
    this.drawMasks();
    this.say("ready: click again to correct, or track");
  }

  keep(masks) {
    this.masks.set(masks, this.predictor.frameScores(this.state, masks.frame));
  }

  async track() {
    this.stopping = false;
    byId("stop").disabled = false;
    const started = performance.now();
    let count = 0;
    for await (const masks of this.predictor.propagateInVideo(this.state)) {
      this.keep(masks);
      count++;
      await this.show(masks.frame);
      this.say(`tracked frame ${masks.frame}, ${((performance.now() - started) / 1000 / count).toFixed(2)} s each`);
      if (this.stopping) break;
    }
    this.say(`${this.stopping ? "stopped" : "done"}: ${count} frames, ${((performance.now() - started) / 1000 / count).toFixed(2)} s each`);
  }

  async reset() {
    this.predictor.resetState(this.state);
    this.masks.clear();
    this.listObjects(1);
    this.drawMasks();
    this.say("ready: click on an object");
  }

  download() {
    const blob = new Blob([JSON.stringify(this.masks.toJson())], { type: "application/json" });
    const link = document.createElement("a");
    Object.assign(link, { href: URL.createObjectURL(blob), download: "masks.json" });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  }
}
