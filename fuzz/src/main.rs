//! One binary for all targets: `INFERNET_FUZZ_TARGET` names the one to run, or is `list`. The rest of the command line is
//! libFuzzer's. Started by `fuzz/run`.

#![no_main]

use std::sync::OnceLock;

/// The target that was asked for.
static TARGET: OnceLock<fn(&[u8])> = OnceLock::new();

libfuzzer_sys::fuzz_target!(
    init: choose(),
    |data: &[u8]| {
        if let Some(target) = TARGET.get() {
            target(data);
        }
    }
);

fn choose() {
    let wanted = std::env::var("INFERNET_FUZZ_TARGET").unwrap_or_default();
    let all = || infernet_wire::fuzz::TARGETS.into_iter().chain(infernet_node::fuzz::TARGETS);
    if let Some((_, target)) = all().find(|(name, _)| *name == wanted) {
        let _ = TARGET.set(target);
        return;
    }
    all().for_each(|(name, _)| println!("{name}"));
    std::process::exit(if wanted == "list" { 0 } else { 2 });
}
