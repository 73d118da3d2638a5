// What is said to the user: news that pass, errors that stay until the next action, and states that stay until they are
// over.
const SHOWN_FOR = 8000; // milliseconds of what is no error

export class Messages {
  constructor() {
    this.line = document.getElementById("message");
    this.states = new Map(); // what is the case at the moment, by key; the latest is shown
    this.text = "";
    this.kind = "";
  }

  news(text) {
    this.say(text, "news");
    this.timer = setTimeout(() => this.forget(), SHOWN_FOR);
  }

  error(text) {
    this.say(text, "error");
  }

  // Something that is the case until it is said to be over, with an empty text.
  state(key, text) {
    this.states.delete(key);
    if (text) this.states.set(key, text);
    this.render();
  }

  // What is past is in the way.
  forget() {
    this.say("", "");
  }

  say(text, kind) {
    clearTimeout(this.timer);
    [this.text, this.kind] = [text, kind];
    this.render();
  }

  render() {
    const texts = [...this.states.values()];
    const lasting = texts.length ? texts[texts.length - 1] : "";
    this.line.textContent = [lasting, this.text].filter(Boolean).join("  ·  ");
    this.line.className = lasting || this.kind === "error" ? "error" : "news";
  }
}
