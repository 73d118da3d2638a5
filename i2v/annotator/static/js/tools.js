// The tools: click, box, paint, erase, polygons; with the pointer, and with the cross that keys move.
import { PolygonTool } from "./polygons.js";
import { encodePlane } from "./rle.js";
import { strokeTwice } from "./stage.js";

const HINTS = {
  click: "Left click: on the object. Right click or Alt: off it.",
  box: "Drag a box around the object.",
  paint: "Paint what belongs to the object.",
  erase: "Erase what does not belong to it.",
};

export class Tools {
  constructor(store, stage) {
    this.store = store;
    this.stage = stage;
    this.stroke = null; // points of the brush while it is down
    this.corner = null; // of the box that is being drawn
    this.panning = 0; // the buttons of the mouse, as in MouseEvent.buttons, whose drag moves the picture
    this.held = null; // { code, otherwise, panned } while the key is down with which a drag moves it
    this.polygons = new PolygonTool(store, stage, () => {
      this.showHint();
      this.hover(null);
    });
    const { box } = stage;
    box.addEventListener("pointerdown", (event) => this.down(event));
    box.addEventListener("pointermove", (event) => this.move(event));
    box.addEventListener("pointerup", (event) => this.up(event));
    box.addEventListener("pointercancel", () => this.drop());
    box.addEventListener("lostpointercapture", () => (this.panning = 0));
    document.addEventListener("keyup", (event) => event.code === this.held?.code && this.release(true));
    window.addEventListener("blur", () => this.release(false));
    box.addEventListener("pointerleave", () => this.hover(null));
    box.addEventListener("contextmenu", (event) => event.preventDefault());
    box.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
    box.addEventListener("blur", () => this.showCross(false));
    for (const button of document.querySelectorAll("[data-tool]")) {
      button.addEventListener("click", () => this.choose(button.dataset.tool));
    }
    document.getElementById("tools").addEventListener("keydown", (event) => this.step(event));
    document.getElementById("brush-size").addEventListener("input", (event) => this.setBrush(Number(event.target.value)));
    store.addEventListener("frame", () => this.drop());
    store.addEventListener("view", () => this.render());
    this.render();
  }

  choose(tool) {
    this.drop();
    this.store.setView({ tool });
  }

  // Arrows choose in the group of tools, as in any group of which one is chosen.
  step(event) {
    const by = { ArrowDown: 1, ArrowRight: 1, ArrowUp: -1, ArrowLeft: -1 }[event.key];
    if (!by || event.shiftKey || !event.target.matches("[data-tool]")) return;
    event.preventDefault();
    const buttons = [...document.querySelectorAll("[data-tool]")];
    const next = buttons.at((buttons.indexOf(event.target) + by) % buttons.length);
    this.choose(next.dataset.tool);
    next.focus();
  }

  setBrush(size) {
    this.store.setView({ brush: Math.min(200, Math.max(2, size)) });
  }

  render() {
    for (const button of document.querySelectorAll("[data-tool]")) {
      const checked = button.dataset.tool === this.store.tool;
      button.setAttribute("aria-checked", checked);
      button.tabIndex = checked ? 0 : -1;
    }
    document.getElementById("brush-size").value = this.store.brush;
    document.getElementById("brush-size-value").textContent = this.store.brush;
    this.showHint();
  }

  showHint() {
    document.getElementById("hint").textContent = HINTS[this.store.tool] ?? this.polygons.hint;
  }

  get painting() {
    return this.store.tool === "paint" || this.store.tool === "erase";
  }

  // Pointer

  down(event) {
    const point = this.stage.toVideo(event);
    if (event.button === 1 || (event.button === 0 && this.held)) {
      this.panning = event.button === 1 ? 4 : 1;
      this.stage.box.setPointerCapture(event.pointerId);
      event.preventDefault();
      return;
    }
    if (!point.inside && !this.polygons.isOn) return; // a vertex on the edge of the frame can be taken from outside
    this.stage.box.setPointerCapture(event.pointerId);
    this.showCross(false);
    if (this.polygons.isOn) return this.polygons.down(event, point);
    if (!this.store.mayPrompt()) return;
    if (this.store.tool === "click") this.click(point, event.button === 0 && !event.altKey);
    if (this.store.tool === "box" && event.button === 0) this.corner = point;
    if (this.painting && event.button === 0) this.stroke = [point];
  }

  move(event) {
    if (!(event.buttons & this.panning)) this.panning = 0;
    if (this.panning) {
      if (this.held) this.held.panned = true;
      this.stage.panBy(event.movementX, event.movementY);
      return;
    }
    const point = this.stage.toVideo(event);
    if (this.polygons.isOn) return this.polygons.move(point);
    if (this.stroke) {
      for (const part of event.getCoalescedEvents?.() ?? [event]) this.stroke.push(this.stage.toVideo(part));
    }
    this.hover(point);
  }

  up(event) {
    this.panning = 0;
    this.polygons.up();
    if (this.corner) this.finishBox(this.stage.toVideo(event));
    if (this.stroke) this.finishStroke();
  }

  drop() {
    this.stroke = this.corner = null;
    this.polygons.up();
    this.hover(null);
  }

  // While a key is down, a drag moves the picture. Let go without one, it does what it does `otherwise`.
  hold(code, otherwise) {
    if (this.held) return; // the key repeats itself
    this.held = { code, otherwise, panned: false };
    this.stage.box.classList.add("movable");
  }

  release(acts) {
    const { held } = this;
    this.held = null;
    this.stage.box.classList.remove("movable");
    if (acts && held && !held.panned) held.otherwise();
  }

