// Frames of a video, encoded by an exported model; see i2v/onnx_runtime/frame_encoder.py.
import { LatestFew } from "./cache.js";
import { toModelPixels } from "./picture.js";

const NUM_CACHED_FEATURES = 4;

// Encodes the frames of a video, and keeps the features of the latest ones.
export class FrameEncoder {
  constructor(source, network) {
    this.source = source;
    this.network = network;
    this.stems = new Map();
    this.latest = new LatestFew(NUM_CACHED_FEATURES);
  }

  // The features of a frame.
  async features(frame) {
    if (this.latest.has(frame)) return this.latest.get(frame);
    const { window_length, image_size } = this.network.description.sizes;
    const window = windowIndices(frame, window_length);
    let pixels = null;
    for (const index of window) {
      if (this.stems.has(index)) continue;
      const seen = toModelPixels(await this.source.read(index), image_size);
      if (index === frame) pixels = seen;
      this.stems.set(index, await this.network.stem(seen));
    }
    pixels ??= toModelPixels(await this.source.read(frame), image_size);
    this.latest.set(frame, await this.network.encode(pixels, window.map((index) => this.stems.get(index))));
    for (const index of [...this.stems.keys()]) if (!window.includes(index)) this.stems.delete(index);
    return this.latest.get(frame);
  }
}

// The frames that the model reads for a frame: the preceding ones and itself, and at the start copies of it.
function windowIndices(frame, length) {
  const first = Math.max(0, frame - length + 1);
  return Array.from({ length }, (_, i) => Math.min(first + i, frame));
}
