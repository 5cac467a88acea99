#!/usr/bin/env bash
# Looks at the dashboard in a real browser, on a network of real processes with a plane.
#   run.sh BINARY FOLDER [SHOTS]    FOLDER is a copy of this one after `npm ci`; SHOTS is where pictures of the pages go
set -euo pipefail
binary="$1" folder="$2" shots="${3:-}"

# The network ends when its stdin is closed, so it never outlives this script.
coproc NETWORK { exec "$binary" up --nodes 4 --json; }
network=$NETWORK_PID
trap 'kill "$network" 2>/dev/null || true' EXIT
IFS= read -r -t 120 rows <&"${NETWORK[0]}" || { echo "dashboard: the network did not start" >&2; exit 1; }

# Whatever a proxy is for, it is not for loopback.
unset http_proxy https_proxy all_proxy HTTP_PROXY HTTPS_PROXY ALL_PROXY
read -r url key < <(node -e 'const plane = JSON.parse(process.argv[1]).find((row) => row.role === "plane"); console.log(plane.api, plane.key)' "$rows")
cd "$folder"
timeout 300 node dashboard.mjs "$url" "$key" ${shots:+"$shots"}
