//! `CapabilityAd`: what a worker can do and for how much. Also a standing bid at its prices.

use crate::{
    envelope::{Kind, Message, Refusal, field},
    id::Hash,
    limits, model_name,
    money::Price,
    settle::EvmTerms,
    time::UnixMillis,
};
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;

/// Tag of every inference worker.
pub const ROLE_INFERNET: &str = "c0mpute:role:infernet";

/// What a model can do beyond text in, text out: a set of bits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Abilities(pub u32);

impl Abilities {
    /// Calls tools.
    pub const TOOLS: Self = Abilities(1);
    /// Answers in a given JSON schema.
    pub const JSON_SCHEMA: Self = Abilities(1 << 1);
    /// Takes images.
    pub const VISION: Self = Abilities(1 << 2);
    /// Embeds text.
    pub const EMBEDDINGS: Self = Abilities(1 << 3);
    /// Reports log probabilities.
    pub const LOGPROBS: Self = Abilities(1 << 4);
    /// Continues a started answer given as text.
    pub const CONTINUES_TEXT: Self = Abilities(1 << 5);
    /// Continues a started answer given as token ids.
    pub const CONTINUES_TOKENS: Self = Abilities(1 << 6);

    /// Can be made to call a tool (`tool_choice` `required`, or one by name).
    pub const FORCED_TOOLS: Self = Abilities(1 << 7);

    /// Embeds, and can't chat.
    pub const EMBEDS_ONLY: Self = Abilities(1 << 8);

    /// Whether all of `wanted` are present. Bits that this version does not know count like any other.
    pub fn contains(self, wanted: Self) -> bool {
        self.0 & wanted.0 == wanted.0
    }

    /// Both sets together.
    #[must_use]
    pub fn with(self, other: Self) -> Self {
        Abilities(self.0 | other.0)
    }
}

/// One model as a worker serves it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelAd {
    /// The name its worker's engine knows it by, such as `llama3.1:8b`.
    pub id: String,
    /// Other names that buyers may ask for.
    pub aliases: Vec<String>,
    /// Architecture family, such as `llama`; empty if the engine does not tell.
    pub family: String,
    /// Number of parameters, 0 if unknown.
    pub parameters: u64,
    /// Quantisation, such as `Q4_K_M`; empty if unknown.
    pub quantisation: String,
    /// Context length in tokens, 0 if unknown.
    pub context: u32,
    /// Digest of the weights, if the engine tells one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub weights: Option<Hash>,
    /// What it can do.
    pub abilities: Abilities,
    /// What it costs.
    pub price: Price,
    /// Measured time to the first token in milliseconds, 0 if not measured yet.
    pub ttft_ms: u32,
    /// Measured speed in tokens per second, 0 if not measured yet.
    pub tokens_per_second: u32,
    /// SHA-256 of the text of its chat template, if the engine tells it: the same weights answer otherwise with another one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub template: Option<Hash>,
}

impl ModelAd {
    /// Whether a buyer who asks for `pattern` means this model, by its id or an alias: see [`model_name`].
    pub fn answers_to(&self, pattern: &str) -> bool {
        std::iter::once(&self.id).chain(&self.aliases).any(|name| model_name::meets(pattern, name, &self.quantisation))
    }
}

/// A worker's advertisement on [`crate::topic::CAPABILITIES`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CapabilityAd {
    /// Grows with every ad of this worker, over restarts too. The newest wins.
    pub sequence: u64,
    /// When it was made.
    pub issued: UnixMillis,
    /// When it is gone.
    pub expires: UnixMillis,
    /// Role, GPU vendor, VRAM tier.
    pub tags: Vec<String>,
    /// Its models.
    pub models: Vec<ModelAd>,
    /// Jobs it runs at once.
    pub slots: u16,
    /// Where its chat endpoint answers (QUIC over UDP). Empty if it can't be reached there.
    pub chat: Vec<SocketAddrText>,
    /// Where its libp2p answers, circuits through relays among them, without its own `/p2p/` at the end.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub mesh: Vec<MeshAddress>,
    /// On which channels it may be paid, besides the ledger.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub evm: Vec<EvmTerms>,
}

impl Message for CapabilityAd {
    const KIND: Kind = Kind::CapabilityAd;
    const MAX_BYTES: usize = limits::MAX_AD_BYTES;
    const MAX_TTL_MS: u64 = limits::AD_TTL_MS;

    fn issued(&self) -> UnixMillis {
        self.issued
    }

