//! Which engine answers, and what it tells of its models.
//!
//! | engine | context | parameters, quantisation | more |
//! |---|---|---|---|
//! | vLLM, MAX | `max_model_len` | – | – |
//! | SGLang | `max_model_len` | `quantization` of `/server_info` | `is_generation` of `/model_info` |
//! | llama-server | `n_ctx` of `/props`: of one slot | `meta` of `/v1/models` | images, tools and the template, by `/props` |
//! | its router, llama-swap | the same of each loaded model | the same, or by its `/props` | the same |
//!
//! Asking for what is not loaded would load it, and perhaps unload what a buyer uses. So a model that sleeps is offered by what
//! was known when it last was awake.

use crate::backend::{
    BackendError, MAX_MODELS, Model, facts::BackendKind, http::Http, is_name, name_or_empty, template_digest,
};
use infernet_wire::capability::Abilities;
use serde::{Deserialize, de::DeserializeOwned};
use std::collections::BTreeSet;

/// Who owns llama-swap's models, as it says.
pub(in crate::backend) const LLAMA_SWAP: &str = "llama-swap";

/// Names of one model that are kept.
const MAX_NAMES: usize = 8;

/// How an engine of one kind is run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Flavour {
    /// As usual: every model is there.
    #[default]
    Plain,
    /// llama-server without a model of its own: it loads what is asked for.
    Router,
    /// llama-swap: the same, with any engine behind it.
    Swap,
}

/// A model, and whether it is in memory.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Found {
    pub(super) model: Model,
    pub(super) loaded: bool,
}

/// What an engine said of itself.
#[derive(Debug, Clone, Default)]
pub(super) struct Described {
    pub(super) flavour: Flavour,
    pub(super) models: Vec<Found>,
    /// Whether it answers with what it has, whatever is asked for.
    ignores_model: bool,
}

impl Described {
    /// The names under which an answer of `model` may come: any, if the engine itself refuses a model that it hasn't got.
    pub(super) fn names_of(&self, model: &str) -> BTreeSet<String> {
        let found = self.models.iter().filter(|found| self.ignores_model && found.model.id == model);
        found.flat_map(|Found { model, .. }| model.aliases.iter().cloned().chain([model.id.clone()])).collect()
    }

    fn last_known(&self, id: &str) -> Option<&Model> {
        self.models.iter().map(|found| &found.model).find(|model| model.id == id)
    }
}

#[derive(Deserialize)]
struct List {
    data: Vec<Card>,
}

