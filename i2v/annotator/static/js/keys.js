// Shortcuts, and the table of them that Help shows.
export class Keys {
  constructor(bindings) {
    this.bindings = bindings;
    const list = document.getElementById("shortcuts");
    for (const { shown, text } of bindings.filter((binding) => binding.shown)) {
      const [term, detail] = [document.createElement("dt"), document.createElement("dd")];
      term.textContent = shown;
      detail.textContent = text;
      list.append(term, detail);
    }
    document.addEventListener("keydown", (event) => this.press(event));
  }

  press(event) {
    // Fields keep their keys, and open dialogs all of them.
    if (document.querySelector("dialog[open]") || event.target.matches("input:not([type=range]):not([type=checkbox])")) return;
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    const own = event.target.matches("input[type=range]") && /^(Arrow|Page|Home|End)/.test(key);
    const presses = event.target.matches("button, input[type=checkbox]") && (key === "Enter" || key === " ");
    if (own || presses) return;
    const modifiers = `${event.ctrlKey || event.metaKey ? "Ctrl+" : ""}${event.altKey ? "Alt+" : ""}`;
    const shift = event.shiftKey && (event.key.length > 1 || modifiers) ? "Shift+" : "";
    const binding = this.bindings.find(({ keys }) => keys.includes(modifiers + shift + key));
    if (binding) {
      event.preventDefault();
      binding.action(event, key);
    }
  }
}
