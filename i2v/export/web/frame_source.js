// Frames of a video, or of pictures, as ImageData. A source has numFrames, width, height, name and frameRate (null where
// it is not known); `read` gives a frame, `describe` what is known of it, and `close` lets go of everything.
import { LatestFew } from "./cache.js";

const NUM_CACHED_FRAMES = 8;
const UNPLAYABLE = "this browser cannot play this file, as it is damaged or its codec is not known here: convert it with";
const FIRST_STEP = 1 / 30; // seconds, where the search for the second frame begins
const PRESENTED_WITHIN = 500; // milliseconds after a seek; one to the picture that is shown need not present it again

// Open files that the user chose: one video, or pictures, which are frames in the order of their names.
export async function openFiles(files) {
  if (!files.length) throw new Error("no video was chosen");
  const pictures = files.filter((file) => file.type.startsWith("image/"));
  if (pictures.length === files.length) return PictureSource.open(pictures);
  if (files.length === 1) return VideoSource.open(files[0], files[0].name);
  throw new Error(`expected one video, or pictures only, got ${files.length} files: ${files.map((f) => f.name).join(", ")}`);
}

// Frames are decoded one at a time, and the latest few are kept.
class FrameSource {
  constructor(name, numFrames, width, height, frameRate = null) {
    Object.assign(this, { name, numFrames, width, height, frameRate });
    this.latest = new LatestFew(NUM_CACHED_FRAMES);
    this.reading = Promise.resolve();
    this.canvas = new OffscreenCanvas(width, height);
    this.context = this.canvas.getContext("2d", { willReadFrequently: true });
  }

  read(frame) {
    const picture = this.reading.then(() => this.readOnce(frame));
    this.reading = picture.catch(() => {});
    return picture;
  }

  async readOnce(frame) {
    if (!this.latest.has(frame)) this.latest.set(frame, await this.decode(frame));
    return this.latest.get(frame);
  }

  pixels() {
    return this.context.getImageData(0, 0, this.width, this.height);
  }
}

// Pictures of one size.
export class PictureSource extends FrameSource {
  static async open(files) {
    const ordered = [...files].sort((a, b) => a.name.localeCompare(b.name, undefined, { numeric: true }));
    const { width, height } = await bitmapOf(ordered[0]);
    const source = new PictureSource(ordered[0].name, ordered.length, width, height);
    source.files = ordered;
    return source;
  }

  async decode(frame) {
    const bitmap = await bitmapOf(this.files[frame]);
    const { width, height } = this;
    if (bitmap.width !== width || bitmap.height !== height) {
      throw new Error(`${this.files[frame].name} is ${bitmap.width} x ${bitmap.height}, but the first picture ${width} x ${height}`);
    }
    this.context.clearRect(0, 0, width, height);
    this.context.drawImage(bitmap, 0, 0);
    bitmap.close();
    return this.pixels();
  }

  describe(frame) {
    return { frame, name: this.files[frame].name };
  }

  close() {}
}

async function bitmapOf(file) {
  try {
    return await createImageBitmap(file, { colorSpaceConversion: "none", premultiplyAlpha: "none" });
  } catch {
    throw new Error(`${file.name}: this browser cannot read this picture`);
  }
}

// A video, decoded by the browser, which is sent to the middle of each frame. Browsers do not tell how many frames there
// are and when: both are measured, and that a frame is the one that is asked for is checked by its own time.
export class VideoSource extends FrameSource {
  // From a blob, as browsers do not go to and fro in what a server without ranges of bytes has, such as http.server.
  static async open(blob, name) {
    const video = document.createElement("video");
    const address = URL.createObjectURL(blob);
    Object.assign(video, { muted: true, playsInline: true, preload: "auto", src: address });
    await told(video, "loadeddata", name);
    if (!video.videoWidth) throw new Error(`${name}: no picture is in this file, or this browser does not know its codec`);
    if (!Number.isFinite(video.duration)) throw new Error(`${name}: this video does not say how long it is`);
    const { first, interval, numFrames } = await measure(video, name);
    const source = new VideoSource(name, numFrames, video.videoWidth, video.videoHeight, 1 / interval);
    return Object.assign(source, { video, address, first, interval });
  }

  async decode(frame) {
    const expected = this.first + frame * this.interval;
    const time = await timeAt(this.video, expected + this.interval / 2, this.name);
    if (Math.abs(time - expected) > this.interval / 2) {
      const [got, wanted] = [time, expected].map((seconds) => seconds.toFixed(3));
      const rate = Math.round(this.frameRate);
      throw new Error(
        `${this.name}: frame ${frame} is at ${got} s, expected ${wanted} s, as frames do not come evenly: ` +
          `convert it with ffmpeg -i ${this.name} -r ${rate} even.mp4`,
      );
    }
    this.context.drawImage(this.video, 0, 0, this.width, this.height);
    return this.pixels();
  }

  describe(frame) {
    return { frame, time: Number((frame * this.interval).toFixed(6)) };
  }

  close() {
    this.video.removeAttribute("src");
    this.video.load();
    URL.revokeObjectURL(this.address);
  }
}

// The time of the first frame, seconds between frames, and the number of frames.
async function measure(video, name) {
  const at = (seconds) => timeAt(video, seconds, name);
  const [first, last] = [await at(0), await at(video.duration)];
  if (last <= first) return { first, interval: video.duration || 1, numFrames: 1 };
  let interval = 0;
  for (let step = FIRST_STEP; interval <= 0; step *= 2) interval = (await at(first + step)) - first;
  // A step may have jumped over frames: there must be none before the second one.
  for (let time; (time = await at(first + 0.75 * interval)) > first; ) interval = time - first;
  // Times are rounded, to milliseconds in some files: more frames tell the interval better.
  for (let count = 2; first + count * interval < last; count *= 2) {
    const span = (await at(first + (count + 0.5) * interval)) - first;
    if (Math.abs(span - count * interval) > interval / 2) break; // they do not come evenly, which `decode` tells
    interval = span / count;
  }
  const numFrames = Math.round((last - first) / interval) + 1;
  return { first, interval: (last - first) / (numFrames - 1), numFrames };
}

// Send a video to a time, and return the time of the frame that it shows there.
async function timeAt(video, seconds, name) {
  const arrived = told(video, "seeked", name);
  // The event may come before the picture, while the one before is still shown.
  let request;
  const presented = new Promise((resolve) => (request = video.requestVideoFrameCallback(resolve)));
  video.currentTime = Math.min(Math.max(seconds, 0), video.duration);
  await arrived;
  await Promise.race([presented, new Promise((resolve) => setTimeout(resolve, PRESENTED_WITHIN))]);
  video.cancelVideoFrameCallback(request);
  const frame = new VideoFrame(video);
  const time = frame.timestamp / 1e6;
  frame.close();
  return time;
}

// Wait for an event of a video.
function told(video, event, name) {
  return new Promise((resolve, reject) => {
    const settle = (act) => (happened) => {
      video.removeEventListener(event, well);
      video.removeEventListener("error", badly);
      act(happened);
    };
    const well = settle(resolve);
    const badly = settle(() => reject(new Error(`${name}: ${UNPLAYABLE} ffmpeg -i ${name} -c:v libx264 -pix_fmt yuv420p clip.mp4`)));
    video.addEventListener(event, well);
    video.addEventListener("error", badly);
  });
}

