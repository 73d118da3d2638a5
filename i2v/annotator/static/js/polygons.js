// The polygon tool: the mask of the selected object as polygons, whose vertices are moved, added and removed. The server
// makes the polygons of the mask, and the mask of the polygons: one edit, when they are applied.
import { strokeTwice } from "./stage.js";

const REACH = 9; // pixels of the window from a vertex, or an edge, within which it is meant
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
const FAR = 10; // pixels of the video with Shift
const PASSING = 60; // milliseconds: frames that are shown for less, as in playing, get no polygons

export class PolygonTool {
  // `changed` is called when it is to be drawn anew, with another hint.
  constructor(store, stage, changed) {
    this.store = store;
    this.stage = stage;
    this.changed = changed;
    this.shape = null; // { object, frame, mask, polygons: [{ points, isChanged }], isApplied }: what is shown
    this.loaded = []; // the polygons as they came
    this.chosen = null; // { polygon, vertex }
    this.grip = null; // from the pointer to the vertex that it drags
    stage.box.addEventListener("keydown", (event) => this.key(event));
    for (const type of ["view", "state", "frame", "shown"]) store.addEventListener(type, () => this.sync());
    store.addEventListener("masks", ({ detail }) => {
      if (this.shape?.isApplied && (detail ?? this.shape.frame) === this.shape.frame) this.show(null);
      this.sync();
    });
    // What else is asked for, such as tracking, is of the mask with the changes.
    store.addEventListener("ask", ({ detail }) => detail.do !== "cancel" && this.apply());
    window.addEventListener("beforeunload", (event) => this.isChanged && event.preventDefault());
  }

  get isOn() {
    return this.store.tool === "polygon";
  }

  get isChanged() {
    return Boolean(this.shape?.polygons.some((polygon) => polygon.isChanged));
  }

  // Follow the tool, the selected object, the frame and its mask. What was changed is applied when it is left.
  sync() {
    const { store, shape } = this;
    if (shape && (!this.isOn || shape.object !== store.selected || shape.frame !== store.frame)) {
      this.apply();
      this.show(null);
    }
    if (!this.isOn || !store.isShown || this.shape?.isApplied) return;
    const masks = store.masksOn(store.frame);
    if (masks === undefined) return; // on their way
    const mask = masks.find((entry) => entry.object === store.selected)?.counts ?? null;
    if (this.shape && mask === this.shape.mask) return;
    if (this.isChanged) store.tell("error", "the mask has changed meanwhile: the changes of its polygons are dropped");
    this.load(mask);
  }

  async load(mask) {
    const { store } = this;
    const shape = { object: store.selected, frame: store.frame, mask, polygons: [] };
    this.show(shape);
    if (mask === null) return;
    await new Promise((resolve) => setTimeout(resolve, PASSING));
    if (this.shape !== shape) return;
    try {
      const answer = await store.api.polygons(shape.object, shape.frame);
      // Of another mask, of which the page will be told.
      if (this.shape !== shape || answer.mask !== mask) return;
      this.loaded = answer.polygons;
      this.restore();
    } catch (error) {
      store.tell("error", error.message);
    }
  }

  restore() {
    const polygons = this.loaded.map((points) => ({ points: points.map(([x, y]) => ({ x, y })), isChanged: false }));
    this.show({ ...this.shape, polygons, isApplied: false });
  }

  show(shape) {
    this.shape = shape;
    this.chosen = this.grip = null;
    this.stage.box.classList.remove("on-vertex");
    this.render();
  }

  render() {
    // What tests wait for.
    const { box } = this.stage;
    box.dataset.polygons = this.shape ? `${this.shape.frame}:${this.shape.object}:${this.shape.polygons.length}` : "";
    this.changed();
  }

  get hint() {
    if (!this.shape) return "";
    if (!this.shape.polygons.length) return this.shape.mask === null ? "The object has no mask on this frame." : "";
    return `${this.place} ${this.isChanged ? "Enter applies the changes, Esc drops them." : ""}`.trim();
  }

