//! The `infernet-plane` command. Everything is in the library's [`cli`](infernet_plane::cli).

fn main() -> std::process::ExitCode {
    infernet_plane::cli::main(std::env::args_os())
}
