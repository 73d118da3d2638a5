// What the page knows of its session, and what it is looking at. Tells of changes by events:
// `frame` another one is to be shown, `masks` those of `detail` may differ, `state` objects and prompts, `progress`,
// `saving`, `view`, `ask` before a command is sent, and `error`, `news` and `lasting` with something to say.
import { LatestFew } from "./cache.js";
import { Provisional } from "./provisional.js";

const OF_THE_SESSION = new Set(["state", "masks", "frames", "progress", "saving"]); // events that a snapshot includes
const MAX_FRAMES = 600; // whose masks are kept, as compressed text
const AHEAD = 24;
export const DOUBT = 128; // a strip's level below this is low confidence
export const NO_SCORE = 1;

export class Store extends EventTarget {
  constructor(api, snapshot) {
    super();
    this.api = api;
    this.frame = 0;
    this.shownFrame = null; // whose picture is on the screen: another one while that of `frame` is on its way
    this.selected = null;
    this.provisional = new Provisional();
    this.tool = "click";
    this.opacity = 0.5;
    this.brush = 24;
    this.colours = "object"; // or "class"
    this.range = null; // [first, last] of the frames that tracking, export and the like are for; null for all
    this.follows = false; // whether the picture goes along with tracking
    this.pending = []; // prompts that have not been answered: { frame, step }
    this.masks = new LatestFew(MAX_FRAMES);
    this.asked = new Set();
    this.preview = null; // { frame, mask }: a prompt's first mask, until the masks of its frame come
    this.news = 0; // answers that have come, for who measures
    this.previews = 0; // and first masks
    this.generation = 0;
    this.take(snapshot);
  }

  take(snapshot) {
    if (snapshot.epoch !== this.epoch) this.provisional = new Provisional();
    [this.epoch, this.told] = [snapshot.epoch, snapshot.news];
    this.video = snapshot.video;
    [this.model, this.classes, this.trouble] = [snapshot.model, snapshot.classes, snapshot.trouble];
    this.palette = snapshot.palette;
    this.progress = snapshot.progress;
    this.preview = null;
    this.strips = new Map();
    for (const [number, text] of Object.entries(snapshot.strips)) {
      this.strips.set(Number(number), Uint8Array.from(atob(text), (c) => c.charCodeAt(0)));
    }
    this.masks.clear();
    this.asked.clear();
    this.generation++;
    this.takeState(snapshot.state, snapshot.news);
    this.tell("progress");
    this.tell("masks", null);
  }

  takeState(state, news) {
    const before = this.objectOf(this.selected);
    this.state = { ...state, objects: this.provisional.merged(state.objects, news) };
    if (!this.objectOf(this.selected)) this.selectOther(before);
    this.saving = state.saving;
    this.tell("saving");
    this.tell("state");
  }

  // The selected object is gone, perhaps by another tab: the one that prompts are for now is named.
  selectOther(gone) {
    this.selected = this.state.objects.at(-1)?.number ?? null;
    if (!gone) return;
    const now = this.selected === null ? "" : `; ${this.objectOf(this.selected).name} is selected now`;
    this.tell("news", `${gone.name} is gone${now}`);
  }

  // Answers and events come by different ways: one that says less than is known already must not undo it.
  async refetch() {
    let snapshot;
    do snapshot = await this.api.snapshot();
    while (snapshot.epoch === this.epoch && snapshot.news < this.told);
    this.take(snapshot);
  }

  receive(event) {
    // A session that was closed and opened again counts its news anew.
    if (event.event === "listening" && event.epoch !== this.epoch) return this.refetch();
    if (event.news < this.told && OF_THE_SESSION.has(event.event)) return;
    const missed = event.event === "listening" && event.news > this.told;
    this.told = Math.max(this.told, event.news);
    if (missed) this.refetch().catch((error) => this.tell("error", error.message));
    const handlers = {
      state: () => this.takeState(event.state, event.news),
      saving: () => {
        this.saving = event.saving;
        this.tell("saving");
      },
      masks: () => this.takeMasks(event),
      preview: () => this.takePreview(event),
      refetch: () => this.refetch(),
      progress: () => {
        this.progress = event.progress;
        this.tell("progress");
      },
      frames: () => this.takeFrames(event),
      video: () => {
        this.trouble = event.trouble;
        this.tell("video");
      },
      error: () => this.tell("error", event.message),
      exported: () => this.tell("exported", event),
      imported: () => this.tell("imported", event),
    };
    handlers[event.event]?.();
  }