#[derive(Deserialize)]
struct Card {
    id: String,
    owned_by: Option<String>,
    #[serde(default)]
    aliases: Vec<String>,
    max_model_len: Option<u32>,
    meta: Option<Meta>,
    status: Option<Status>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Meta {
    n_params: u64,
    n_ctx: u32,
    ftype: String,
    llamaswap: Option<SwapMeta>,
}

#[derive(Deserialize)]
struct SwapMeta {
    #[serde(rename = "peerID", default)]
    peer_id: String,
}

#[derive(Deserialize)]
struct Status {
    #[serde(default)]
    value: String,
    #[serde(default)]
    failed: bool,
}

/// Of llama-server.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Props {
    role: String,
    default_generation_settings: Generation,
    model_ftype: String,
    modalities: Modalities,
    chat_template: String,
    chat_template_caps: Caps,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Generation {
    n_ctx: u32,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Modalities {
    vision: bool,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Caps {
    supports_tool_calls: bool,
}

/// Of SGLang.
#[derive(Default, Deserialize)]
#[serde(default)]
struct ServerInfo {
    quantization: Option<String>,
}

#[derive(Deserialize)]
struct ModelInfo {
    is_generation: bool,
}

/// Of llama-swap.
#[derive(Deserialize)]
struct Running {
    running: Vec<Ready>,
}

#[derive(Deserialize)]
struct Ready {
    model: String,
    #[serde(default)]
    state: String,
}

/// Asks an engine of `kind` for its models; what sleeps now is as it was `before`.
pub(super) async fn describe(http: &Http, kind: BackendKind, before: &Described) -> Result<Described, BackendError> {
    let List { mut data } = list(http).await.map_err(|error| http.foreign_unless_gone(error))?;
    let owner = data.first().and_then(|card| card.owned_by.clone());
    match owner.as_deref().and_then(BackendKind::of_owner) {
        Some(found) if found == kind => {}
        Some(found) => return Err(http.is_another(found)),
        // Every other engine serves one model at least.
        None if data.is_empty() && kind == BackendKind::LlamaCpp => {}
        None => return Err(http.malformed()),
    }
    data.retain(|card| is_name(&card.id));
    data.truncate(MAX_MODELS);
    match kind {
        BackendKind::LlamaCpp => llama_cpp(http, data, owner.as_deref(), before).await,
        BackendKind::Sglang => sglang(http, data).await,
        _ => Ok(Described { models: data.iter().map(Card::awake).collect(), ..Described::default() }),
    }
}

async fn list(http: &Http) -> Result<List, BackendError> {
    http.get("/v1/models").await
}

/// Which engine answers there, if any that is known does.
pub(in crate::backend) async fn who(http: &Http) -> Option<BackendKind> {
    let List { data } = list(http).await.ok()?;
    BackendKind::of_owner(data.first()?.owned_by.as_deref()?)
}

/// What an engine need not tell.
async fn optional<T: DeserializeOwned>(http: &Http, path: &str) -> Result<Option<T>, BackendError> {
    match http.get(path).await {
        Ok(told) => Ok(Some(told)),
        Err(BackendError::Status { .. } | BackendError::Malformed { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The first of two paths that tells: newer versions have renamed it.
async fn either<T: DeserializeOwned>(http: &Http, new: &str, old: &str) -> Result<Option<T>, BackendError> {
    match optional(http, new).await? {
        Some(told) => Ok(Some(told)),
        None => optional(http, old).await,
    }
}

async fn sglang(http: &Http, cards: Vec<Card>) -> Result<Described, BackendError> {
    let server: ServerInfo = either(http, "/server_info", "/get_server_info").await?.unwrap_or_default();
    let model: Option<ModelInfo> = either(http, "/model_info", "/get_model_info").await?;
    let embeds = model.is_some_and(|model| !model.is_generation);
    let mut models: Vec<Found> = cards.iter().map(Card::awake).collect();
    for Found { model, .. } in &mut models {
        model.quantisation = name_or_empty(server.quantization.as_deref().unwrap_or_default());
        if embeds {
            model.abilities = Abilities::EMBEDDINGS.with(Abilities::EMBEDS_ONLY);
        }
    }
    Ok(Described { models, ..Described::default() })
}

async fn llama_cpp(http: &Http, cards: Vec<Card>, owner: Option<&str>, before: &Described) -> Result<Described, BackendError> {
    if owner == Some(LLAMA_SWAP) {
        return swap(http, cards, before).await;
    }
    let props: Props = optional(http, "/props").await?.unwrap_or_default();
    if props.role == "router" {
        return router(http, cards, before).await;
    }
    if cards.is_empty() {
        // A llama-swap without models, or something else.
        return match optional::<Running>(http, "/running").await? {
            Some(_) => Ok(Described { flavour: Flavour::Swap, ..Described::default() }),
            None => Err(http.malformed()),
        };
    }
    let models = cards.iter().map(|card| Found { model: props.complete(card.model()), loaded: true }).collect();
    Ok(Described { models, ignores_model: true, ..Described::default() })
}

/// What a model is called in a URL.
fn in_url(id: &str) -> String {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~".contains(byte);
    id.bytes().map(|byte| if plain(&byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

async fn router(http: &Http, cards: Vec<Card>, before: &Described) -> Result<Described, BackendError> {
    let mut models = Vec::new();
    for card in cards.iter().filter(|card| !card.status.as_ref().is_some_and(|status| status.failed)) {
        let loaded = card.status.as_ref().is_some_and(|status| status.value == "loaded");
        let path = format!("/props?model={}&autoload=false", in_url(&card.id));
        models.push(loadable(http, card, loaded, &path, before).await?);
    }
    Ok(Described { flavour: Flavour::Router, models, ..Described::default() })
}

/// Models of its peers are left out: their prompts would leave this machine.
async fn swap(http: &Http, cards: Vec<Card>, before: &Described) -> Result<Described, BackendError> {
    let running: Option<Running> = optional(http, "/running").await?;
    let running = running.map_or_else(Vec::new, |running| running.running);
    let mut models = Vec::new();
    for card in cards.iter().filter(|card| card.is_here()) {
        let loaded = running.iter().any(|ready| ready.model == card.id && ready.state == "ready");
        let path = format!("/upstream/{}/props", in_url(&card.id));
        models.push(loadable(http, card, loaded, &path, before).await?);
    }
    Ok(Described { flavour: Flavour::Swap, models, ..Described::default() })
}

/// A model that may sleep.
async fn loadable(http: &Http, card: &Card, loaded: bool, props: &str, before: &Described) -> Result<Found, BackendError> {
    if !loaded {
        let model = before.last_known(&card.id).cloned().unwrap_or_else(|| card.model());
        return Ok(Found { model, loaded });
    }
    let props: Props = optional(http, props).await?.unwrap_or_default();
    Ok(Found { model: props.complete(card.model()), loaded })
}

impl Card {
    fn awake(&self) -> Found {
        Found { model: self.model(), loaded: true }
    }

    fn is_here(&self) -> bool {
        let swap = self.meta.as_ref().and_then(|meta| meta.llamaswap.as_ref());
        swap.is_none_or(|swap| swap.peer_id.is_empty())
    }

    fn model(&self) -> Model {
        let meta = self.meta.as_ref();
        let others = self.aliases.iter().filter(|alias| **alias != self.id && is_name(alias));
        Model {
            id: self.id.clone(),
            aliases: others.take(MAX_NAMES).cloned().collect(),
            parameters: meta.map_or(0, |meta| meta.n_params),
            quantisation: meta.map_or_else(String::new, |meta| name_or_empty(&meta.ftype)),
            context: self.max_model_len.unwrap_or_else(|| meta.map_or(0, |meta| meta.n_ctx)),
            ..Model::default()
        }
    }
}

impl Props {
    /// `model`, with what llama-server tells of it here.
    fn complete(&self, mut model: Model) -> Model {
        if self.default_generation_settings.n_ctx > 0 {
            model.context = self.default_generation_settings.n_ctx;
        }
        if model.quantisation.is_empty() {
            model.quantisation = name_or_empty(&self.model_ftype);
        }
        model.template = template_digest(&self.chat_template);
        let told =
            [(self.modalities.vision, Abilities::VISION), (self.chat_template_caps.supports_tool_calls, Abilities::TOOLS)];
        for (_, ability) in told.into_iter().filter(|(has, _)| *has) {
            model.abilities = model.abilities.with(ability);
        }
        model
    }
}
