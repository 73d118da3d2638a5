// Dark or light: as the system has it, until the user chooses.
const KEY = "i2v-theme";

export function initTheme(button, onChange) {
  const system = matchMedia("(prefers-color-scheme: light)");
  const apply = () => {
    document.documentElement.dataset.theme = localStorage.getItem(KEY) ?? (system.matches ? "light" : "dark");
    onChange();
  };
  button.addEventListener("click", () => {
    localStorage.setItem(KEY, document.documentElement.dataset.theme === "light" ? "dark" : "light");
    apply();
  });
  system.addEventListener("change", apply);
  apply();
}
