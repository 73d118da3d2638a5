// Operations on masks; those of i2v/onnx_runtime/mask_arrays.py. A map (H, W) is a Float32Array, row by row.

const HOLE_LOGIT = 0.1; // logit of filled pixels
const OVERLAP_LOGIT = -10; // largest logit of an object where another one wins

// Resize a map (height, width) bilinearly, with pixel centres at half-integers. `antialias` averages pixels that shrink.
export function resize(map, [height, width], [newHeight, newWidth], antialias = false) {
  if (height === newHeight && width === newWidth) return map;
  const rows = weights(height, newHeight, antialias);
  const columns = weights(width, newWidth, antialias);
  const narrowed = new Float32Array(height * newWidth);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < newWidth; x++) {
      const { start, shares } = columns[x];
      let sum = 0;
      for (let k = 0; k < shares.length; k++) sum += shares[k] * map[y * width + start + k];
      narrowed[y * newWidth + x] = sum;
    }
  }
  const resized = new Float32Array(newHeight * newWidth);
  for (let y = 0; y < newHeight; y++) {
    const { start, shares } = rows[y];
    for (let x = 0; x < newWidth; x++) {
      let sum = 0;
      for (let k = 0; k < shares.length; k++) sum += shares[k] * narrowed[(start + k) * newWidth + x];
      resized[y * newWidth + x] = sum;
    }
  }
  return resized;
}

// For each place of a resized axis, where in the source it begins, and the share of each place from there on.
function weights(source, target, antialias) {
  const scale = source / target;
  const support = antialias ? Math.max(scale, 1) : 1;
  return Array.from({ length: target }, (_, i) => {
    let centre = (i + 0.5) * scale - 0.5;
    if (!antialias) centre = Math.min(Math.max(centre, 0), source - 1);
    const start = Math.max(Math.ceil(centre - support), 0);
    const end = Math.min(Math.floor(centre + support), source - 1);
    const raw = [];
    for (let k = start; k <= end; k++) raw.push(Math.max(0, 1 - Math.abs(k - centre) / support));
    const sum = raw.reduce((a, b) => a + b, 0);
    return { start, shares: raw.map((share) => share / sum) };
  });
}

// Fill holes of at most `maxArea` pixels, connected over sides and corners, in a map (side, side) of logits.
export function fillHoles(logits, side, maxArea) {
  if (maxArea <= 0) return logits;
  const filled = logits.slice();
  const seen = new Uint8Array(logits.length);
  for (let start = 0; start < logits.length; start++) {
    if (seen[start] || logits[start] > 0) continue;
    const hole = component(logits, side, start, seen);
    if (hole.length <= maxArea) for (const i of hole) filled[i] = HOLE_LOGIT;
  }
  return filled;
}

// The pixels of background that are connected with one, which become `seen`.
function component(logits, side, start, seen) {
  const found = [start];
  seen[start] = 1;
  for (let at = 0; at < found.length; at++) {
    const [x, y] = [found[at] % side, Math.floor(found[at] / side)];
    for (let row = Math.max(y - 1, 0); row <= Math.min(y + 1, side - 1); row++) {
      for (let column = Math.max(x - 1, 0); column <= Math.min(x + 1, side - 1); column++) {
        const i = row * side + column;
        if (seen[i] || logits[i] > 0) continue;
        seen[i] = 1;
        found.push(i);
      }
    }
  }
  return found;
}

// Keep only the highest logit per pixel of several maps of one size; the first object wins ties.
export function suppressOverlap(maps) {
  if (maps.length <= 1) return maps;
  const best = bestOf(maps);
  return maps.map((map, row) => map.map((logit, i) => (best[i] === row ? logit : Math.min(logit, OVERLAP_LOGIT))));
}

// Which map has the highest logit at each pixel; the first of several.
export function bestOf(maps) {
  const best = new Uint8Array(maps.length ? maps[0].length : 0);
  for (let row = 1; row < maps.length; row++) {
    for (let i = 0; i < best.length; i++) if (maps[row][i] > maps[best[i]][i]) best[i] = row;
  }
  return best;
}

// A map (side, side), mirrored.
export function mirrored(map, side) {
  return map.map((_, i) => map[i - (i % side) + side - 1 - (i % side)]);
}

// The mean of several maps.
export function meanOf(maps) {
  return maps[0].map((_, i) => maps.reduce((sum, map) => sum + map[i], 0) / maps.length);
}

// Round, halves to the even number, as Python does.
export function halfToEven(value) {
  const floor = Math.floor(value);
  if (value - floor !== 0.5) return Math.round(value);
  return floor % 2 === 0 ? floor : floor + 1;
}
