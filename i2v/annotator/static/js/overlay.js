// Masks as colours over the picture: half transparent inside, opaque at the edge.
import { decodeCounts, fillRuns } from "./rle.js";

export class OverlayPainter {
  constructor(canvas) {
    this.canvas = canvas;
    this.context = canvas.getContext("2d");
    this.plane = new Uint8Array(0);
    this.dirty = null; // the part of the plane that is not zero
  }

  // Draw masks [{ object, counts }], the selected object last and with a thicker edge.
  draw(masks, colourOf, opacity, selected) {
    const { width, height } = this.canvas;
    if (this.plane.length !== width * height) this.plane = new Uint8Array(width * height);
    this.clear();
    const ordered = [...masks].sort((a, b) => (a.object === selected) - (b.object === selected));
    for (const mask of ordered) {
      const box = fillRuns(this.plane, decodeCounts(mask.counts), width, height, mask.object);
      this.dirty = union(this.dirty, box);
    }
    if (this.dirty) this.paint(colourOf, opacity, selected);
  }

  clear() {
    const { width, height } = this.canvas;
    this.context.clearRect(0, 0, width, height);
    if (!this.dirty) return;
    const { left, top, right, bottom } = this.dirty;
    for (let y = top; y <= bottom; y++) this.plane.fill(0, y * width + left, y * width + right + 1);
    this.dirty = null;
  }

  paint(colourOf, opacity, selected) {
    const { left, top, right, bottom } = this.dirty;
    const image = this.context.createImageData(right - left + 1, bottom - top + 1);
    const pixels = new Uint32Array(image.data.buffer);
    const { width, height } = this.canvas;
    const plane = this.plane;
    const thin = Math.max(1, Math.round(Math.min(width, height) / 360));
    const inside = new Map();
    const edge = new Map();
    let at = 0;
    for (let y = top; y <= bottom; y++) {
      for (let x = left; x <= right; x++, at++) {
        const i = y * width + x;
        const label = plane[i];
        if (!label) continue;
        if (!edge.has(label)) {
          edge.set(label, packed(colourOf(label), 1));
          inside.set(label, packed(colourOf(label), opacity));
        }
        const reach = label === selected ? 2 * thin : thin;
        const isEdge =
          (x >= reach && plane[i - reach] !== label) ||
          (x + reach < width && plane[i + reach] !== label) ||
          (y >= reach && plane[i - reach * width] !== label) ||
          (y + reach < height && plane[i + reach * width] !== label);
        pixels[at] = (isEdge ? edge : inside).get(label);
      }
    }
    this.context.putImageData(image, left, top);
  }
}

function union(a, b) {
  if (!a || !b) return a || b;
  return {
    left: Math.min(a.left, b.left),
    top: Math.min(a.top, b.top),
    right: Math.max(a.right, b.right),
    bottom: Math.max(a.bottom, b.bottom),
  };
}

// "#rrggbb" and an opacity as a little-endian pixel.
function packed(colour, opacity) {
  const value = parseInt(colour.slice(1), 16);
  const [red, green, blue] = [value >> 16, (value >> 8) & 255, value & 255];
  return ((Math.round(opacity * 255) << 24) | (blue << 16) | (green << 8) | red) >>> 0;
}
