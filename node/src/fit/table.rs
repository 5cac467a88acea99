//! Common open models, by the size of their file in Ollama's library.

/// A model that many ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Common {
    /// Its name in Ollama's library.
    pub name: &'static str,
    /// Bytes of its file, as the library lists it.
    pub weights: u64,
    /// Layers, key-value heads, size of a head: from the model's own configuration.
    shape: (u64, u64, u64),
    /// What it is good for.
    pub good_for: &'static str,
}

impl Common {
    /// Bytes of keys and values of a token, at 16 bits.
    pub fn cache_per_token(&self) -> u64 {
        let (layers, heads, size) = self.shape;
        2 * layers * heads * size * 2
    }
}

const fn model(name: &'static str, megabytes: u64, shape: (u64, u64, u64), good_for: &'static str) -> Common {
    Common { name, weights: megabytes * 1_000_000, shape, good_for }
}

/// The smallest first.
pub const COMMON: &[Common] = &[
    model("nomic-embed-text", 274, (12, 12, 64), "embeddings"),
    model("llama3.2:1b", 1_300, (16, 8, 64), "short answers on anything"),
    model("llama3.2:3b", 2_000, (28, 8, 128), "chat on small machines"),
    model("qwen3:4b", 2_500, (36, 8, 128), "chat and tools on small machines"),
    model("gemma3:4b", 3_300, (34, 4, 256), "chat and images on small machines"),
    model("qwen2.5-coder:7b", 4_700, (28, 4, 128), "code"),
    model("llama3.1:8b", 4_900, (32, 8, 128), "chat; the most asked for"),
    model("qwen3:8b", 5_200, (36, 8, 128), "chat and tools"),
    model("gemma3:12b", 8_100, (48, 8, 256), "chat and images"),
    model("qwen3:14b", 9_300, (40, 8, 128), "chat, tools, code"),
    model("gpt-oss:20b", 14_000, (24, 8, 64), "reasoning and tools"),
    model("mistral-small:24b", 14_300, (40, 8, 128), "chat and tools"),
    model("gemma3:27b", 17_400, (62, 16, 128), "chat and images"),
    model("qwen3:30b", 18_600, (48, 4, 128), "chat and tools, fast for its size"),
    model("qwen3:32b", 20_200, (64, 8, 128), "reasoning and code"),
    model("llama3.3:70b", 42_500, (80, 8, 128), "chat on large GPUs"),
    model("gpt-oss:120b", 65_400, (36, 8, 64), "reasoning on large GPUs"),
];
