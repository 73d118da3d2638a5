// Masks in and out: the files of an import are sent one by one and come in as a single edit; what to export is asked.
const byId = (id) => document.getElementById(id);

export class FileDialogs {
  constructor(store, messages) {
    this.store = store;
    this.messages = messages;
    this.sending = null; // aborts the import that is being sent
    byId("import").addEventListener("click", () => byId("import-files").click());
    byId("import-files").addEventListener("change", (event) => this.importFiles(event.target));
    byId("export").addEventListener("click", () => this.askExport());
    byId("export-dialog").addEventListener("close", (event) => this.export(event.target));
    store.addEventListener("exported", ({ detail }) => this.exported(detail));
    store.addEventListener("imported", ({ detail }) => this.imported(detail));
  }

  async importFiles(field) {
    const files = [...field.files].sort((a, b) => a.name.localeCompare(b.name, undefined, { numeric: true }));
    field.value = "";
    if (!files.length) return;
    const [batch, sending] = [crypto.randomUUID(), new AbortController()];
    this.sending?.abort();
    this.sending = sending;
    try {
      for (const [i, file] of files.entries()) {
        this.messages.state("import", `sending ${file.name} (${i + 1} of ${files.length}); Esc stops`);
        await this.store.api.upload(batch, file, sending.signal);
      }
      await this.store.ask({ do: "import", batch, object: this.store.selected ?? 1 });
    } catch (error) {
      this.messages.error(sending.signal.aborted ? "the import was stopped: nothing has changed" : error.message);
    } finally {
      // An import that was chosen since then goes on, and so does what is said of it.
      if (this.sending === sending) {
        this.sending = null;
        this.messages.state("import", "");
      }
    }
  }

  // Whether there was an import to stop.
  stop() {
    this.sending?.abort();
    return this.sending !== null;
  }

  imported({ files, frames, objects }) {
    const [f, o] = [count(frames, "frame"), count(objects, "object")];
    this.messages.news(`imported masks of ${f} and ${o} from ${count(files, "file")}; Undo takes them back`);
  }

  askExport() {
    const { store } = this;
    const last = store.video.frames - 1;
    for (const field of [byId("export-first"), byId("export-last")]) field.max = last;
    [byId("export-first").value, byId("export-last").value] = store.range ?? [0, last];
    const hidden = store.state.objects.filter((object) => !object.visible).map((object) => object.name);
    byId("export-hidden").hidden = !hidden.length;
    byId("hidden-names").textContent = hidden.join(", ");
    byId("export-dialog").showModal();
  }

  export(dialog) {
    const action = dialog.returnValue;
    dialog.returnValue = "";
    if (action !== "export") return;
    const formats = [...document.querySelectorAll("[data-format]")].filter((box) => box.checked).map((box) => box.dataset.format);
    const [first, last] = [Number(byId("export-first").value), Number(byId("export-last").value)];
    this.store.ask({ do: "export", formats, first, last, with_hidden: byId("with-hidden").checked });
  }

  exported({ folder, names, objects }) {
    this.messages.news(`exported to ${folder}: ${names.join(", ")}, of ${count(objects, "object")}`);
  }
}

function count(number, what) {
  return `${number} ${what}${number === 1 ? "" : "s"}`;
}
