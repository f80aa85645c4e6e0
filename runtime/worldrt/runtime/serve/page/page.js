// A page to look at a world, and to steer it.

import { Keys } from "./keys.js";
import { Link } from "./link.js";
import { Screen, canDecode } from "./video.js";

const at = (id) => document.getElementById(id);
const TOKEN = "worldrt-token";
const RECENT = 30;
const KEPT_MS = 60000;
const KEY_GAP_MS = 400;

let state = { state: "", wheel: "free" };
let connected = false;
let taking = false; // the wheel was free when a key went down; whoever lets go before the answer must be heard, too
let sequence = 0;
const pressed = new Map(); // number of a control -> when it was sent
const latencies = []; // of the last presses, in ms
const drawn = []; // when the last pictures were drawn
let drawnEver = 0;
let answeredEver = 0;

const fragment = new URLSearchParams(location.hash.slice(1)).get("token");
if (fragment) {
  sessionStorage.setItem(TOKEN, fragment);
  history.replaceState(null, "", location.pathname); // out of sight, and out of what is copied from the address bar
}

const video = (await canDecode()) ? "h264" : "jpeg";
let keyWanted = 0;
const screen = new Screen(at("picture"), shown, () => {
  if (performance.now() - keyWanted < KEY_GAP_MS) return;
  keyWanted = performance.now();
  link.send({ type: "key" });
});
const link = new Link(
  () => ({ video, token: sessionStorage.getItem(TOKEN) ?? undefined }),
  {
    picture: (buffer) => screen.take(buffer),
    state: (news) => {
      if (!connected) at("token-form").hidden = true;
      [state, connected] = [news, true];
      if (news.wheel !== "free") taking = false;
      show();
    },
    lost: (text) => {
      connected = taking = false;
      screen.forget();
      pressed.clear();
      status(text, "away");
      show();
    },
    refused: () => {
      connected = false;
      sessionStorage.removeItem(TOKEN);
      status("a token is needed", "away");
      at("token-form").hidden = false;
      at("token").focus();
      show();
    },
  },
);

const keys = new Keys(document.querySelectorAll("[data-key]"), (held) => {
  if (held && state.wheel === "free") {
    link.send({ type: "wheel", take: true });
    taking = true;
  } else if (state.wheel !== "yours" && !taking) {
    return;
  }
  pressed.set(++sequence, performance.now());
  link.send({ type: "control", keys: held, seq: sequence });
});

function shown({ sequence: answered }) {
  const now = performance.now();
  const sent = pressed.get(answered);
  if (sent !== undefined) {
    latencies.push(now - sent);
    answeredEver++;
    latencies.splice(0, latencies.length - RECENT);
  }
  for (const [number, time] of pressed) if (number <= answered || now - time > KEPT_MS) pressed.delete(number);
  drawnEver++;
  drawn.push(now);
  drawn.splice(0, drawn.length - RECENT);
}

function fps() {
  const span = drawn.at(-1) - drawn[0];
  return drawn.length > 1 && performance.now() - drawn.at(-1) < 2000 ? ((drawn.length - 1) * 1000) / span : 0;
}

function median(values) {
  return values.length ? [...values].sort((a, b) => a - b)[values.length >> 1] : NaN;
}

function showNumbers() {
  at("latency").textContent = latencies.length ? `${Math.round(median(latencies))} ms` : "–";
  at("fps").textContent = connected ? fps().toFixed(1) : "–";
  at("viewers").textContent = connected ? state.viewers : "–";
  at("kind").textContent = video === "h264" ? "H.264" : "JPEG";
}

const WHEEL = { yours: "Let go of the wheel", asked: "Do not wait", taken: "Ask for the wheel", free: "Take the wheel" };
const HINT = {
  yours: "You drive: W A S D, the arrows, or the buttons.",
  asked: "You drive as soon as the driver lets go.",
  taken: "Somebody else drives.",
  free: "Nobody drives: press a key.",
};

