// Puts the page together: a session of its own, the parts, and what buttons and keys do.
import { FileDialogs } from "./files.js";
import { focusPicture } from "./focus.js";
import { Messages } from "./messages.js";
import { ObjectList } from "./objects.js";
import { Pictures } from "./pictures.js";
import { Player } from "./player.js";
import { VideoQueue } from "./queue.js";
import { SessionDialog, join } from "./sessions.js";
import { makeKeys } from "./shortcuts.js";
import { Stage } from "./stage.js";
import { Store } from "./store.js";
import { initTheme } from "./theme.js";
import { Timeline } from "./timeline.js";
import { Tools } from "./tools.js";

const byId = (id) => document.getElementById(id);
const PREPARE_AFTER = 120; // milliseconds that a frame is looked at

function showProgress(store) {
  const { progress } = store;
  byId("progress").hidden = !progress;
  byId("cancel").disabled = !progress;
  for (const button of [...document.querySelectorAll("[data-track]"), byId("update"), byId("export"), byId("import")]) {
    button.disabled = Boolean(progress);
  }
  if (!progress) {
    byId("progress-text").textContent = "";
    return;
  }
  const names = { track: "tracking", export: "exporting", import: "importing", restore: "restoring the session" };
  const of = progress.total ? ` of ${progress.total}` : "";
  const rate = progress.rate ? `, ${progress.rate.toFixed(1)} frames/s` : "";
  if (progress.total) byId("progress").value = progress.done / progress.total;
  else byId("progress").removeAttribute("value");
  const detail = progress.detail ? `, ${progress.detail}` : "";
  byId("progress-text").textContent = `${names[progress.task]}: ${progress.done}${of}${rate}${detail}`;
}

// What is saved is known only while there is a connection.
function showSaving({ saving }, isConnected) {
  const texts = {
    new: "",
    unsaved: "saving …",
    saved: `all changes saved in ${saving.path}`,
    failed: `NOT SAVED: ${saving.message}`,
  };
  byId("saved").textContent = isConnected ? texts[saving.state] : "";
  byId("saved").title = byId("saved").textContent;
  byId("saved").classList.toggle("failed", saving.state === "failed");
}

function showConnection(state, messages) {
  const texts = {
    connected: "",
    lost: "no connection to the annotator, trying again; if it has ended, start it again and open the new address",
    ended: "this page belongs to an earlier run of the annotator: open the address that it has printed now",
  };
  byId("connection").textContent = { connected: "", lost: "connection lost", ended: "annotator restarted" }[state];
  byId("connection").classList.toggle("lost", state !== "connected");
  messages.state("connection", texts[state]);
  document.body.dataset.connected = state === "connected";
}

function showState(store) {
  byId("undo").disabled = !store.state.can_undo;
  byId("redo").disabled = !store.state.can_redo;
}

function track(store, direction) {
  const until = byId("until-prompt").checked ? "prompt" : "end";
  const only = byId("only-selected").checked && store.selected !== null;
  store.follows = byId("follow").checked;
  const [first, last] = store.range ?? [0, null];
  store.ask({ do: "track", frame: store.frame, direction, until, objects: only ? [store.selected] : null, first, last });
}

function review(store) {
  const { first, last } = store.rangeOrFrame;
  store.ask({ do: "review", first, last, accepted: !store.isReviewed(first) });
}

function showRange(store) {
  const { range } = store;
  byId("range").textContent = range ? `frames ${range[0]} to ${range[1]}` : "all frames";
  byId("range-clear").disabled = !range;
  byId("reviewed").textContent = store.isReviewed(store.frame) ? "reviewed" : "";
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

function wire(parts) {
  const { store, player, timeline, stage, messages } = parts;
  byId("video-name").textContent = byId("video-name").title = store.video.name;
  document.title = `${store.video.name} · i2v annotate`;
  const press = (id, action) => byId(id).addEventListener("click", action);
  press("undo", () => store.ask({ do: "undo" }));
  press("redo", () => store.ask({ do: "redo" }));
  press("save", () => store.ask({ do: "save" }));
  press("range-first", () => store.setRange("first"));
  press("range-last", () => store.setRange("last"));
  press("range-clear", () => store.setView({ range: null }));
  press("review", () => review(store));
  press("absent", () => parts.objects.markAbsent());
  press("clear-masks", () => parts.objects.clearMasks());
  press("timeline-in", () => timeline.zoomBy(2));
  press("timeline-out", () => timeline.zoomBy(0.5));
  press("timeline-all", () => timeline.zoomBy(0));
  for (const type of ["view", "state", "frame"]) store.addEventListener(type, () => showRange(store));
  showRange(store);
  press("colours", () => {
    store.setView({ colours: store.colours === "class" ? "object" : "class" });
    byId("colours").textContent = store.colours === "class" ? "Colours: classes" : "Colours: objects";
    store.tell("state");
  });
  press("update", () => store.ask({ do: "update" }));
  press("cancel", () => store.ask({ do: "cancel" }));
  press("help", () => byId("help-dialog").showModal());
  press("previous-prompt", () => timeline.nextPrompt(-1));
  press("next-prompt", () => timeline.nextPrompt(1));
  press("previous-doubt", () => timeline.nextDoubt(-1));
  press("next-doubt", () => timeline.nextDoubt(1));
  for (const button of document.querySelectorAll("[data-track]")) {
    button.addEventListener("click", () => track(store, button.dataset.track));
  }
  byId("opacity").addEventListener("input", (event) => store.setView({ opacity: Number(event.target.value) / 100 }));
  const showView = () => {
    byId("opacity").value = Math.round(store.opacity * 100);
    byId("opacity-value").textContent = `${Math.round(store.opacity * 100)} %`;
  };
  store.addEventListener("view", showView);
  store.addEventListener("state", () => showState(store));
  store.addEventListener("progress", () => showProgress(store));
  store.addEventListener("error", ({ detail }) => messages.error(detail));
  store.addEventListener("news", ({ detail }) => messages.news(detail));
  const showTrouble = () => messages.state("video", store.trouble);
  store.addEventListener("video", showTrouble);
  showTrouble();
  byId("model").textContent = store.model ? `Model: ${store.model}` : "";
  store.addEventListener("saving", () => parts.queue.saved(store.saving));
  store.addEventListener("saving", () => showSaving(store, document.body.dataset.connected === "true"));
  stage.box.addEventListener("pointerdown", () => messages.forget(), { capture: true });
  focusPicture(stage.box);
  initTheme(byId("theme"), () => timeline.schedule());
  showView();
  showState(store);
  showProgress(store);
  prepareWhenStill(store, player);
}

async function main(messages) {
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
    files: new FileDialogs(store, messages),
    sessions: new SessionDialog(api.session, messages),
    queue: new VideoQueue(messages, () => {
      parts.tools.polygons.apply();
      return api.answered;
    }),
    messages,
  };
  wire(parts);
  makeKeys(parts, { track, review });
  api.listen(
    (event) => store.receive(event),
    (state) => {
      showConnection(state, messages);
      showSaving(store, state === "connected");
    },
  );
  stage.box.focus();
}

const messages = new Messages();
main(messages).catch((error) => {
  messages.state("start", error.message);
  byId("connection").textContent = "not connected";
  // The other videos, or sessions, are still there.
  if (VideoQueue.here === null) new SessionDialog(null, messages).show();
  else new VideoQueue(messages).show();
});
