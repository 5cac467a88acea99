//! The `infernet-relay` command. Everything is in the library's [`cli`](infernet_relay::cli).

/// Linux's own keeps the pages that a flood has scattered its last bytes over.
#[cfg(target_os = "linux")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> std::process::ExitCode {
    infernet_relay::cli::main(std::env::args_os())
}
