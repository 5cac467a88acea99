//! Models' names: whether two of them mean the same weights.
//!
//! Ollama says `llama3.1:8b`, Hugging Face `meta-llama/Llama-3.1-8B-Instruct`, a re-packager
//! `bartowski/Meta-Llama-3.1-8B-Instruct-GGUF:Q4_K_M`. A name of a **known family** is taken apart:
//!
//! | part | rule |
//! |---|---|
//! | organisation, format (`GGUF`, `hf`, `MLX`), letters' case, `-` `_` `:` | no matter |
//! | family, version, size | must be equal; a missing size is the one that Ollama means (`llama3.2` is 3B) |
//! | tuned for chat, or base | must be equal; if not said: Ollama means chat, and so does the maker unless the family's bare name is its base |
//! | other words (`coder`, `vl`, `vision`, `nemo`, `distill`, `abliterated`) | must be equal, in any order |
//! | release (`v0.3`, `2407`), quantisation (`Q4_K_M`, `awq`) | only if the asker names one |
//!
//! A name of no known family is compared as it is, but for case, separators, format and quantisation: too little is known of it to
//! say more. When in doubt names do not meet; an operator can always give a model another name.

use std::collections::BTreeSet;

/// Families whose names are understood; each is the letters that a name begins with.
const FAMILIES: [&str; 27] = [
    "codegemma",
    "codellama",
    "codestral",
    "command",
    "deepseek",
    "devstral",
    "falcon",
    "gemma",
    "glm",
    "gpt",
    "granite",
    "internlm",
    "llama",
    "magistral",
    "ministral",
    "mistral",
    "mixtral",
    "nemotron",
    "olmo",
    "phi",
    "pixtral",
    "qwen",
    "qwq",
    "smollm",
    "starcoder",
    "tinyllama",
    "vicuna",
];

/// Makers' names that some put before the model's.
const MAKERS: [&str; 9] = ["meta", "google", "microsoft", "ibm", "openai", "mistralai", "huggingfacetb", "nvidia", "alibaba"];

/// Hosts and namespaces that are no maker.
const HOSTS: [&str; 5] = ["hf.co", "huggingface.co", "registry.ollama.ai", "ollama.com", "library"];

/// How the weights are packed: the same weights, or as good as.
const FORMATS: [&str; 13] =
    ["dynamic", "gguf", "ggml", "hf", "mlx", "onnx", "safetensors", "imatrix", "i1", "ud", "qat", "bnb", "unsloth"];

/// Quantisations that are words of their own.
const QUANTISATIONS: [&str; 17] = [
    "awq", "gptq", "exl2", "exl3", "fp4", "fp8", "fp16", "f16", "f32", "fp32", "bf16", "int4", "int8", "nvfp4", "mxfp4",
    "4bit", "8bit",
];

/// Sizes that are meant where none is named: family, version, other words, size. From Ollama's library, where a name alone is
/// its `latest`, and from models that come in one size.
const USUAL_SIZES: [(&str, &str, &str, &str); 32] = [
    ("llama", "2", "", "7b"),
    ("llama", "3", "", "8b"),
    ("llama", "3.1", "", "8b"),
    ("llama", "3.2", "", "3b"),
    ("llama", "3.2", "vision", "11b"),
    ("llama", "3.3", "", "70b"),
    ("codellama", "", "", "7b"),
    ("tinyllama", "", "", "1.1b"),
    ("qwen", "2", "", "7b"),
    ("qwen", "2.5", "", "7b"),
    ("qwen", "2.5", "coder", "7b"),
    ("qwen", "2.5", "vl", "7b"),
    ("qwen", "3", "", "8b"),
    ("qwen", "3", "coder", "30b"),
    ("qwq", "", "", "32b"),
    ("mistral", "", "", "7b"),
    ("mistral", "", "nemo", "12b"),
    ("mistral", "", "large", "123b"),
    ("mixtral", "", "", "8x7b"),
    ("codestral", "", "", "22b"),
    ("devstral", "", "", "24b"),
    ("gemma", "2", "", "9b"),
    ("gemma", "3", "", "4b"),
    ("phi", "3", "", "3.8b"),
    ("phi", "3.5", "", "3.8b"),
    ("phi", "4", "", "14b"),
    ("gpt", "", "oss", "20b"),
    ("smollm", "2", "", "1.7b"),
    ("deepseek", "v3", "", "671b"),
    ("granite", "3.1", "", "8b"),
    ("granite", "3.2", "", "8b"),
    ("granite", "3.3", "", "8b"),
];

