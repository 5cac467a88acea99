//! The models an engine offers: their names, and what `/api/tags`, `/api/ps` and `/api/show` say of them.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use serde_json::{Value, json};

use super::{EngineError, EngineKind, EngineOptions, TinyModel, api::rfc3339};

/// Ollama unloads an idle model after this.
const KEEP_ALIVE: Duration = Duration::from_secs(300);
/// How `/api/show` describes [`TinyModel::chat_prompt`].
const TEMPLATE: &str =
    "{{- range .Messages }}<|im_start|>{{ .Role }}\n{{ .Content }}<|im_end|>\n{{ end }}<|im_start|>assistant\n";
/// A metronome has no window to fill.
const ENDLESS: usize = 1 << 22;
/// What `/api/show` says of the parameters, up to the number of `num_ctx`.
const PARAMETERS: &str = "stop                           \"<|im_start|>\"\nstop                           \"<|im_end|>\"\nnum_ctx                        ";

/// The names of one set of weights.
pub(super) struct Catalog {
    /// Full names, the main one first.
    names: Vec<String>,
    digest: String,
    tensors: Vec<Value>,
    modified: SystemTime,
    /// Tokens of input and output together, as loaded and as trained.
    context: usize,
    trained: usize,
}

impl Catalog {
    pub(super) fn new(options: &EngineOptions, now: SystemTime) -> Result<Self, EngineError> {
        let mut names: Vec<String> = Vec::new();
        for name in std::iter::once(&options.name).chain(&options.aliases) {
            let name = full_name(name);
            if !names.contains(&name) {
                names.push(name);
            }
        }
        let (digest, tensors, context, trained) = match options.kind {
            EngineKind::TinyModel => (TinyModel::load()?.digest().to_owned(), TinyModel::tensors()?, TinyModel::CONTEXT, 2048),
            EngineKind::Metronome { .. } => ("0".repeat(64), Vec::new(), ENDLESS, ENDLESS),
        };
        let tensors = tensors.into_iter().map(|(name, shape)| json!({ "name": name, "type": "F32", "shape": shape }));
        Ok(Self { names, digest, tensors: tensors.collect(), modified: now, context, trained })
    }

    /// Whether a client's `model` is one of ours.
    pub(super) fn has(&self, model: &str) -> bool {
        self.names.contains(&full_name(model))
    }

    /// Body of `/api/tags`.
    pub(super) fn tags(&self) -> Value {
        let models: Vec<Value> = self.names.iter().map(|name| self.tag(name)).collect();
        json!({ "models": models })
    }

    fn tag(&self, name: &str) -> Value {
        let mut details = details();
        details.insert("context_length", json!(self.trained));
        details.insert("embedding_length", json!(128));
        json!({
            "name": name,
            "model": name,
            "modified_at": rfc3339(self.modified),
            "size": TinyModel::size(),
            "digest": self.digest,
            "details": details,
            "capabilities": ["completion"],
        })
    }

    /// Body of `/api/ps`: the weights are always loaded.
    pub(super) fn running(&self, now: SystemTime) -> Value {
        let model = |name: &String| {
            json!({
                "name": name,
                "model": name,
                "size": TinyModel::size(),
                "digest": self.digest,
                "details": details(),
                "expires_at": rfc3339(now + KEEP_ALIVE),
                "size_vram": 0,
                "context_length": self.context,
            })
        };
        let models: Vec<Value> = self.names.iter().map(model).collect();
        json!({ "models": models })
    }

    /// Body of `/api/show`.
    pub(super) fn show(&self, model: &str) -> Value {
        let name = full_name(model);
        json!({
            "modelfile": format!("FROM {name}\nTEMPLATE \"{TEMPLATE}\"\n"),
            "parameters": format!("{PARAMETERS}{}", self.context),
            "template": TEMPLATE,
            "details": details(),
            "model_info": model_info(self.trained),
            "tensors": self.tensors,
            "capabilities": ["completion"],
            "modified_at": rfc3339(self.modified),
        })
    }
}

fn full_name(model: &str) -> String {
    if model.contains(':') { model.to_owned() } else { format!("{model}:latest") }
}

fn details() -> BTreeMap<&'static str, Value> {
    BTreeMap::from([
        ("parent_model", json!("")),
        ("format", json!("safetensors")),
        ("family", json!("llama")),
        ("families", json!(["llama"])),
        ("parameter_size", json!("820K")),
        ("quantization_level", json!("F32")),
    ])
}

fn model_info(trained: usize) -> Value {
    json!({
        "general.architecture": "llama",
        "general.description": "tiny test chat model, trained from self-generated text",
        "general.file_type": 0,
        "general.license": "CC0-1.0",
        "general.parameter_count": 820_352,
        "general.quantization_version": 2,
        "general.size_label": "0.7M",
        "general.type": "model",
        "llama.attention.head_count": 4,
        "llama.attention.head_count_kv": 2,
        "llama.attention.layer_norm_rms_epsilon": 0.00001,
        "llama.block_count": 4,
        "llama.context_length": trained,
        "llama.embedding_length": 128,
        "llama.feed_forward_length": 320,
        "llama.rope.dimension_count": 32,
        "llama.rope.freq_base": 10_000,
        "llama.vocab_size": 512,
        "tokenizer.ggml.add_bos_token": false,
        "tokenizer.ggml.bos_token_id": 0,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.merges": null,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.padding_token_id": 0,
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.token_type": null,
        "tokenizer.ggml.tokens": null,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_without_a_tag_is_the_latest() {
        let options =
            EngineOptions { aliases: vec!["llama3.2:3b".into(), "tiny-chat".into()], ..EngineOptions::metronome(1.0, 1) };
        let catalog = Catalog::new(&options, SystemTime::UNIX_EPOCH).expect("no model to load");
        assert_eq!(catalog.names, ["tiny-chat:latest", "llama3.2:3b"]);
        assert!(catalog.has("tiny-chat") && catalog.has("tiny-chat:latest") && catalog.has("llama3.2:3b"));
        assert!(!catalog.has("llama3.2") && !catalog.has("") && !catalog.has("tiny-chat:1b"));
    }
}
