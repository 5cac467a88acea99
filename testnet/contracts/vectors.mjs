// Signs vouchers with ethers. `node vectors.mjs FILE` compares with FILE, `node vectors.mjs FILE write` replaces it: what our own
// code is tested against was made by somebody else's. See build.sh.
import { readFileSync, writeFileSync } from "node:fs";
import { argv, exit, cwd } from "node:process";
import { join } from "node:path";
import { createRequire } from "node:module";

const { AbiCoder, Signature, TypedDataEncoder, Wallet, ZeroAddress, keccak256 } = createRequire(join(cwd(), "package.json"))("ethers");

const KINDS = {
  voucher: { Voucher: [{ name: "channel", type: "bytes32" }, { name: "job", type: "bytes16" }, { name: "amount", type: "uint96" }] },
  close: { Close: [{ name: "channel", type: "bytes32" }, { name: "amount", type: "uint96" }] },
};
const secret = (byte) => `0x${byte.repeat(32)}`;
const contract = "0x5FbDB2315678afecb367f032d93F642f64180aa3";
const token = "0xA0b86991c6218b36c1d19D4a2e9Eb0cE3606eB48";
const terms = (chain, payer, payee, token, salt) => {
  const kinds = ["uint256", "address", "address", "address", "address", "bytes32"];
  return keccak256(AbiCoder.defaultAbiCoder().encode(kinds, [chain, contract, payer, payee, token, salt]));
};
const bare = (hex) => hex.slice(2);

async function sign(kind, key, chain, contract, message) {
  const wallet = new Wallet(key);
  const domain = { name: "infernet channels", version: "1", chainId: chain, verifyingContract: contract };
  const signature = Signature.from(await wallet.signTypedData(domain, KINDS[kind], message));
  return {
    kind, secret_key: bare(key), signer: wallet.address, chain, contract, channel: bare(message.channel),
    ...(message.job ? { job: bare(message.job) } : {}), amount: String(message.amount),
    digest: bare(TypedDataEncoder.hash(domain, KINDS[kind], message)), signature: bare(signature.compactSerialized),
  };
}

const payer = new Wallet(secret("02")).address, payee = new Wallet(secret("03")).address;
const channels = [
  { chain: 1, token }, { chain: 31337, token: ZeroAddress }, { chain: 8453, token },
].map(({ chain, token }, n) => {
  const salt = secret(`0${n}`);
  return { chain, contract, payer, payee, token, salt: bare(salt), id: bare(terms(chain, payer, payee, token, salt)) };
});
const [first, native, other] = channels.map((channel) => `0x${channel.id}`);
const job = (byte) => `0x${byte.repeat(16)}`;
const signed = [];
const add = async (...what) => signed.push(await sign(...what));
await add("voucher", secret("02"), 1, contract, { channel: first, job: job("07"), amount: 0n });
await add("voucher", secret("02"), 1, contract, { channel: first, job: job("07"), amount: 1n });
await add("voucher", secret("02"), 1, contract, { channel: first, job: job("08"), amount: 123456789n });
await add("voucher", secret("02"), 31337, contract, { channel: native, job: job("ff"), amount: 10n ** 18n });
await add("voucher", secret("09"), 8453, contract, { channel: other, job: job("00"), amount: 2n ** 96n - 1n });
// On the ledger.
await add("voucher", secret("02"), 0, ZeroAddress, { channel: secret("0b"), job: job("07"), amount: 2n ** 64n - 1n });
// Enough of them to meet both parities, and an r or s with leading zeros.
for (let n = 1n; n <= 24n; n += 1n) await add("voucher", secret("04"), 10, contract, { channel: first, job: job("07"), amount: n * 1000n });
await add("close", secret("02"), 1, contract, { channel: first, amount: 123456789n });
await add("close", secret("03"), 1, contract, { channel: first, amount: 123456789n });

const text = `${JSON.stringify({ made_by: "testnet/contracts/vectors.mjs, with ethers 6.17.0", channels, signed }, null, 2)}\n`;
if (argv[3] === "write") {
  writeFileSync(argv[2], text);
} else if (readFileSync(argv[2], "utf8") !== text) {
  console.log("vouchers: DIFFER from wire/tests/vectors/voucher.json");
  exit(1);
} else {
  console.log(`vouchers: ${signed.length} signatures as committed`);
}
