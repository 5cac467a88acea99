#!/usr/bin/env bash
# Compiles the contracts with the pinned compiler, and signs the vectors of vouchers with a pinned library that is not ours.
#
#   testnet/contracts/build.sh          fails if either differs from what is committed by a single byte
#   testnet/contracts/build.sh write    replaces what is committed
#
# Both come from npm into target/sdk/contracts. Exit status 75: they can't be installed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
here="$PWD/testnet/contracts" tools="${CARGO_TARGET_DIR:-target}/sdk/contracts"
mkdir -p "$tools"
cp "$here/package.json" "$here/package-lock.json" "$tools"
cd "$tools"
cmp -s package-lock.json installed.json || { npm ci --silent --no-audit --no-fund && cp package-lock.json installed.json; } || exit 75
node "$here/build.mjs" "$here" "${1:-check}"
node "$here/vectors.mjs" "$here/../../wire/tests/vectors/voucher.json" "${1:-check}"