function show() {
  const mine = connected && state.wheel === "yours";
  if (connected) status(state.state, state.state);
  for (const button of document.querySelectorAll(".driver")) button.disabled = !mine;
  for (const button of document.querySelectorAll("[data-key]")) {
    button.disabled = !connected || !["yours", "free"].includes(state.wheel);
  }
  at("wheel").disabled = !connected;
  at("wheel").classList.toggle("yours", mine);
  at("wheel").textContent = WHEEL[state.wheel] ?? WHEEL.free;
  const waiting = mine && state.waiting ? ` ${state.waiting} would like to.` : "";
  at("hint").textContent = connected ? (HINT[state.wheel] ?? "") + waiting : "";
  at("run").textContent = state.state === "running" ? "Stop" : "Run";
  at("record").textContent = state.recording ? "Stop recording" : "Record";
  at("record").setAttribute("aria-pressed", String(Boolean(state.recording)));
  at("replay").disabled = !connected || !state.state || state.state === "loading";
  showMoments(mine);
  const notice = state.problem || state.recording_problem || (state.recording ? `recording ${state.recording}` : "");
  at("notice").textContent = notice;
  at("notice").hidden = !connected || !notice;
  at("prompt").placeholder = state.prompt ?? "";
  showNumbers();
}

let momentsShown = "";
function showMoments(mine) {
  const numbers = state.snapshots ?? [];
  if (momentsShown !== String(numbers)) {
    momentsShown = String(numbers);
    at("moments").replaceChildren(
      ...numbers.map((snapshot) => {
        const button = document.createElement("button");
        button.textContent = `Branch from ${snapshot}`;
        button.onclick = () => ask({ type: "restore", snapshot });
        return button;
      }),
    );
  }
  for (const button of at("moments").children) button.disabled = !mine;
}

async function saveReplay() {
  const token = sessionStorage.getItem(TOKEN);
  const answer = await fetch("api/replay", { headers: token ? { Authorization: `Bearer ${token}` } : {} });
  if (!answer.ok) throw new Error((await answer.json()).error);
  const link = document.createElement("a");
  link.href = URL.createObjectURL(await answer.blob());
  link.download = "world.jsonl";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), KEPT_MS);
}

function tell(text) {
  at("answer").classList.toggle("bad", Boolean(text));
  at("answer").textContent = text;
}

function status(text, kind) {
  at("status").textContent = text;
  at("status").dataset.state = kind;
}

async function ask(message) {
  const answer = await link.ask(message);
  tell(answer.type === "error" ? answer.text : "");
  return answer.type !== "error";
}

at("wheel").onclick = () => link.send({ type: "wheel", take: ["free", "taken"].includes(state.wheel) });
at("run").onclick = () => ask({ type: "run", running: state.state !== "running" });
at("reset").onclick = () => ask({ type: "reset" });
at("record").onclick = () => ask({ type: "record", on: !state.recording });
at("keep").onclick = () => ask({ type: "snapshot" });
at("replay").onclick = () => saveReplay().then(() => tell(""), (error) => tell(`the replay: ${error.message}`));
at("prompt-form").onsubmit = async (event) => {
  event.preventDefault();
  const text = at("prompt").value.trim();
  if (text && (await ask({ type: "prompt", text }))) at("prompt").value = "";
};
at("prompt").onkeydown = (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    at("prompt-form").requestSubmit();
  }
};
at("token-form").onsubmit = (event) => {
  event.preventDefault();
  sessionStorage.setItem(TOKEN, at("token").value);
  at("token").value = "";
  link.open();
};

// What tests and other scripts on this page may read.
window.worldrt = {
  get numbers() {
    return { drawn: drawnEver, answered: answeredEver, fps: fps(), latencies_ms: [...latencies], connected, state };
  },
};

show();
setInterval(showNumbers, 500);
link.open();
