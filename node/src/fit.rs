//! What a model needs, and whether a machine has it. Pure.
//!
//! An engine keeps the weights, a cache of keys and values for the context, and buffers to compute in:
//!
//! `weights + context × cache of a token + 512 MiB + weights / 20`
//!
//! The weights are as large as their file. The cache of a token is `2 × layers × key-value heads × head size × 2 bytes`, as
//! llama.cpp allocates it at 16 bits. The rest is what its buffers and a GPU's own context take, rounded up. So it is an estimate,
//! some tenths too high for models whose layers see a window only. Where a file's size is not known yet it is estimated from the
//! model's name: parameters times the bits of its quantisation.

mod table;

pub use table::{COMMON, Common};

use crate::hardware::Reading;
use infernet_wire::model_name;

/// What the buffers and a GPU's context take besides the weights.
const BASE_BYTES: u64 = 512 << 20;
/// The context that a model is judged by: Ollama's default.
pub const USUAL_CONTEXT: u32 = 4_096;
/// Of GPU memory, what a model may fill: the screen and the driver have some.
const GPU_PERCENT: u64 = 95;
/// Of the machine's memory, what a model may fill: everything else lives there too.
const MEMORY_PERCENT: u64 = 75;
/// What a download leaves free on a disk.
pub const DISK_RESERVE: u64 = 2 << 30;
/// Hundredths of a bit for each weight of `Q4_K_M`, what Ollama fetches unless told otherwise.
const USUAL_BITS: u64 = 485;

/// Hundredths of a bit for each weight, by quantisation; mixed ones by the mean over a usual model. From llama.cpp's `quantize`.
const BITS: [(&str, u64); 27] = [
    ("iq1", 190),
    ("iq2", 250),
    ("iq3", 350),
    ("int4", 450),
    ("awq", 450),
    ("gptq", 450),
    ("int8", 850),
    ("q2_k", 296),
    ("q3_k_s", 341),
    ("q3_k_l", 422),
    ("q3_k", 391),
    ("iq4", 446),
    ("q4_0", 455),
    ("q4_1", 500),
    ("q4_k_s", 457),
    ("q4_k", USUAL_BITS),
    ("q5_0", 554),
    ("q5_1", 600),
    ("q5_k", 569),
    ("q6_k", 659),
    ("q8_0", 850),
    ("mxfp4", 450),
    ("fp8", 800),
    ("bf16", 1_600),
    ("fp16", 1_600),
    ("f16", 1_600),
    ("f32", 3_200),
];

/// Where a model would run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fit {
    /// In GPU memory: as fast as the machine can.
    Gpu,
    /// In memory, on the processor or shared with a GPU: slower.
    Memory,
    /// Nowhere here.
    Nowhere,
    /// The machine does not tell how much it has.
    Unknown,
}

impl Fit {
    /// A short stable name.
    pub fn label(self) -> &'static str {
        match self {
            Fit::Gpu => "gpu",
            Fit::Memory => "memory",
            Fit::Nowhere => "nowhere",
            Fit::Unknown => "unknown",
        }
    }
}

/// Bytes of memory that `weights` bytes take with a context whose cache has `cache_per_token` bytes a token, 0 if unknown.
pub fn memory(weights: u64, cache_per_token: u64, context: u32) -> u64 {
    let cache = cache_per_token.saturating_mul(context.into());
    weights.saturating_add(weights / 20).saturating_add(cache).saturating_add(BASE_BYTES)
}

/// Where a model that takes `needs` bytes would run on this machine.
pub fn fit(needs: u64, machine: &Reading) -> Fit {
    fit_within(needs, machine.gpu_memory(), machine.memory_bytes)
}

/// The same for a machine with so many bytes of GPU memory and of memory, as far as they are known.
pub fn fit_within(needs: u64, gpu: Option<u64>, memory: Option<u64>) -> Fit {
    let within = |bytes: u64, percent: u64| needs <= bytes / 100 * percent;
    match (gpu, memory) {
        (Some(gpu), _) if within(gpu, GPU_PERCENT) => Fit::Gpu,
        // Layers that a GPU has no room for stay in memory.
        (gpu, Some(memory)) => {
            if within(memory.saturating_add(gpu.unwrap_or(0)), MEMORY_PERCENT) {
                Fit::Memory
            } else {
                Fit::Nowhere
            }
        }
        (_, None) => Fit::Unknown,
    }
}

/// Bytes of the file of the model called `name`, as far as the name tells.
pub fn file_size(name: &str) -> Option<u64> {
    let lower = name.to_ascii_lowercase();
    Some(weights(parameters(&lower)?, bits(&lower).unwrap_or(USUAL_BITS)))
}

/// Bytes of the weights of a model with so many parameters; `None` if that or what is known of its quantisation tells nothing.
pub fn weights_of(parameters: u64, quantisation: &str) -> Option<u64> {
    Some(weights(parameters, bits(&quantisation.to_ascii_lowercase())?)).filter(|bytes| *bytes > 0)
}

fn weights(parameters: u64, bits: u64) -> u64 {
    u64::try_from(u128::from(parameters) * u128::from(bits) / 800).unwrap_or(u64::MAX)
}

/// Hundredths of a bit, by the longest quantisation that is named in lower case.
fn bits(lower: &str) -> Option<u64> {
    let named = BITS.iter().filter(|(quantisation, _)| lower.contains(quantisation));
    named.max_by_key(|(name, _)| name.len()).map(|(_, bits)| *bits)
}

