#!/usr/bin/env bash
# Runs clients' own libraries, unmodified, against a network that `infernet-testnet api` starts.
#   run.sh BINARY python PYTHON    PYTHON has what python/requirements.txt names
#   run.sh BINARY js FOLDER        FOLDER is a copy of js/ after `npm ci`
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
binary="$1" suite="$2" with="$3"

# The network ends when its stdin is closed, so it never outlives this script.
coproc NETWORK { exec "$binary" api --json; }
network=$NETWORK_PID
trap 'kill "$network" 2>/dev/null || true' EXIT
IFS= read -r -t 120 INFERNET_ENDPOINTS <&"${NETWORK[0]}" || { echo "sdk: the network did not start" >&2; exit 1; }
export INFERNET_ENDPOINTS

# Whatever a proxy is for, it is not for loopback.
unset http_proxy https_proxy all_proxy HTTP_PROXY HTTPS_PROXY ALL_PROXY
case "$suite" in
    python)
        cd "$here/python"
        PYTHONDONTWRITEBYTECODE=1 PYTHONWARNINGS=ignore timeout 180 "$with" -m unittest test_openai test_frameworks
        ;;
    js)
        cd "$with"
        timeout 180 node --test
        ;;
    *)
        echo "sdk: there is no suite $suite: python or js" >&2
        exit 2
        ;;
esac
