// The timeline: under the slider, a row for every object. A bar's height is the confidence; low bars are marked.
import { DOUBT, NO_SCORE } from "./store.js";
import { TimelineWindow } from "./timeline_window.js";

const LEAST_ROW = 12; // pixels; with more rows than fit, the timeline scrolls

export class Timeline {
  constructor(store) {
    this.store = store;
    this.canvas = document.getElementById("timeline");
    this.scrub = document.getElementById("scrub");
    this.position = document.getElementById("position");
    this.text = document.getElementById("timeline-text");
    this.text.parentElement.addEventListener("toggle", () => this.showText());
    this.scrub.addEventListener("input", () => store.show(Number(this.scrub.value)));
    this.canvas.addEventListener("pointerdown", (event) => {
      this.canvas.setPointerCapture(event.pointerId);
      this.seek(event);
    });
    this.canvas.addEventListener("pointermove", (event) => event.buttons && this.seek(event));
    this.window = new TimelineWindow(store.video.frames);
    this.canvas.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
    store.addEventListener("frame", () => this.window.follow(store.frame));
    new ResizeObserver(() => this.draw()).observe(this.canvas);
    for (const type of ["frame", "state", "masks", "view"]) store.addEventListener(type, () => this.schedule());
    this.schedule();
  }

  seek(event) {
    const rect = this.canvas.getBoundingClientRect();
    this.store.show(this.window.frameAt((event.clientX - rect.left) / rect.width));
  }

  // With Ctrl it zooms where the pointer is; else it moves along, unless there are more rows to scroll to.
  wheel(event) {
    const rect = this.canvas.getBoundingClientRect();
    const box = this.canvas.parentElement;
    const scrolls = box.scrollHeight > box.clientHeight + 1 && !event.shiftKey && !event.deltaX;
    if (event.ctrlKey || event.metaKey) this.window.zoomBy(Math.exp(-event.deltaY / 300), (event.clientX - rect.left) / rect.width);
    else if (this.window.isWhole || scrolls) return;
    else this.window.panBy((event.deltaY || event.deltaX) / 1000);
    event.preventDefault();
    this.schedule();
  }

  // Zoom around the frame that is shown, or, for 0, to all frames.
  zoomBy(factor) {
    this.window.zoomBy(factor, Math.min(1, Math.max(0, this.window.place(this.store.frame + 0.5))));
    this.schedule();
  }

  showWindow() {
    const first = Math.round(this.window.first);
    const last = Math.min(this.store.video.frames, first + Math.round(this.window.count)) - 1;
    const { isWhole } = this.window;
    document.getElementById("timeline-span").textContent = isWhole ? "" : `frames ${first} to ${last}`;
    for (const name of ["out", "all"]) document.getElementById(`timeline-${name}`).disabled = isWhole;
  }

  nextPrompt(step) {
    const frames = this.store.promptedFrames;
    const found = step > 0 ? frames.find((f) => f > this.store.frame) : frames.findLast((f) => f < this.store.frame);
    if (found !== undefined) this.store.show(found);
  }

  // The next place, or the one before, round the end, where the model begins to doubt one of the objects that are shown.
  nextDoubt(step) {
    const { store } = this;
    const { frames } = store.video;
    const strips = store.state.objects.filter((object) => object.visible).map(({ number, name }) => [name, store.stripOf(number)]);
    const doubted = (f) => strips.filter(([, strip]) => strip[f] > NO_SCORE && strip[f] < DOUBT).map(([name]) => name);
    for (let i = 1; i <= frames; i++) {
      const f = (store.frame + step * i + 2 * frames) % frames;
      const names = doubted(f);
      if (!names.length || (f > 0 && doubted(f - 1).length)) continue;
      const wrapped = step * (f - store.frame) > 0 ? "" : `, round the ${step > 0 ? "end" : "beginning"} of the video`;
      store.show(f);
      return store.tell("news", `low confidence in ${names.join(", ")} from frame ${f} on${wrapped}`);
    }
    return store.tell("news", "there is no frame with low confidence in an object that is shown");
  }

  // The rows as text, for who does not see them.
  describe() {
    const { store } = this;
    return store.state.objects.map(({ number, name, outdated }) => {
      const strip = store.stripOf(number);
      const prompts = store.state.prompts.filter((prompt) => prompt.object === number).map((prompt) => prompt.frame);
      const parts = {
        "prompts on": ranges(prompts.sort((a, b) => a - b)),
        "masks on": ranges(framesWhere(strip, store.video.frames, (level) => level > 0)),
        "low confidence on": ranges(framesWhere(strip, store.video.frames, (level) => level > NO_SCORE && level < DOUBT)),
        "outdated on": outdated.map(([first, last]) => (first === last ? `${first}` : `${first} to ${last}`)).join(", "),
      };
      const told = Object.entries(parts).filter(([, text]) => text).map(([what, text]) => `${what} ${text}`);
      return `${name}: ${told.join("; ") || "no masks yet"}`;
    });
  }

  showText() {
    const lines = this.describe().map((line) => {
      const item = document.createElement("li");
      item.textContent = line;
      return item;
    });
    this.text.replaceChildren(...lines);
  }

  // Many events come at once; one drawing is enough.
  schedule() {
    if (this.scheduled) return;
    this.scheduled = true;
    requestAnimationFrame(() => {
      this.scheduled = false;
      this.draw();
      if (this.text.parentElement.open) this.showText();
    });
  }

