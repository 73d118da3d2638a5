// The masks of a session in COCO's run-length encoding, as masks.json of `i2v track` has them.
import { bestOf } from "./mask_arrays.js";
import { encodeCounts, encodePlane } from "./rle.js";

export class MaskTable {
  constructor(source) {
    this.source = source;
    this.frames = new Map();
    this.labels = new Map(); // of objects, in the order in which they came
  }

  // Keep what a session says of a frame: masks { frame, objIds, logits } and scores by id.
  set({ frame, objIds, logits }, scores) {
    for (const objId of objIds) if (!this.labels.has(objId)) this.labels.set(objId, this.labels.size + 1);
    const best = bestOf(logits);
    const rows = objIds.flatMap((objId, row) => {
      return scores.has(objId) ? [this.entry(objId, planeOf(logits[row], best, row), scores.get(objId))] : [];
    });
    this.frames.set(frame, rows);
  }

  // The entries of the objects on a frame.
  get(frame) {
    return this.frames.get(frame) ?? [];
  }

  clear() {
    this.frames.clear();
    this.labels.clear();
  }

  entry(objId, plane, { objectScore, iou }) {
    const { width, height } = this.source;
    const counts = encodeCounts(encodePlane(plane, width, height));
    return {
      id: objId,
      segmentation: { size: [height, width], counts },
      ...measuresOf(plane, width),
      object_score: rounded(objectScore),
      iou: rounded(iou),
    };
  }

  toJson() {
    const { name, width, height, frameRate } = this.source;
    const frames = [...this.frames].sort(([a], [b]) => a - b);
    return {
      video: name,
      size: [height, width],
      frame_rate: frameRate,
      objects: [...this.labels].map(([id, label]) => ({ id, label })),
      frames: frames.map(([frame, objects]) => ({ ...this.source.describe(frame), objects })),
    };
  }
}

// 1 where the object of a row is. Each pixel belongs to at most one object.
function planeOf(logits, best, row) {
  const plane = new Uint8Array(logits.length);
  for (let i = 0; i < plane.length; i++) if (logits[i] > 0 && best[i] === row) plane[i] = 1;
  return plane;
}

function measuresOf(plane, width) {
  let [left, top, right, bottom, area] = [Infinity, Infinity, -1, -1, 0];
  plane.forEach((value, i) => {
    if (!value) return;
    const [x, y] = [i % width, Math.floor(i / width)];
    [left, top, right, bottom] = [Math.min(left, x), Math.min(top, y), Math.max(right, x), Math.max(bottom, y)];
    area++;
  });
  return { bbox: area ? [left, top, right - left + 1, bottom - top + 1] : [0, 0, 0, 0], area };
}

function rounded(score) {
  return Math.round(score * 1e4) / 1e4;
}
