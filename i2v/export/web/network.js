// The parts of an exported model, run by onnxruntime-web; see i2v/onnx_runtime/network.py.

const PART_NAMES = ["stem", "image_encoder", "memory_attention", "mask_decoder", "memory_encoder"];
const RUNTIME = "ort.wasm.bundle.min.mjs";
const RUNTIME_WASM = "ort-wasm-simd-threaded.wasm";
const ARRAYS = { float32: Float32Array, int64: BigInt64Array, bool: Uint8Array, uint8: Uint8Array };

// What a part takes: a type, sizes, and values, by default zeros.
export function arrayOf(type, dims, data = null) {
  return { type, dims, data: data ?? new ARRAYS[type](dims.reduce((a, b) => a * b, 1)) };
}

// Masks of B objects on a frame: low-res logits B x (4h, 4w), predicted IoU (B,), object pointers B x (C,), and object
// scores (B,), logits that are positive where the object is in view.
export class Predictions {
  constructor(lowRes, iou, pointer, objectScore) {
    Object.assign(this, { lowRes, iou, pointer, objectScore });
  }

  // Those of one object.
  row(index) {
    const parts = [this.lowRes, this.iou, this.pointer, this.objectScore];
    return new Predictions(...parts.map((values) => values.slice(index, index + 1)));
  }

  withLowRes(lowRes) {
    return new Predictions(lowRes, this.iou, this.pointer, this.objectScore);
  }
}

// An exported model. It keeps nothing of a video.
export class OnnxNetwork {
  constructor(description, parts, runtime) {
    Object.assign(this, { description, parts, runtime });
    this.running = Promise.resolve();
  }

  // Load all parts from a folder, an address; `progress` is told what comes next.
  static async load(folder, progress = () => {}) {
    const description = JSON.parse(new TextDecoder().decode(await fetchBytes(new URL("model.json", folder))));
    if (description.format !== "i2v-export" || description.version !== 1 || description.target !== "onnx") {
      throw new Error("model.json: expected a model for onnx of format i2v-export, version 1: export the model again");
    }
    progress("onnxruntime-web");
    const runtime = await startRuntime(folder);
    const parts = {};
    for (const name of PART_NAMES) {
      progress(name);
      parts[name] = await loadPart(runtime, folder, description.parts[name]);
    }
    return new OnnxNetwork(description, parts, runtime);
  }

  // Stem features of a frame (1, 3, S, S) RGB.
  async stem(pixels) {
    const { stem } = await this.run("stem", { pixels: this.pictureOf(pixels) });
    return stem;
  }

  // Features of a frame (1, 3, S, S) RGB, given the stem features of its window, oldest first.
  async encode(pixels, window) {
    const dims = [window.length, ...window[0].dims.slice(1)];
    const stems = joined(window.map((stem) => stem.data));
    const inputs = { pixels: this.pictureOf(pixels), window: arrayOf("float32", dims, stems) };
    const { vision, frame_embedding, ...highRes } = await this.run("image_encoder", inputs);
    return { vision: vision.data, embedding: frame_embedding.data, highRes };
  }

  // Condition a frame on the memories of B objects: features, and prompt tokens.
  async attend(features, readout) {
    const inputs = { vision: this.mapOf(features.vision, 1), ...readout };
    const { conditioned, memory_prompts } = await this.run("memory_attention", inputs);
    return [conditioned.data, memory_prompts.data];
  }

  // Segment B objects, given features B x (C, h, w), memory prompts B x (Q, C), prompts and high-res maps.
  async decode(image, memoryPrompts, prompts, highRes) {
    const { num_queries, channels, image_size } = this.description.sizes;
    const batch = prompts.labels.dims[0];
    const inputs = {
      image: this.mapOf(image, batch),
      memory_prompts: arrayOf("float32", [batch, num_queries, channels], memoryPrompts),
      ...prompts,
      ...highRes,
    };
    const { low_res, iou, pointer, object_score } = await this.run("mask_decoder", inputs);
    const cells = (image_size / 4) ** 2;
    return new Predictions(rowsOf(low_res.data, cells), [...iou.data], rowsOf(pointer.data, channels), [...object_score.data]);
  }

