// A daemon that knows nothing of the mesh, as existing ones speak to a plane: signed requests over HTTP, and nothing else.
import { randomBytes } from "node:crypto";
import { G, N, hex, nodeId, sha256, times } from "./verify.js";

const utf8 = (text) => new TextEncoder().encode(text);
const number = (bytes) => BigInt("0x" + hex(bytes));
const bytes32 = (n) => Uint8Array.from(n.toString(16).padStart(64, "0").match(/../g), (byte) => parseInt(byte, 16));

// BIP-340, for a test: its nonce is random alone.
async function bip340Sign(secret, message) {
  const even = (scalar) => {
    const point = times(G, scalar);
    return [point[1] & 1n ? N - scalar : scalar, bytes32(point[0])];
  };
  const [d, key] = even(secret);
  const [k, r] = even(1n + (number(randomBytes(32)) % (N - 1n)));
  const tag = await sha256(utf8("BIP0340/challenge"));
  const e = number(await sha256(tag, tag, r, key, message)) % N;
  return Uint8Array.of(...r, ...bytes32((k + e * d) % N));
}

export class Daemon {
  constructor(url) {
    this.url = url;
    this.secret = 1n + (number(randomBytes(32)) % (N - 1n));
    this.key = bytes32(times(G, this.secret)[0]);
    this.pubkey = hex(this.key);
    // As whoever knows the x of a key alone writes it.
    this.id = nodeId(Uint8Array.of(2, ...this.key));
  }

  // X-Infernet-Auth of a request.
  async header(method, path, body) {
    const [at, nonce] = [Math.floor(Date.now() / 1000), randomBytes(16).toString("hex")];
    const said = `${method}\n${path}\n${at}\n${nonce}\n${hex(await sha256(utf8(body)))}`;
    const sig = hex(await bip340Sign(this.secret, await sha256(utf8(said))));
    return Buffer.from(JSON.stringify({ v: 1, pubkey: this.pubkey, created_at: at, nonce, sig })).toString("base64url");
  }

  async say(path, body) {
    const text = JSON.stringify(body);
    const headers = { "content-type": "application/json", "x-infernet-auth": await this.header("POST", path, text) };
    const response = await fetch(this.url + path, { method: "POST", headers, body: text });
    const said = await response.json();
    if (!response.ok) throw new Error(`${path}: ${response.status} ${JSON.stringify(said)}`);
    return said.data;
  }

  register() {
    const gpus = [{ vendor: "nvidia", model: "L4", vram_tier: "16-24gb", busy_percent: 37, celsius: 61, watts: 58 }];
    const load = { active_jobs: 1, ram: { total_gb: 64, free_gb: 40 }, vram: { total_gb: 24, free_gb: 20 } };
    const specs = { gpu_count: 1, gpus, served_models: ["qwen2.5:0.5b"], load };
    return this.say("/api/v1/node/register", { role: "provider", node_id: `provider-${this.pubkey.slice(0, 8)}`, name: "a daemon", specs });
  }
}
