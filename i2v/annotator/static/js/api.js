// Talking to the server: commands over HTTP, news over a WebSocket that comes back by itself.
// Addresses are relative to the page's own, which begins with the token.

async function request(path, options = {}) {
  const response = await fetch(path, options);
  const answer = await response.json().catch(() => ({}));
  if (!response.ok) {
    const error = new Error(answer.error || `the server answered ${response.status}`);
    error.status = response.status;
    throw error;
  }
  return answer;
}

export class Api {
  constructor(session) {
    this.session = session;
    this.answered = Promise.resolve(); // when the last command was
  }

  static openSession() {
    return request("sessions", { method: "POST" });
  }

  static listSessions() {
    return request("sessions");
  }

  snapshot() {
    return request(`sessions/${this.session}`);
  }

  masks(first, last) {
    return request(`sessions/${this.session}/masks?first=${first}&last=${last}`);
  }

  // Commands take effect in the order in which they are given: tracking does not overtake the click before it. What
  // stops work, or only prepares an answer, goes at once.
  command(command) {
    const headers = { "content-type": "application/json" };
    const path = `sessions/${this.session}/commands`;
    const send = () => request(path, { method: "POST", headers, body: JSON.stringify(command) });
    if (command.do === "cancel" || command.do === "prepare") return send();
    const answer = this.answered.then(send);
    this.answered = answer.catch(() => {});
    return answer;
  }

  importFile(file, object) {
    const query = new URLSearchParams({ name: file.name, object });
    const headers = { "content-type": "application/octet-stream" };
    return request(`sessions/${this.session}/import?${query}`, { method: "POST", headers, body: file });
  }

  // Calls `onEvent` with every event and `onChange` with whether there is a connection, now and for ever.
  listen(onEvent, onChange) {
    const url = new URL(`sessions/${this.session}/events`, location.href);
    url.protocol = "ws:";
    let wait = 250;
    const connect = () => {
      const socket = new WebSocket(url);
      socket.onopen = () => {
        wait = 250;
        onChange(true);
      };
      socket.onmessage = (message) => onEvent(JSON.parse(message.data));
      socket.onclose = () => {
        onChange(false);
        setTimeout(connect, wait);
        wait = Math.min(2 * wait, 4000);
      };
    };
    connect();
  }
}
