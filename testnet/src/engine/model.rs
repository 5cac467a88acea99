//! The embedded model: text to tokens, tokens to more tokens.
//!
//! Candle's own llama runs the weights as they are. The model is immutable and shared; whatever an answer changes (the
//! key-value cache, the random numbers, text kept back) lives in a `Generation` and dies with it.

use infernet_node::clock;
use std::{
    collections::BTreeSet,
    ops::ControlFlow,
    sync::{Arc, OnceLock},
    time::Duration,
};

use candle_core::{DType, Device, Tensor, safetensors::SliceSafetensors};
use candle_nn::VarBuilder;
use candle_transformers::models::llama::{Cache, Llama, LlamaConfig};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokenizers::Tokenizer;

use super::{
    EngineError,
    sampling::{Sampler, Sampling},
    text::{Fed, TextOut, byte_alphabet, token_bytes},
};

const WEIGHTS: &[u8] = include_bytes!("../../model/model.safetensors");
const CONFIG: &[u8] = include_bytes!("../../model/config.json");
const TOKENIZER: &[u8] = include_bytes!("../../model/tokenizer.json");

/// Tokens of prompt processed between two looks at the cancel flag; a few milliseconds of work.
const PREFILL_CHUNK: usize = 128;
/// Tokens at the start of an overlong prompt that survive its truncation (`num_keep` of llama.cpp).
const KEEP: usize = 4;
/// `<|im_start|>` must never be generated; `<|im_end|>` and `<|endoftext|>` are the ends that the training text has.
const END_TOKENS: [&str; 3] = ["<|im_start|>", "<|im_end|>", "<|endoftext|>"];

/// One turn of a conversation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// `system`, `user` or `assistant`; the model has seen no others.
    pub role: String,
    /// What was said.
    #[serde(default)]
    pub content: String,
}

/// One generated token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// Its number in the vocabulary.
    pub id: u32,
    /// The text that may be sent now: whole characters, no beginning of a stop string. Often that of this token, but
    /// it may be empty or hold that of earlier ones as well.
    pub text: String,
}

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    /// At an end token or a stop string.
    Stop,
    /// At the limit of tokens, or the context window is full.
    Length,
    /// It was cancelled.
    Cancelled,
}

/// The account of one answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Why it ended.
    pub finish: Finish,
    /// Tokens of the prompt.
    pub prompt_tokens: u32,
    /// Tokens generated, an end token included.
    pub eval_count: u32,
    /// The tokens generated, without the end token.
    pub tokens: Vec<u32>,
    /// Time the prompt took.
    pub prompt_eval_duration: Duration,
    /// Time the answer took.
    pub eval_duration: Duration,
}

/// The network, its weights and its tokenizer.
pub struct TinyModel {
    llama: Llama,
    /// An empty cache: cloning it is cheaper than computing its rotary tables anew.
    empty: Cache,
    tokenizer: Tokenizer,
    /// The bytes of each token, by its number.
    vocabulary: Vec<Vec<u8>>,
    ends: BTreeSet<u32>,
    digest: String,
}

impl TinyModel {
    /// Size of the context window. The weights would allow 2 048; the recorded engines that the tests compare with ran
    /// with this.
    pub const CONTEXT: usize = 1024;

    /// The model, loaded once per process and shared.
    pub fn load() -> Result<Arc<Self>, EngineError> {
        static SHARED: OnceLock<Arc<TinyModel>> = OnceLock::new();
        if let Some(model) = SHARED.get() {
            return Ok(Arc::clone(model));
        }
        // Two first callers may both build it; one copy wins.
        let model = Arc::new(Self::build()?);
        Ok(Arc::clone(SHARED.get_or_init(|| model)))
    }

    fn build() -> Result<Self, EngineError> {
        let config = serde_json::from_slice::<LlamaConfig>(CONFIG)?.into_config(false);
        let weights = VarBuilder::from_slice_safetensors(WEIGHTS, DType::F32, &Device::Cpu)?;
        let tokenizer = Tokenizer::from_bytes(TOKENIZER).map_err(|e| EngineError::Tokenizer(e.to_string()))?;
        let alphabet = byte_alphabet();
        let vocabulary = (0..config.vocab_size)
            .map(|id| u32::try_from(id).ok().and_then(|id| tokenizer.id_to_token(id)))
            .map(|token| token_bytes(&token.unwrap_or_default(), &alphabet))
            .collect();
        Ok(Self {
            llama: Llama::load(weights, &config)?,
            empty: Cache::new(true, DType::F32, &config, &Device::Cpu)?,
            vocabulary,
            ends: END_TOKENS.iter().filter_map(|t| tokenizer.token_to_id(t)).collect(),
            digest: hex::encode(Sha256::digest(WEIGHTS)),
            tokenizer,
        })
    }

    /// The ChatML prompt of a conversation, up to where the assistant's answer begins.
    pub fn chat_prompt(messages: &[Message]) -> String {
        let mut prompt = String::new();
        for Message { role, content } in messages {
            prompt.push_str(&format!("<|im_start|>{role}\n{content}<|im_end|>\n"));
        }
        prompt + "<|im_start|>assistant\n"
    }