  // Which vertex is chosen, and where it is.
  get place() {
    if (!this.chosen) return "Drag a vertex, or an edge for a new one. Alt and a click removes a vertex. Tab: choose one.";
    const { polygon, vertex } = this.chosen;
    const { x, y } = this.point;
    const { length } = this.shape.polygons[polygon].points;
    const which = `Vertex ${vertex + 1} of ${length}, polygon ${polygon + 1} of ${this.shape.polygons.length}`;
    return `${which}, at ${x.toFixed(1)}, ${y.toFixed(1)}.`;
  }

  // Apply the changes, as one edit.
  apply() {
    if (!this.isChanged) return;
    const { object, frame, mask, polygons } = this.shape;
    const changes = polygons
      .map(({ points, isChanged }, polygon) => ({ polygon, isChanged, vertices: points.map(({ x, y }) => [x, y]) }))
      .filter(({ isChanged }) => isChanged)
      .map(({ polygon, vertices }) => ({ polygon, vertices }));
    for (const polygon of polygons) polygon.isChanged = false;
    // They are not for changes until the new mask is there, of which the page is told.
    this.show({ ...this.shape, isApplied: true });
    this.send({ do: "polygons", object, frame, mask, changes });
  }

  async send(command) {
    const { shape } = this;
    if ((await this.store.ask(command)) || this.shape !== shape) return;
    this.show(null);
    this.sync();
  }

  // Whether there was something to give up.
  drop() {
    const busy = this.isChanged || this.chosen !== null;
    if (this.isChanged) this.restore();
    else if (busy) this.choose(null);
    return busy;
  }

  // Whether what is shown may be changed; says why not.
  mayChange() {
    const { locked, name } = this.store.objectOf(this.shape.object);
    if (locked) this.store.tell("error", `${name} is locked: unlock it first`);
    return !locked && !this.shape.isApplied;
  }

  // Pointer: `point` is its place in the video.

  down(event, point) {
    if (event.button !== 0 || !this.shape) return;
    const near = this.nearest(point);
    if (!near) return this.choose(null);
    if (!this.mayChange()) return;
    if (near.isEdge && event.altKey) return;
    if (near.isEdge) this.add(near, near.place);
    this.choose(near);
    if (event.altKey) return this.remove();
    this.grip = { dx: this.point.x - point.x, dy: this.point.y - point.y };
  }

  move(point) {
    if (this.grip) this.moveTo(point.x + this.grip.dx, point.y + this.grip.dy);
    else this.stage.box.classList.toggle("on-vertex", Boolean(this.shape && this.nearest(point)));
  }

  up() {
    this.grip = null;
  }

  // The vertex at a point, else the edge there: { polygon, vertex, isEdge, place }, of an edge the vertex after it.
  nearest(point) {
    const reach = REACH / this.stage.scale;
    let [best, least] = [null, reach];
    let [edge, closest] = [null, reach];
    this.shape.polygons.forEach(({ points }, polygon) => {
      points.forEach((end, vertex) => {
        const distance = Math.hypot(end.x - point.x, end.y - point.y);
        if (distance <= least) [best, least] = [{ polygon, vertex, isEdge: false, place: end }, distance];
        const place = closestTo(point, points.at(vertex - 1), end);
        const beside = Math.hypot(place.x - point.x, place.y - point.y);
        if (beside <= closest) [edge, closest] = [{ polygon, vertex, isEdge: true, place }, beside];
      });
    });
    return best ?? edge;
  }

  // Keys

  key(event) {
    if (!this.shape?.polygons.length || event.ctrlKey || event.altKey || event.metaKey) return;
    const arrow = ARROWS[event.key];
    if (event.key === "Tab") {
      const next = this.next(event.shiftKey ? -1 : 1);
      this.choose(next);
      if (!next) return; // on to the control after the picture, or before it
    } else if (arrow && this.chosen) {
      const step = event.shiftKey ? FAR : 1;
      if (this.mayChange()) this.moveTo(this.point.x + step * arrow[0], this.point.y + step * arrow[1]);
    } else {
      return;
    }
    event.preventDefault();
    event.stopPropagation();
  }

