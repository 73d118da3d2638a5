// Puts the page together: a session of its own, the parts, and what buttons and keys do.
import { Api } from "./api.js";
import { Keys } from "./keys.js";
import { ObjectList } from "./objects.js";
import { Pictures } from "./pictures.js";
import { Player } from "./player.js";
import { Stage } from "./stage.js";
import { Store } from "./store.js";
import { initTheme } from "./theme.js";
import { Timeline } from "./timeline.js";
import { Tools } from "./tools.js";

const byId = (id) => document.getElementById(id);
const PREPARE_AFTER = 120; // milliseconds that a frame is looked at

// The session's number is in the address, so that a reload comes back to it.
async function join() {
  const asked = new URLSearchParams(location.search).get("session");
  if (asked) {
    const api = new Api(Number(asked));
    return [api, await api.snapshot()];
  }
  const { session } = await Api.openSession();
  history.replaceState(null, "", `?session=${session}`);
  const api = new Api(session);
  return [api, await api.snapshot()];
}

function say(text) {
  byId("message").textContent = text;
}

function showProgress(store) {
  const { progress } = store;
  byId("progress").hidden = !progress;
  byId("cancel").disabled = !progress;
  for (const button of [...document.querySelectorAll("[data-track]"), byId("update"), byId("export")]) {
    button.disabled = Boolean(progress);
  }
  if (!progress) {
    byId("progress-text").textContent = "";
    return;
  }
  const names = { track: "tracking", export: "exporting", restore: "restoring the session" };
  const of = progress.total ? ` of ${progress.total}` : "";
  const rate = progress.rate ? `, ${progress.rate.toFixed(1)} frames/s` : "";
  if (progress.total) byId("progress").value = progress.done / progress.total;
  else byId("progress").removeAttribute("value");
  byId("progress-text").textContent = `${names[progress.task]}: ${progress.done}${of}${rate}`;
}

function showState(store) {
  byId("undo").disabled = !store.state.can_undo;
  byId("redo").disabled = !store.state.can_redo;
}

async function importFiles(store, files) {
  const ordered = [...files].sort((a, b) => a.name.localeCompare(b.name, undefined, { numeric: true }));
  let frames = 0;
  try {
    for (const [i, file] of ordered.entries()) {
      say(`importing ${file.name} (${i + 1} of ${ordered.length})`);
      frames += (await store.api.importFile(file, store.selected ?? 1)).frames;
    }
    say(`imported masks of ${frames} frames`);
  } catch (error) {
    say(error.message);
  }
}

async function showSessions(store) {
  const sessions = await Api.listSessions();
  const items = [...sessions, null].map((entry) => {
    const [item, link] = [document.createElement("li"), document.createElement("a")];
    const here = entry?.session === store.api.session ? ", this one" : "";
    link.textContent = entry ? `session ${entry.session}: ${entry.objects} objects, ${entry.tabs} tabs${here}` : "a new session";
    link.href = entry ? `?session=${entry.session}` : location.pathname;
    link.target = "_blank";
    link.rel = "noopener";
    item.append(link);
    return item;
  });
  byId("session-list").replaceChildren(...items);
  byId("sessions-dialog").showModal();
}

function track(store, direction) {
  const until = byId("until-prompt").checked ? "prompt" : "end";
  const only = byId("only-selected").checked && store.selected !== null;
  store.follows = byId("follow").checked;
  store.ask({ do: "track", frame: store.frame, direction, until, objects: only ? [store.selected] : null });
}

// A frame that is looked at for a while is made ready, so that a click on it is answered at once.
function prepareWhenStill(store, player) {
  let timer;
  const look = () => {
    clearTimeout(timer);
    timer = setTimeout(() => {
      if (!player.playing) store.api.command({ do: "prepare", frame: store.frame }).catch(() => {});
    }, PREPARE_AFTER);
  };
  store.addEventListener("frame", look);
  look();
}