/// Whether a buyer who asks for `asked` means the model that is offered as `offered`, whose quantisation the engine may tell.
pub fn meets(asked: &str, offered: &str, quantisation: &str) -> bool {
    if same(asked, offered) {
        return true;
    }
    // Most of a catalogue is of other families; that costs nothing to see.
    if !family_letters(asked).eq_ignore_ascii_case(family_letters(offered)) {
        return false;
    }
    let (asked, offered) = (ModelName::parse(asked), ModelName::parse(offered));
    let quantised = asked.quantisation.is_empty()
        || asked.quantisation == offered.quantisation
        || asked.quantisation == plain(&quantisation.to_ascii_lowercase());
    quantised && (asked.release.is_empty() || asked.release == offered.release) && asked.weights() == offered.weights()
}

/// The size of the weights that `name` means, such as `8b`, `8x7b` or `270m`: the one it says, else the usual one of its family.
/// `None` if neither is known.
pub fn size(name: &str) -> Option<String> {
    let size = ModelName::parse(name).size;
    (!size.is_empty()).then_some(size)
}

/// Whether both are one name as engines mean it: capitals don't matter, and Ollama's `:latest` may be left out. What other names
/// one model has is [`meets`]'s to know.
pub fn same(one: &str, other: &str) -> bool {
    latest(one).eq_ignore_ascii_case(latest(other))
}

/// `name` without Ollama's tag for "no tag".
pub fn latest(name: &str) -> &str {
    name.strip_suffix(":latest").unwrap_or(name)
}

/// The letters with which the model's own name begins.
fn family_letters(name: &str) -> &str {
    let own = name.rsplit('/').next().unwrap_or(name);
    let begins_with = |maker: &str| own.get(..maker.len()).is_some_and(|start| start.eq_ignore_ascii_case(maker));
    let maker = MAKERS.iter().find(|maker| begins_with(maker)).map_or(0, |maker| maker.len());
    let own = match own.get(maker..) {
        Some(rest) if maker > 0 => rest.strip_prefix(['-', '_']).unwrap_or(own),
        _ => own,
    };
    own.split(|c: char| !c.is_ascii_alphabetic()).next().unwrap_or(own)
}

/// A name taken apart, all in lower case.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct ModelName {
    /// Kept only if nothing else is understood.
    organisation: String,
    known: bool,
    family: String,
    version: String,
    size: String,
    base: Option<bool>,
    words: BTreeSet<String>,
    release: String,
    quantisation: String,
}

impl ModelName {
    fn parse(name: &str) -> Self {
        let name = latest(name).to_ascii_lowercase();
        let mut path: Vec<&str> = name.split('/').filter(|part| !HOSTS.contains(part)).collect();
        let own = path.pop().unwrap_or_default();
        let organisation = path.join("/");
        let (stem, tag) = own.split_once(':').unwrap_or((own, ""));
        let mut parsed = ModelName { known: FAMILIES.contains(&family_letters(own)), ..ModelName::default() };
        let mut pieces = parsed.pieces(stem);
        if pieces.len() > 1 && pieces.first().is_some_and(|first| MAKERS.contains(&first.as_str())) {
            pieces.remove(0);
        }
        let tagged = parsed.pieces(tag);
        if !parsed.known {
            pieces.extend(tagged);
            return ModelName { organisation, family: pieces.join("-"), ..parsed };
        }
        parsed.read_family(&mut pieces);
        pieces.iter().for_each(|piece| parsed.read(piece, false));
        tagged.iter().for_each(|piece| parsed.read(piece, true));
        parsed.settle(!organisation.is_empty());
        parsed
    }

    /// What decides which weights are meant, releases apart.
    fn weights(&self) -> (&str, &str, &str, &str, Option<bool>, &BTreeSet<String>) {
        (&self.organisation, &self.family, &self.version, &self.size, self.base, &self.words)
    }

    /// The pieces of `text`, without formats and with the quantisation noted.
    fn pieces(&mut self, text: &str) -> Vec<String> {
        let mut pieces = Vec::new();
        for token in text.split(['-', ' ']).filter(|token| !token.is_empty()) {
            let rest = self.without_quantisation(token);
            let parts = split_words(rest).into_iter().filter(|part| !FORMATS.contains(&part.as_str()));
            pieces.extend(parts);
        }
        pieces
    }

