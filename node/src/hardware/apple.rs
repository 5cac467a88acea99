//! Apple: the GPU is in the processor and has the machine's memory. `sysctl` tells both; how busy and how hot it is only root
//! may ask, so that is not told.

use super::{Gpu, Vendor, tool::Tool};
use std::time::Duration;

/// It answers at once.
const LIMIT: Duration = Duration::from_secs(2);

/// What asks the processor.
#[derive(Default)]
pub(super) struct Apple {
    tool: Tool,
}

impl Apple {
    /// The processor's GPU; none on other machines.
    pub(super) fn read(&mut self) -> Option<Gpu> {
        if !cfg!(all(target_os = "macos", target_arch = "aarch64")) {
            return None;
        }
        parse(&self.tool.output("sysctl", &["-n", "machdep.cpu.brand_string", "hw.memsize"], LIMIT)?)
    }
}

/// Two lines: the processor's name, and the memory in bytes.
fn parse(text: &str) -> Option<Gpu> {
    let mut lines = text.lines();
    let model = lines.next().map(str::trim).filter(|name| !name.is_empty())?.to_owned();
    let memory_bytes = lines.next().and_then(|line| line.trim().parse().ok());
    Some(Gpu { vendor: Vendor::Apple, model, memory_bytes, used_bytes: None, busy_percent: None, celsius: None, watts: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_and_memory_are_two_lines() {
        let gpu = parse("Apple M3 Max\n68719476736\n").expect("a GPU");
        assert_eq!((gpu.model.as_str(), gpu.memory_bytes), ("Apple M3 Max", Some(64 << 30)));
        assert_eq!(parse("Apple M1\n").and_then(|gpu| gpu.memory_bytes), None);
        assert_eq!(parse("\n"), None);
    }
}