  // Encode the memories of B objects: features B x (M, h, w), and their foreground B x (h, w). `predictions` have masks
  // with small holes filled; `masks` are those to be encoded, and `fromPrompt` says whether they come from prompts.
  async memorize(features, predictions, masks, fromPrompt) {
    const { grid, memory_channels, image_size } = this.description.sizes;
    const [batch, side] = [masks.length, image_size / 4];
    const maps = (rows) => arrayOf("float32", [batch, 1, side, side], joined(rows));
    const { memory, foreground } = await this.run("memory_encoder", {
      vision: this.mapOf(features.vision, 1),
      masks: maps(masks),
      filled: maps(predictions.lowRes),
      object_score: arrayOf("float32", [batch, 1], Float32Array.from(predictions.objectScore)),
      from_prompt: arrayOf("bool", [batch], new Uint8Array(batch).fill(fromPrompt ? 1 : 0)),
    });
    return [rowsOf(memory.data, memory_channels * grid * grid), rowsOf(foreground.data, grid * grid)];
  }

  pictureOf(pixels) {
    const side = this.description.sizes.image_size;
    return arrayOf("uint8", [1, 3, side, side], pixels);
  }

  mapOf(values, batch) {
    const { channels, grid } = this.description.sizes;
    return arrayOf("float32", [batch, channels, grid, grid], values);
  }

  // One after another: the runtime takes no second call while it computes.
  run(part, inputs) {
    const result = this.running.then(() => this.compute(part, inputs));
    this.running = result.catch(() => {});
    return result;
  }

  async compute(part, inputs) {
    // Copies, as the runtime's worker takes what it is given away from here.
    const tensors = Object.entries(inputs).map(([name, { type, dims, data }]) => {
      return [name, new this.runtime.Tensor(type, data.slice(), dims)];
    });
    const outputs = await this.parts[part].run(Object.fromEntries(tensors));
    return Object.fromEntries(Object.entries(outputs).map(([name, { type, dims, data }]) => [name, { type, dims, data }]));
  }
}

// Rows of values as one.
export function joined(rows) {
  const all = new Float32Array(rows.length * rows[0].length);
  rows.forEach((row, i) => all.set(row, i * row.length));
  return all;
}

function rowsOf(data, length) {
  return Array.from({ length: data.length / length }, (_, i) => data.slice(i * length, (i + 1) * length));
}

// A file of the page's folder; an error of one sentence if it is not there.
export async function fetchBytes(address) {
  const name = decodeURIComponent(address.pathname.split("/").pop());
  let response;
  try {
    response = await fetch(address);
  } catch {
    throw new Error(`${name} cannot be loaded, as nothing answers: is the server of this folder still running?`);
  }
  if (!response.ok) throw new Error(`${name} cannot be loaded (${response.status}): it is missing in this page's folder`);
  return response.arrayBuffer();
}

// onnxruntime-web in a worker, so that the page answers meanwhile. With several threads where the server's headers
// isolate the page (COOP and COEP), else with one.
async function startRuntime(folder) {
  if (typeof WebAssembly === "undefined") throw new Error("this browser runs no WebAssembly, which the model needs");
  const wasmBinary = await fetchBytes(new URL(RUNTIME_WASM, folder));
  let runtime;
  try {
    runtime = await import(new URL(RUNTIME, folder));
  } catch (error) {
    throw new Error(`${RUNTIME} cannot be loaded, or is not of onnxruntime-web: ${error.message}`);
  }
  Object.assign(runtime.env.wasm, { wasmBinary, proxy: true });
  if (!crossOriginIsolated) runtime.env.wasm.numThreads = 1;
  runtime.env.logLevel = "error";
  return runtime;
}

async function loadPart(runtime, folder, { file, sha256 }) {
  const bytes = await fetchBytes(new URL(file, folder));
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  const found = Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
  if (found !== sha256) throw new Error(`${file}: this part is damaged, or of another export: export the model again`);
  try {
    return await runtime.InferenceSession.create(new Uint8Array(bytes), { executionProviders: ["wasm"] });
  } catch (error) {
    throw new Error(`${file}: onnxruntime-web cannot run this part of the model: ${error.message ?? error}`);
  }
}
