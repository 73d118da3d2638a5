// The picture with its layers: frame, masks, and on top prompts, cross and brush, all of the frame whose picture is there.
// Zoom and pan are of the view alone.
import { OverlayPainter } from "./overlay.js";

const LATE = 200; // milliseconds until it is said that a picture is loading

export class Stage {
  constructor(store, pictures) {
    this.store = store;
    this.pictures = pictures;
    this.box = document.getElementById("stage");
    this.picture = document.getElementById("picture");
    this.overlay = document.getElementById("overlay");
    this.marks = document.getElementById("marks");
    this.loading = document.getElementById("loading");
    this.painter = new OverlayPainter(this.overlay);
    this.zoom = 1;
    this.centre = { x: 0.5, y: 0.5 }; // of the view, in parts of the picture
    this.cross = { x: store.video.width / 2, y: store.video.height / 2, shown: false };
    this.draft = null; // what a tool is drawing: draws itself
    for (const canvas of [this.picture, this.overlay]) {
      canvas.width = store.video.width;
      canvas.height = store.video.height;
    }
    this.drawn = 0;
    new ResizeObserver(() => this.layOut()).observe(this.box);
    store.addEventListener("frame", () => this.showFrame());
    store.addEventListener("masks", ({ detail }) => {
      if (detail === null || detail === store.shownFrame) this.drawMasks();
    });
    store.addEventListener("state", () => this.drawMasks());
    store.addEventListener("view", () => this.drawMasks());
    this.layOut();
    this.showFrame();
  }

  // In a fast scrub only the last frame counts. A picture that fails is asked for again, as long as it is the one.
  async showFrame() {
    const { store } = this;
    const frame = store.frame;
    const late = setTimeout(() => this.isWaiting(frame, `frame ${frame} is loading …`), LATE);
    for (let wait = 500; frame === store.frame; wait = Math.min(2 * wait, 8000)) {
      try {
        const bitmap = await this.pictures.get(frame);
        if (frame === store.frame) this.draw(frame, bitmap);
        break;
      } catch (error) {
        this.isWaiting(frame, `frame ${frame} is not shown: ${error.message}; trying again …`);
        await new Promise((resolve) => setTimeout(resolve, wait));
      }
    }
    clearTimeout(late);
  }

  isWaiting(frame, text) {
    if (frame !== this.store.frame) return;
    this.loading.textContent = text;
    this.box.classList.add("waiting");
    this.box.setAttribute("aria-busy", "true");
  }

  draw(frame, bitmap) {
    this.picture.getContext("2d").drawImage(bitmap, 0, 0, this.picture.width, this.picture.height);
    this.store.shownFrame = frame;
    this.loading.textContent = "";
    this.box.classList.remove("waiting");
    this.box.setAttribute("aria-busy", "false");
    this.box.dataset.frame = frame;
    this.drawMasks();
    this.store.tell("shown", frame);
  }

  drawMasks() {
    const { store } = this;
    const frame = store.shownFrame;
    if (frame === null) return;
    const masks = store.shownMasksOn(frame);
    // Until they come, the masks of the frame before would lie.
    const visible = (masks ?? []).filter((mask) => store.objectOf(mask.object)?.visible);
    this.painter.draw(visible, (number) => store.colourOf(number), store.opacity, store.selected);
    this.drawMarks();
    // What tests and benchmarks wait for: which objects' masks are on the picture, of which frame, and how new they are.
    this.box.dataset.masks = masks === undefined ? "" : `${frame}:${visible.map((mask) => mask.object).join(",")}`;
    this.box.dataset.drawn = ++this.drawn;
    for (const kind of ["news", "previews"]) {
      if (this.box.dataset[kind] !== String(store[kind])) this.box.dataset[kind] = store[kind];
    }
  }

  // View

  layOut() {
    const { width, height } = this.store.video;
    const rect = this.box.getBoundingClientRect();
    this.scale = Math.min(rect.width / width, rect.height / height) * this.zoom;
    const half = { x: rect.width / this.scale / width / 2, y: rect.height / this.scale / height / 2 };
    for (const axis of ["x", "y"]) {
      // Nothing beyond the picture's edges is worth looking at.
      this.centre[axis] = half[axis] >= 0.5 ? 0.5 : Math.min(1 - half[axis], Math.max(half[axis], this.centre[axis]));
    }
    this.left = rect.width / 2 - this.centre.x * width * this.scale;
    this.top = rect.height / 2 - this.centre.y * height * this.scale;
    for (const canvas of [this.picture, this.overlay]) {
      Object.assign(canvas.style, {
        left: `${this.left}px`,
        top: `${this.top}px`,
        width: `${width * this.scale}px`,
        height: `${height * this.scale}px`,
      });
    }
    const density = window.devicePixelRatio || 1;
    this.marks.width = Math.max(1, Math.round(rect.width * density));
    this.marks.height = Math.max(1, Math.round(rect.height * density));
    this.density = density;
    this.drawMarks();
  }

