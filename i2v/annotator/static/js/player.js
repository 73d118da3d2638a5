// Playing: at the video's rate where pictures come fast enough, else as fast as they come.
export class Player {
  constructor(store, pictures) {
    this.store = store;
    this.pictures = pictures;
    this.playing = false;
    this.button = document.getElementById("play");
    this.button.addEventListener("click", () => this.toggle());
  }

  toggle() {
    if (this.playing) this.stop();
    else this.start();
  }

  stop() {
    this.playing = false;
    this.button.textContent = "Play";
    this.button.setAttribute("aria-pressed", "false");
  }

  async start() {
    const { store } = this;
    this.playing = true;
    this.button.textContent = "Pause";
    this.button.setAttribute("aria-pressed", "true");
    if (store.frame >= store.video.frames - 1) store.show(0);
    const pause = 1000 / (store.video.frame_rate || 24);
    let due = performance.now();
    while (this.playing && store.frame < store.video.frames - 1) {
      const next = store.frame + 1;
      this.pictures.expect(next, 1, store.video.frames - 1);
      await this.pictures.get(next).catch(() => {});
      due = Math.max(due + pause, performance.now());
      await new Promise((resolve) => setTimeout(resolve, due - performance.now()));
      if (this.playing && store.frame === next - 1) store.show(next);
    }
    this.stop();
  }
}