    /// `token` up to the quantisation at its end, which is noted.
    fn without_quantisation<'a>(&mut self, token: &'a str) -> &'a str {
        let token = token.strip_prefix("quantized.").unwrap_or(token);
        let starts = std::iter::once(0).chain(token.match_indices('_').map(|(at, _)| at + 1));
        for start in starts {
            if let Some(end) = token.get(start..).filter(|end| is_quantisation(end)) {
                self.quantisation = plain(end);
                return token.get(..start.saturating_sub(1)).unwrap_or_default();
            }
        }
        token
    }

    /// The family from the first piece: letters, then perhaps its version, then perhaps a word, as in `qwen2.5vl`.
    fn read_family(&mut self, pieces: &mut Vec<String>) {
        if pieces.is_empty() {
            return;
        }
        let first = pieces.remove(0);
        let (letters, rest) = split_letters(&first);
        let (number, word) = split_number(rest);
        (self.family, self.version) = (letters.to_owned(), number.to_owned());
        self.add_word(word);
    }

    fn read(&mut self, piece: &str, in_tag: bool) {
        let (letters, rest) = split_letters(piece);
        let (number, tail) = split_number(rest);
        let named_version = matches!(letters, "v" | "r") && !number.is_empty() && tail.is_empty();
        match piece {
            "instruct" | "instruction" | "it" | "chat" | "inst" => self.base = Some(false),
            "base" | "pt" | "pretrained" => self.base = Some(true),
            "text" if in_tag => self.base = Some(true),
            _ if is_size(piece) && self.size.is_empty() => self.size = piece.to_owned(),
            _ if letters == "a" && is_size(rest) && !self.size.is_empty() => {}
            _ if named_version && self.family == "deepseek" && self.version.is_empty() => self.version = piece.to_owned(),
            _ if named_version && letters == "v" => self.release = piece.to_owned(),
            _ if is_number(piece) && piece.len() >= 4 && !piece.contains('.') => self.release = piece.to_owned(),
            _ if !number.is_empty() && !is_size(rest) && self.version.is_empty() && self.size.is_empty() => {
                self.version = number.to_owned();
                self.add_word(letters);
                self.add_word(tail);
            }
            _ => self.add_word(piece),
        }
    }

    fn add_word(&mut self, word: &str) {
        if !word.is_empty() {
            self.words.insert(word.to_owned());
        }
    }

    /// What the name leaves unsaid, and where two ways to say the same are known.
    fn settle(&mut self, by_maker: bool) {
        match (self.family.as_str(), self.version.as_str()) {
            ("phi", _) => self.size_by_word(&[("mini", "3.8b"), ("medium", "14b")]),
            ("granite", _) => _ = self.words.remove("dense"),
            ("deepseek", "r1") => self.settle_r1(),
            _ => {}
        }
        if self.size.is_empty() {
            let words = self.words.iter().map(String::as_str).collect::<Vec<_>>().join(" ");
            let usual = USUAL_SIZES.iter().find(|(f, v, w, _)| (*f, *v, *w) == (&self.family, &self.version, &words));
            self.size = usual.map_or("", |(.., size)| size).to_owned();
        }
        self.base.get_or_insert(by_maker && bare_is_base(&self.family, &self.version));
    }

    fn size_by_word(&mut self, sizes: &[(&str, &str)]) {
        for (word, size) in sizes {
            if self.words.remove(*word) && self.size.is_empty() {
                self.size = (*size).to_owned();
            }
        }
    }

    /// Ollama's sizes of R1 below the whole are distilled into other models. Of 8B there were two; that name stays on its own.
    fn settle_r1(&mut self) {
        let into = match self.size.as_str() {
            "1.5b" | "7b" | "14b" | "32b" => "qwen",
            "70b" => "llama",
            _ => return,
        };
        if self.words.is_empty() {
            self.words = ["distill", into].map(str::to_owned).into();
        }
    }
}

/// Whether the maker's name without a suffix is the base model. Newer families name the base instead.
fn bare_is_base(family: &str, version: &str) -> bool {
    match family {
        "qwen" => matches!(version, "" | "1.5" | "2" | "2.5"),
        "llama" | "codellama" | "mistral" | "mixtral" | "gemma" | "codegemma" | "smollm" | "falcon" | "olmo" | "starcoder" => {
            true
        }
        _ => false,
    }
}

