// What pages can't do without a script: stay live, send forms to the API, stream an answer, speak to passkeys and wallets.
import { verify } from "./verify.js";

const $ = (selector, within = document) => within.querySelector(selector);
const csrf = () => $('meta[name="csrf"]')?.content;

function tell(output, text, kind = "") {
  if (!output) return;
  output.className = kind;
  output.replaceChildren(text);
}

async function api(method, path, body) {
  const headers = { "content-type": "application/json" };
  if (csrf()) headers["x-csrf-token"] = csrf();
  const response = await fetch(path, { method, headers, body: body === undefined ? undefined : JSON.stringify(body) });
  const text = await response.text();
  let said;
  try {
    said = text ? JSON.parse(text) : {};
  } catch {
    said = {};
  }
  if (!response.ok) throw new Error(said.error?.message ?? said.error ?? `the plane answered ${response.status}`);
  return said;
}

// Times: how long ago, with the whole behind.
function ago(at, now) {
  const seconds = Math.round((now - at) / 1000);
  const steps = [[60, "s", 1], [3600, "min", 60], [86400, "h", 3600], [Infinity, "d", 86400]];
  const [, unit, size] = steps.find(([most]) => Math.abs(seconds) < most);
  const count = Math.round(Math.abs(seconds) / size);
  if (seconds >= -1 && seconds <= 1) return "now";
  return seconds > 0 ? `${count} ${unit} ago` : `in ${count} ${unit}`;
}

function tick() {
  const now = Date.now();
  for (const time of document.querySelectorAll("time[datetime]")) {
    const at = Date.parse(time.dateTime);
    if (Number.isNaN(at)) continue;
    const text = "whole" in time.dataset ? new Date(at).toLocaleString() : ago(at, now);
    if (time.textContent !== text) time.textContent = text;
    if (!time.title) time.title = new Date(at).toLocaleString();
  }
}

// Live parts. Whoever is in one with the keyboard is not disturbed: what came meanwhile is shown when they leave it.
function live() {
  const dot = $("#live"), text = $("#live-text");
  if (!dot) return;
  const waiting = new Map();
  const show = (id, html) => {
    const part = document.getElementById(id);
    if (!part) return;
    const focused = part.contains(document.activeElement) ? document.activeElement : null;
    if (focused?.matches("button, input, summary")) return waiting.set(id, html);
    waiting.delete(id);
    const place = focused?.matches("a") ? focused.getAttribute("href") : null;
    const scrolled = [...part.querySelectorAll(".scroll")].map((table) => table.scrollLeft);
    part.innerHTML = html;
    part.querySelectorAll(".scroll").forEach((table, n) => (table.scrollLeft = scrolled[n] ?? 0));
    if (place) part.querySelector(`a[href="${CSS.escape(place)}"]`)?.focus();
    tick();
  };
  // The next element has the focus only after this event.
  addEventListener("focusout", () => setTimeout(() => waiting.forEach((html, id) => show(id, html))));
  const source = new EventSource("/live?of=" + encodeURIComponent(location.pathname + location.search));
  source.addEventListener("part", ({ data }) => {
    const { id, html } = JSON.parse(data);
    show(id, html);
  });
  source.addEventListener("asof", ({ data }) => {
    dot.className = "dot on";
    text.innerHTML = "live, as of " + JSON.parse(data).html;
    tick();
  });
  source.onerror = () => {
    dot.className = "dot off";
    text.prepend(text.textContent.startsWith("not live") ? "" : "not live, ");
  };
  addEventListener("pagehide", () => source.close());
  addEventListener("pageshow", ({ persisted }) => persisted && location.reload());
}

// Forms that are requests of the API.
const SHAPES = {
  key: (form) => {
    const number = (name) => (form.get(name) ? Number(form.get(name)) : null);
    const [dollars, days] = [number("per_day"), number("days")];
    return {
      name: form.get("name"),
      scopes: form.getAll("scopes"),
      per_day_micro_usd: dollars === null ? null : Math.round(dollars * 1e6),
      expires_in: days === null ? null : Math.round(days * 86400),
    };
  },
  command: (form, pressed) => ({ command: pressed?.value, args: { model: form.get("model") } }),
};

