//! The `infernet` command. Everything is in the library's [`cli`](infernet_node::cli).

fn main() -> std::process::ExitCode {
    infernet_node::cli::main(std::env::args_os())
}
