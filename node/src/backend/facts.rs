//! The engines that are known, and what is different about each: one table, which the adapters read and from which the README's
//! table is made.
//!
//! Two adapters serve them all: Ollama's own API, and OpenAI's dialect. What is written here are the facts that no engine tells
//! about itself; whatever it does tell is asked, not assumed.

use std::fmt;

/// A kind of engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum BackendKind {
    /// Ollama's own API (`/api/chat`).
    Ollama,
    /// vLLM's OpenAI server.
    Vllm,
    /// SGLang's OpenAI server.
    Sglang,
    /// Modular MAX (`max serve`).
    Max,
    /// llama.cpp: `llama-server` with one model or as a router, or llama-swap before it.
    LlamaCpp,
}

/// What an engine does with an assistant's message at the end of a conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Started {
    /// It takes it for a finished one, or the model's template decides.
    Answers,
    /// It continues it when asked to by `continue_final_message`. Where the answer repeats what was there, the adapter takes that
    /// off.
    Continues,
}

/// The names of two gauges of `/metrics`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Gauges {
    /// Requests that are worked on.
    pub(super) running: &'static str,
    /// Requests that wait for a place.
    pub(super) waiting: &'static str,
}

/// What is different about a kind of engine.
#[derive(Debug)]
pub struct Facts {
    /// Which.
    pub kind: BackendKind,
    /// Its name in `KIND=URL`, in logs and in reports.
    pub name: &'static str,
    /// Its name for people.
    pub title: &'static str,
    /// The port that it listens on unless told otherwise.
    pub port: u16,
    /// The command that starts it with a model, for people.
    pub start: &'static str,
    /// The environment variable that says where it is.
    pub host_variable: &'static str,
    /// The environment variable that holds its key.
    pub key_variable: &'static str,
    /// Who it says owns its models in `/v1/models`: how it is told from the others.
    pub(super) owners: &'static [&'static str],
    /// See [`Started`].
    pub(super) started: Started,
    /// The least `top_logprobs` with which it tells any probabilities.
    pub(super) least_alternatives: u8,
    /// Whether its streams go on past a stop sequence, which the adapter then cuts off.
    pub(super) streams_past_stops: bool,
    /// Whether `stream_options.continuous_usage_stats` makes it count in every chunk.
    pub(super) counts_in_chunks: bool,
    /// Where its load is told; `None` if nowhere, or elsewhere.
    pub(super) gauges: Option<Gauges>,
    /// Where its load is from, for people.
    pub load: &'static str,
    /// What its adapter was last tested against, and when.
    pub tested: &'static str,
}

/// Every engine, in the order in which they are looked for.
pub const ENGINES: [Facts; 5] = [
    Facts {
        kind: BackendKind::Ollama,
        name: "ollama",
        title: "Ollama",
        port: 11434,
        start: "ollama serve",
        host_variable: "OLLAMA_HOST",
        key_variable: "OLLAMA_API_KEY",
        owners: &["library"],
        started: Started::Answers,
        least_alternatives: 0,
        streams_past_stops: false,
        counts_in_chunks: false,
        gauges: None,
        load: "not told",
        tested: "recorded answers of August 2026, in every CI run",
    },
    Facts {
        kind: BackendKind::Vllm,
        name: "vllm",
        title: "vLLM",
        port: 8000,
        start: "vllm serve MODEL",
        host_variable: "VLLM_HOST",
        key_variable: "VLLM_API_KEY",
        owners: &["vllm"],
        started: Started::Continues,
        least_alternatives: 0,
        streams_past_stops: false,
        counts_in_chunks: true,
        gauges: Some(Gauges { running: "vllm:num_requests_running", waiting: "vllm:num_requests_waiting" }),
        load: "`/metrics`",
        tested: "recorded answers of 0.32.0, in every CI run",
    },
    Facts {
        kind: BackendKind::Sglang,
        name: "sglang",
        title: "SGLang",
        port: 30000,
        start: "python -m sglang.launch_server --model-path MODEL",
        host_variable: "SGLANG_HOST",
        key_variable: "SGLANG_API_KEY",
        owners: &["sglang"],
        started: Started::Continues,
        least_alternatives: 0,
        streams_past_stops: false,
        counts_in_chunks: true,
        gauges: Some(Gauges { running: "sglang:num_running_reqs", waiting: "sglang:num_queue_reqs" }),
        load: "`/metrics`, with `--enable-metrics`",
        tested: "a server with the shapes of its source, in every CI run; never a real one",
    },
    Facts {
        kind: BackendKind::Max,
        name: "max",
        title: "Modular MAX",
        port: 8000,
        start: "max serve --model MODEL",
        host_variable: "MODULAR_MAX_HOST",
        key_variable: "MODULAR_MAX_API_KEY",
        // It names nobody, unlike the others.
        owners: &[""],
        started: Started::Answers,
        least_alternatives: 1,
        streams_past_stops: true,
        counts_in_chunks: false,
        gauges: None,
        load: "not told",
        tested: "26.6.0: recorded answers in every CI run, live in November 2026",
    },
    Facts {
        kind: BackendKind::LlamaCpp,
        name: "llamacpp",
        title: "llama.cpp",
        port: 8080,
        start: "llama-server -hf REPOSITORY",
        host_variable: "LLAMACPP_HOST",
        key_variable: "LLAMACPP_API_KEY",
        owners: &["llamacpp", super::openai::LLAMA_SWAP],
        started: Started::Continues,
        least_alternatives: 1,
        streams_past_stops: false,
        counts_in_chunks: false,
        gauges: Some(Gauges { running: "llamacpp:requests_processing", waiting: "llamacpp:requests_deferred" }),
        load: "`/metrics`, with `--metrics`; else `/slots`",
        tested: "llama-server b11434: recorded answers in every CI run, live in November 2026; llama-swap by shape",
    },
];