  wheel(event) {
    event.preventDefault();
    if (event.ctrlKey || event.metaKey) this.stage.zoomBy(Math.exp(-event.deltaY / 300), this.stage.toVideo(event));
    else if (this.stage.zoom > 1) this.stage.panBy(-event.deltaX, -event.deltaY);
    else this.store.show(this.store.frame + Math.sign(event.deltaY || event.deltaX));
  }

  // Keys: the cross stands for the pointer.

  moveCross(dx, dy) {
    const { cross, scale } = this.stage;
    const { width, height } = this.store.video;
    cross.x = Math.min(width, Math.max(0, cross.x + dx / scale));
    cross.y = Math.min(height, Math.max(0, cross.y + dy / scale));
    if (this.stroke) this.stroke.push({ x: cross.x, y: cross.y });
    this.showCross(true);
    this.hover(this.corner || this.painting ? cross : null);
  }

  showCross(shown) {
    if (this.stage.cross.shown !== shown) {
      this.stage.cross.shown = shown;
      this.stage.drawMarks();
    }
  }

  act(positive) {
    if (this.polygons.isOn) return this.polygons.apply();
    const { x, y } = this.stage.cross;
    this.showCross(true);
    if (!this.store.mayPrompt()) return;
    if (this.store.tool === "click") this.click({ x, y }, positive);
    else if (this.store.tool === "box" && !this.corner) this.corner = { x, y };
    else if (this.store.tool === "box") this.finishBox({ x, y });
    else if (!this.stroke) this.stroke = [{ x, y }];
    else this.finishStroke();
    this.hover(this.corner || this.stroke ? { x, y } : null);
  }

  // Whether there was something to give up.
  giveUp() {
    const busy = this.stroke !== null || this.corner !== null;
    this.drop();
    return this.polygons.drop() || busy;
  }

  // What they do

  click({ x, y }, positive) {
    const step = { click: [x, y, positive ? 1 : 0] };
    return this.store.prompt(step, { do: "click", x, y, positive });
  }

  finishBox(point) {
    const [x0, x1] = [this.corner.x, point.x].sort((a, b) => a - b);
    const [y0, y1] = [this.corner.y, point.y].sort((a, b) => a - b);
    this.drop();
    if (x1 - x0 < 2 || y1 - y0 < 2) return;
    this.store.prompt({ box: [x0, y0, x1, y1] }, { do: "box", x0, y0, x1, y1 });
  }

  finishStroke() {
    const points = this.stroke;
    const { store } = this;
    const { width, height } = store.video;
    this.drop();
    const { frame, selected, tool } = store;
    // Strokes whose answers are on their way count, too: the server adds each one to the mask that is there by then.
    const known = store.masksOn(frame);
    const isThere = !known || known.some((entry) => entry.object === selected) || store.pending.some((entry) => entry.frame === frame && entry.object === selected);
    if (!isThere && tool === "erase") {
      store.tell("error", "there is nothing to erase: the object has no mask on this frame");
      return;
    }
    const plane = new Uint8Array(width * height);
    points.forEach((point, i) => dabAlong(plane, width, height, points[Math.max(0, i - 1)], point, store.brush / 2));
    const mode = tool === "paint" ? "add" : "erase";
    store.prompt({ mask: true }, { do: "paint", mode, runs: encodePlane(plane, width, height) });
  }

  // Show what the tool would do.
  hover(point) {
    const { stage, store } = this;
    const colour = store.colourOf(store.selected ?? 1);
    const { polygons } = this;
    stage.draft = polygons.shape ? (context) => polygons.draw(context) : null;
    if (point && this.corner) {
      const corner = this.corner;
      stage.draft = (context) => {
        const [x0, y0] = stage.toView(corner.x, corner.y);
        const [x1, y1] = stage.toView(point.x, point.y);
        strokeTwice(context, colour, () => context.strokeRect(x0, y0, x1 - x0, y1 - y0));
      };
    } else if (point && this.painting) {
      const points = this.stroke;
      const shade = store.tool === "paint" ? colour : "#000000";
      stage.draft = (context) => drawBrush(context, stage, points, point, store.brush, shade);
    }
    stage.drawMarks();
  }
}

function drawBrush(context, stage, points, point, size, colour) {
  const [x, y] = stage.toView(point.x, point.y);
  if (points) {
    context.globalAlpha = 0.6;
    context.lineCap = context.lineJoin = "round";
    context.strokeStyle = colour;
    context.lineWidth = size * stage.scale;
    context.beginPath();
    points.forEach((p, i) => context[i ? "lineTo" : "moveTo"](...stage.toView(p.x, p.y)));
    context.lineTo(x, y);
    context.stroke();
    context.globalAlpha = 1;
  }
  context.beginPath();
  context.arc(x, y, (size / 2) * stage.scale, 0, 7);
  strokeTwice(context, colour, () => context.stroke());
}

// Mark the pixels whose centres are within `radius` of the line from `a` to `b`.
function dabAlong(plane, width, height, a, b, radius) {
  const [dx, dy] = [b.x - a.x, b.y - a.y];
  const square = dx * dx + dy * dy;
  const left = Math.max(0, Math.floor(Math.min(a.x, b.x) - radius));
  const right = Math.min(width - 1, Math.ceil(Math.max(a.x, b.x) + radius));
  const top = Math.max(0, Math.floor(Math.min(a.y, b.y) - radius));
  const bottom = Math.min(height - 1, Math.ceil(Math.max(a.y, b.y) + radius));
  for (let y = top; y <= bottom; y++) {
    for (let x = left; x <= right; x++) {
      const [px, py] = [x + 0.5 - a.x, y + 0.5 - a.y];
      const along = square ? Math.min(1, Math.max(0, (px * dx + py * dy) / square)) : 0;
      if (Math.hypot(px - along * dx, py - along * dy) <= radius) plane[y * width + x] = 1;
    }
  }
}
