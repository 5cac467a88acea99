//! From texts and numbers to [`Config`]: the defaults, and every bound with its reason.

use super::{
    Alias, Config, ConfigError, Partial,
    layers::{Layers, bad_variable},
    partial::PriceTable,
    value,
};
use crate::{
    backend::BackendSpec,
    market::{policy::Policy, pricing::Pricing, schedule::Schedule},
    net::ReachConfig,
    plane_client::EVERY_SECS,
    settlement::tabs::Credit,
};
use infernet_wire::{
    limits,
    money::{MicroUsd, Price},
    topic::NetworkId,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    path::Path,
    time::Duration,
};

pub(super) const DEFAULT_LISTEN: [&str; 4] =
    ["/ip4/0.0.0.0/tcp/46337", "/ip6/::/tcp/46337", "/ip4/0.0.0.0/udp/46338/quic-v1", "/ip6/::/udp/46338/quic-v1"];
/// One socket for IPv6 and, mapped, IPv4.
pub(super) const DEFAULT_CHAT_LISTEN: &str = "[::]:46337";
/// A well connected mesh needs a dozen; more make a bootstrap node. Each costs a socket and some 100 kB.
pub(super) const DEFAULT_MAX_PEERS: u32 = 128;
/// $0.10 per million input tokens.
pub(super) const DEFAULT_PRICE_IN: u64 = 100_000;
/// $0.40 per million output tokens.
pub(super) const DEFAULT_PRICE_OUT: u64 = 400_000;
/// One job runs while the next is agreed on. More only where the engine runs more at once (`OLLAMA_NUM_PARALLEL`).
pub(super) const DEFAULT_SLOTS: u16 = 2;
/// Beside the ports of mesh and chat; loopback, so that no key is needed.
pub(super) const DEFAULT_API_LISTEN: &str = "127.0.0.1:46339";
/// $10 per million tokens: what the dearest open models cost elsewhere.
pub(super) const DEFAULT_MAX_PRICE: u64 = 10_000_000;
/// Most answers end within a minute.
pub(super) const DEFAULT_GRACE_SECS: u64 = 60;

/// A third of what makes a node offline.
pub(super) const DEFAULT_HEARTBEAT_SECS: u64 = EVERY_SECS;

/// A desktop at rest is below this, and whoever uses a GPU or compiles is above.
pub(super) const DEFAULT_IDLE_PERCENT: u16 = 20;

/// A dollar: many times what a redemption's gas costs where that is cheap.
pub(super) const DEFAULT_PAYOUT_AT: u64 = 1_000_000;

/// Windows of a week: three a day.
const MAX_WINDOWS: usize = 21;
/// Every GPU slows itself down before.
const MAX_CELSIUS: u16 = 120;
/// More than a building has.
const MAX_WATTS: u32 = 1_000_000;
/// Eleven times the price.
const MAX_RISE: u32 = 1_000;
/// Bootstrap peers that are dialled at start.
const MAX_BOOTSTRAP: usize = 64;
/// Relays that are named: two hold a place, the others are there for when one is lost.
const MAX_RELAYS: usize = 16;
/// Interfaces of a machine with many containers.
const MAX_HIDDEN: usize = 64;
/// Engines of one node.
const MAX_BACKENDS: usize = 8;
/// File descriptors end here on most systems.
const MAX_MAX_PEERS: u32 = 10_000;
/// One dollar per token: whoever asks for more has mistaken the unit.
const MAX_PRICE: u64 = 1_000_000_000_000;
/// A million dollars: whoever allows more has mistaken the unit.
const MAX_SPEND: u64 = 1_000_000_000_000;
/// As many as one connection carries streams.
const MAX_SLOTS: u16 = 4_096;
/// Every model of a full ad, with all its aliases.
const MAX_ALIASES: usize = limits::MAX_AD_MODELS * limits::MAX_ALIASES;
/// Names of one machine: more is a list of somebody else's.
const MAX_HOSTS: usize = 64;
/// Workers that a person judges one by one.
const MAX_WORKERS: usize = 1024;
/// More regions than any cloud has.
const MAX_REGIONS: usize = 64;
/// No worker settles more in years; above it, nobody would ever qualify.
const MAX_REPUTATION: u32 = 1_000_000;
/// Planes that one node tells of itself: each is a task and a connection.
const MAX_PLANES: usize = 8;
/// Above it a node would be offline between two heartbeats.
const MAX_HEARTBEAT_SECS: u64 = 60;
/// An hour: whoever supervises the process (systemd: 90 s) loses patience long before.
const MAX_GRACE_SECS: u64 = 3_600;

