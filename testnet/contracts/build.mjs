// Compiles the contracts. `node build.mjs` compares with what is committed, `node build.mjs write` replaces it. See build.sh.
import { readFileSync, readdirSync, mkdirSync, writeFileSync } from "node:fs";
import { argv, exit, cwd } from "node:process";
import { join } from "node:path";
import { createRequire } from "node:module";

// Where the sources are; the compiler is in the working directory.
const here = argv[2];
const installed = createRequire(join(cwd(), "package.json"));
const solc = installed("solc"), { keccak256 } = installed("ethers");

const names = ["Channels.sol", ...readdirSync(join(here, "test")).sort().map((name) => `test/${name}`)];
const settings = {
  evmVersion: "cancun",
  optimizer: { enabled: true, runs: 10000 },
  // No hash of the metadata at the end: the same source gives the same bytes, wherever it lies.
  metadata: { appendCBOR: false, bytecodeHash: "none" },
  outputSelection: { "*": { "*": ["abi", "evm.bytecode.object", "evm.deployedBytecode.object"] } },
};
const sources = Object.fromEntries(names.map((name) => [name, { content: readFileSync(join(here, name), "utf8") }]));
const output = JSON.parse(solc.compile(JSON.stringify({ language: "Solidity", sources, settings })));
for (const message of output.errors ?? []) console.error(message.formattedMessage);
if (output.errors?.length) exit(1);

let differs = false;
for (const [file, contracts] of Object.entries(output.contracts)) {
  for (const [name, { abi, evm }] of Object.entries(contracts)) {
    const built = { source: file, compiler: solc.version(), abi, bytecode: `0x${evm.bytecode.object}`, runtime: `0x${evm.deployedBytecode.object}` };
    const text = `${JSON.stringify(built, null, 1)}\n`;
    const path = join(here, "built", `${name}.json`);
    if (argv[3] === "write") {
      mkdirSync(join(here, "built"), { recursive: true });
      writeFileSync(path, text);
      // A node deposits only in the code it knows: CODE_HASH in node/src/settlement/evm/contract.rs.
      console.log(`${name}: ${evm.deployedBytecode.object.length / 2} bytes on the chain, hash ${keccak256(built.runtime)}`);
    } else {
      const same = (() => { try { return readFileSync(path, "utf8") === text; } catch { return false; } })();
      console.log(`${name}: ${same ? "as committed" : "DIFFERS from testnet/contracts/built"}`);
      differs ||= !same;
    }
  }
}
exit(differs ? 1 : 0);