/// How many parameters a model has by its name: what it says, else the usual size of its family.
fn parameters(name: &str) -> Option<u64> {
    let said = name.rsplit(['/', ':', '-', '_']).find_map(count);
    said.or_else(|| count(&model_name::size(name)?))
}

/// `8b`, `1.5b`, `270m`, `8x7b`. Whatever is beyond a thousand thousand million is none.
fn count(word: &str) -> Option<u64> {
    let (number, unit) = match word.strip_suffix('b') {
        Some(number) => (number, 1e9),
        None => (word.strip_suffix('m')?, 1e6),
    };
    // Experts share what is not theirs: Mixtral 8x7B has 46.7 thousand million.
    let (times, each, part) = match number.split_once('x') {
        Some((times, each)) => (times, each, 5.0 / 6.0),
        None => ("1", number, 1.0),
    };
    let plain = |text: &str| !text.is_empty() && text.chars().all(|c| c.is_ascii_digit() || c == '.');
    let read = |text: &str| plain(text).then(|| text.parse::<f64>().ok()).flatten();
    let count = read(times)? * read(each)? * part * unit;
    (1e6..=1e13).contains(&count).then_some(count as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hardware::{Gpu, Vendor};

    const GIB: u64 = 1 << 30;

    fn machine(gpu: u64, memory: u64) -> Reading {
        let told = |gib: u64| (gib > 0).then_some(gib * GIB);
        let gpu = told(gpu).map(|bytes| Gpu {
            vendor: Vendor::Nvidia,
            model: String::new(),
            memory_bytes: Some(bytes),
            used_bytes: None,
            busy_percent: None,
            celsius: None,
            watts: None,
        });
        Reading { gpus: gpu.into_iter().collect(), memory_bytes: told(memory), ..Reading::default() }
    }

    #[test]
    fn models_weigh_what_they_are_known_to_weigh() {
        // Files of Ollama's library.
        for (quantisation, listed) in [("Q4_K_M", 4_900_000_000u64), ("Q8_0", 8_500_000_000), ("F16", 16_100_000_000)] {
            let bytes = weights_of(8_000_000_000, quantisation).expect(quantisation);
            assert!(bytes.abs_diff(listed) * 100 <= listed * 3, "{quantisation}: {bytes}");
        }
        let eight = |quantisation| weights_of(8, quantisation);
        assert_eq!([eight(""), eight("unknown"), eight("MXFP4"), eight("IQ3_XXS")], [None, None, Some(4), Some(3)]);
        assert_eq!(weights_of(0, "Q4_0"), None);
        assert_eq!(weights_of(u64::MAX, "F32"), Some(u64::MAX));
    }

    #[test]
    fn sizes_by_name_are_near_those_of_the_files() {
        // What Ollama's library lists, in tenths of a gigabyte.
        let check = |name: &str, listed: u64| {
            let estimated = file_size(name).expect(name) / 100_000_000;
            assert!(estimated.abs_diff(listed) * 100 <= listed * 20, "{name}: {estimated} for {listed}");
        };
        check("llama3.1:8b", 49);
        check("llama3.1:70b", 430);
        check("llama3.2", 20);
        check("qwen2.5:14b", 90);
        check("llama3.1:8b-instruct-q8_0", 85);
        check("llama3.1:8b-instruct-fp16", 160);
        check("mixtral:8x7b", 280);
        check("hf.co/bartowski/Llama-3.1-8B-Instruct-GGUF:Q6_K", 66);
    }

    #[test]
    fn names_that_say_nothing_have_no_size() {
        for name in ["mystery", "", "my-model:latest", "x:0b", "x:99999999b", "a:bb", "b", "m", "x:1e3b"] {
            assert_eq!(file_size(name), None, "{name}");
        }
        assert!(file_size("gemma3:270m").is_some_and(|bytes| bytes < GIB));
    }

    #[test]
    fn a_model_runs_where_there_is_room() {
        let check = |needs, gpu, memory, expected| assert_eq!(fit(needs * GIB, &machine(gpu, memory)), expected);
        check(6, 8, 32, Fit::Gpu);
        check(8, 8, 32, Fit::Memory);
        check(26, 8, 32, Fit::Memory);
        check(31, 8, 32, Fit::Nowhere);
        check(13, 0, 16, Fit::Nowhere);
        check(8, 0, 12, Fit::Memory);
        check(9, 8, 0, Fit::Unknown);
        check(1, 0, 0, Fit::Unknown);
    }

    #[test]
    fn needs_are_weights_cache_and_buffers() {
        // Llama 3.1 8B: 128 KiB a token, half a gibibyte for 4096 of them.
        let needs = memory(4_900_000_000, 131_072, USUAL_CONTEXT);
        assert!((6 * GIB / 10 * 9..7 * GIB).contains(&needs), "{needs}");
        assert_eq!(memory(u64::MAX, u64::MAX, u32::MAX), u64::MAX);
    }

    #[test]
    fn the_table_is_in_order_and_agrees_with_the_names() {
        for pair in COMMON.windows(2) {
            assert!(pair[0].weights <= pair[1].weights, "{} before {}", pair[0].name, pair[1].name);
        }
        for model in COMMON.iter().filter(|model| !model.name.contains("embed")) {
            let estimated = file_size(model.name).unwrap_or_else(|| panic!("{}", model.name));
            // Small models are fetched at 8 bits, and have large vocabularies.
            assert!(estimated.abs_diff(model.weights) * 100 <= model.weights * 60, "{}: {estimated}", model.name);
        }
    }
}
