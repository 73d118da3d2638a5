// Which frames the timeline shows: all, or a part of them that follows the frame that is shown.
const LEAST = 10; // frames

export class TimelineWindow {
  constructor(frames) {
    this.frames = frames; // of the video
    this.zoom = 1;
    this.first = 0; // the frame at the left edge; may be fractional
  }

  get count() {
    return Math.min(this.frames, Math.max(LEAST, this.frames / this.zoom));
  }

  get isWhole() {
    return this.count === this.frames;
  }

  // The part of the width, 0 to 1 where it is in view, at which a frame begins.
  place(frame) {
    return (frame - this.first) / this.count;
  }

  frameAt(place) {
    return Math.min(this.frames - 1, Math.max(0, Math.floor(this.first + place * this.count)));
  }

  // Zoom so that the frame at `place` stays there; 0 shows all frames.
  zoomBy(factor, place = 0.5) {
    const fixed = this.first + place * this.count;
    this.zoom = factor ? Math.min(Math.max(1, this.frames / LEAST), Math.max(1, this.zoom * factor)) : 1;
    this.first = fixed - place * this.count;
    this.bound();
  }

  panBy(part) {
    this.first += part * this.count;
    this.bound();
  }

  follow(frame) {
    const place = this.place(frame + 0.5);
    if (place < 0 || place > 1) this.first = frame + 0.5 - this.count / 2;
    this.bound();
  }

  bound() {
    this.first = Math.max(0, Math.min(this.frames - this.count, this.first));
  }
}