    /// The tokens of `text`. As in llama.cpp and Ollama, the names of special tokens in it become those tokens.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, EngineError> {
        let encoding = self.tokenizer.encode(text, false);
        encoding.map(|e| e.get_ids().to_vec()).map_err(|e| EngineError::Tokenizer(e.to_string()))
    }

    /// A prompt that leaves room for an answer: one that fills the context window is cut, as llama.cpp does, to its
    /// first few tokens and its last half window.
    pub fn fit(prompt: Vec<u32>) -> Vec<u32> {
        if prompt.len() < Self::CONTEXT {
            return prompt;
        }
        let tail = (Self::CONTEXT - KEEP) / 2;
        let (head, rest) = prompt.split_at(KEEP);
        let (_, tail) = rest.split_at(rest.len() - tail);
        [head, tail].concat()
    }

    /// Generates an answer on the calling thread. `on_token` sees each token as it comes (the end token only if it
    /// lets out text kept back); `cancelled` is asked before each token and every 128 tokens of prompt. At
    /// temperature 0 the same prompt gives the same tokens.
    pub fn generate(
        &self,
        prompt: &[u32],
        sampling: &Sampling,
        cancelled: impl Fn() -> bool,
        mut on_token: impl FnMut(Token),
    ) -> Result<Answer, EngineError> {
        let mut generation = Generation::new(self, prompt, sampling)?;
        let started = clock::instant();
        let prefilled = generation.prefill(prompt, &cancelled)?;
        generation.answer.prompt_eval_duration = started.elapsed();
        let started = clock::instant();
        if let Some(mut logits) = prefilled {
            while generation.choose(&logits, &mut on_token)?.is_continue() && !cancelled() {
                logits = generation.forward()?;
            }
        }
        generation.answer.eval_duration = started.elapsed();
        Ok(generation.answer)
    }

    /// SHA-256 of the weights, in hex.
    pub(super) fn digest(&self) -> &str {
        &self.digest
    }

    /// Bytes of the weights.
    pub(super) fn size() -> usize {
        WEIGHTS.len()
    }

    /// Names and shapes of the weights, for `/api/show`.
    pub(super) fn tensors() -> Result<Vec<(String, Vec<usize>)>, EngineError> {
        let tensors = SliceSafetensors::new(WEIGHTS)?;
        let mut shapes: Vec<_> = tensors.tensors().into_iter().map(|(n, t)| (n, t.shape().to_vec())).collect();
        shapes.sort();
        Ok(shapes)
    }
}

/// The state of one answer.
struct Generation<'a> {
    model: &'a TinyModel,
    cache: Cache,
    sampler: Sampler,
    text: TextOut,
    /// Tokens in the cache.
    position: usize,
    max_tokens: u32,
    /// Its `finish` is `Cancelled` until the answer ends otherwise.
    answer: Answer,
}

impl<'a> Generation<'a> {
    fn new(model: &'a TinyModel, prompt: &[u32], sampling: &Sampling) -> Result<Self, EngineError> {
        let (tokens, context) = (prompt.len(), TinyModel::CONTEXT);
        if prompt.is_empty() {
            return Err(EngineError::EmptyPrompt);
        }
        if tokens >= context {
            return Err(EngineError::PromptTooLong { tokens, context });
        }
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let room = count(context - tokens);
        Ok(Self {
            model,
            cache: model.empty.clone(),
            sampler: Sampler::new(sampling),
            text: TextOut::new(&sampling.stop),
            position: 0,
            max_tokens: sampling.max_tokens.unwrap_or(room).min(room),
            answer: Answer {
                finish: Finish::Cancelled,
                prompt_tokens: count(tokens),
                eval_count: 0,
                tokens: Vec::new(),
                prompt_eval_duration: Duration::ZERO,
                eval_duration: Duration::ZERO,
            },
        })
    }

    /// The logits after the prompt, or `None` if it was cancelled.
    fn prefill(&mut self, prompt: &[u32], cancelled: &impl Fn() -> bool) -> Result<Option<Tensor>, EngineError> {
        let mut logits = None;
        for chunk in prompt.chunks(PREFILL_CHUNK) {
            if cancelled() {
                return Ok(None);
            }
            logits = Some(self.advance(chunk)?);
        }
        Ok(logits)
    }

    /// The logits after the last token chosen.
    fn forward(&mut self) -> Result<Tensor, EngineError> {
        let last: Vec<u32> = self.answer.tokens.last().copied().into_iter().collect();
        self.advance(&last)
    }

    fn advance(&mut self, tokens: &[u32]) -> Result<Tensor, EngineError> {
        let input = Tensor::new(tokens, &Device::Cpu)?.unsqueeze(0)?;
        let logits = self.model.llama.forward(&input, self.position, &mut self.cache)?;
        self.position += tokens.len();
        Ok(logits.squeeze(0)?)
    }

    /// Chooses the next token and says whether there may be another.
    fn choose(&mut self, logits: &Tensor, on_token: &mut impl FnMut(Token)) -> Result<ControlFlow<()>, EngineError> {
        let id = self.sampler.next(logits)?;
        self.answer.eval_count += 1;
        if self.model.ends.contains(&id) {
            let text = self.text.finish();
            if !text.is_empty() {
                on_token(Token { id, text });
            }
            return Ok(self.end(Finish::Stop));
        }
        self.answer.tokens.push(id);
        let index = usize::try_from(id).unwrap_or(usize::MAX);
        let bytes = self.model.vocabulary.get(index).map_or(&[][..], Vec::as_slice);
        let text = match self.text.push(bytes) {
            Fed::Text(text) => text,
            Fed::Stopped(text) => {
                on_token(Token { id, text });
                return Ok(self.end(Finish::Stop));
            }
        };
        if self.answer.eval_count < self.max_tokens {
            on_token(Token { id, text });
            return Ok(ControlFlow::Continue(()));
        }
        let text = text + &self.text.finish();
        on_token(Token { id, text });
        Ok(self.end(Finish::Length))
    }

    fn end(&mut self, finish: Finish) -> ControlFlow<()> {
        self.answer.finish = finish;
        ControlFlow::Break(())
    }
}
