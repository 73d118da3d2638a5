// OnnxVideoPredictor: prompts objects in a video and tracks them forward; see i2v/onnx_runtime/video_predictor.py. Of the
// prompts, it has points.
import { FrameEncoder } from "./frame_encoder.js";
import { fillHoles, resize, suppressOverlap } from "./mask_arrays.js";
import { Memory, MemoryDraws, layOut, selectMemories } from "./memory_selection.js";
import { arrayOf } from "./network.js";
import { PointPrompt, PromptAnswerer } from "./prompt_answers.js";

const NO_OBJECT_LOGIT = -1024; // mask logits of an absent object
const PADDING = -1n; // label of a point that is none

// One object of a session.
class Track {
  constructor() {
    this.draws = null;
    this.prompts = new Map(); // the points given so far, by frame
    this.prompted = new Map(); // answers, by frame
    this.pending = new Set(); // prompted frames whose memory is not encoded yet
    this.results = new Map(); // of tracked frames; masks are low-res
    this.conditioning = [];
    this.tracked = [];
    this.visited = new Set();
  }

  result(frame) {
    return this.prompted.get(frame) ?? this.results.get(frame);
  }

  // Add the memory of a prompted frame, or replace it in its place, on which a selection depends.
  addConditioning(memory) {
    const place = this.conditioning.findIndex((known) => known.frame === memory.frame);
    if (place >= 0) this.conditioning[place] = memory;
    else this.conditioning.push(memory);
  }
}

// A session over one video.
export class OnnxSession {
  constructor(source, network) {
    this.source = source;
    this.encoder = new FrameEncoder(source, network);
    this.tracks = new Map();
  }

  // In the order in which they were added, which is the order of the masks.
  get objIds() {
    return [...this.tracks.keys()];
  }
}

// Masks are { frame, objIds, logits }: a map (H, W) at video size for each object, positive on it.
export class OnnxVideoPredictor {
  constructor(network) {
    this.network = network;
    this.description = network.description;
    this.answerer = new PromptAnswerer(network);
  }

  initState(source) {
    return new OnnxSession(source, this.network);
  }

  // Prompt a new or known object on a frame with points [x, y] in pixels, with labels 1 (object) or 0 (background).
  async addNewPoints(state, frame, objId, points, labels, { clearOldPoints = true } = {}) {
    const track = state.tracks.get(objId) ?? new Track();
    const where = `frame ${frame}, object ${objId}`;
    if (track.visited.has(frame)) {
      throw new Error(`${where}: this frame was tracked already, and takes no corrections here: start over, and prompt first`);
    }
    const { width, height } = state.source;
    for (const [x, y] of points) {
      if (!(x >= 0 && x <= width && y >= 0 && y <= height)) {
        throw new Error(`${where}: point (${x}, ${y}) is off the frame, which is ${width} x ${height}`);
      }
    }
    const size = this.description.sizes.image_size;
    const scaled = points.map(([x, y]) => [(x / width) * size, (y / height) * size]);
    const old = clearOldPoints ? undefined : track.prompts.get(frame);
    const prompt = new PointPrompt([...(old?.points ?? []), ...scaled], [...(old?.labels ?? []), ...labels]);
    const given = prompt.withPrior(track.result(frame)?.lowRes[0] ?? null);
    const features = await state.encoder.features(frame);
    const answer = await this.answerer.points(await state.source.read(frame), features, given);
    track.prompts.set(frame, prompt);
    track.prompted.set(frame, answer);
    track.pending.add(frame);
    state.tracks.set(objId, track);
    return this.masksOnFrame(state, frame);
  }

  // Track all objects from the first prompted frame to the end of the video, or over `maxFrames` more frames.
  async *propagateInVideo(state, maxFrames = Infinity) {
    const prompted = [...state.tracks.values()].flatMap((track) => [...track.prompted.keys()]);
    if (!prompted.length) throw new Error("nothing to track: no object has a prompt; click on one first");
    const start = Math.min(...prompted);
    for (const track of state.tracks.values()) {
      track.draws = new MemoryDraws(this.description.selection.seed);
      track.tracked = [];
      track.visited = new Set();
    }
    const last = Math.min(state.source.numFrames - 1, start + maxFrames);
    for (let frame = start; frame <= last; frame++) {
      await this.commitPrompts(state);
      const toTrack = [...state.tracks.values()].filter((track) => !track.prompted.has(frame));
      if (toTrack.length) await this.track(state, frame, toTrack);
      for (const track of state.tracks.values()) track.visited.add(frame);
      yield this.masksOnFrame(state, frame);
    }
  }

