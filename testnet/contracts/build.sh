#!/usr/bin/env bash
# Compiles the contracts with the pinned compiler, and signs the vectors of vouchers with a pinned library that is not ours.
#
#   testnet/contracts/build.sh            fails if either differs from what is committed by a single byte
#   testnet/contracts/build.sh write      replaces what is committed
#   testnet/contracts/build.sh install    only installs what this and the tests need: compiler, signer, and anvil, a chain
#
# They come from npm, into target/sdk/evm. Exit status 75: they can't be installed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
here="$PWD/testnet/contracts" tools="${CARGO_TARGET_DIR:-target}/sdk/evm"
command -v node >/dev/null && command -v npm >/dev/null || { echo "testnet/contracts/build.sh needs node and npm" >&2; exit 75; }
mkdir -p "$tools"
cp "$here/package.json" "$here/package-lock.json" "$tools"
cd "$tools"
if ! cmp -s package-lock.json installed.json; then
    npm ci --silent --no-audit --no-fund && cp package-lock.json installed.json || exit 75
fi
# npm leaves out what there is not for this platform.
compgen -G "node_modules/@foundry-rs/anvil-*/bin/anvil*" >/dev/null || { echo "there is no anvil for this platform" >&2; exit 75; }
[ "${1:-check}" != install ] || exit 0
node "$here/build.mjs" "$here" "${1:-check}"
node "$here/vectors.mjs" "$here/../../wire/tests/vectors/voucher.json" "${1:-check}"
