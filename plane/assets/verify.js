// Checks a receipt as PROTOCOL has it, in the browser: nobody needs to believe the plane that shows it. No library: CBOR of the
// few kinds that statements are made of, tagged SHA-256, and BIP-340 over secp256k1 with whole numbers.

const P = 2n ** 256n - 2n ** 32n - 977n;
export const N = 0xfffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141n;
export const G = [
  0x79be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798n,
  0x483ada7726a3c4655da4fbfc0e1108a8fd17b448a68554199c47d08ffb10d4b8n,
];
const BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz";

const utf8 = (text) => new TextEncoder().encode(text);
const unhex = (text) => Uint8Array.from(text.match(/../g) ?? [], (byte) => parseInt(byte, 16));
export const hex = (bytes) => Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
const number = (bytes) => BigInt("0x" + (hex(bytes) || "0"));
const same = (a, b) => a.length === b.length && a.every((byte, at) => byte === b[at]);

const mod = (a, m = P) => ((a % m) + m) % m;

function power(base, exponent) {
  let result = 1n;
  for (base = mod(base); exponent > 0n; exponent >>= 1n, base = mod(base * base)) {
    if (exponent & 1n) result = mod(result * base);
  }
  return result;
}

function inverse(a) {
  let [r0, r1, s0, s1] = [P, mod(a), 0n, 1n];
  while (r1 !== 0n) {
    const q = r0 / r1;
    [r0, r1, s0, s1] = [r1, r0 - q * r1, s1, s0 - q * s1];
  }
  return mod(s0);
}

// Points are [x, y]; null is the one at infinity.
function add(a, b) {
  if (!a || !b) return a ?? b;
  const [[x1, y1], [x2, y2]] = [a, b];
  if (x1 === x2 && mod(y1 + y2) === 0n) return null;
  const slope = x1 === x2 ? mod(3n * x1 * x1 * inverse(2n * y1)) : mod((y2 - y1) * inverse(x2 - x1));
  const x = mod(slope * slope - x1 - x2);
  return [x, mod(slope * (x1 - x) - y1)];
}

export function times(point, scalar) {
  let sum = null;
  for (; scalar > 0n; scalar >>= 1n, point = add(point, point)) {
    if (scalar & 1n) sum = add(sum, point);
  }
  return sum;
}

// The point with this x and an even y (BIP-340, lift_x).
function lift(x) {
  if (x >= P) return null;
  const square = mod(power(x, 3n) + 7n);
  const y = power(square, (P + 1n) / 4n);
  return mod(y * y) === square ? [x, y & 1n ? P - y : y] : null;
}

export async function sha256(...parts) {
  const bytes = new Uint8Array(parts.reduce((length, part) => length + part.length, 0));
  let at = 0;
  for (const part of parts) {
    bytes.set(part, at);
    at += part.length;
  }
  return new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
}

export async function bip340(key, message, signature) {
  const [point, r, s] = [lift(number(key)), number(signature.slice(0, 32)), number(signature.slice(32))];
  if (!point || signature.length !== 64 || r >= P || s >= N) return false;
  const tag = await sha256(utf8("BIP0340/challenge"));
  const e = mod(number(await sha256(tag, tag, signature.slice(0, 32), key, message)), N);
  const R = add(times(G, s), times(point, mod(-e, N)));
  return R !== null && (R[1] & 1n) === 0n && R[0] === r;
}

