// Shortcuts, and the table of them that Help shows, in which they can be changed.
import { KeyMap, pressed, shown } from "./keymap.js";

const byId = (id) => document.getElementById(id);

export class Keys {
  // Bindings: { keys, text, action(event, key), fixed, shown }. `keys` are the defaults, and what the action is told;
  // `fixed` are further keys that cannot be changed, shown as `shown`.
  constructor(bindings) {
    this.bindings = bindings;
    this.map = new KeyMap(bindings.flatMap(({ keys = [] }) => keys), bindings.flatMap(({ fixed = [] }) => fixed));
    this.asking = null; // { own, button } while the table waits for a key
    this.hints = [...document.querySelectorAll("[aria-keyshortcuts]")].map((element) => {
      return { element, own: ownOf(element.getAttribute("aria-keyshortcuts")), title: element.title };
    });
    byId("reset-keys").addEventListener("click", () => this.reset());
    byId("help-dialog").addEventListener("keydown", (event) => this.answer(event), { capture: true });
    byId("help-dialog").addEventListener("close", () => this.ask(null));
    document.addEventListener("keydown", (event) => this.press(event));
    this.render();
  }

  press(event) {
    // Fields keep their keys, and open dialogs all of them.
    if (document.querySelector("dialog[open]") || event.target.matches("input:not([type=range]):not([type=checkbox]), select")) return;
    const own = event.target.matches("input[type=range], [role=radio]") && /^(Arrow|Page|Home|End)/.test(event.key) && !event.shiftKey;
    const presses = event.target.matches("button, summary, input[type=checkbox]") && (event.key === "Enter" || event.key === " ");
    if (own || presses) return;
    const key = this.map.defaultOf(pressed(event));
    const binding = this.bindings.find(({ keys = [], fixed = [] }) => keys.includes(key) || fixed.includes(key));
    if (binding) {
      event.preventDefault();
      binding.action(event, key);
    }
  }

  // The table

  render() {
    const rows = this.bindings.filter(({ text }) => text).flatMap((binding) => this.row(binding));
    byId("shortcuts").replaceChildren(...rows);
    byId("reset-keys").disabled = !this.map.changed.size;
    for (const { element, own, title } of this.hints) {
      const key = this.map.of(own);
      element.setAttribute("aria-keyshortcuts", ariaOf(key));
      element.title = title.replace(`(${shown(own)})`, `(${shown(key)})`);
    }
  }

  row(binding) {
    const [term, detail] = [document.createElement("dt"), document.createElement("dd")];
    term.append(...(binding.keys ?? []).map((own) => this.button(own, binding)), binding.shown ?? "");
    detail.textContent = binding.text;
    return [term, detail];
  }

  button(own, { text }) {
    const button = document.createElement("button");
    button.type = "button";
    button.dataset.own = own;
    button.textContent = shown(this.map.of(own));
    button.title = "Change this key";
    button.setAttribute("aria-label", `${button.textContent}: change the key of “${text}”`);
    button.addEventListener("click", () => this.ask({ own, button }));
    return button;
  }

  ask(asking) {
    if (this.asking) this.asking.button.textContent = shown(this.map.of(this.asking.own));
    this.asking = asking;
    if (asking) asking.button.textContent = "press a key";
    this.say(asking ? "Press the new key, or Esc to leave it as it is." : "");
  }

  answer(event) {
    if (!this.asking || ["Shift", "Control", "Alt", "Meta"].includes(event.key)) return;
    event.preventDefault();
    event.stopPropagation();
    const { own } = this.asking;
    const key = pressed(event);
    this.ask(null);
    if (key === "Escape") return;
    const refusal = this.map.refusal(own, key, (other) => this.textOf(other));
    if (refusal) return this.say(refusal);
    this.map.set(own, key);
    this.render();
    byId("shortcuts").querySelector(`[data-own=${JSON.stringify(own)}]`).focus();
    this.say(`${shown(key)}: ${this.textOf(own)}`);
  }

  textOf(key) {
    const { keys = [], text } = this.bindings.find(({ keys = [], fixed = [] }) => keys.includes(key) || fixed.includes(key));
    return text && keys.length > 1 ? `${shown(key)} of “${text}”` : (text ?? "moving the cross");
  }

  reset() {
    this.map.reset();
    this.render();
    this.say("all keys are as they were");
  }

  say(text) {
    byId("key-state").textContent = text;
  }
}

// The names of keys in aria-keyshortcuts: "Z", "Shift+L", "Space".
function ariaOf(key) {
  return (key.length > 1 ? key.split("+") : [key]).map((part) => (part === " " ? "Space" : part.length === 1 ? part.toUpperCase() : part)).join("+");
}

function ownOf(aria) {
  return (aria.length > 1 ? aria.split("+") : [aria]).map((part) => (part === "Space" ? " " : part.length === 1 ? part.toLowerCase() : part)).join("+");
}