  // Remove all objects. The video stays open.
  resetState(state) {
    state.tracks.clear();
  }

  // The masks that the objects have on a frame. The mask of an object without one there is empty.
  masksOnFrame(state, frame) {
    const side = this.description.sizes.image_size / 4;
    const { width, height } = state.source;
    const absent = () => new Float32Array(side * side).fill(NO_OBJECT_LOGIT);
    const results = [...state.tracks.values()].map((track) => track.result(frame));
    const maps = results.map((result) => resize(result?.lowRes[0] ?? absent(), [side, side], [height, width]));
    return { frame, objIds: state.objIds, logits: this.description.prompts.non_overlap ? suppressOverlap(maps) : maps };
  }

  // Object score and predicted IoU, by id, of every object that has a mask on a frame.
  frameScores(state, frame) {
    const results = [...state.tracks].map(([objId, track]) => [objId, track.result(frame)]);
    const known = results.filter(([, result]) => result !== undefined);
    return new Map(known.map(([objId, { objectScore, iou }]) => [objId, { objectScore: objectScore[0], iou: iou[0] }]));
  }

  // Encode the memories of prompts that have none yet, frame by frame.
  async commitPrompts(state) {
    const tracks = [...state.tracks.values()];
    const frames = new Set(tracks.flatMap((track) => [...track.pending]));
    for (const frame of [...frames].sort((a, b) => a - b)) {
      for (const track of tracks.filter(({ pending }) => pending.has(frame))) {
        const answer = track.prompted.get(frame);
        const [memory] = await this.memorize(state, frame, answer, answer.lowRes, true);
        track.addConditioning(memory);
        track.pending.delete(frame);
      }
    }
  }

  async track(state, frame, tracks) {
    const { sizes, prompts, selection } = this.description;
    const features = await state.encoder.features(frame);
    const selections = tracks.map((track) => {
      return selectMemories(selection, frame, track.conditioning, track.tracked, features.embedding, track.draws);
    });
    const readout = layOut(selections, sizes.memory_length, sizes);
    const [conditioned, memoryPrompts] = await this.network.attend(features, readout);
    const raw = await this.network.decode(conditioned, memoryPrompts, this.noPrompts(tracks.length), features.highRes);
    const side = sizes.image_size / 4;
    const filled = raw.withLowRes(raw.lowRes.map((map) => fillHoles(map, side, prompts.fill_hole_area)));
    // The memory is of the mask as it was before holes were filled.
    const memories = await this.memorize(state, frame, filled, raw.lowRes, false);
    const span = selection.global_window + selection.local_window;
    tracks.forEach((track, row) => {
      track.results.set(frame, filled.row(row));
      // Frames before an object's first prompt leave no memory.
      if (!track.conditioning.some((memory) => memory.frame <= frame)) return;
      track.tracked = span ? [...track.tracked, memories[row]].slice(-span) : [];
    });
  }

  noPrompts(batch) {
    const side = this.description.sizes.image_size / 4;
    const { multimask, multimask_min_points } = this.description.prompts;
    const isAmbiguous = multimask && multimask_min_points <= 0;
    return {
      points: arrayOf("float32", [batch, 1, 2]),
      labels: arrayOf("int64", [batch, 1], new BigInt64Array(batch).fill(PADDING)),
      prior: arrayOf("float32", [batch, 1, side, side]),
      has_prior: arrayOf("bool", [batch]),
      multimask: arrayOf("bool", [batch], new Uint8Array(batch).fill(isAmbiguous ? 1 : 0)),
    };
  }

  async memorize(state, frame, predictions, masks, fromPrompt) {
    const features = await state.encoder.features(frame);
    const [memories, foreground] = await this.network.memorize(features, predictions, masks, fromPrompt);
    return memories.map((memory, row) => {
      return new Memory(frame, memory, foreground[row], predictions.pointer[row], features.embedding);
    });
  }
}
