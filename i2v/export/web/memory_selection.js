// Which memories a frame attends to; see i2v/onnx_runtime/memory_selection.py.
import { arrayOf } from "./network.js";

const CONDITIONING_SLOT = 0; // tracked frames have slots 1, 2, ...

// The memory of one object on one frame: its index, features (M, h, w), foreground (h, w), object pointer (C,), and the
// embedding of the frame, a unit vector.
export class Memory {
  constructor(frame, features, foreground, pointer, embedding) {
    Object.assign(this, { frame, features, foreground, pointer, embedding });
  }
}

// Draws without replacement, the same as those of the runtime in Python with the same seed.
export class MemoryDraws {
  constructor(seed) {
    this.bits = new MersenneTwister(seed);
  }

  // Draw `count` different indices, in order, with the probabilities of the softmax of `scores`.
  draw(scores, count) {
    const most = Math.max(...scores);
    const weights = scores.map((score) => Math.exp(score - most));
    const sum = weights.reduce((a, b) => a + b, 0);
    const keys = weights.map((weight) => weight / sum / Math.fround(-Math.log1p(-this.uniform())));
    return highest(keys, count);
  }

  uniform() {
    const [high, low] = [this.bits.next(), this.bits.next()];
    return ((high & 0x1fffff) * 2 ** 32 + low) * 2 ** -53;
  }
}

// The generator MT19937 of Matsumoto and Nishimura, which PyTorch and NumPy have, too.
class MersenneTwister {
  constructor(seed) {
    this.state = new Uint32Array(624);
    this.state[0] = seed;
    for (let i = 1; i < 624; i++) {
      const last = this.state[i - 1] ^ (this.state[i - 1] >>> 30);
      this.state[i] = Math.imul(1812433253, last) + i;
    }
    this.at = 624;
  }

  // 32 bits.
  next() {
    if (this.at === 624) this.twist();
    let bits = this.state[this.at++];
    bits ^= bits >>> 11;
    bits ^= (bits << 7) & 0x9d2c5680;
    bits ^= (bits << 15) & 0xefc60000;
    return (bits ^ (bits >>> 18)) >>> 0;
  }

  twist() {
    const { state } = this;
    for (let i = 0; i < 624; i++) {
      const joined = (state[i] & 0x80000000) | (state[(i + 1) % 624] & 0x7fffffff);
      state[i] = state[(i + 397) % 624] ^ (joined >>> 1) ^ (joined & 1 ? 0x9908b0df : 0);
    }
    this.at = 0;
  }
}

// Select the memories of one object for a frame: pairs of a memory and its temporal slot, pairs of a pointer and its
// distance, and how many further copies the first of each stands for.
export function selectMemories(rules, frame, conditioning, tracked, embedding, draws) {
  const horizon = rules.local_window + rules.global_window;
  const ago = (memory) => frame - memory.frame;
  const far = tracked.filter((m) => rules.local_window < ago(m) && ago(m) <= horizon);
  const near = tracked.filter((m) => 0 < ago(m) && ago(m) <= rules.local_window);
  // Global before local: the order of the draws is part of the published behaviour.
  const fromFar = mostSimilar(rules, far, rules.num_global, embedding, draws).map((m, i) => [1 + i, m]);
  const fromNear = mostSimilar(rules, near, rules.num_local, embedding, draws).map((m, i) => [1 + rules.num_global + i, m]);
  const selected = [...fromFar, ...fromNear];
  const nearest = nearestConditioning(frame, conditioning, rules.max_conditioning);
  const numTracked = Math.max(Math.min(frame - 1, rules.num_global + rules.num_local), 0);
  const repeats = Math.max(numTracked - selected.length, 0);
  let withPointer = nearest.filter((m) => !rules.only_past_pointers || m.frame <= frame);
  // Tracking towards the first prompt: pointers from the future are better than none.
  if (!withPointer.length && !selected.length) withPointer = nearest;
  // Distances are ranks by slot; conditioning frames are the farthest.
  const farthest = numTracked + 1;
  const pointers = [
    ...withPointer.map((m) => [m.pointer, 1]),
    ...selected.map(([slot, m]) => [m.pointer, (farthest - slot) / farthest]),
  ];
  const memories = [...nearest.map((m) => [m, CONDITIONING_SLOT]), ...selected.map(([slot, m]) => [m, slot])];
  return { memories, pointers, repeats, pointerRepeats: repeats + memories.length - pointers.length };
}

// Lay out the selections of B objects as arrays of one length, which is doubled until all fit. What is left over is zero
// and counts zero times.
export function layOut(selections, memoryLength, sizes) {
  const most = Math.max(...selections.map((s) => Math.max(s.memories.length, s.pointers.length)));
  let length = memoryLength;
  while (length < most) length *= 2;
  const batch = [selections.length, length];
  const { channels, memory_channels, grid } = sizes;
  const readout = {
    memories: arrayOf("float32", [...batch, memory_channels, grid, grid]),
    foreground: arrayOf("bool", [...batch, grid, grid]),
    slots: arrayOf("int64", batch),
    memory_counts: arrayOf("float32", batch),
    pointers: arrayOf("float32", [...batch, channels]),
    distances: arrayOf("float32", batch),
    pointer_counts: arrayOf("float32", batch),
  };
  for (const [row, selection] of selections.entries()) {
    const first = row * length;
    for (const [place, [memory, slot]] of selection.memories.entries()) {
      readout.memories.data.set(memory.features, (first + place) * memory.features.length);
      readout.foreground.data.set(memory.foreground, (first + place) * memory.foreground.length);
      readout.slots.data[first + place] = BigInt(slot);
      readout.memory_counts.data[first + place] = 1;
    }
    for (const [place, [pointer, distance]] of selection.pointers.entries()) {
      readout.pointers.data.set(pointer, (first + place) * channels);
      readout.distances.data[first + place] = distance;
      readout.pointer_counts.data[first + place] = 1;
    }
    readout.memory_counts.data[first] += selection.repeats;
    readout.pointer_counts.data[first] += selection.pointerRepeats;
  }
  return readout;
}

// At most `count` candidates by similarity, in their given order.
function mostSimilar(rules, candidates, count, embedding, draws) {
  if (!candidates.length) return [];
  const scores = candidates.map((m) => dot(m.embedding, embedding));
  const most = Math.min(count, candidates.length);
  // Draw even if all candidates will be selected: the published model advances its generator here, too.
  const chosen = rules.mode === "topk" ? highest(scores, most) : draws.draw(scores, most);
  return chosen.map((i) => candidates[i]);
}

function dot(a, b) {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += a[i] * b[i];
  return Math.fround(sum);
}

// The indices of the `count` highest values, in order; the first of equal ones.
function highest(values, count) {
  const order = values.map((_, i) => i).sort((a, b) => values[b] - values[a] || a - b);
  return order.slice(0, count).sort((a, b) => a - b);
}

// At most `limit` memories: the nearest before the frame, the nearest from it on, then the others.
function nearestConditioning(frame, conditioning, limit) {
  if (limit === -1 || conditioning.length <= limit) return [...conditioning];
  const byDistance = [...conditioning].sort((a, b) => Math.abs(a.frame - frame) - Math.abs(b.frame - frame));
  const sides = [byDistance.find((m) => m.frame < frame), byDistance.find((m) => m.frame >= frame)];
  const nearest = sides.filter((m) => m !== undefined);
  return [...nearest, ...byDistance.filter((m) => !nearest.includes(m))].slice(0, limit);
}
