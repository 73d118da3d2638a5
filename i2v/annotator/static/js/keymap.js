// Which key does what: the defaults, and what the user has made of them, which is kept in the browser.
const STORED = "i2v-keys";
const NAMES = {
  " ": "Space",
  ArrowLeft: "←",
  ArrowRight: "→",
  ArrowUp: "↑",
  ArrowDown: "↓",
  PageUp: "PgUp",
  PageDown: "PgDn",
  Escape: "Esc",
  "-": "−",
};

// What is pressed, such as "z", "?", "Shift+l" or "Ctrl+Shift+ArrowUp".
export function pressed(event) {
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  const modifiers = `${event.ctrlKey || event.metaKey ? "Ctrl+" : ""}${event.altKey ? "Alt+" : ""}`;
  // Of characters such as "?", Shift is a part; of letters it is not.
  const shift = event.shiftKey && (event.key.length > 1 || modifiers || /[a-z]/i.test(event.key)) ? "Shift+" : "";
  return modifiers + shift + key;
}

// As it is shown: "Z", "Shift L", "Space".
export function shown(key) {
  const parts = key.length > 1 ? key.split("+") : [key];
  const last = parts.pop();
  return [...parts, NAMES[last] ?? (last.length === 1 ? last.toUpperCase() : last)].join(" ");
}

export class KeyMap {
  // `fixed` are keys that stay what they are.
  constructor(defaults, fixed) {
    this.defaults = defaults;
    this.fixed = new Set(fixed);
    const known = Object.entries(stored()).filter(([own, key]) => defaults.includes(own) && misuse(key) === null);
    this.changed = new Map(known);
    // Of another version of the page, perhaps: two uses of a key are none.
    const all = [...this.fixed, ...defaults.map((own) => this.of(own))];
    if (new Set(all).size < all.length) this.changed.clear();
  }

  // The key that does what `own` does by default.
  of(own) {
    return this.changed.get(own) ?? own;
  }

  // The default of a key that is pressed; itself where it is none that can be changed.
  defaultOf(key) {
    return this.defaults.find((own) => this.of(own) === key) ?? (this.fixed.has(key) ? key : null);
  }

  // Why `own` cannot be done by `key`; null if it can. `taken` names a key's use.
  refusal(own, key, taken = (other) => shown(other)) {
    const wrong = misuse(key);
    if (wrong !== null) return wrong;
    const other = this.defaultOf(key);
    return other === null || other === own ? null : `${shown(key)} is taken: ${taken(other)}`;
  }

  set(own, key) {
    if (key === own) this.changed.delete(own);
    else this.changed.set(own, key);
    localStorage.setItem(STORED, JSON.stringify(Object.fromEntries(this.changed)));
  }

  reset() {
    this.changed.clear();
    localStorage.removeItem(STORED);
  }
}

function misuse(key) {
  if (typeof key !== "string" || !key) return "no key";
  if (/^(Ctrl|Alt)\+/.test(key)) return `${shown(key)}: keys with Ctrl or Alt are the browser's`;
  const isOwn = /^(Shift\+)?(Tab|Escape|Control|Shift|Alt|AltGraph|Meta|Dead|Process|Unidentified)$/.test(key);
  return isOwn ? `${shown(key)} has its own use` : null;
}

function stored() {
  try {
    return JSON.parse(localStorage.getItem(STORED)) ?? {};
  } catch {
    return {}; // not what this page wrote
  }
}
