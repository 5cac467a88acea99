// What the receipt page runs, against BIP-340's own vectors and the project's.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { bip340, nodeId, verify } from "../../plane/assets/verify.js";

const unhex = (text) => Uint8Array.from(text.match(/../g) ?? [], (byte) => parseInt(byte, 16));

// https://github.com/bitcoin/bips/blob/master/bip-0340/test-vectors.csv: 0, 5 (no point has this x) and changes of 0.
test("BIP-340's vectors are told apart", async () => {
  const key = "F9308A019258C31049344F85F89D5229B531C845836F99B08601F113BCE036F9";
  const message = "00".repeat(32);
  const signature =
    "E907831F80848D1069A5371B402410364BDF1C5F8307B0084C55F1CE2DCA821525F66A4A85EA8B71E482A74F382D2CE5EBEEE8FDB2172F477DF4900D310536C0";
  const said = (key, message, signature) => bip340(unhex(key), unhex(message), unhex(signature));
  assert.equal(await said(key, message, signature), true);
  assert.equal(await said(key, "01" + message.slice(2), signature), false);
  assert.equal(await said("EEFDEA4CDB677750A420FEE807EACF21EB9898AE79B9768766E4FAA04A2D4A34", message, signature), false);
  assert.equal(await said(key, message, "FF".repeat(32) + signature.slice(64)), false, "r is no field element");
  assert.equal(await said(key, message, signature.slice(0, 64) + "FF".repeat(32)), false, "s is no scalar");
  assert.equal(await said(key, message, signature.slice(2)), false, "too short");
});

const vectors = JSON.parse(readFileSync(new URL("../../wire/tests/vectors/messages.json", import.meta.url)));

test("a node is named as libp2p names it", () => {
  const { public_key: key, peer_id: id } = vectors.node_id;
  assert.equal(nodeId(unhex(key)), id);
});

test("the project's own statements are read", async () => {
  const { envelope: worker, digest, network, body } = vectors.job_receipt;
  const said = await verify({ worker, digest, network });
  assert.deepEqual([said.worker, said.buyer, said.settled], [body.worker, body.buyer, false]);
  // The bytes of both statements, each after its length.
  const both = vectors.signed_receipt;
  const at = both.indexOf(worker);
  const buyer = both.slice(at + worker.length + 6);
  assert.ok(at === 10 && buyer.startsWith("a7"));
  assert.equal((await verify({ worker, buyer, digest, network })).settled, true);
  await assert.rejects(verify({ worker, digest, network: "main" }), /belongs to the network/);
  const { envelope: stranger } = vectors.countersign;
  await assert.rejects(verify({ worker, buyer: stranger, digest, network }), /countersigned/);
  await assert.rejects(verify({ worker: stranger, digest, network }), /is no job-receipt/);
  await assert.rejects(verify({ worker: worker.slice(0, -2), digest, network }), /ends too early/);
});
