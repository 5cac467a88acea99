# What the scripts here share. They run in the repository's root.
engines="${CARGO_TARGET_DIR:-target}/engines"
mkdir -p "$engines"
engines="$(cd "$engines" && pwd)"
engine=""
trap '[ -z "$engine" ] || kill "$engine" 2>/dev/null || true' EXIT

free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }

# Waits until URL answers, SECONDS at most; shows the end of LOG if it does not.
await() {
    for _ in $(seq "$2"); do
        if curl --silent --fail --noproxy '*' --output /dev/null "$1"; then return; fi
        kill -0 "$engine" 2>/dev/null || break
        sleep 1
    done
    echo "the engine does not answer at $1; the end of $3:" >&2
    tail -n 20 "$3" >&2
    return 1
}

# The engine suite and the demo with ENGINE (KIND=URL) and its MODEL.
try() {
    INFERNET_TEST_ENGINE="$1" INFERNET_TEST_MODEL="$2" cargo test --workspace --locked --test engine real -- --nocapture
    cargo build --quiet --workspace --locked --bin infernet-testnet
    "${CARGO_TARGET_DIR:-target}/debug/infernet-testnet" demo "What is the capital of France?" --engine "$1" "$2"
}
