// The list of objects: which is selected, its name, whether it is shown; and what the model thinks of it here.
import { NO_SCORE } from "./store.js";

export class ObjectList {
  constructor(store) {
    this.store = store;
    this.list = document.getElementById("objects");
    this.score = document.getElementById("score");
    document.getElementById("add-object").addEventListener("click", () => this.add());
    document.getElementById("clear").addEventListener("click", () => this.clearPrompts());
    document.getElementById("adopt").addEventListener("click", () => this.adopt());
    document.getElementById("rename-dialog").addEventListener("close", (event) => this.renamed(event.target.returnValue));
    document.getElementById("split").addEventListener("click", () => this.split());
    document.getElementById("merge").addEventListener("click", () => this.askMerge());
    document.getElementById("merge-dialog").addEventListener("close", (event) => this.merge(event.target));
    store.addEventListener("state", () => this.render());
    store.addEventListener("frame", () => this.renderScore());
    store.addEventListener("masks", () => this.renderScore());
    this.render();
  }

  add() {
    return this.store.addObject();
  }

  remove(number = this.store.selected) {
    if (number !== null) this.store.ask({ do: "delete", object: number });
  }

  toggle(number = this.store.selected) {
    const object = this.store.objectOf(number);
    if (object) this.store.ask({ do: "show", object: number, visible: !object.visible });
  }

  rename(number = this.store.selected) {
    const object = this.store.objectOf(number);
    if (!object) return;
    this.store.select(number);
    document.getElementById("rename-name").value = object.name;
    document.getElementById("rename-class").value = object.category;
    const options = this.store.categories.map((name) => new Option(name, name));
    document.getElementById("classes").replaceChildren(...options);
    const choices = this.store.categories.map((name) => choice(name, document.getElementById("rename-class")));
    document.getElementById("class-choices").replaceChildren(...choices);
    document.getElementById("rename-dialog").showModal();
    document.getElementById("rename-name").select();
  }

  renamed(action) {
    const object = this.store.objectOf(this.store.selected);
    const [name, category] = ["rename-name", "rename-class"].map((id) => document.getElementById(id).value.trim());
    if (action !== "rename" || !name || !object) return;
    if (name !== object.name) this.store.ask({ do: "rename", object: object.number, name });
    if (category !== object.category) this.store.ask({ do: "classify", object: object.number, category });
  }

  lock(number = this.store.selected) {
    const object = this.store.objectOf(number);
    if (object) this.store.ask({ do: "lock", object: number, locked: !object.locked });
  }

  clearPrompts() {
    if (this.store.selected === null || !this.store.mayPrompt()) return;
    this.store.ask({ do: "clear", object: this.store.selected, frame: this.store.frame });
  }

  adopt() {
    if (this.store.selected === null || !this.store.mayPrompt()) return;
    this.store.ask({ do: "adopt", object: this.store.selected, frame: this.store.frame });
  }

  markAbsent() {
    if (this.store.selected === null || !this.store.mayPrompt()) return;
    this.store.ask({ do: "absent", object: this.store.selected, ...this.store.rangeOrFrame });
  }

  clearMasks() {
    if (this.store.selected === null || !this.store.mayPrompt()) return;
    this.store.ask({ do: "clear_masks", object: this.store.selected, ...this.store.rangeOrFrame });
  }

  async split() {
    const { store } = this;
    if (store.selected === null || !store.mayPrompt()) return;
    const answer = await store.ask({ do: "split", object: store.selected, frame: store.frame });
    if (answer) store.select(answer.object);
  }

  askMerge() {
    const { store } = this;
    const object = store.objectOf(store.selected);
    const others = store.state.objects.filter((other) => other.number !== store.selected);
    if (!object || !others.length) return store.tell("error", "to merge, select one of two objects");
    document.getElementById("merge-name").textContent = object.name;
    const options = others.map((other) => new Option(other.name, other.number));
    document.getElementById("merge-into").replaceChildren(...options);
    document.getElementById("merge-dialog").showModal();
  }