  takePreview({ frame, object, counts }) {
    this.previews++;
    this.preview = { frame, mask: { object, counts } };
    this.tell("masks", frame);
  }

  takeMasks({ frame, masks }) {
    this.news++;
    if (this.preview?.frame === frame) this.preview = null;
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
    return this.state?.objects.find((object) => object.number === number);
  }

  // An object's colour, or that of its class.
  colourOf(number) {
    const category = this.colours === "class" ? this.objectOf(number)?.category : "";
    return this.palette[category ? 1 + (this.categories.indexOf(category) % 255) : number];
  }

  // The classes of the list and those in use, in the order in which they get their colours.
  get categories() {
    return [...new Set([...this.classes, ...this.state.objects.map((object) => object.category).filter(Boolean)])];
  }

  // Begin or end the range at the frame that is shown.
  setRange(end) {
    const [first, last] = this.range ?? [0, this.video.frames - 1];
    const range = end === "first" ? [this.frame, Math.max(last, this.frame)] : [Math.min(first, this.frame), this.frame];
    this.setView({ range });
  }

  // The range, else the shown frame alone.
  get rangeOrFrame() {
    const [first, last] = this.range ?? [this.frame, this.frame];
    return { first, last };
  }

  isReviewed(frame) {
    return this.state.reviewed.some(([first, last]) => first <= frame && frame <= last);
  }

  // Whether what is on the screen is the frame that prompts go to.
  get isShown() {
    return this.shownFrame === this.frame;
  }

  // Whether a prompt may be given; says why not.
  mayPrompt() {
    if (!this.isShown) this.tell("error", `frame ${this.frame} is still loading: wait until it is shown`);
    return this.isShown;
  }

  stepsOn(frame) {
    return this.state.prompts.filter((prompt) => prompt.frame === frame);
  }

  get promptedFrames() {
    return [...new Set(this.state.prompts.map((prompt) => prompt.frame))].sort((a, b) => a - b);
  }

  // The masks to show on a frame, a preview in place of its object's; undefined while they are on their way.
  shownMasksOn(frame) {
    const masks = this.masksOn(frame);
    if (this.preview?.frame !== frame) return masks;
    const { mask } = this.preview;
    return [...(masks ?? []).filter((other) => other.object !== mask.object), mask];
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
    const target = Math.max(0, Math.min(this.video.frames - 1, Math.round(frame)));
    if (target === this.frame) return;
    this.frame = target;
    this.tell("frame");
  }

  select(number) {
    this.selected = number;
    this.provisional.failed.delete(number);
    this.tell("state");
  }

  setView(changes) {
    Object.assign(this, changes);
    this.tell("view");
  }

  // Send a command; an error becomes a message, and the answer null.
  async ask(command) {
    const { objects, object } = command;
    this.tell("ask", command);
    const allowed = () => [object, ...(objects ?? [])].forEach((number) => this.provisional.check(number));
    try {
      const { answer, news } = await this.api.command(command, command.makes ? undefined : allowed);
      if (command.makes) this.provisional.confirm(object, news);
      return answer;
    } catch (error) {
      if (command.makes) this.giveUp(object);
      this.tell("error", error.message);
      return null;
    }
  }

  // The number of a new object, which is selected at once; null, with a message, if there is none left.
  reserve() {
    const number = this.provisional.free(this.state.next_number, this.numbers);
    if (number === null) {
      this.tell("error", "no more objects: all numbers are taken");
      return null;
    }
    this.state = { ...this.state, objects: [...this.state.objects, this.provisional.add(number)] };
    this.select(number);
    return number;
  }

  giveUp(number) {
    // Where the number is another tab's by now, its object stays in the list.
    const isOwn = this.provisional.fail(number);
    const objects = this.state.objects.filter((object) => !isOwn || object.number !== number);
    this.state = { ...this.state, objects };
    if (this.selected === number) this.selected = null;
    this.tell("state");
  }

  addObject() {
    const object = this.reserve();
    return object === null ? null : this.ask({ do: "add", object, makes: true });
  }

  // Send a prompt, showing it at once. Without any object it makes one, whose number is known at once, too.
  async prompt(step, command) {
    if (!this.mayPrompt()) return;
    const makes = this.selected === null;
    const object = makes ? this.reserve() : this.selected;
    if (object === null) return;
    const entry = { frame: this.frame, step, object };
    this.pending.push(entry);
    this.tell("view");
    await this.ask({ object, frame: this.frame, ...command, ...(makes ? { new: true, makes } : {}) });
    this.pending = this.pending.filter((other) => other !== entry);
    this.tell("view");
  }

  tell(type, detail = null) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}
