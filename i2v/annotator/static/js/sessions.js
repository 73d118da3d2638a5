// Joining a session, and the dialog that lists them: open ones, saved ones, each with a picture.
import { Api } from "./api.js";
import { VideoQueue } from "./queue.js";

const byId = (id) => document.getElementById(id);

// The session's number is in the address, so that a reload comes back to it, also after it was closed.
export async function join() {
  const asked = new URLSearchParams(location.search).get("session") ?? (VideoQueue.here === null ? null : "1");
  if (asked === null || asked === "new") return enter(await Api.openSession({ isNew: asked === "new" }));
  const api = new Api(Number(asked));
  try {
    return [api, await api.snapshot()];
  } catch (error) {
    if (error.status !== 404) throw error;
    return enter(await Api.openSession({ number: Number(asked) }));
  }
}

async function enter({ session }) {
  history.replaceState(null, "", `?session=${session}`);
  const api = new Api(session);
  return [api, await api.snapshot()];
}

export class SessionDialog {
  constructor(current, messages) {
    this.current = current; // number of this tab's session, or null
    this.messages = messages;
    byId("sessions").addEventListener("click", () => this.show());
    byId("open-file").addEventListener("click", () => byId("session-file").click());
    byId("session-file").addEventListener("change", (event) => this.openFile(event.target));
  }

  async show() {
    try {
      const sessions = await Api.listSessions();
      byId("session-list").replaceChildren(...sessions.map((entry) => this.item(entry)));
      byId("sessions-dialog").showModal();
    } catch (error) {
      this.messages.error(error.message);
    }
  }

  item(entry) {
    const [item, link, picture, text] = ["li", "a", "img", "span"].map((tag) => document.createElement(tag));
    picture.src = `sessions/${entry.session}/picture.jpg`;
    picture.alt = "";
    picture.loading = "lazy";
    picture.addEventListener("error", () => picture.classList.add("missing"));
    text.textContent = this.describe(entry);
    link.href = `?session=${entry.session}`;
    link.target = "_blank";
    link.rel = "noopener";
    link.append(picture, text);
    item.append(link);
    return item;
  }

  describe({ session, objects, tabs, open, file, saved }) {
    const when = saved ? `, ${file} of ${new Date(1000 * saved).toLocaleString()}` : "";
    if (!open) return `session ${session}: closed${when}`;
    const here = session === this.current ? ", this one" : "";
    return `session ${session}: ${objects} objects, ${tabs} tabs${when}${here}`;
  }

  // A saved session becomes a new one: its file stays as it is.
  async openFile(field) {
    const [file] = field.files;
    field.value = "";
    if (!file) return;
    byId("session-file-state").textContent = `opening ${file.name} …`;
    try {
      const { session } = await Api.openFile(file);
      location.assign(`?session=${session}`);
    } catch (error) {
      byId("session-file-state").textContent = error.message;
    }
  }
}
