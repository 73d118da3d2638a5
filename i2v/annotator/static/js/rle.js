// COCO's run-length encoding: runs of background and object in turn, column by column.

// The compressed text: numbers of 5-bit digits, lowest first; bit 5 says that another digit follows, bit 4 of the last
// one is the sign. From the fourth number on, they are differences to the number two places before.
export function decodeCounts(text) {
  const runs = [];
  let value = 0;
  let shift = 0;
  for (let i = 0; i < text.length; i++) {
    const digit = text.charCodeAt(i) - 48;
    value |= (digit & 31) << shift;
    shift += 5;
    if (digit & 32) continue;
    if (digit & 16) value |= -1 << shift;
    runs.push(runs.length > 2 ? value + runs[runs.length - 2] : value);
    value = 0;
    shift = 0;
  }
  return runs;
}

// Runs as that text.
export function encodeCounts(runs) {
  let text = "";
  runs.forEach((run, i) => {
    let value = i > 2 ? run - runs[i - 2] : run;
    for (let isLast = false; !isLast; ) {
      const digit = value & 31;
      value >>= 5;
      isLast = value === (digit & 16 ? -1 : 0);
      text += String.fromCharCode(48 + digit + (isLast ? 0 : 32));
    }
  });
  return text;
}

// Set the object's pixels of a row-major plane to `value`; returns the box that holds them, or null if there are none.
export function fillRuns(plane, runs, width, height, value) {
  let [left, top, right, bottom] = [width, height, -1, -1];
  let at = 0;
  for (let i = 0; i < runs.length; i++) {
    const end = at + runs[i];
    if (i % 2 === 0) {
      at = end;
      continue;
    }
    let x = Math.floor(at / height);
    let y = at - x * height;
    if (at < end) {
      const lastX = Math.floor((end - 1) / height);
      left = Math.min(left, x);
      right = Math.max(right, lastX);
      top = lastX > x ? 0 : Math.min(top, y);
      bottom = lastX > x ? height - 1 : Math.max(bottom, end - 1 - lastX * height);
    }
    for (; at < end; at++) {
      plane[y * width + x] = value;
      if (++y === height) {
        y = 0;
        x++;
      }
    }
  }
  return right < 0 ? null : { left, top, right, bottom };
}

// The runs of a row-major plane's pixels that are not 0.
export function encodePlane(plane, width, height) {
  const runs = [];
  let inside = false;
  let length = 0;
  for (let x = 0; x < width; x++) {
    for (let y = 0, i = x; y < height; y++, i += width) {
      if ((plane[i] !== 0) !== inside) {
        runs.push(length);
        inside = !inside;
        length = 0;
      }
      length++;
    }
  }
  runs.push(length);
  return runs;
}
