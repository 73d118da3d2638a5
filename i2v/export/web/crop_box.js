// CropBox: which part of a frame is looked at again; see i2v/inference/crop_box.py.
import { halfToEven } from "./mask_arrays.js";

const MARGIN = 1.5; // side of a crop in sides of what is in it
const SMALLEST = 0.15; // side of a crop in sides of the frame
const LARGEST = 0.8; // the same; above, a crop shows nothing that the frame does not
export const LOW_RES_STRIDE = 4; // pixels of the model image in a cell of the low-res grid

// A part of a frame with the frame's aspect ratio, in cells of the low-res grid.
export class CropBox {
  constructor(left, top, side, grid) {
    Object.assign(this, { left, top, side, grid });
  }

  // All of a frame that fills a model image of `imageSize` pixels.
  static whole(imageSize) {
    const grid = imageSize / LOW_RES_STRIDE;
    return new CropBox(0, 0, grid, grid);
  }

  // The crop for what lies between two corners [column, row]; null if that is most of the frame.
  static around(low, high, grid) {
    const extent = Math.max(high[0] - low[0], high[1] - low[1]);
    const side = Math.ceil(Math.max(extent * MARGIN, SMALLEST * grid));
    if (side > LARGEST * grid) return null;
    const [left, top] = [0, 1].map((axis) => {
      const middle = (low[axis] + high[axis]) / 2;
      return Math.min(Math.max(halfToEven(middle - side / 2), 0), grid - side);
    });
    return new CropBox(left, top, side, grid);
  }

  // Left, top, right and bottom in a picture of the whole frame.
  pixels(width, height) {
    const [x, y] = [width / this.grid, height / this.grid];
    return [this.left * x, this.top * y, (this.left + this.side) * x, (this.top + this.side) * y];
  }

  // The crop's part (side, side) of a map (grid, grid).
  of(map) {
    const part = new Float32Array(this.side * this.side);
    for (let row = 0; row < this.side; row++) {
      const start = (this.top + row) * this.grid + this.left;
      part.set(map.subarray(start, start + this.side), row * this.side);
    }
    return part;
  }
}