    fn expires(&self) -> UnixMillis {
        self.expires
    }

    fn check(&self) -> Result<(), Refusal> {
        field::ensure(self.models.len() <= limits::MAX_AD_MODELS, "models")?;
        field::ensure(self.tags.len() <= limits::MAX_AD_TAGS, "tags")?;
        field::ensure(self.chat.len() <= limits::MAX_ADDRESSES, "chat")?;
        field::ensure(self.mesh.len() <= limits::MAX_ADDRESSES, "mesh")?;
        self.mesh.iter().try_for_each(MeshAddress::check)?;
        field::ensure(self.evm.len() <= limits::MAX_EVM_TERMS, "evm")?;
        self.evm.iter().try_for_each(EvmTerms::check)?;
        field::ensure(self.slots > 0, "slots")?;
        for tag in &self.tags {
            field::name(tag, "tags")?;
        }
        for model in &self.models {
            field::name(&model.id, "models.id")?;
            field::optional_name(&model.family, "models.family")?;
            field::optional_name(&model.quantisation, "models.quantisation")?;
            field::ensure(model.aliases.len() <= limits::MAX_ALIASES, "models.aliases")?;
            for alias in &model.aliases {
                field::name(alias, "models.aliases")?;
            }
        }
        Ok(())
    }
}

/// A socket address that is text on the wire, as people write it: `192.0.2.1:46337`, `[2001:db8::1]:46337`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SocketAddrText(pub SocketAddr);

impl TryFrom<String> for SocketAddrText {
    type Error = std::net::AddrParseError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse().map(SocketAddrText)
    }
}

impl From<SocketAddrText> for String {
    fn from(addr: SocketAddrText) -> String {
        addr.0.to_string()
    }
}

/// A multiaddr as text, such as `/ip4/192.0.2.1/tcp/46337` or `/ip4/192.0.2.9/tcp/46337/p2p/16Uiu2H…/p2p-circuit`. Whether it
/// means anything is for those who dial to find out: newer nodes may be reached in newer ways.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct MeshAddress(String);

impl MeshAddress {
    /// `None` if the text is longer than [`limits::MAX_MESH_ADDRESS_BYTES`], has anything but visible ASCII in it, or does not
    /// begin with a slash.
    pub fn new(text: String) -> Option<Self> {
        let address = MeshAddress(text);
        address.check().is_ok().then_some(address)
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn check(&self) -> Result<(), Refusal> {
        let fits = self.0.len() <= limits::MAX_MESH_ADDRESS_BYTES && self.0.starts_with('/');
        field::ensure(fits && self.0.bytes().all(|byte| byte.is_ascii_graphic()), "mesh")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_of_the_mesh_is_short_visible_and_begins_with_a_slash() {
        for (text, expected) in [
            ("/ip4/192.0.2.1/tcp/1".to_owned(), true),
            (format!("/{}", "x".repeat(limits::MAX_MESH_ADDRESS_BYTES - 1)), true),
            (format!("/{}", "x".repeat(limits::MAX_MESH_ADDRESS_BYTES)), false),
            (String::new(), false),
            ("ip4".into(), false),
            ("/a b".into(), false),
            ("/\u{1b}[2J".into(), false),
        ] {
            assert_eq!(MeshAddress::new(text.clone()).is_some(), expected, "{text:?}");
        }
    }

    fn check(id: &str, alias: &str, pattern: &str, expected: bool) {
        let model = ModelAd { id: id.into(), aliases: vec![alias.into()], ..ModelAd::default() };
        assert_eq!(model.answers_to(pattern), expected, "{pattern}");
    }

    #[test]
    fn patterns_meet_ids_and_aliases() {
        check("llama3.1:8b", "meta-llama/Llama-3.1-8B-Instruct", "llama3.1:8b", true);
        check("llama3.1:8b", "meta-llama/Llama-3.1-8B-Instruct", "META-LLAMA/llama-3.1-8b-instruct", true);
        check("llama3.1:8b", "x", "meta-llama/Llama-3.1-8B-Instruct", true);
        check("weights-of-mine", "llama3.1:8b", "meta-llama/Llama-3.1-8B-Instruct", true);
        check("llama3.1:8b", "x", "llama3.1:70b", false);
        check("tiny-chat:latest", "x", "tiny-chat", true);
        check("tiny-chat", "x", "tiny-chat:latest", true);
        check("tiny-chat", "x", "", false);
    }
}
