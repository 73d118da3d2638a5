// The timeline: under the slider, a row for every object. A bar's height is the confidence; low bars are marked.
import { DOUBT, NO_SCORE } from "./store.js";

export class Timeline {
  constructor(store) {
    this.store = store;
    this.canvas = document.getElementById("timeline");
    this.scrub = document.getElementById("scrub");
    this.position = document.getElementById("position");
    this.scrub.addEventListener("input", () => store.show(Number(this.scrub.value)));
    this.canvas.addEventListener("pointerdown", (event) => {
      this.canvas.setPointerCapture(event.pointerId);
      this.seek(event);
    });
    this.canvas.addEventListener("pointermove", (event) => event.buttons && this.seek(event));
    new ResizeObserver(() => this.draw()).observe(this.canvas);
    for (const type of ["frame", "state", "masks", "view"]) store.addEventListener(type, () => this.schedule());
    this.schedule();
  }

  seek(event) {
    const rect = this.canvas.getBoundingClientRect();
    this.store.show(Math.floor(((event.clientX - rect.left) / rect.width) * this.store.video.frames));
  }

  nextPrompt(step) {
    const frames = this.store.promptedFrames;
    const found = step > 0 ? frames.find((f) => f > this.store.frame) : frames.findLast((f) => f < this.store.frame);
    if (found !== undefined) this.store.show(found);
  }

  // The next place, round the end, where the model begins to doubt one of the objects.
  nextDoubt() {
    const { store } = this;
    const strips = store.numbers.map((number) => store.stripOf(number));
    const doubted = (f) => strips.some((strip) => strip[f] > NO_SCORE && strip[f] < DOUBT);
    for (let i = 1; i <= store.video.frames; i++) {
      const f = (store.frame + i) % store.video.frames;
      if (doubted(f) && (f === 0 || !doubted(f - 1))) return store.show(f);
    }
    return store.tell("error", "there is no frame where the model is unsure");
  }

  // Many events come at once; one drawing is enough.
  schedule() {
    if (this.scheduled) return;
    this.scheduled = true;
    requestAnimationFrame(() => {
      this.scheduled = false;
      this.draw();
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

    const density = window.devicePixelRatio || 1;
    const rect = canvas.getBoundingClientRect();
    canvas.width = Math.max(1, Math.round(rect.width * density));
    canvas.height = Math.max(1, Math.round(rect.height * density));
    const context = canvas.getContext("2d");
    const rows = Math.max(3, store.state.objects.length);
    const height = canvas.height / rows;
    const column = (frame) => (frame / frames) * canvas.width;
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
    context.fillStyle = style.getPropertyValue("--text");
    context.fillRect(Math.round((column(store.frame) + column(store.frame + 1)) / 2 - density), 0, 2 * density, canvas.height);
  }

  drawStrip(context, object, top, height, warn) {
    const strip = this.store.stripOf(object.number);
    const { frames } = this.store.video;
    const columns = Math.min(context.canvas.width, frames);
    const width = context.canvas.width / columns;
    context.globalAlpha = object.visible ? 1 : 0.4;
    for (let c = 0; c < columns; c++) {
      // Where one column stands for many frames, the least sure of them shows.
      const [first, end] = [Math.floor((c * frames) / columns), Math.max(Math.floor(((c + 1) * frames) / columns), Math.floor((c * frames) / columns) + 1)];
      let level = 256;
      for (let f = first; f < end; f++) if (strip[f]) level = Math.min(level, strip[f]);
      if (level === 256) continue;
      const part = level === NO_SCORE ? 1 : Math.max(0.12, (level - 2) / 253);
      const bar = (height - 3) * part;
      context.fillStyle = this.store.palette[object.number];
      context.fillRect(c * width, top + height - 1 - bar, width + 0.5, bar);
      if (level > NO_SCORE && level < DOUBT) {
        context.fillStyle = warn;
        context.fillRect(c * width, top + 1, width + 0.5, Math.max(2, height / 8));
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