function shown(said) {
  if (!said.key) return "Done.";
  const secret = document.createElement("code");
  secret.className = "secret";
  secret.textContent = said.key;
  const copy = document.createElement("button");
  copy.type = "button";
  copy.textContent = "Copy";
  copy.onclick = () => navigator.clipboard.writeText(said.key).then(() => (copy.textContent = "Copied"));
  const all = document.createElement("span");
  all.append("Keep it now: it is not shown again.", secret, copy);
  return all;
}

async function sent(form, pressed) {
  const [method, path] = form.dataset.api.split(" ");
  const output = $("output", form);
  if (form.dataset.sure && !confirm(form.dataset.sure)) return;
  const shape = SHAPES[form.dataset.shape];
  tell(output, "…");
  try {
    const said = await api(method, path, shape ? shape(new FormData(form), pressed) : undefined);
    tell(output, shown(said), "good");
    if (form.dataset.then) location.assign(form.dataset.then);
  } catch (error) {
    tell(output, error.message, "bad");
  }
  // What it is about may be live, and waits until nobody is in it.
  pressed?.blur();
}

async function verified(form) {
  const output = $("output", form);
  tell(output, "…");
  try {
    const { worker, buyer, digest, network } = form.dataset;
    const found = await verify({ worker, buyer, digest, network });
    const both = found.settled ? "Both signatures are good" : "The worker's signature is good; the buyer has not signed";
    tell(output, `${both}: ${found.amount} micro-USD for ${found.model}.`, "good");
  } catch (error) {
    tell(output, "Not verified: " + error.message, "bad");
  }
}

addEventListener("submit", (event) => {
  const form = event.target;
  if (form.dataset.api) {
    event.preventDefault();
    sent(form, event.submitter);
  } else if ("key" in form.dataset) {
    event.preventDefault();
    byKey(form);
  } else if ("verify" in form.dataset) {
    event.preventDefault();
    verified(form);
  }
});

// The chat page. The answer is followed over server-sent events, which come back by themselves and lose nothing.
function chat() {
  const form = $("#chat"), talk = $("#talk"), stop = $("#stop");
  if (!form) return;
  const output = $("output", form), ask = $('button[type="submit"]', form), message = form.elements.message;
  let history = [], running = null;
  const said = (who) => {
    const turn = document.createElement("div");
    turn.className = "said " + who;
    turn.append(document.createElement("p"), document.createElement("small"));
    talk.append(turn);
    return turn;
  };
  const ended = () => {
    running?.source.close();
    running = null;
    ask.disabled = false;
    stop.hidden = true;
    message.focus();
  };
  const follow = (job, turn) => {
    const text = $("p", turn), note = $("small", turn);
    const source = new EventSource(job.stream_url);
    running = { id: job.id, source };
    // A stream that breaks off comes back by itself; one that is closed was refused.
    source.onerror = () => {
      if (source.readyState !== EventSource.CLOSED) return;
      tell(output, "The answer can't be followed any more: its job's page tells how it ended.", "bad");
      if (text.textContent) history.push({ role: "assistant", content: text.textContent });
      else history.pop();
      ended();
    };
    source.onmessage = async ({ data }) => {
      if (data !== "[DONE]") {
        const piece = JSON.parse(data);
        if (piece.text !== undefined) {
          text.append(piece.text);
          return;
        }
        const bad = document.createElement("span");
        bad.className = "bad";
        bad.textContent = piece.message;
        note.append(bad, " ");
      }
      source.onerror = null;
      source.close();
      history.push({ role: "assistant", content: text.textContent });
      try {
        const view = await api("GET", "/api/v1/jobs/" + job.id);
        const facts = [
          view.node_id && `node …${view.node_id.slice(-8)}`,
          view.result?.usage && `${view.result.usage.prompt_tokens} + ${view.result.usage.completion_tokens} tokens`,
          view.ttft_ms !== null && `first after ${view.ttft_ms} ms`,
          view.cost_micro_usd !== null && `$${(view.cost_micro_usd / 1e6).toFixed(6)}`,
        ];
        const link = document.createElement("a");
        link.href = "/jobs/" + job.id;
        link.textContent = "job";
        note.append(facts.filter(Boolean).join(" · "), " · ", link);
      } catch {
        // The answer is what counts.
      }
      tell(output, "");
      ended();
    };
  };
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (running) return;
    const fields = new FormData(form);
    const dollars = fields.get("max_price");
    history.push({ role: "user", content: fields.get("message") });
    const asked = {
      model: fields.get("model"),
      messages: history,
      max_tokens: Number(fields.get("max_tokens")),
      temperature: Number(fields.get("temperature")),
      ...(dollars ? { max_price: Math.round(Number(dollars) * 1e6) } : {}),
    };
    ask.disabled = true;
    tell(output, "auction …");
    try {
      const job = await api("POST", "/api/v1/jobs", asked);
      $("p", said("me")).textContent = fields.get("message");
      message.value = "";
      stop.hidden = false;
      follow(job, said("it"));
    } catch (error) {
      history.pop();
      tell(output, error.message, "bad");
      ask.disabled = false;
    }
  });
  stop.addEventListener("click", () => running && api("DELETE", "/api/v1/jobs/" + running.id).catch((error) => tell(output, error.message, "bad")));
  message.addEventListener("keydown", (event) => event.key === "Enter" && (event.ctrlKey || event.metaKey) && form.requestSubmit());
}

