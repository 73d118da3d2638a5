// Pictures (ImageData) at the model's size, resized as Pillow does it: bicubic, with the same rounding.

const PRECISION = 1 << 22; // weights are multiples of its inverse
const SUPPORT = 2; // radius of the filter in pixels

// Resize a picture, or the part of it in `box` (left, top, right, bottom; may be fractions), to (1, 3, S, S) RGB.
export function toModelPixels(picture, imageSize, box = null) {
  const { width, height, data } = picture;
  const [left, top, right, bottom] = box ?? [0, 0, width, height];
  const columns = filterWeights(width, left, right, imageSize);
  const rows = filterWeights(height, top, bottom, imageSize);
  const planes = new Uint8Array(3 * imageSize * imageSize);
  const narrowed = new Uint8Array(height * imageSize);
  for (let channel = 0; channel < 3; channel++) {
    for (let y = 0; y < height; y++) {
      for (let x = 0; x < imageSize; x++) {
        const at = 4 * (y * width + columns.starts[x]) + channel;
        narrowed[y * imageSize + x] = weighted(data, at, 4, columns, x);
      }
    }
    for (let y = 0; y < imageSize; y++) {
      for (let x = 0; x < imageSize; x++) {
        const at = rows.starts[y] * imageSize + x;
        planes[(channel * imageSize + y) * imageSize + x] = weighted(narrowed, at, imageSize, rows, y);
      }
    }
  }
  return planes;
}

function weighted(values, at, stride, { offsets, shares }, place) {
  let sum = PRECISION / 2;
  for (let k = offsets[place]; k < offsets[place + 1]; k++, at += stride) sum += values[at] * shares[k];
  return Math.min(Math.max(Math.floor(sum / PRECISION), 0), 255);
}

// For each place of a resized axis, where in the source it begins, and the whole-number share of each place from there on.
function filterWeights(source, from, to, target) {
  const scale = (to - from) / target;
  const stretch = Math.max(scale, 1); // of the filter, so that pixels that shrink are averaged
  const starts = new Int32Array(target);
  const offsets = new Int32Array(target + 1);
  const shares = [];
  for (let i = 0; i < target; i++) {
    const centre = from + (i + 0.5) * scale;
    const start = Math.max(Math.trunc(centre - SUPPORT * stretch + 0.5), 0);
    const end = Math.min(Math.trunc(centre + SUPPORT * stretch + 0.5), source);
    const raw = [];
    for (let x = start; x < end; x++) raw.push(bicubic((x - centre + 0.5) / stretch));
    const sum = raw.reduce((a, b) => a + b, 0);
    shares.push(...raw.map((share) => rounded((share / sum) * PRECISION)));
    starts[i] = start;
    offsets[i + 1] = shares.length;
  }
  return { starts, offsets, shares: Int32Array.from(shares) };
}

// Catmull and Rom's filter.
function bicubic(x) {
  const distance = Math.abs(x);
  if (distance < 1) return (1.5 * distance - 2.5) * distance * distance + 1;
  return distance < 2 ? ((-0.5 * distance + 2.5) * distance - 4) * distance + 2 : 0;
}

function rounded(value) {
  return Math.trunc(value + (value < 0 ? -0.5 : 0.5));
}
