// What the page knows of its session, and what it is looking at. Tells of changes by events:
// `frame` another one is shown, `masks` those of `detail` may differ, `state` objects and prompts, `progress`, `view`.
import { LatestFew } from "./cache.js";

const OF_THE_SESSION = new Set(["state", "masks", "frames", "progress"]); // events that a snapshot includes
const MAX_FRAMES = 600; // whose masks are kept, as compressed text
const AHEAD = 24;
export const DOUBT = 128; // a strip's level below this is low confidence
export const NO_SCORE = 1;

export class Store extends EventTarget {
  constructor(api, snapshot) {
    super();
    this.api = api;
    this.frame = 0;
    this.selected = null;
    this.tool = "click";
    this.opacity = 0.5;
    this.brush = 24;
    this.follows = false; // whether the picture goes along with tracking
    this.pending = []; // prompts that have not been answered: { frame, step }
    this.masks = new LatestFew(MAX_FRAMES);
    this.asked = new Set();
    this.news = 0; // answers that have come, for who measures
    this.generation = 0;
    this.take(snapshot);
  }

  take(snapshot) {
    this.told = snapshot.news;
    this.video = snapshot.video;
    this.palette = snapshot.palette;
    this.progress = snapshot.progress;
    this.strips = new Map();
    for (const [number, text] of Object.entries(snapshot.strips)) {
      this.strips.set(Number(number), Uint8Array.from(atob(text), (c) => c.charCodeAt(0)));
    }
    this.masks.clear();
    this.asked.clear();
    this.generation++;
    this.takeState(snapshot.state);
    this.tell("progress");
    this.tell("masks", null);
  }

  takeState(state) {
    this.state = state;
    if (!state.objects.some((object) => object.number === this.selected)) {
      this.selected = state.objects.length ? state.objects[state.objects.length - 1].number : null;
    }
    this.tell("state");
  }

  // Answers and events come by different ways: one that says less than is known already must not undo it.
  async refetch() {
    let snapshot;
    do snapshot = await this.api.snapshot();
    while (snapshot.news < this.told);
    this.take(snapshot);
  }

  receive(event) {
    if (event.news < this.told && OF_THE_SESSION.has(event.event)) return;
    const missed = event.event === "listening" && event.news > this.told;
    this.told = Math.max(this.told, event.news);
    if (missed) this.refetch().catch((error) => this.tell("error", error.message));
    const handlers = {
      state: () => this.takeState(event.state),
      masks: () => this.takeMasks(event),
      refetch: () => this.refetch(),
      progress: () => {
        this.progress = event.progress;
        this.tell("progress");
      },
      frames: () => this.takeFrames(event),
      error: () => this.tell("error", event.message),
      saved: () => this.tell("saved", event),
      exported: () => this.tell("exported", event),
    };
    handlers[event.event]?.();
  }

  takeMasks({ frame, masks }) {
    this.news++;
    this.masks.set(frame, masks);
    // The masks of a new object are told before the object is.
    for (const number of new Set([...this.numbers, ...masks.map((mask) => mask.object)])) {
      const entry = masks.find((mask) => mask.object === number);
      this.stripOf(number)[frame] = entry ? entry.strip : 0;
    }
    this.tell("masks", frame);
    if (this.follows && this.progress?.task === "track") this.show(frame, true);
  }

  takeFrames({ count, live }) {
    const atEnd = this.frame >= this.video.frames - 1;
    this.video.frames = count;
    this.video.live = live;
    if (atEnd) this.show(count - 1);
    this.tell("state");
  }

  // One byte a frame: 0 no mask, 1 a mask without scores, then confidence up to 255.
  stripOf(number) {
    let strip = this.strips.get(number);
    if (!strip || strip.length < this.video.frames) {
      const longer = new Uint8Array(this.video.frames + (this.video.live ? 1000 : 0));
      if (strip) longer.set(strip);
      this.strips.set(number, longer);
      strip = longer;
    }
    return strip;
  }

  get numbers() {
    return this.state.objects.map((object) => object.number);
  }

  objectOf(number) {
    return this.state.objects.find((object) => object.number === number);
  }

  stepsOn(frame) {
    return this.state.prompts.filter((prompt) => prompt.frame === frame);
  }

  get promptedFrames() {
    return [...new Set(this.state.prompts.map((prompt) => prompt.frame))].sort((a, b) => a - b);
  }

  // The masks of a frame, or undefined while they are on their way.
  masksOn(frame) {
    const known = this.masks.get(frame);
    if (known) return known;
    if (!this.numbers.some((number) => this.stripOf(number)[frame])) return [];
    this.fetchMasks(frame);
    return undefined;
  }

  async fetchMasks(frame) {
    if (this.asked.has(frame)) return;
    const last = Math.min(frame + AHEAD, this.video.frames - 1);
    for (let f = frame; f <= last; f++) this.asked.add(f);
    const generation = this.generation;
    try {
      const answers = await this.api.masks(frame, last);
      if (generation !== this.generation) return;
      for (const answer of answers) {
        // What came as news in the meantime is newer.
        if (!this.masks.has(answer.frame)) this.masks.set(answer.frame, answer.masks);
      }
      this.tell("masks");
    } catch (error) {
      this.tell("error", error.message);
    } finally {
      if (generation === this.generation) for (let f = frame; f <= last; f++) this.asked.delete(f);
    }
  }

  // Show a frame; who looks elsewhere while the video is tracked no longer goes along.
  show(frame, following = false) {
    this.follows = following;
    const wanted = Math.max(0, Math.min(this.video.frames - 1, Math.round(frame)));
    if (wanted === this.frame) return;
    this.frame = wanted;
    this.tell("frame");
  }

  select(number) {
    this.selected = number;
    this.tell("state");
  }

  setView(changes) {
    Object.assign(this, changes);
    this.tell("view");
  }

  // Send a command; an error becomes a message, and the answer null.
  async ask(command) {
    try {
      return await this.api.command(command);
    } catch (error) {
      this.tell("error", error.message);
      return null;
    }
  }

  // Send a prompt, showing it at once; a new object becomes the selected one.
  async prompt(step, command) {
    const entry = { frame: this.frame, step };
    this.pending.push(entry);
    this.tell("view");
    const object = this.selected;
    const answer = await this.ask({ object, frame: this.frame, ...command });
    this.pending = this.pending.filter((other) => other !== entry);
    // Another object may have been selected meanwhile.
    if (answer && object === null) this.select(answer.object);
    this.tell("view");
  }

  tell(type, detail = null) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}
