// Answers to points on a frame without memory; see i2v/onnx_runtime/prompt_answers.py.
import { CropBox, LOW_RES_STRIDE } from "./crop_box.js";
import { fillHoles, meanOf, mirrored, resize } from "./mask_arrays.js";
import { arrayOf, joined } from "./network.js";
import { toModelPixels } from "./picture.js";

const PRIOR_LIMIT = 32; // logits of an earlier mask are clamped to +-32
const OUTSIDE_LOGIT = -10; // the crop's answer for what is outside of it

// Points on one object, [x, y] in pixels of the model image, with labels 1 (object) and 0 (background); `prior` are
// logits (4h, 4w) of an earlier mask that the points correct, or null.
export class PointPrompt {
  constructor(points, labels, prior = null) {
    Object.assign(this, { points, labels, prior });
  }

  withPrior(prior) {
    return new PointPrompt(this.points, this.labels, prior);
  }

  // The prompt for the mirror image.
  mirrored(imageSize) {
    const prior = this.prior && mirrored(this.prior, imageSize / LOW_RES_STRIDE);
    return new PointPrompt(this.points.map(([x, y]) => [imageSize - x, y]), this.labels, prior);
  }

  // The prompt for a crop, which fills the model image.
  within(crop, imageSize) {
    const cell = imageSize / crop.grid;
    const place = (value, corner) => ((value - corner * cell) * crop.grid) / crop.side;
    const points = this.points.map(([x, y]) => [place(x, crop.left), place(y, crop.top)]);
    const size = [crop.grid, crop.grid];
    return new PointPrompt(points, this.labels, this.prior && resize(crop.of(this.prior), [crop.side, crop.side], size));
  }
}

// Answers prompts for one object at a time.
export class PromptAnswerer {
  constructor(network) {
    const { sizes, prompts, constants } = network.description;
    this.network = network;
    this.sizes = sizes;
    this.rules = prompts;
    this.side = sizes.image_size / LOW_RES_STRIDE;
    this.noMemory = Float32Array.from(constants.no_memory);
    this.memoryPrompts = joined(Array(sizes.num_queries).fill(Float32Array.from(constants.no_memory_prompt)));
  }

  // Answer points on a frame, given its picture and its features: the mask of one object, with small holes filled.
  async points(picture, features, prompt) {
    const prior = prompt.prior?.map((logit) => Math.min(Math.max(logit, -PRIOR_LIMIT), PRIOR_LIMIT)) ?? null;
    const clamped = prompt.withPrior(prior);
    let answer = await this.segment(features, clamped);
    if (this.rules.refine && answer.objectScore[0] > 0) answer = await this.refine(picture, clamped, answer);
    return answer.withLowRes([fillHoles(answer.lowRes[0], this.side, this.rules.fill_hole_area)]);
  }

  segment(features, prompt) {
    const { multimask, multimask_min_points, multimask_max_points } = this.rules;
    const count = prompt.points.length;
    const isAmbiguous = multimask && multimask_min_points <= count && count <= multimask_max_points;
    const cells = this.sizes.grid ** 2;
    const image = features.vision.map((value, i) => value + this.noMemory[Math.floor(i / cells)]);
    const prompts = {
      points: arrayOf("float32", [1, count, 2], Float32Array.from(prompt.points.flat())),
      labels: arrayOf("int64", [1, count], BigInt64Array.from(prompt.labels, BigInt)),
      prior: arrayOf("float32", [1, 1, this.side, this.side], prompt.prior),
      has_prior: arrayOf("bool", [1], Uint8Array.of(prompt.prior !== null)),
      multimask: arrayOf("bool", [1], Uint8Array.of(isAmbiguous)),
    };
    return this.network.decode(image, this.memoryPrompts, prompts, features.highRes);
  }

  // Average with the answers on the mirrored frame, and on a crop around both and its mirror image.
  async refine(picture, prompt, answer) {
    const whole = CropBox.whole(this.sizes.image_size);
    const answers = [answer.lowRes[0], ...(await this.answers(picture, whole, prompt, [true]))];
    const crop = this.cropFor(prompt, meanOf(answers));
    if (crop !== null) answers.push(...(await this.answers(picture, crop, prompt, [false, true])));
    return answer.withLowRes([meanOf(answers)]);
  }

  // Logits (4h, 4w) from a crop as it is or mirrored, where the object is found at all.
  async answers(picture, crop, prompt, mirrors) {
    const size = this.sizes.image_size;
    const pixels = toModelPixels(picture, size, crop.pixels(picture.width, picture.height));
    const closer = prompt.within(crop, size);
    const found = [];
    for (const mirror of mirrors) {
      const seen = mirror ? mirrored(pixels, size) : pixels;
      // With itself for the frames before it, as a video begins.
      const stem = await this.network.stem(seen);
      const features = await this.network.encode(seen, Array(this.sizes.window_length).fill(stem));
      const answer = await this.segment(features, mirror ? closer.mirrored(size) : closer);
      if (answer.objectScore[0] <= 0) continue;
      found.push(paste(crop, mirror ? mirrored(answer.lowRes[0], this.side) : answer.lowRes[0]));
    }
    return found;
  }

  // The crop with a mask of logits (4h, 4w) and all points; null if there is nothing to gain.
  cropFor(prompt, logits) {
    const points = prompt.points.map((point) => point.map((value) => value / LOW_RES_STRIDE));
    const [low, high] = [[Infinity, Infinity], [-Infinity, -Infinity]];
    const include = ([x, y], reach) => {
      [low[0], low[1]] = [Math.min(low[0], x), Math.min(low[1], y)];
      [high[0], high[1]] = [Math.max(high[0], x + reach), Math.max(high[1], y + reach)];
    };
    logits.forEach((logit, i) => logit > 0 && include([i % this.side, Math.floor(i / this.side)], 1));
    if (low[0] === Infinity) return null;
    points.forEach((point) => include(point, 0));
    return CropBox.around(low, high, this.side);
  }
}

// Logits (grid, grid) of a crop as logits of the frame, of the same shape.
function paste(crop, logits) {
  const frame = new Float32Array(logits.length).fill(OUTSIDE_LOGIT);
  const part = resize(logits, [crop.grid, crop.grid], [crop.side, crop.side], true);
  for (let row = 0; row < crop.side; row++) {
    const values = part.subarray(row * crop.side, (row + 1) * crop.side);
    frame.set(values, (crop.top + row) * crop.grid + crop.left);
  }
  return frame;
}
