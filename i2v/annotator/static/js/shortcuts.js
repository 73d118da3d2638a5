// What the keys do.
import { Keys } from "./keys.js";

const byId = (id) => document.getElementById(id);
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
const DIGITS = ["1", "2", "3", "4", "5", "6", "7", "8", "9"];

export function makeKeys({ store, stage, tools, objects, timeline, player, files, queue, messages }, { track, review }) {
  const press = (id) => () => byId(id).click();
  // What runs as a job has to wait for the one that is running; its button is disabled, and a key would do nothing.
  const begin = (id) => () => {
    if (store.progress) messages.error("another job is running: wait for it, or stop it with Esc");
    else byId(id).click();
  };
  const bind = (keys, text, action, fixed = "") => {
    const names = (list) => list.split(" ").filter(Boolean).map((key) => (key === "Space" ? " " : key));
    return { keys: names(keys), text, action, fixed: names(fixed) };
  };
  const step = (by) => store.show(store.frame + by);
  const move = (key) => {
    const [dx, dy] = ARROWS[key.split("+").at(-1)];
    const far = key.startsWith("Ctrl+") ? 40 : 4;
    tools.moveCross(far * dx, far * dy);
  };
  const names = Object.keys(ARROWS);
  const crosses = [...names.map((key) => `Shift+${key}`), ...names.map((key) => `Ctrl+Shift+${key}`)];
  const videos = queue.number === null ? [] : [
    bind("Shift+q Shift+w", "the video before, the next video", (_, key) => queue.step(key === "Shift+w" ? 1 : -1)),
    bind("Shift+m", "mark the video as done; again to take that back", () => queue.mark()),
  ];
  new Keys([
    bind("ArrowLeft ArrowRight", "frame before, next frame", (_, key) => step(key === "ArrowRight" ? 1 : -1)),
    bind("PageUp PageDown", "ten frames", (_, key) => step(key === "PageDown" ? 10 : -10)),
    bind("Home End", "first frame, last frame", (_, key) => store.show(key === "Home" ? 0 : store.video.frames - 1)),
    bind("Space", "play or pause; held, drag to move the picture", (event) => tools.hold(event.code, () => player.toggle())),
    bind(", .", "prompt before, next prompt", (_, key) => timeline.nextPrompt(key === "." ? 1 : -1)),
    bind("Shift+l l", "frame with low confidence before, next one", (_, key) => timeline.nextDoubt(key === "l" ? 1 : -1)),
    bind("c b p e", "click, box, paint, erase", (_, key) => tools.choose({ c: "click", b: "box", p: "paint", e: "erase" }[key])),
    bind("Shift+p", "polygons: the vertices of the mask", () => {
      tools.choose("polygon");
      stage.box.focus(); // Tab and arrows are for vertices there
    }),
    { shown: "Tab, ← ↑ → ↓", text: "choose the next vertex, move it (with Shift: the one before; faster)" },
    bind("Insert", "one more vertex after the chosen one", () => tools.polygons.isOn && tools.polygons.insert()),
    { fixed: crosses, shown: "Shift ← ↑ → ↓", text: "move the cross (with Ctrl: faster)", action: (_, key) => move(key) },
    bind("Enter", "mark at the cross; begin or end a box or a stroke; apply changed polygons", () => tools.act(true)),
    { fixed: ["Alt+Enter"], shown: "Alt Enter", text: "mark off the object at the cross", action: () => tools.act(false) },
    bind("[ ]", "smaller, larger brush", (_, key) => tools.setBrush(Math.round(store.brush * (key === "]" ? 1.25 : 0.8)))),
    bind("o", "opacity: none, half, full", () => store.setView({ opacity: store.opacity < 0.25 ? 0.5 : store.opacity < 0.75 ? 1 : 0 })),
    bind("+ - 0", "zoom in, out, fit (Ctrl and wheel, too)", (_, key) => stage.zoomBy({ "-": 0.8, 0: 0 }[key] ?? 1.25), "="),
    bind("Shift+i Shift+o Shift+a", "timeline: zoom in, out, all frames", (_, key) => timeline.zoomBy({ "Shift+i": 2, "Shift+o": 0.5, "Shift+a": 0 }[key])),
    bind("n", "new object", () => objects.add()),
    bind("q w", "select the object before, the next object", (_, key) => objects.selectNext(key === "w" ? 1 : -1)),
    { fixed: DIGITS, shown: "1 … 9", text: "select an object", action: (_, key) => objects.selectNth(Number(key) - 1) },
    bind("r", "name and class of the object", () => objects.rename()),
    bind("j", "lock or unlock the object", () => objects.lock()),
    bind("i", "colours of objects, or of classes", press("colours")),
    bind("h", "hide or show the object", () => objects.toggle()),
    bind("Delete", "delete the object; of polygons, the chosen vertex", () => (tools.polygons.isOn ? tools.polygons.remove() : objects.remove())),
    bind("Backspace", "take back the object's prompts on this frame", () => (tools.polygons.chosen ? tools.polygons.remove() : objects.clearPrompts())),
    bind("Shift+Backspace", "clear the object's masks and prompts in the range, or on this frame", () => objects.clearMasks()),
    bind("k", "use the mask that is shown as a prompt", () => objects.adopt()),
    bind("z", "undo", press("undo"), "Ctrl+z"),
    bind("y", "redo", press("redo"), "Ctrl+y Ctrl+Shift+z"),
    bind("d g f", "track backward, both ways, forward", (_, key) => track(store, { d: "backward", g: "both", f: "forward" }[key])),
    bind("a v", "begin, end the range of frames here", (_, key) => store.setRange(key === "a" ? "first" : "last")),
    bind("m", "accept the range, or this frame, as reviewed; again to take that back", () => review(store)),
    bind("Shift+Delete", "the object is out of view in the range, or on this frame", () => objects.markAbsent()),
    bind("Shift+k", "copy the mask to the next frame", () => objects.copyOn()),
    bind("u", "track again only what changed prompts have changed", begin("update")),
    bind("t", "track to the next prompt, or to the end", press("until-prompt")),
    { fixed: ["Escape"], shown: "Esc", text: "stop tracking; give up a box, a stroke or changes of polygons", action: () => tools.giveUp() || files.stop() || press("cancel")() },
    bind("s", "save now", press("save"), "Ctrl+s"),
    bind("x", "export", begin("export")),
    ...videos,
    bind("?", "this help", press("help")),
  ]);
}