impl BackendKind {
    /// What is different about it.
    pub fn facts(self) -> &'static Facts {
        let [ollama, vllm, sglang, max, llama_cpp] = &ENGINES;
        match self {
            BackendKind::Ollama => ollama,
            BackendKind::Vllm => vllm,
            BackendKind::Sglang => sglang,
            BackendKind::Max => max,
            BackendKind::LlamaCpp => llama_cpp,
        }
    }

    /// Its name in a spec.
    pub fn name(self) -> &'static str {
        self.facts().name
    }

    /// The engine whose name in a spec this is; capitals don't matter.
    pub(super) fn named(name: &str) -> Option<Self> {
        ENGINES.iter().find(|facts| facts.name.eq_ignore_ascii_case(name)).map(|facts| facts.kind)
    }

    /// The engine that says that this owns its models.
    pub(super) fn of_owner(owner: &str) -> Option<Self> {
        ENGINES.iter().find(|facts| facts.owners.contains(&owner)).map(|facts| facts.kind)
    }
}

impl fmt::Display for BackendKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: &str = "<!-- engines: made from node/src/backend/facts.rs -->\n";
    const END: &str = "<!-- /engines -->";

    /// The README's table.
    fn table() -> String {
        let mut text = String::from(
            "| engine | `--backend` | found at | another address, a key | load | last tested against |\n|---|---|---|---|---|---|\n",
        );
        for facts in &ENGINES {
            let Facts { name, title, port, host_variable, key_variable, load, tested, .. } = facts;
            text.push_str(&format!(
                "| {title} | `{name}=URL` | `127.0.0.1:{port}` | `{host_variable}`, `{key_variable}` | {load} | {tested} |\n"
            ));
        }
        text
    }

    #[test]
    fn the_readme_has_this_table() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md");
        let readme = std::fs::read_to_string(path).expect("the README");
        let (before, rest) = readme.split_once(START).expect("the table's beginning");
        let (kept, after) = rest.split_once(END).expect("the table's end");
        if std::env::var_os("INFERNET_BLESS").is_some() {
            std::fs::write(path, [before, START, &table(), END, after].concat()).expect("writes");
            return;
        }
        assert_eq!(kept, table(), "the README's engines are out of date: INFERNET_BLESS=1 cargo test writes them anew");
    }

    #[test]
    fn each_kind_finds_its_own_row_and_each_owner_one_kind() {
        for facts in &ENGINES {
            assert_eq!(facts.kind.facts().name, facts.name);
            assert_eq!(BackendKind::named(&facts.name.to_uppercase()), Some(facts.kind));
            for owner in facts.owners {
                assert_eq!(BackendKind::of_owner(owner), Some(facts.kind), "{owner:?}");
            }
        }
        assert_eq!(BackendKind::of_owner("somebody"), None);
    }
}
