// Talking to the server: commands over HTTP, news over a WebSocket that comes back by itself.
// Addresses are relative to the page's own, which begins with the token.

const PATIENCE = 30_000; // milliseconds until a picture or an answer about sessions counts as lost

async function request(path, options = {}) {
  let response;
  try {
    response = await fetch(path, options);
  } catch (reason) {
    const error = new Error("the annotator does not answer, so this was not done");
    error.status = reason.name === "AbortError" ? -1 : 0;
    throw error;
  }
  const answer = await response.json().catch(() => ({}));
  if (!response.ok) {
    const error = new Error(answer.error || `the server answered ${response.status}`);
    error.status = response.status;
    throw error;
  }
  return { answer, news: Number(response.headers.get("x-i2v-news")) };
}

const answerTo = async (path, options) => (await request(path, options)).answer;

export class Api {
  constructor(session) {
    this.session = session;
    this.answered = Promise.resolve(); // when the last command was
  }

  // The latest work that no tab shows, or that of a number, or a new session.
  static openSession({ number = null, isNew = false } = {}) {
    const query = number !== null ? `?number=${number}` : isNew ? "?new" : "";
    return answerTo(`sessions${query}`, { method: "POST" });
  }

  static openFile(file) {
    const query = new URLSearchParams({ name: file.name });
    return answerTo(`sessions/files?${query}`, { method: "POST", body: file });
  }

  static listSessions() {
    return answerTo("sessions");
  }

  // The videos of the queue that this page's is one of.
  static listVideos() {
    return answerTo("../../queue");
  }

  static markVideo(number, done) {
    const headers = { "content-type": "application/json" };
    return answerTo(`../../queue/${number}`, { method: "POST", headers, body: JSON.stringify({ done }) });
  }

  snapshot() {
    return answerTo(`sessions/${this.session}`, { signal: AbortSignal.timeout(PATIENCE) });
  }

  masks(first, last) {
    return answerTo(`sessions/${this.session}/masks?first=${first}&last=${last}`);
  }

  // The polygons of an object's mask on a frame, and the mask.
  polygons(object, frame) {
    return answerTo(`sessions/${this.session}/polygons?object=${object}&frame=${frame}`);
  }

  // Commands take effect in the order in which they are given: tracking does not overtake the click before it. What
  // stops work, or only prepares an answer, goes at once. `allowed` is asked when the turn has come, and may throw.
  // Resolves to the answer, and the number of the news that tells what the command did.
  command(command, allowed = () => {}) {
    const headers = { "content-type": "application/json" };
    const path = `sessions/${this.session}/commands`;
    const send = () => {
      allowed();
      const { makes, ...sent } = command; // what is the page's own
      return request(path, { method: "POST", headers, body: JSON.stringify(sent) });
    };
    if (command.do === "cancel" || command.do === "prepare") return send();
    const answer = this.answered.then(send);
    this.answered = answer.catch(() => {});
    return answer;
  }

  upload(batch, file, signal) {
    const query = new URLSearchParams({ batch, name: file.name });
    return answerTo(`sessions/${this.session}/uploads?${query}`, { method: "POST", body: file, signal });
  }

  // Calls `onEvent` with every event, and `onChange` with the state of the connection: "connected", "lost" while it is
  // tried again, or "ended" where another server has taken the place of this page's.
  listen(onEvent, onChange) {
    const url = new URL(`sessions/${this.session}/events`, location.href);
    url.protocol = "ws:";
    let wait = 250;
    const connect = () => {
      const socket = new WebSocket(url);
      socket.onopen = () => {
        wait = 250;
        onChange("connected");
      };
      socket.onmessage = (message) => onEvent(JSON.parse(message.data));
      socket.onclose = async () => {
        onChange("lost");
        if ((await this.reopen()) === "ended") return onChange("ended");
        setTimeout(connect, wait);
        wait = Math.min(2 * wait, 4000);
      };
    };
    connect();
  }

  // A session that was closed to make room is opened again from its file.
  async reopen() {
    try {
      await this.snapshot();
    } catch (error) {
      if (error.status === 403) return "ended";
      if (error.status === 404) await Api.openSession({ number: this.session }).catch(() => {});
    }
    return "lost";
  }
}