/// The configuration that `layers` say.
pub(super) fn config(home: &Path, layers: &Layers) -> Result<Config, ConfigError> {
    let parser = Parser { layers };
    let config = parser.config(home, layers.partial.clone())?;
    parser.disjoint(&config)?;
    parser.fits_ads(&config)?;
    Ok(config)
}

/// Turns texts into values, knowing where each came from.
pub(super) struct Parser<'a> {
    pub(super) layers: &'a Layers,
}

impl Parser<'_> {
    fn config(&self, home: &Path, p: Partial) -> Result<Config, ConfigError> {
        let defaults = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        let backend_is_guess = p.backend.is_none();
        let pricing = self.pricing(&p)?;
        let (evm, evm_lacks_rpc) = (self.evm(&p)?, Self::evm_lacks_rpc(&p));
        let solana = self.solana(&p)?;
        let idle_percent = self.within("idle_percent", p.idle_percent.unwrap_or(DEFAULT_IDLE_PERCENT), 1, 100)?;
        Ok(Config {
            home: home.into(),
            network: self.one("network", &p.network.unwrap_or_else(|| NetworkId::default().to_string()), network)?,
            listen: self.all(
                "listen",
                p.listen.unwrap_or_else(|| defaults(&DEFAULT_LISTEN)),
                limits::MAX_ADDRESSES,
                value::mesh_address,
            )?,
            chat_listen: self.one(
                "chat_listen",
                p.chat_listen.as_deref().unwrap_or(DEFAULT_CHAT_LISTEN),
                value::chat_address,
            )?,
            chat_advertise: self.all(
                "chat_advertise",
                p.chat_advertise.unwrap_or_default(),
                limits::MAX_ADDRESSES,
                value::outer_address,
            )?,
            bootstrap: self.all("bootstrap", p.bootstrap.unwrap_or_default(), MAX_BOOTSTRAP, value::peer_address)?,
            mdns: p.mdns.unwrap_or(true),
            max_peers: self.within("max_peers", p.max_peers.unwrap_or(DEFAULT_MAX_PEERS), 1, MAX_MAX_PEERS)?,
            reach: ReachConfig {
                mode: self.one("reach", p.reach.as_deref().unwrap_or("auto"), |text| text.parse())?,
                external: self.all(
                    "external_addresses",
                    p.external_addresses.unwrap_or_default(),
                    limits::MAX_ADDRESSES,
                    value::external_address,
                )?,
                hidden: self.all("hidden_addresses", p.hidden_addresses.unwrap_or_default(), MAX_HIDDEN, value::own_address)?,
                relays: self.all("relays", p.relays.unwrap_or_default(), MAX_RELAYS, value::relay_address)?,
                upnp: p.upnp.unwrap_or(true),
            },
            backend: self.backends(p.backend, p.allow_link_local_engine.unwrap_or(false))?,
            allow_link_local_engine: p.allow_link_local_engine.unwrap_or(false),
            engine_variables: self.layers.engines.clone(),
            backend_is_guess,
            pricing,
            models: self.all("models", p.models.unwrap_or_default(), limits::MAX_AD_MODELS, value::model_name)?,
            policy: Policy {
                schedule: Schedule(self.all("schedule", p.schedule.unwrap_or_default(), MAX_WINDOWS, value::window)?),
                max_celsius: p.max_celsius.map(|max| self.within("max_celsius", max, 1, MAX_CELSIUS)).transpose()?,
                max_watts: p.max_watts.map(|max| self.within("max_watts", max, 1, MAX_WATTS)).transpose()?,
                idle_percent: p.only_idle.unwrap_or(false).then_some(idle_percent),
            },
            idle_percent,
            slots: self.within("slots", p.slots.unwrap_or(DEFAULT_SLOTS), 1, MAX_SLOTS)?,
            credit: Credit {
                free: self.money("free_credit", p.free_credit.unwrap_or(0), MAX_SPEND)?,
                limits: self.all("credit", p.credit.unwrap_or_default(), MAX_WORKERS, value::credit)?.into_iter().collect(),
            },
            aliases: self.all("aliases", p.aliases.unwrap_or_default(), MAX_ALIASES, value::alias)?,
            region: self.maybe("region", p.region, |text| text.parse())?,
            api: self
                .one("api_listen", p.api_listen.as_deref().unwrap_or(DEFAULT_API_LISTEN), value::api_address)
                .map(|address| p.api.unwrap_or(true).then_some(address))?,
            api_hosts: self.all("api_hosts", p.api_hosts.unwrap_or_default(), MAX_HOSTS, value::host)?,
            api_origins: self.all("api_origins", p.api_origins.unwrap_or_default(), MAX_HOSTS, value::origin)?,
            max_price: self.money("max_price", p.max_price.unwrap_or(DEFAULT_MAX_PRICE), MAX_PRICE)?,
            spend_per_request: self.maybe_money("spend_per_request", p.spend_per_request)?,
            spend_per_day: self.maybe_money("spend_per_day", p.spend_per_day)?,
            allow_workers: self.all("allow_workers", p.allow_workers.unwrap_or_default(), MAX_WORKERS, value::worker)?,
            deny_workers: self.all("deny_workers", p.deny_workers.unwrap_or_default(), MAX_WORKERS, value::worker)?,
            min_reputation: self.within("min_reputation", p.min_reputation.unwrap_or(0), 0, MAX_REPUTATION)?,
            regions: self.all("regions", p.regions.unwrap_or_default(), MAX_REGIONS, |text| text.parse())?,
            standing: p.standing.unwrap_or(true),
            planes: self.all("planes", p.planes.unwrap_or_default(), MAX_PLANES, |text| text.parse())?,
            heartbeat: Duration::from_secs(self.within(
                "heartbeat_secs",
                p.heartbeat_secs.unwrap_or(DEFAULT_HEARTBEAT_SECS),
                1,
                MAX_HEARTBEAT_SECS,
            )?),
            evm,
            evm_lacks_rpc,
            payout_at: self.money("payout_at", p.payout_at.unwrap_or(DEFAULT_PAYOUT_AT), MAX_SPEND)?,
            payout_evm: self.maybe("payout_evm", p.payout_evm, value::evm_address)?,
            solana,
            passphrase_file: self.maybe("passphrase_file", p.passphrase_file.filter(|text| !text.is_empty()), value::file)?,
            grace: Duration::from_secs(self.within(
                "grace_secs",
                p.grace_secs.unwrap_or(DEFAULT_GRACE_SECS),
                0,
                MAX_GRACE_SECS,
            )?),
            log_file: p.log_file.unwrap_or(true),
        })
    }

    fn pricing(&self, p: &Partial) -> Result<Pricing, ConfigError> {
        let money = |key, value: Option<u64>, default| self.money(key, value.unwrap_or(default), MAX_PRICE);
        let base = Price {
            input: money("price_in", p.price_in, DEFAULT_PRICE_IN)?,
            output: money("price_out", p.price_out, DEFAULT_PRICE_OUT)?,
        };
        let slots =
            self.all("model_slots", p.model_slots.clone().unwrap_or_default(), limits::MAX_AD_MODELS, value::model_slots)?;
        Ok(Pricing {
            base,
            models: self.model_prices(p.prices.as_ref(), base)?,
            floor: Price {
                input: money("price_floor_in", p.price_floor_in, 0)?,
                output: money("price_floor_out", p.price_floor_out, 0)?,
            },
            rise_percent: self.within("price_rise", p.price_rise.unwrap_or(0), 0, MAX_RISE)?,
            slots: slots.into_iter().collect(),
        })
    }

    /// A part that a model's table leaves out is that of all models.
    fn model_prices(&self, table: Option<&PriceTable>, base: Price) -> Result<BTreeMap<String, Price>, ConfigError> {
        let bad = |value: &dyn fmt::Display, fix: String| self.bad("prices", value, fix);
        let tables = table.into_iter().flatten();
        if tables.clone().count() > limits::MAX_AD_MODELS {
            return Err(bad(&"so many models", format!("write at most {}", limits::MAX_AD_MODELS)));
        }
        let price = |(model, parts): (&String, &BTreeMap<String, u64>)| {
            let model = value::model_name(model).map_err(|fix| bad(&format_args!("{model:?}"), fix))?;
            if let Some(other) = parts.keys().find(|name| !["in", "out"].contains(&name.as_str())) {
                return Err(bad(&format_args!("{other:?} of {model:?}"), "a model's price has in and out".into()));
            }
            if let Some(price) = parts.values().find(|price| **price > MAX_PRICE) {
                return Err(bad(&format_args!("{price} of {model:?}"), format!("write a number from 0 to {MAX_PRICE}")));
            }
            let part = |name: &str, usual: MicroUsd| parts.get(name).copied().map_or(usual, MicroUsd);
            Ok((model, Price { input: part("in", base.input), output: part("out", base.output) }))
        };
        tables.map(price).collect()
    }

    /// The engines that are named, or all at their usual places; each with its key.
    fn backends(&self, named: Option<Vec<String>>, link_local: bool) -> Result<Vec<BackendSpec>, ConfigError> {
        let engines = &self.layers.engines;
        let allowed = |spec: BackendSpec| spec.allowed(link_local).map_err(|error| error.to_string());
        let specs = match named {
            Some(texts) => self.all("backend", texts, MAX_BACKENDS, |text| allowed(backend(text)?))?,
            None => {
                let found = engines.candidates().map_err(bad_variable)?;
                let bad = |spec: &BackendSpec, fix| self.bad("backend", spec, fix);
                found.into_iter().map(|spec| allowed(spec.clone()).map_err(|fix| bad(&spec, fix))).collect::<Result<_, _>>()?
            }
        };
        Ok(specs
            .into_iter()
            .map(|spec| {
                let key = engines.key(spec.kind);
                spec.with_key(key)
            })
            .collect())
    }

    /// A worker can't be wanted and unwanted.
    fn disjoint(&self, config: &Config) -> Result<(), ConfigError> {
        let allowed: BTreeSet<_> = config.allow_workers.iter().collect();
        match config.deny_workers.iter().find(|worker| allowed.contains(worker)) {
            Some(both) => Err(self.bad("deny_workers", both, "it is in allow_workers too; name it in one of them")),
            None => Ok(()),
        }
    }

    /// An ad has room for so many names of a model.
    fn fits_ads(&self, config: &Config) -> Result<(), ConfigError> {
        let names = |model: &str| config.aliases.iter().filter(|alias| alias.model == model).count();
        match config.aliases.iter().find(|alias| names(&alias.model) > limits::MAX_ALIASES) {
            Some(Alias { model, .. }) => {
                let value = format_args!("{} names of {model:?}", names(model));
                Err(self.bad("aliases", &value, format!("write at most {} for one model", limits::MAX_ALIASES)))
            }
            None => Ok(()),
        }
    }

    pub(super) fn one<T>(
        &self,
        key: &'static str,
        text: &str,
        read: impl Fn(&str) -> Result<T, String>,
    ) -> Result<T, ConfigError> {
        read(text).map_err(|fix| self.bad(key, &format_args!("{text:?}"), fix))
    }

    pub(super) fn maybe<T>(
        &self,
        key: &'static str,
        text: Option<String>,
        read: impl Fn(&str) -> Result<T, String>,
    ) -> Result<Option<T>, ConfigError> {
        text.map(|text| self.one(key, &text, read)).transpose()
    }

    fn all<T>(
        &self,
        key: &'static str,
        texts: Vec<String>,
        limit: usize,
        read: impl Fn(&str) -> Result<T, String>,
    ) -> Result<Vec<T>, ConfigError> {
        if texts.len() > limit {
            return Err(self.bad(key, &format_args!("a list of {}", texts.len()), format!("write at most {limit}")));
        }
        texts.iter().map(|text| self.one(key, text, &read)).collect()
    }

    pub(super) fn within<T: PartialOrd + fmt::Display>(
        &self,
        key: &'static str,
        value: T,
        least: T,
        most: T,
    ) -> Result<T, ConfigError> {
        if value < least || value > most {
            return Err(self.bad(key, &value, format!("write a number from {least} to {most}")));
        }
        Ok(value)
    }

    fn money(&self, key: &'static str, value: u64, most: u64) -> Result<MicroUsd, ConfigError> {
        self.within(key, value, 0, most).map(MicroUsd)
    }

    fn maybe_money(&self, key: &'static str, value: Option<u64>) -> Result<Option<MicroUsd>, ConfigError> {
        value.map(|value| self.money(key, value, MAX_SPEND)).transpose()
    }

    pub(super) fn bad(&self, key: &'static str, value: &dyn fmt::Display, fix: impl Into<String>) -> ConfigError {
        let origin = self.layers.origin(key).unwrap_or_else(|| "the default".into());
        ConfigError::Value { key, value: value.to_string(), origin, fix: fix.into() }
    }
}

fn network(text: &str) -> Result<NetworkId, String> {
    text.parse().map_err(|error: infernet_wire::topic::BadNetworkId| error.to_string())
}

fn backend(text: &str) -> Result<BackendSpec, String> {
    text.parse().map_err(|error: crate::backend::BadSpec| error.to_string())
}
