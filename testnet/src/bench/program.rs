//! Programs beside this one: `cargo run` builds the one that it runs, and no other.

use super::BenchError;
use std::path::Path;

/// The size of `program` in bytes, or how to build it as this one was.
pub fn size(program: &Path) -> Result<u64, BenchError> {
    let found = std::fs::metadata(program);
    found.map(|found| found.len()).map_err(|error| BenchError::Options(missing(program, &error)))
}

fn missing(program: &Path, error: &std::io::Error) -> String {
    let folder = program.parent().and_then(Path::file_name).unwrap_or_default();
    let profile = match folder.to_str() {
        Some("release") => " --release",
        Some("dist") => " --profile dist",
        _ => "",
    };
    format!("can't use {}: {error}; build it with `cargo build{profile} --workspace`", program.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_lacks_a_program_is_told_how_to_build_it_for_this_build() {
        let check = |program: &str, command: &str| {
            let told = size(Path::new(program)).expect_err("it is not there").to_string();
            assert!(told.contains(program) && told.ends_with(command), "{told}");
        };
        check("/nowhere/release/infernet", "`cargo build --release --workspace`");
        check("/nowhere/debug/infernet", "`cargo build --workspace`");
        check("/nowhere/dist/infernet", "`cargo build --profile dist --workspace`");
    }
}
