// Pictures of the latest frames, decoded; the next ones are fetched ahead.
import { LatestFew } from "./cache.js";

const KEPT = 32;
const AHEAD = 6;
const PATIENCE = 20_000; // milliseconds until a picture is asked for again

export class Pictures {
  constructor() {
    this.kept = new LatestFew(KEPT, (picture) => picture.then((bitmap) => bitmap.close(), () => {}));
  }

  get(frame) {
    let picture = this.kept.get(frame);
    if (!picture) {
      picture = this.load(frame);
      this.kept.set(frame, picture);
      picture.catch(() => {
        if (this.kept.values.get(frame) === picture) this.kept.delete(frame);
      });
    }
    return picture;
  }

  expect(frame, step, last) {
    for (let i = 1; i <= AHEAD; i++) {
      const next = frame + i * step;
      if (next >= 0 && next <= last) this.get(next).catch(() => {});
    }
  }

  async load(frame) {
    const response = await fetch(`frames/${frame}.jpg`, { signal: AbortSignal.timeout(PATIENCE) }).catch((error) => {
      throw new Error(error.name === "TimeoutError" ? "it takes too long" : "the annotator does not answer");
    });
    if (!response.ok) {
      const answer = await response.json().catch(() => ({}));
      throw new Error(answer.error || `frame ${frame} could not be read`);
    }
    return createImageBitmap(await response.blob());
  }
}
