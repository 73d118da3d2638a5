// The queue of videos, where there is one: which video this is, its state, and the ways to the others.
import { Api } from "./api.js";

const byId = (id) => document.getElementById(id);

export class VideoQueue {
  // Number of the page's video in the queue; null where the page is that of a single video.
  static get here() {
    const found = location.pathname.match(/\/videos\/(\d+)\/$/);
    return found && Number(found[1]);
  }

  // `settled` returns a promise for the end of what is being sent: only then the page is left.
  constructor(messages, settled = () => Promise.resolve()) {
    this.messages = messages;
    this.settled = settled;
    this.number = VideoQueue.here;
    this.videos = [];
    byId("queue").hidden = this.number === null;
    if (this.number === null) return;
    byId("previous-video").addEventListener("click", () => this.step(-1));
    byId("next-video").addEventListener("click", () => this.step(1));
    byId("video-done").addEventListener("click", () => this.mark());
    byId("videos").addEventListener("click", () => this.show());
    this.refresh();
  }

  get state() {
    return this.videos[this.number - 1]?.state;
  }

  refresh() {
    return this.take(Api.listVideos());
  }

  async take(listed) {
    try {
      this.videos = await listed;
    } catch (error) {
      this.messages.error(error.message);
    }
    this.render();
  }

  // A first prompt makes a new video one in work.
  saved(saving) {
    if (this.number !== null && saving.state === "saved" && this.state === "new") this.refresh();
  }

  render() {
    byId("video-state").textContent = this.state ? `video ${this.number} of ${this.videos.length}, ${this.state}` : "";
    byId("video-done").setAttribute("aria-pressed", this.state === "done");
    byId("previous-video").disabled = this.number <= 1;
    byId("next-video").disabled = this.number >= this.videos.length;
    byId("video-list").replaceChildren(...this.videos.map((video) => this.item(video)));
  }

  item({ number, name, state }) {
    const [item, link, text] = ["li", "a", "span"].map((tag) => document.createElement(tag));
    link.href = address(number);
    link.textContent = name;
    if (number === this.number) link.setAttribute("aria-current", "page");
    link.addEventListener("click", (event) => {
      if (event.ctrlKey || event.metaKey || event.shiftKey) return; // another tab
      event.preventDefault();
      this.go(number);
    });
    text.textContent = state;
    text.className = "state";
    item.append(link, text);
    return item;
  }

  async show() {
    await this.refresh();
    byId("videos-dialog").showModal();
  }

  mark() {
    return this.take(Api.markVideo(this.number, this.state !== "done"));
  }

  step(by) {
    const number = this.number + by;
    if (number >= 1 && number <= this.videos.length) return this.go(number);
    this.messages.news(by > 0 ? "this is the last video" : "this is the first video");
  }

  async go(number) {
    await this.settled();
    location.assign(address(number));
  }
}

// A video of a queue has one session, unless another is asked for.
function address(number) {
  return `../${number}/?session=1`;
}