function cbor(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  let at = 0;
  const take = (length) => {
    if (at + length > bytes.length) throw new Error("it ends too early");
    at += length;
    return bytes.slice(at - length, at);
  };
  function item(depth) {
    if (depth > 8) throw new Error("it is nested too deeply");
    const [head] = take(1);
    const [major, info] = [head >> 5, head & 31];
    let value = BigInt(info);
    if (info >= 24 && info <= 27) {
      const size = 1 << (info - 24);
      take(size);
      value = size === 8 ? view.getBigUint64(at - 8) : BigInt(size === 4 ? view.getUint32(at - 4) : size === 2 ? view.getUint16(at - 2) : view.getUint8(at - 1));
    } else if (info > 27) {
      throw new Error("it has a length that is not told");
    }
    const count = Number(value);
    switch (major) {
      case 0: return value;
      case 2: return take(count);
      case 3: return new TextDecoder("utf-8", { fatal: true }).decode(take(count));
      case 4: return Array.from({ length: Math.min(count, bytes.length) }, () => item(depth + 1));
      case 5: {
        const map = {};
        for (let n = 0; n < count; n++) {
          const name = item(depth + 1);
          map[name] = item(depth + 1);
        }
        return map;
      }
      case 7:
        if (info === 22) return null;
        if (info === 20 || info === 21) return info === 21;
    }
    throw new Error("it has a kind of value that no statement has");
  }
  const value = item(0);
  if (at !== bytes.length) throw new Error("something follows it");
  return value;
}

// Structs are maps from small whole numbers, in the order of their fields.
const named = (names, map) => Object.fromEntries(names.map((name, at) => [name, map[at]]));
const ENVELOPE = ["major", "minor", "kind", "network", "payload", "signer", "signature"];
const PRICE = ["input", "output"];
const RECEIPT = ["job", "accept", "buyer", "worker", "workload", "model", "weights", "inputTokens", "outputTokens", "price", "amount"];
const COUNTERSIGN = ["receipt", "issued"];

// What an envelope says, if its signer signed it for this network.
async function opened(raw, kind, name, fields, network) {
  const envelope = named(ENVELOPE, cbor(raw));
  if (envelope.major !== 1n || envelope.kind !== BigInt(kind)) throw new Error("it is no " + name);
  if (envelope.network !== network) throw new Error(`it belongs to the network ${envelope.network}, not to ${network}`);
  const parts = [Uint8Array.of(Number(envelope.minor)), utf8(envelope.network), envelope.signer, envelope.payload];
  const tag = await sha256(utf8(`infernet/${name}/1`));
  const measured = parts.flatMap((part) => {
    const length = new Uint8Array(8);
    new DataView(length.buffer).setBigUint64(0, BigInt(part.length));
    return [length, part];
  });
  const digest = await sha256(tag, tag, ...measured);
  if (!(await bip340(envelope.signer.slice(1), digest, envelope.signature))) throw new Error("its signature is not its signer's");
  return { digest, signer: envelope.signer, body: named(fields, cbor(envelope.payload)) };
}

// A node's id as people know it: base58 of its key as libp2p has it.
export function nodeId(key) {
  const bytes = [0x00, 0x25, 0x08, 0x02, 0x12, 0x21, ...key];
  let text = "";
  for (let n = number(Uint8Array.from(bytes)); n > 0n; n /= 58n) text = BASE58[Number(n % 58n)] + text;
  return BASE58[0].repeat(bytes.findIndex((byte) => byte !== 0)) + text;
}

// Throws what is wrong, or tells what was found.
export async function verify({ worker, buyer, digest, network }) {
  if (!globalThis.crypto?.subtle) throw new Error("this page came without TLS, so your browser lends it no SHA-256: open it over https");
  const stated = await opened(unhex(worker), 6, "job-receipt", RECEIPT, network);
  const body = stated.body;
  if (hex(stated.digest) !== digest) throw new Error("it is another receipt than the one shown");
  if (!same(stated.signer, body.worker)) throw new Error("somebody else than the worker signed it");
  const price = named(PRICE, body.price);
  const exact = price.input * body.inputTokens + price.output * body.outputTokens;
  if ((exact + 999_999n) / 1_000_000n !== body.amount) throw new Error("the sum is not the price times the tokens");
  const said = { worker: nodeId(body.worker), buyer: nodeId(body.buyer), amount: body.amount, model: body.model, settled: false };
  if (!buyer) return said;
  const agreed = await opened(unhex(buyer), 7, "countersign", COUNTERSIGN, network);
  if (!same(agreed.signer, body.buyer)) throw new Error("somebody else than the buyer countersigned it");
  if (!same(agreed.body.receipt, stated.digest)) throw new Error("the buyer countersigned another receipt");
  return { ...said, settled: true };
}