  merge(dialog) {
    const into = Number(document.getElementById("merge-into").value);
    if (dialog.returnValue === "merge") this.store.ask({ do: "merge", object: this.store.selected, into });
    dialog.returnValue = "";
  }

  async copyOn() {
    const { store } = this;
    const [frame, to] = [store.frame, store.frame + 1];
    if (store.selected === null || !store.mayPrompt() || to >= store.video.frames) return;
    if (await store.ask({ do: "copy", object: store.selected, frame, to })) store.show(to);
  }

  selectNext(step) {
    const { numbers, selected } = this.store;
    if (!numbers.length) return;
    const place = numbers.indexOf(selected);
    this.store.select(numbers.at((place + step) % numbers.length));
    this.list.querySelector(".selected")?.scrollIntoView({ block: "nearest" });
  }

  selectNth(place) {
    const object = this.store.state.objects[place];
    if (object) this.store.select(object.number);
  }

  render() {
    // A list that is made anew loses the focus of the button that caused it.
    const focused = document.activeElement?.dataset?.key;
    this.list.replaceChildren(...this.store.state.objects.map((object) => this.item(object)));
    if (focused) this.list.querySelector(`[data-key="${focused}"]`)?.focus();
    this.renderScore();
  }

  item(object) {
    const item = document.createElement("li");
    item.classList.toggle("selected", object.number === this.store.selected);
    item.dataset.object = object.number;
    const swatch = document.createElement("span");
    swatch.className = "swatch";
    swatch.style.background = this.store.colourOf(object.number);
    const name = document.createElement("span");
    name.textContent = object.name;
    name.title = object.name;
    const select = this.button("name", object, `Select ${object.name}`, () => this.store.select(object.number));
    const category = document.createElement("small");
    category.textContent = object.category;
    name.append(" ", category);
    select.replaceChildren(swatch, name);
    select.setAttribute("aria-pressed", object.number === this.store.selected);
    const lock = this.button("lock", object, `${object.locked ? "Unlock" : "Lock"} ${object.name}`, () => this.lock(object.number), "L");
    lock.setAttribute("aria-pressed", object.locked);
    select.addEventListener("dblclick", () => this.rename(object.number));
    const [eye, hide] = object.visible ? ["◉", "Hide"] : ["○", "Show"];
    item.append(
      select,
      this.button("rename", object, `Name and class of ${object.name}`, () => this.rename(object.number), "✎"),
      lock,
      this.button("eye", object, `${hide} ${object.name}`, () => this.toggle(object.number), eye),
      this.button("delete", object, `Delete ${object.name}`, () => this.remove(object.number), "✕"),
    );
    return item;
  }

  button(kind, object, title, action, text = "") {
    const button = document.createElement("button");
    button.type = "button";
    button.className = kind;
    button.textContent = text;
    button.title = title;
    button.setAttribute("aria-label", title);
    button.dataset.key = `${kind}-${object.number}`;
    button.addEventListener("click", action);
    return button;
  }

  renderScore() {
    const { store } = this;
    const has = store.stepsOn(store.frame).some((prompt) => prompt.object === store.selected);
    document.getElementById("clear").disabled = !has;
    const level = store.selected === null ? 0 : store.stripOf(store.selected)[store.frame];
    document.getElementById("adopt").disabled = !level || has;
    const object = store.objectOf(store.selected);
    if (!object) {
      this.score.textContent = "Click an object in the picture to begin.";
    } else if (!level) {
      this.score.textContent = `${object.name} has no mask on this frame yet.`;
    } else if (level === NO_SCORE) {
      this.score.textContent = `${object.name}: a mask from a file.`;
    } else {
      this.score.textContent = `${object.name}: confidence ${(100 * (level - 2)) / 253 | 0} %`;
    }
  }
}

// A button that writes a class into its field, for who has no keyboard at hand.
function choice(name, field) {
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = name;
  button.addEventListener("click", () => (field.value = name));
  return button;
}