/// `q4_k_m`, `iq2_xxs`, `w4a16` and the words for it.
fn is_quantisation(text: &str) -> bool {
    let digit_after =
        |prefix: &str| text.strip_prefix(prefix).is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
    let bits = digit_after("q") || digit_after("iq") || digit_after("w") && text.contains('a');
    let known = |c: char| c.is_ascii_digit() || "qiwaklmsxn_0".contains(c);
    QUANTISATIONS.contains(&text) || bits && text.chars().all(known)
}

/// Without the separators that some leave out.
fn plain(quantisation: &str) -> String {
    quantisation.replace('_', "")
}

/// The words of a token with underscores; one between digits is a decimal point.
fn split_words(token: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    for word in token.split('_').filter(|word| !word.is_empty()) {
        match words.last_mut() {
            Some(last) if is_number(word) && last.ends_with(|c: char| c.is_ascii_digit()) && !last.contains('.') => {
                last.push('.');
                last.push_str(word);
            }
            _ => words.push(word.to_owned()),
        }
    }
    words
}

fn split_letters(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(text.len()))
}

fn split_number(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len()))
}

fn is_number(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_digit()) && split_number(text).1.is_empty()
}

/// `8b`, `0.5b`, `135m`, `8x7b`.
fn is_size(text: &str) -> bool {
    let Some(number) = text.strip_suffix(['b', 'm']) else { return false };
    number.split('x').all(is_number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_said_or_usual() {
        let check = |name: &str, expected: Option<&str>| assert_eq!(size(name).as_deref(), expected, "{name}");
        check("llama3.2", Some("3b"));
        check("llama3.1:70b", Some("70b"));
        check("mixtral", Some("8x7b"));
        check("meta-llama/Llama-3.1-8B-Instruct", Some("8b"));
        check("my-own-model", None);
    }

    /// Names of the same weights: each finds each, unless it names a release or quantisation that the other does not.
    fn same(names: &[&str]) {
        for asked in names {
            for offered in names {
                assert!(
                    meets(asked, offered, ""),
                    "{asked} → {offered}: {:?} {:?}",
                    ModelName::parse(asked),
                    ModelName::parse(offered)
                );
            }
        }
    }

    fn finds(asked: &str, offered: &str) {
        assert!(
            meets(asked, offered, ""),
            "{asked} → {offered}: {:?} {:?}",
            ModelName::parse(asked),
            ModelName::parse(offered)
        );
    }

    fn differ(a: &str, b: &str) {
        assert!(!meets(a, b, "") && !meets(b, a, ""), "{a}, {b}: {:?}", ModelName::parse(a));
    }

    #[test]
    fn the_same_weights_meet_under_their_many_names() {
        same(&[
            "llama3.1:8b",
            "llama3.1",
            "meta-llama/Llama-3.1-8B-Instruct",
            "meta-llama/Meta-Llama-3.1-8B-Instruct",
            "Llama_3.1_8B_Instruct",
            "llama-3.1:8b-instruct",
            "nvidia/Llama-3_1-8B-Instruct",
        ]);
        same(&["llama3:8b", "llama3", "meta-llama/Meta-Llama-3-8B-Instruct"]);
        same(&["llama3.2", "llama3.2:3b", "meta-llama/Llama-3.2-3B-Instruct", "unsloth/Llama-3.2-3B-Instruct-GGUF"]);
        same(&["llama3.2-vision", "llama3.2-vision:11b", "meta-llama/Llama-3.2-11B-Vision-Instruct"]);
        same(&["llama3.3", "llama3.3:70b", "meta-llama/Llama-3.3-70B-Instruct"]);
        same(&["llama2", "llama2:7b-chat", "meta-llama/Llama-2-7b-chat-hf"]);
        same(&["codellama:7b", "codellama", "codellama/CodeLlama-7b-Instruct-hf"]);
        same(&["tinyllama", "tinyllama:1.1b"]);
        same(&["qwen2.5:7b", "qwen2.5", "Qwen/Qwen2.5-7B-Instruct", "qwen2.5:7b-instruct"]);
        same(&["qwen2.5-coder:7b", "Qwen/Qwen2.5-Coder-7B-Instruct", "qwen2.5-coder"]);
        same(&["qwen2.5vl:7b", "Qwen/Qwen2.5-VL-7B-Instruct", "qwen2.5-vl:7b"]);
        same(&["qwen3:8b", "qwen3", "Qwen/Qwen3-8B"]);
        same(&["qwen3:30b", "Qwen/Qwen3-30B-A3B", "qwen3:30b-a3b"]);
        same(&["qwen3-coder:30b", "Qwen/Qwen3-Coder-30B-A3B-Instruct"]);
        same(&["qwq", "qwq:32b", "Qwen/QwQ-32B"]);
        same(&["gemma3:4b", "gemma3", "google/gemma-3-4b-it"]);
        same(&["gemma2", "gemma2:9b", "google/gemma-2-9b-it", "google_gemma-2-9b-it"]);
        same(&["gemma3n:e4b", "google/gemma-3n-E4B-it"]);
        same(&["phi4", "phi4:14b", "microsoft/phi-4"]);
        same(&["phi4-mini", "phi4-mini:3.8b", "microsoft/Phi-4-mini-instruct"]);
        same(&["phi3.5", "phi3.5:3.8b", "microsoft/Phi-3.5-mini-instruct"]);
        same(&["gpt-oss:20b", "gpt-oss", "openai/gpt-oss-20b"]);
        same(&["smollm2:1.7b", "smollm2", "HuggingFaceTB/SmolLM2-1.7B-Instruct"]);
        same(&["smollm2:135m", "HuggingFaceTB/SmolLM2-135M-Instruct"]);
        same(&["granite3.1-dense:8b", "ibm-granite/granite-3.1-8b-instruct"]);
        same(&["deepseek-r1:7b", "deepseek-ai/DeepSeek-R1-Distill-Qwen-7B", "deepseek-r1:7b-qwen-distill"]);
        same(&["deepseek-r1:70b", "deepseek-ai/DeepSeek-R1-Distill-Llama-70B"]);
        same(&["deepseek-v3", "deepseek-v3:671b", "deepseek-ai/DeepSeek-V3"]);
        same(&["tiny-chat", "TINY_chat:latest", "tiny-chat-GGUF"]);
    }

    #[test]
    fn latest_may_be_left_out_and_no_other_tag() {
        for (one, other, expected) in [
            ("llama3.2", "llama3.2:latest", true),
            ("Llama3.2:latest", "llama3.2", true),
            ("llama3.2", "llama3.2", true),
            ("llama3.2:1b", "llama3.2", false),
            ("llama3.2:latest:latest", "llama3.2", false),
            ("llama3.2:LATEST", "llama3.2", false),
            (":latest", "", true),
            ("latest", "", false),
        ] {
            assert_eq!((super::same(one, other), super::same(other, one)), (expected, expected), "{one} {other}");
        }
        assert_eq!(latest("llama3.2:latest"), "llama3.2");
    }

    #[test]
    fn a_release_or_quantisation_counts_only_if_it_is_asked_for() {
        for (plain, exact) in [
            ("llama3.1:8b", "llama3.1:8b-instruct-q4_K_M"),
            ("meta-llama/Llama-3.1-8B-Instruct", "hf.co/bartowski/Meta-Llama-3.1-8B-Instruct-GGUF:Q4_K_M"),
            ("llama3.1:8b", "RedHatAI/Meta-Llama-3.1-8B-Instruct-quantized.w4a16"),
            ("llama3.1:8b", "RedHatAI/Meta-Llama-3.1-8B-Instruct-FP8-dynamic"),
            ("qwen2.5:7b", "Qwen/Qwen2.5-7B-Instruct-AWQ"),
            ("qwen2.5:7b", "mlx-community/Qwen2.5-7B-Instruct-4bit"),
            ("mistral", "mistralai/Mistral-7B-Instruct-v0.3"),
            ("mistral-nemo", "mistralai/Mistral-Nemo-Instruct-2407"),
            ("mixtral:8x7b", "mistralai/Mixtral-8x7B-Instruct-v0.1"),
            ("tinyllama", "TinyLlama/TinyLlama-1.1B-Chat-v1.0"),
            ("codestral", "mistralai/Codestral-22B-v0.1"),
            ("mistral-small3.1:24b", "mistralai/Mistral-Small-3.1-24B-Instruct-2503"),
            ("deepseek-v3", "deepseek-ai/DeepSeek-V3-0324"),
            ("gemma3:4b", "google/gemma-3-4b-it-qat-q4_0-gguf"),
        ] {
            finds(plain, exact);
        }
        assert!(!meets("llama3.1:8b-instruct-q8_0", "llama3.1:8b-instruct-q4_K_M", ""));
        assert!(!meets("llama3.1:8b-q4_K_M", "llama3.1:8b", ""));
        assert!(meets("llama3.1:8b-q4_K_M", "llama3.1:8b", "Q4_K_M"), "the engine tells");
        assert!(!meets("llama3.1:8b-q8_0", "llama3.1:8b", "Q4_K_M"));
        assert!(!meets("mistralai/Mistral-7B-Instruct-v0.2", "mistralai/Mistral-7B-Instruct-v0.3", ""));
        assert!(!meets("mistralai/Mistral-7B-Instruct-v0.3", "mistral:7b", ""), "which release that is, nobody says");
    }

    #[test]
    fn near_misses_do_not_meet() {
        differ("llama3.1:8b", "llama3.1:70b");
        differ("llama3.1:8b", "llama3.2:3b");
        differ("llama3.1:8b", "llama3:8b");
        differ("llama3.1:8b", "llama3.2-vision:11b");
        differ("llama3.1:8b", "meta-llama/Llama-3.1-8B");
        differ("llama3.1:8b", "llama3.1:8b-text-q4_K_M");
        differ("meta-llama/Llama-3.1-8B-Instruct", "meta-llama/Llama-3.1-8B");
        differ("meta-llama/Llama-3.1-70B-Instruct", "nvidia/Llama-3.1-Nemotron-70B-Instruct-HF");
        differ("llama3.1:8b", "NousResearch/Hermes-3-Llama-3.1-8B");
        differ("llama3.1:8b", "mlabonne/Meta-Llama-3.1-8B-Instruct-abliterated");
        differ("llama2:7b", "codellama:7b");
        differ("qwen2.5:7b", "qwen2.5-coder:7b");
        differ("qwen2.5:7b", "Qwen/Qwen2.5-VL-7B-Instruct");
        differ("qwen2.5:7b", "Qwen/Qwen2.5-7B");
        differ("qwen2.5:7b", "qwen2:7b");
        differ("qwen2.5:7b", "Qwen/Qwen2.5-Math-7B-Instruct");
        differ("qwen2.5:7b", "Qwen/Qwen2.5-7B-Instruct-1M");
        differ("qwen3:8b", "Qwen/Qwen3-8B-Base");
        differ("qwen3:8b", "Qwen/Qwen3-Embedding-8B");
        differ("qwen3:30b", "Qwen/Qwen3-30B-A3B-Thinking-2507");
        differ("qwen2.5:7b", "deepseek-ai/DeepSeek-R1-Distill-Qwen-7B");
        differ("deepseek-r1:7b", "deepseek-r1:8b");
        differ("deepseek-r1:671b", "deepseek-ai/DeepSeek-R1-Distill-Llama-70B");
        differ("deepseek-v3", "deepseek-r1");
        differ("mistral:7b", "mixtral:8x7b");
        differ("mistral:7b", "mistral-nemo");
        differ("mixtral:8x7b", "mixtral:8x22b");
        differ("gemma2:9b", "gemma3:4b");
        differ("gemma3:4b", "google/gemma-3-4b-pt");
        differ("gemma2:2b", "codegemma:2b");
        differ("phi4", "phi4-mini");
        differ("phi3.5", "phi3:14b");
        differ("gpt-oss:20b", "gpt-oss:120b");
        differ("smollm2:135m", "smollm2:360m");
        differ("granite3.1-dense:8b", "granite3.1-moe:3b");
        differ("tiny-chat", "tiny");
        differ("weights", "weights-v2");
        differ("alice/my-model", "bob/my-model");
        differ("nomic-embed-text", "bge-m3");
        differ("", "llama3.1:8b");
    }

    #[test]
    fn any_text_is_a_name() {
        for name in [
            "", ":", "/", "-", "q4_0", "llama", "llama-", "8b", "::::", "a/b/c/d", "é🦊", "meta", "meta-", "_", "x_", "1.",
            "hf.co/",
        ] {
            for other in ["llama3.1:8b", "tiny", name] {
                assert_eq!(meets(name, other, "q4_0"), name == other, "{name} {other}");
            }
        }
    }
}
