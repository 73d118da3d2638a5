// After a mouse click on a button, a slider or a box, keys belong to the picture again: Space would press the button once
// more, and arrows would move the slider. Who comes by Tab keeps the focus where it is.
export function focusPicture(stage) {
  for (const type of ["pointerup", "change"]) {
    document.addEventListener(type, (event) => {
      const control = event.target.closest?.("button, input:not([type=text]):not([type=number]), label");
      if (control && !control.closest("dialog") && (event.type === "pointerup" || isByPointer)) later(stage);
    });
  }
  let isByPointer = false;
  document.addEventListener("pointerdown", () => (isByPointer = true), { capture: true });
  document.addEventListener("keydown", () => (isByPointer = false), { capture: true });
}

// After what the click itself does, such as opening a dialog.
function later(stage) {
  setTimeout(() => {
    if (!document.querySelector("dialog[open]")) stage.focus({ preventScroll: true });
  });
}