  // The vertex after the chosen one, or before it; null at the end.
  next(by) {
    const { polygons } = this.shape;
    if (!this.chosen) return by > 0 ? { polygon: 0, vertex: 0 } : null;
    const { polygon, vertex } = this.chosen;
    if (polygons[polygon].points[vertex + by]) return { polygon, vertex: vertex + by };
    const other = polygons[polygon + by];
    return other ? { polygon: polygon + by, vertex: by > 0 ? 0 : other.points.length - 1 } : null;
  }

  // What they do

  get point() {
    return this.shape.polygons[this.chosen.polygon].points[this.chosen.vertex];
  }

  choose(vertex) {
    this.chosen = vertex;
    this.render();
  }

  moveTo(x, y) {
    const { width, height } = this.store.video;
    const point = { x: rounded(Math.min(width, Math.max(0, x))), y: rounded(Math.min(height, Math.max(0, y))) };
    if (point.x === this.point.x && point.y === this.point.y) return;
    Object.assign(this.point, point);
    this.shape.polygons[this.chosen.polygon].isChanged = true;
    this.render();
  }

  // A vertex on an edge, which changes nothing until it is moved.
  add({ polygon, vertex }, { x, y }) {
    this.shape.polygons[polygon].points.splice(vertex, 0, { x: rounded(x), y: rounded(y) });
  }

  // A vertex halfway from the chosen one to the next.
  insert() {
    if (!this.isChosen() || !this.mayChange()) return;
    const { polygon, vertex } = this.chosen;
    const { points } = this.shape.polygons[polygon];
    const [a, b] = [points[vertex], points[(vertex + 1) % points.length]];
    const added = { polygon, vertex: vertex + 1 };
    this.add(added, { x: (a.x + b.x) / 2, y: (a.y + b.y) / 2 });
    this.choose(added);
  }

  remove() {
    if (!this.isChosen() || !this.mayChange()) return;
    const { polygon, vertex } = this.chosen;
    const { points } = this.shape.polygons[polygon];
    if (points.length <= 3) return this.store.tell("error", "a polygon has three vertices at least");
    points.splice(vertex, 1);
    this.shape.polygons[polygon].isChanged = true;
    this.choose({ polygon, vertex: vertex % points.length });
  }

  isChosen() {
    if (!this.chosen) this.store.tell("error", "choose a vertex first: with a click, or with Tab");
    return this.chosen !== null;
  }

  draw(context) {
    const { stage, shape } = this;
    const colour = this.store.colourOf(shape.object);
    shape.polygons.forEach(({ points }, polygon) => {
      context.beginPath();
      for (const { x, y } of points) context.lineTo(...stage.toView(x, y));
      context.closePath();
      strokeTwice(context, colour, () => context.stroke());
      points.forEach(({ x, y }, vertex) => {
        const isChosen = polygon === this.chosen?.polygon && vertex === this.chosen.vertex;
        drawVertex(context, stage.toView(x, y), isChosen, colour);
      });
    });
  }
}

// Size and shade, not the colour alone, say which one is chosen.
function drawVertex(context, [x, y], isChosen, colour) {
  const half = isChosen ? 6 : 3;
  context.fillStyle = isChosen ? colour : "#ffffff";
  context.strokeStyle = "#000000";
  context.lineWidth = isChosen ? 2 : 1;
  context.fillRect(x - half, y - half, 2 * half, 2 * half);
  context.strokeRect(x - half, y - half, 2 * half, 2 * half);
}

// What is closest to a point on the line between two others.
function closestTo(point, a, b) {
  const [dx, dy] = [b.x - a.x, b.y - a.y];
  const square = dx * dx + dy * dy;
  const along = square ? Math.min(1, Math.max(0, ((point.x - a.x) * dx + (point.y - a.y) * dy) / square)) : 0;
  return { x: a.x + along * dx, y: a.y + along * dy };
}

// Hundredths of a pixel are enough.
function rounded(value) {
  return Math.round(100 * value) / 100;
}
