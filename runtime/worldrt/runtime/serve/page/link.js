// The socket: says hello, comes back when it is lost, and matches answers with what was asked.

const [FIRST_WAIT_MS, LONGEST_WAIT_MS] = [250, 4000];
const BAD_TOKEN = 4401;
const FULL = 4503;

export class Link {
  // handlers: opened(), lost(text), refused(), state(object), picture(buffer)
  constructor(hello, handlers) {
    Object.assign(this, { hello, handlers, asked: new Map(), number: 0, wait: FIRST_WAIT_MS, socket: null });
  }

  open() {
    const place = new URL("ws", location.href);
    place.protocol = place.protocol === "https:" ? "wss:" : "ws:";
    place.hash = place.search = "";
    const socket = (this.socket = new WebSocket(place));
    socket.binaryType = "arraybuffer";
    socket.onopen = () => socket.send(JSON.stringify({ type: "hello", ...this.hello() }));
    socket.onmessage = ({ data }) => (typeof data === "string" ? this.take(JSON.parse(data)) : this.handlers.picture(data));
    socket.onclose = ({ code }) => this.closed(code);
  }

  take(message) {
    this.wait = FIRST_WAIT_MS;
    if (message.type === "state") return this.handlers.state(message);
    const settle = this.asked.get(message.id);
    this.asked.delete(message.id);
    settle?.(message);
  }

  closed(code) {
    for (const settle of this.asked.values()) settle({ type: "error", text: "the connection was lost" });
    this.asked.clear();
    if (code === BAD_TOKEN) return this.handlers.refused();
    this.handlers.lost(code === FULL ? "too many are watching; trying again" : "connecting again");
    setTimeout(() => this.open(), this.wait * (0.75 + Math.random() / 2));
    this.wait = Math.min(LONGEST_WAIT_MS, this.wait * 2);
  }

  send(message) {
    if (this.socket?.readyState === WebSocket.OPEN) this.socket.send(JSON.stringify(message));
  }

  // The answer: {type: "done", ...} or {type: "error", text}.
  ask(message) {
    if (this.socket?.readyState !== WebSocket.OPEN) {
      return Promise.resolve({ type: "error", text: "not connected" });
    }
    const id = ++this.number;
    this.send({ ...message, id });
    return new Promise((settle) => this.asked.set(id, settle));
  }
}