  draw() {
    const { store, canvas } = this;
    const { frames } = store.video;
    this.scrub.max = frames - 1;
    this.scrub.value = store.frame;
    const rate = store.video.frame_rate;
    const seconds = rate ? `  ·  ${(store.frame / rate).toFixed(2)} s` : "";
    this.position.textContent = `frame ${store.frame} of ${frames - 1}${seconds}${store.video.live ? "  ·  live" : ""}`;
    this.scrub.setAttribute("aria-valuetext", this.position.textContent);
    this.window.frames = frames; // of a camera there are more and more
    this.window.bound();
    this.showWindow();

    const density = window.devicePixelRatio || 1;
    const rows = Math.max(3, store.state.objects.length);
    canvas.style.height = `max(100%, ${rows * LEAST_ROW}px)`;
    const rect = canvas.getBoundingClientRect();
    canvas.width = Math.max(1, Math.round(rect.width * density));
    canvas.height = Math.max(1, Math.round(rect.height * density));
    const context = canvas.getContext("2d");
    const height = canvas.height / rows;
    const column = (frame) => this.window.place(frame) * canvas.width;
    const style = getComputedStyle(document.documentElement);
    store.state.objects.forEach((object, row) => {
      this.drawStrip(context, object, row * height, height, style.getPropertyValue("--warn"));
      this.drawOutdated(context, object, row * height, height, column, style.getPropertyValue("--back"));
    });
    const place = new Map(store.state.objects.map((object, row) => [object.number, row]));
    for (const prompt of store.state.prompts) {
      const x = (column(prompt.frame) + column(prompt.frame + 1)) / 2;
      drawDiamond(context, x, (place.get(prompt.object) + 0.5) * height, Math.min(height / 3, 7 * density), style);
    }
    this.drawRanges(context, column, density, style);
    context.fillStyle = style.getPropertyValue("--text");
    context.fillRect(Math.round((column(store.frame) + column(store.frame + 1)) / 2 - density), 0, 2 * density, canvas.height);
  }

  // A line along the top where frames are reviewed, and a frame around the chosen range.
  drawRanges(context, column, density, style) {
    const { store } = this;
    context.fillStyle = style.getPropertyValue("--accent");
    for (const [first, last] of store.state.reviewed) {
      context.fillRect(column(first), 0, Math.max(2, column(last + 1) - column(first)), 4 * density);
    }
    if (!store.range) return;
    const [left, right] = [column(store.range[0]), column(store.range[1] + 1)];
    context.lineWidth = 2 * density;
    context.strokeStyle = style.getPropertyValue("--accent");
    context.strokeRect(left, density, Math.max(2, right - left), context.canvas.height - 2 * density);
  }

  drawStrip(context, object, top, height, warn) {
    const strip = this.store.stripOf(object.number);
    const { first, count } = this.window;
    const columns = Math.min(context.canvas.width, Math.ceil(count) + 1);
    // A column for each frame that is in view, or, where these are too many, for each pixel.
    const isByFrame = columns < context.canvas.width;
    context.globalAlpha = object.visible ? 1 : 0.4;
    for (let c = 0; c < columns; c++) {
      const begin = isByFrame ? Math.floor(first) + c : Math.floor(first + (c * count) / columns);
      const end = isByFrame ? begin + 1 : Math.max(begin + 1, Math.floor(first + ((c + 1) * count) / columns));
      const left = isByFrame ? this.window.place(begin) * context.canvas.width : c;
      const width = isByFrame ? context.canvas.width / count : 1;
      // Where one column stands for many frames, the least sure of them shows.
      let level = 256;
      for (let f = begin; f < end; f++) if (strip[f]) level = Math.min(level, strip[f]);
      if (level === 256) continue;
      const part = level === NO_SCORE ? 1 : Math.max(0.12, (level - 2) / 253);
      const bar = (height - 3) * part;
      context.fillStyle = this.store.colourOf(object.number);
      context.fillRect(left, top + height - 1 - bar, width + 0.5, bar);
      if (level > NO_SCORE && level < DOUBT) {
        context.fillStyle = warn;
        context.fillRect(left, top + 1, width + 0.5, Math.max(2, height / 8));
      }
    }
    context.globalAlpha = 1;
  }

  // Stripes over what rests on prompts that have changed.
  drawOutdated(context, object, top, height, column, back) {
    context.fillStyle = back;
    for (const [first, last] of object.outdated) {
      const end = column(last + 1);
      for (let x = column(first); x < end; x += 6) context.fillRect(x, top, Math.min(3, end - x), height);
    }
  }
}

function framesWhere(strip, count, holds) {
  return Array.from({ length: count }, (_, f) => f).filter((f) => holds(strip[f]));
}

// "0, 4 to 9" for frames in ascending order.
function ranges(frames) {
  const found = [];
  for (const f of frames) {
    if (found.length && found.at(-1)[1] >= f - 1) found.at(-1)[1] = f;
    else found.push([f, f]);
  }
  return found.map(([first, last]) => (first === last ? `${first}` : `${first} to ${last}`)).join(", ");
}

function drawDiamond(context, x, y, size, style) {
  context.beginPath();
  context.moveTo(x, y - size);
  context.lineTo(x + size, y);
  context.lineTo(x, y + size);
  context.lineTo(x - size, y);
  context.closePath();
  context.fillStyle = style.getPropertyValue("--text");
  context.fill();
  context.lineWidth = 1.5;
  context.strokeStyle = style.getPropertyValue("--back");
  context.stroke();
}
