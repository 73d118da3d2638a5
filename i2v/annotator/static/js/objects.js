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
    store.addEventListener("state", () => this.render());
    store.addEventListener("frame", () => this.renderScore());
    store.addEventListener("masks", () => this.renderScore());
    this.render();
  }

  async add() {
    const answer = await this.store.ask({ do: "add" });
    if (answer) this.store.select(answer.object);
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
    document.getElementById("rename-dialog").showModal();
    document.getElementById("rename-name").select();
  }

  renamed(action) {
    const name = document.getElementById("rename-name").value.trim();
    if (action === "rename" && name) this.store.ask({ do: "rename", object: this.store.selected, name });
  }

  clearPrompts() {
    if (this.store.selected !== null) this.store.ask({ do: "clear", object: this.store.selected, frame: this.store.frame });
  }

  adopt() {
    if (this.store.selected !== null) this.store.ask({ do: "adopt", object: this.store.selected, frame: this.store.frame });
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
    swatch.style.background = this.store.palette[object.number];
    const name = document.createElement("span");
    name.textContent = object.name;
    const select = this.button("name", object, `Select ${object.name}`, () => this.store.select(object.number));
    select.replaceChildren(swatch, name);
    select.setAttribute("aria-pressed", object.number === this.store.selected);
    select.addEventListener("dblclick", () => this.rename(object.number));
    const [eye, hide] = object.visible ? ["◉", "Hide"] : ["○", "Show"];
    item.append(
      select,
      this.button("rename", object, `Rename ${object.name} (R)`, () => this.rename(object.number), "✎"),
      this.button("eye", object, `${hide} ${object.name} (H)`, () => this.toggle(object.number), eye),
      this.button("delete", object, `Delete ${object.name} (Delete)`, () => this.remove(object.number), "✕"),
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
