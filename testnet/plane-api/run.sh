#!/usr/bin/env bash
# Asks every route of a plane what its own /openapi.json says may be asked, and much that may not: no answer may be a bug's, and
# each must be one that is described.
#   run.sh PLANE FOLDER [SECONDS] [--store postgres://…]    FOLDER has venv/, with what requirements.txt names
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
binary="$1" folder="$(cd "$2" && pwd)" seconds="${3:-60}"
shift "$(($# < 3 ? $# : 3))"
home="$(mktemp -d)"
trap 'kill "${plane:-}" 2>/dev/null || true; rm -rf "$home"' EXIT
unset http_proxy https_proxy all_proxy HTTP_PROXY HTTPS_PROXY ALL_PROXY

value() { python3 -c 'import json, sys; print(json.loads(sys.stdin.readline())[sys.argv[1]])' "$1"; }
first="$("$binary" --home "$home" --json client fuzz --admin --grant 1000000 "$@" | value key)"
mkfifo "$home/said"
"$binary" --home "$home" --json start --listen 127.0.0.1:0 --watch-listen none --p2p-listen /ip4/127.0.0.1/tcp/0 --mdns false \
    --per-minute 1000000 "$@" >"$home/said" 2>"$home/log" &
plane=$!
url="$(timeout 60 head -n1 "$home/said" | value url)" || { cat "$home/log" >&2; exit 1; }
# One that may all, as often as it likes.
key="$(python3 - "$url" "$first" <<'PY'
import json, sys, urllib.request
url, first = sys.argv[1:]
wish = json.dumps({"name": "fuzz", "scopes": ["jobs", "read", "manage"], "per_minute": 60000}).encode()
headers = {"authorization": f"Bearer {first}", "content-type": "application/json"}
print(json.load(urllib.request.urlopen(urllib.request.Request(url + "/api/v1/keys", wish, headers)))["key"])
PY
)"

cd "$folder"
status=0
timeout $((seconds + 120)) venv/bin/schemathesis --config-file "$here/schemathesis.toml" run "$url/openapi.json" \
    --header "Authorization: Bearer $key" --exclude-path /api/v1/auth/logout --workers 2 --max-time "$seconds" \
    --phases coverage,fuzzing --generation-database none --continue-on-failure --request-timeout 15 --no-color \
    --checks not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance \
    >"$folder/report.txt" 2>&1 || status=$?
kill -0 "$plane" || { echo "plane-api: the plane has ended" >&2; exit 1; }
grep -i panic "$home/log" && { echo "plane-api: something panicked" >&2; exit 1; }
if [ "$status" -ne 0 ]; then
    cat "$folder/report.txt"
    exit "$status"
fi
grep -E "generated|passed" "$folder/report.txt"