// Signing in.
const bytes = (text) => Uint8Array.from(atob(text.replaceAll("-", "+").replaceAll("_", "/")), (c) => c.charCodeAt(0));
const base64 = (buffer) => btoa(String.fromCharCode(...new Uint8Array(buffer))).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");

const WAYS = {
  async register() {
    const { id, options } = await api("POST", "/api/v1/auth/passkey/register/start");
    options.challenge = bytes(options.challenge);
    options.user.id = bytes(options.user.id);
    const { rawId, response } = await navigator.credentials.create({ publicKey: options });
    const said = {
      clientDataJSON: base64(response.clientDataJSON),
      authenticatorData: base64(response.getAuthenticatorData()),
      publicKey: base64(response.getPublicKey()),
    };
    await api("POST", "/api/v1/auth/passkey/register/finish", { id, credential: { id: base64(rawId), response: said } });
  },
  async passkey() {
    const { id, options } = await api("POST", "/api/v1/auth/passkey/start");
    options.challenge = bytes(options.challenge);
    const { rawId, response } = await navigator.credentials.get({ publicKey: options });
    const said = {
      clientDataJSON: base64(response.clientDataJSON),
      authenticatorData: base64(response.authenticatorData),
      signature: base64(response.signature),
    };
    await api("POST", "/api/v1/auth/passkey/finish", { id, credential: { id: base64(rawId), response: said } });
  },
  async evm() {
    if (!window.ethereum) throw new Error("this browser has no Ethereum wallet: install one, such as MetaMask, and load the page again");
    const [address] = await window.ethereum.request({ method: "eth_requestAccounts" });
    const { id, message } = await api("POST", "/api/v1/auth/wallet/start", { chain: "evm", address });
    const signature = await window.ethereum.request({ method: "personal_sign", params: [message, address] });
    await api("POST", "/api/v1/auth/wallet/finish", { id, signature });
  },
  async solana() {
    if (!window.solana) throw new Error("this browser has no Solana wallet: install one, such as Phantom, and load the page again");
    const { publicKey } = await window.solana.connect();
    const { id, message } = await api("POST", "/api/v1/auth/wallet/start", { chain: "solana", address: publicKey.toString() });
    const { signature } = await window.solana.signMessage(new TextEncoder().encode(message), "utf8");
    const text = Array.from(new Uint8Array(signature), (byte) => byte.toString(16).padStart(2, "0")).join("");
    await api("POST", "/api/v1/auth/wallet/finish", { id, signature: text });
  },
};

async function byKey(form) {
  const output = $("output", form);
  const response = await fetch("/api/v1/auth/session", { method: "POST", headers: { authorization: "Bearer " + form.elements.key.value.trim() } });
  if (response.ok) return location.assign(form.dataset.next);
  tell(output, (await response.json().catch(() => ({}))).error?.message ?? `the plane answered ${response.status}`, "bad");
}

for (const button of document.querySelectorAll("[data-sign]")) {
  button.addEventListener("click", async () => {
    const output = $("output", button.parentElement);
    tell(output, "…");
    try {
      if (!navigator.credentials && button.dataset.sign.match(/passkey|register/)) {
        throw new Error("this page came without TLS, so your browser lends it no passkeys: open it over https");
      }
      await WAYS[button.dataset.sign]();
      location.assign(button.closest("[data-next]")?.dataset.next ?? location.pathname);
    } catch (error) {
      tell(output, error.message, "bad");
    }
  });
}

tick();
setInterval(tick, 1000);
live();
chat();