  zoomBy(factor, point = null) {
    const before = Math.min(16, Math.max(1, this.zoom * factor));
    const { width, height } = this.store.video;
    const fixed = point ?? { x: this.centre.x * width, y: this.centre.y * height };
    const ratio = this.zoom / before;
    this.centre.x = fixed.x / width + (this.centre.x - fixed.x / width) * ratio;
    this.centre.y = fixed.y / height + (this.centre.y - fixed.y / height) * ratio;
    this.zoom = before;
    this.layOut();
  }

  panBy(dx, dy) {
    this.centre.x -= dx / this.scale / this.store.video.width;
    this.centre.y -= dy / this.scale / this.store.video.height;
    this.layOut();
  }

  // A pointer's place in pixels of the video, within the frame.
  toVideo(event) {
    const rect = this.box.getBoundingClientRect();
    const { width, height } = this.store.video;
    const x = (event.clientX - rect.left - this.left) / this.scale;
    const y = (event.clientY - rect.top - this.top) / this.scale;
    const inside = x >= 0 && y >= 0 && x <= width && y <= height;
    return { x: Math.min(width, Math.max(0, x)), y: Math.min(height, Math.max(0, y)), inside };
  }

  toView(x, y) {
    return [this.left + x * this.scale, this.top + y * this.scale];
  }

  // Marks

  drawMarks() {
    const context = this.marks.getContext("2d");
    context.setTransform(this.density, 0, 0, this.density, 0, 0);
    context.clearRect(0, 0, this.marks.width, this.marks.height);
    const { store } = this;
    for (const prompt of store.stepsOn(store.shownFrame)) {
      const object = store.objectOf(prompt.object);
      if (!object?.visible) continue;
      for (const step of prompt.steps) this.drawStep(context, step, store.colourOf(prompt.object), 1);
    }
    for (const { frame, step, object } of store.pending) {
      if (frame === store.shownFrame) this.drawStep(context, step, store.colourOf(object), 0.6);
    }
    this.draft?.(context, this);
    if (this.cross.shown) this.drawCross(context);
  }

  drawStep(context, step, colour, alpha) {
    context.globalAlpha = alpha;
    if (step.box) {
      const [x0, y0] = this.toView(step.box[0], step.box[1]);
      const [x1, y1] = this.toView(step.box[2], step.box[3]);
      strokeTwice(context, colour, () => context.strokeRect(x0, y0, x1 - x0, y1 - y0));
    }
    if (step.click) this.drawClick(context, step.click, colour);
    context.globalAlpha = 1;
  }

  // A plus or a minus, not the colour alone, says whether a click is on the object.
  drawClick(context, [x, y, positive], colour) {
    const [px, py] = this.toView(x, y);
    const size = Math.max(8, 0.55 * parseFloat(getComputedStyle(document.documentElement).fontSize));
    context.beginPath();
    context.arc(px, py, size, 0, 7);
    context.fillStyle = positive ? colour : "#ffffff";
    context.fill();
    context.lineWidth = 2;
    context.strokeStyle = positive ? "#ffffff" : "#000000";
    context.stroke();
    context.beginPath();
    context.moveTo(px - size / 2, py);
    context.lineTo(px + size / 2, py);
    if (positive) {
      context.moveTo(px, py - size / 2);
      context.lineTo(px, py + size / 2);
    }
    strokePath(context, positive ? "#000000" : "#ffffff", positive ? "#ffffff" : "#000000");
  }

  drawCross(context) {
    const [x, y] = this.toView(this.cross.x, this.cross.y);
    context.beginPath();
    for (const [dx, dy] of [[1, 0], [-1, 0], [0, 1], [0, -1]]) {
      context.moveTo(x + 5 * dx, y + 5 * dy);
      context.lineTo(x + 22 * dx, y + 22 * dy);
    }
    strokePath(context, "#000000", "#ffffff");
  }
}

function strokePath(context, outer, inner) {
  for (const [colour, width] of [[outer, 4.5], [inner, 2]]) {
    context.strokeStyle = colour;
    context.lineWidth = width;
    context.stroke();
  }
}

export function strokeTwice(context, colour, stroke) {
  for (const [style, width] of [["#ffffff", 4], [colour, 2]]) {
    context.strokeStyle = style;
    context.lineWidth = width;
    stroke();
  }
}