function makeKeys({ store, stage, tools, objects, timeline, player }) {
  const press = (id) => () => byId(id).click();
  const step = (by) => () => store.show(store.frame + by);
  const move = (dx, dy) => () => tools.moveCross(dx, dy);
  const bind = (keys, shown, text, action) => ({ keys: keys.split(" ").map((key) => key.replace("Space", " ")), shown, text, action });
  const arrows = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  // The cross has more directions than the help has lines.
  const crosses = Object.entries(arrows).flatMap(([key, [dx, dy]]) => [
    { keys: [`Shift+${key}`], action: move(4 * dx, 4 * dy) },
    { keys: [`Ctrl+Shift+${key}`], action: move(40 * dx, 40 * dy) },
  ]);
  const listed = [
    bind("ArrowRight ArrowLeft", "← →", "next frame, frame before", (_, key) => step(key === "ArrowRight" ? 1 : -1)()),
    bind("PageDown PageUp", "PgUp PgDn", "ten frames", (_, key) => step(key === "PageDown" ? 10 : -10)()),
    bind("Home End", "Home End", "first frame, last frame", (_, key) => store.show(key === "Home" ? 0 : store.video.frames - 1)),
    bind("Space", "Space", "play or pause", () => player.toggle()),
    bind(", .", ", .", "prompt before, next prompt", (_, key) => timeline.nextPrompt(key === "." ? 1 : -1)),
    bind("l", "L", "next frame where the model is unsure", () => timeline.nextDoubt()),
    bind("c b p e", "C B P E", "click, box, paint, erase", (_, key) => tools.choose({ c: "click", b: "box", p: "paint", e: "erase" }[key])),
    bind("Shift+ArrowUp", "Shift ← ↑ → ↓", "move the cross (with Ctrl: faster)", move(0, -4)),
    bind("Enter", "Enter", "mark at the cross; begin or end a box or a stroke", () => tools.act(true)),
    bind("Alt+Enter", "Alt Enter", "mark off the object at the cross", () => tools.act(false)),
    bind("[ ]", "[ ]", "smaller, larger brush", (_, key) => tools.setBrush(Math.round(store.brush * (key === "]" ? 1.25 : 0.8)))),
    bind("o", "O", "opacity: none, half, full", () => store.setView({ opacity: store.opacity < 0.25 ? 0.5 : store.opacity < 0.75 ? 1 : 0 })),
    bind("+ = - 0", "+ − 0", "zoom in, out, fit (Ctrl and wheel, too)", (_, key) => stage.zoomBy({ "-": 0.8, 0: 0 }[key] ?? 1.25)),
    bind("n", "N", "new object", () => objects.add()),
    bind("1 2 3 4 5 6 7 8 9", "1 … 9", "select an object", (_, key) => objects.selectNth(Number(key) - 1)),
    bind("r", "R", "rename the object", () => objects.rename()),
    bind("h", "H", "hide or show the object", () => objects.toggle()),
    bind("Delete", "Delete", "delete the object", () => objects.remove()),
    bind("Backspace", "Backspace", "take back the object's prompts on this frame", () => objects.clearPrompts()),
    bind("k", "K", "keep the mask that is shown as a prompt", () => objects.adopt()),
    bind("z Ctrl+z", "Z", "undo", press("undo")),
    bind("y Ctrl+y Ctrl+Shift+z", "Y", "redo", press("redo")),
    bind("f", "F", "track forward", () => track(store, "forward")),
    bind("d", "D", "track backward", () => track(store, "backward")),
    bind("g", "G", "track both ways", () => track(store, "both")),
    bind("u", "U", "track anew only what changed", press("update")),
    bind("t", "T", "track to the next prompt, or to the end", press("until-prompt")),
    bind("Escape", "Esc", "stop tracking; give up a box or a stroke", () => tools.giveUp() || press("cancel")()),
    bind("s Ctrl+s", "S", "save now", press("save")),
    bind("x", "X", "export", press("export")),
    bind("?", "?", "this help", press("help")),
  ];
  new Keys([...listed, ...crosses]);
}

function wire(parts) {
  const { store, player, timeline, stage } = parts;
  byId("video-name").textContent = store.video.name;
  document.title = `${store.video.name} · i2v annotate`;
  const press = (id, action) => byId(id).addEventListener("click", action);
  press("undo", () => store.ask({ do: "undo" }));
  press("redo", () => store.ask({ do: "redo" }));
  press("save", () => store.ask({ do: "save" }));
  press("update", () => store.ask({ do: "update" }));
  press("cancel", () => store.ask({ do: "cancel" }));
  press("import", () => byId("import-files").click());
  press("export", () => byId("export-dialog").showModal());
  press("sessions", () => showSessions(store));
  press("help", () => byId("help-dialog").showModal());
  press("previous-prompt", () => timeline.nextPrompt(-1));
  press("next-prompt", () => timeline.nextPrompt(1));
  press("next-doubt", () => timeline.nextDoubt());
  for (const button of document.querySelectorAll("[data-track]")) {
    button.addEventListener("click", () => track(store, button.dataset.track));
  }
  byId("import-files").addEventListener("change", async (event) => {
    await importFiles(store, event.target.files);
    event.target.value = "";
  });
  byId("export-dialog").addEventListener("close", (event) => {
    const formats = [...byId("export-form").elements].filter((field) => field.checked).map((field) => field.name);
    if (event.target.returnValue === "export") store.ask({ do: "export", formats });
    event.target.returnValue = "";
  });
  byId("opacity").addEventListener("input", (event) => store.setView({ opacity: Number(event.target.value) / 100 }));
  const showView = () => {
    byId("opacity").value = Math.round(store.opacity * 100);
    byId("opacity-value").textContent = `${Math.round(store.opacity * 100)} %`;
  };
  store.addEventListener("view", showView);
  store.addEventListener("state", () => showState(store));
  store.addEventListener("progress", () => showProgress(store));
  store.addEventListener("error", ({ detail }) => say(detail));
  store.addEventListener("saved", ({ detail }) => {
    byId("saved").textContent = `saved in ${detail.path}`;
  });
  store.addEventListener("exported", ({ detail }) => say(`exported to ${detail.folder}: ${detail.names.join(", ")}`));
  // Words about something that is past are in the way.
  stage.box.addEventListener("pointerdown", () => say(""));
  initTheme(byId("theme"), () => timeline.schedule());
  showView();
  showState(store);
  showProgress(store);
  prepareWhenStill(store, player);
}

async function main() {
  const [api, snapshot] = await join();
  const store = new Store(api, snapshot);
  const pictures = new Pictures();
  const stage = new Stage(store, pictures);
  const parts = {
    store,
    stage,
    tools: new Tools(store, stage),
    objects: new ObjectList(store),
    timeline: new Timeline(store),
    player: new Player(store, pictures),
  };
  wire(parts);
  makeKeys(parts);
  api.listen(
    (event) => store.receive(event),
    (connected) => {
      byId("connection").textContent = connected ? "" : "connection lost, trying again …";
      byId("connection").classList.toggle("lost", !connected);
      document.body.dataset.connected = connected;
    },
  );
  stage.box.focus();
}

main().catch((error) => {
  say(`${error.message}`);
  byId("connection").textContent = "not connected";
});
