//! Every key with its value and where it came from, for `infernet config show`.

use super::{Config, ConfigError, KEYS, Partial, Secret, evm, layers::Layers, machine_defaults, parse, solana};
use crate::net::bootstrap::BootstrapAddress;
use infernet_wire::{evm::EvmAddress, money::Price};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// Where a value came from that nobody set.
const DEFAULT: &str = "default";

/// One key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Row {
    /// Its name in the file.
    pub key: String,
    /// What holds: a text, a number, true or false, or a list of texts; null where there is none.
    pub value: serde_json::Value,
    /// `--flag`, `INFERNET_VARIABLE`, the file's path, or `default`.
    pub origin: String,
}

/// All keys of `home` under `flags`, in the order of the default file. Refuses what a node would refuse.
pub fn rows(home: &Path, flags: Partial) -> Result<Vec<Row>, ConfigError> {
    rows_over(machine_defaults(), home, flags, |name| std::env::var(name).ok())
}

pub(super) fn rows_over(
    defaults: Partial,
    home: &Path,
    flags: Partial,
    env: impl Fn(&str) -> Option<String>,
) -> Result<Vec<Row>, ConfigError> {
    let layers = Layers::read(defaults, home, flags, env)?;
    let config = parse::config(home, &layers)?;
    let shown = serde_json::to_value(shown(&config, &layers.partial)).unwrap_or_default();
    let row = |key: &&str| Row {
        key: (*key).into(),
        value: shown.get(key).cloned().unwrap_or_default(),
        origin: layers.origin(key).unwrap_or_else(|| DEFAULT.into()),
    };
    Ok(KEYS.iter().map(row).collect())
}

/// `config` as a file would say it. With `api = false` it says no address, so the one that was `given` is shown.
fn shown(config: &Config, given: &Partial) -> Partial {
    fn texts<T: ToString>(values: &[T]) -> Option<Vec<String>> {
        Some(values.iter().map(ToString::to_string).collect())
    }
    let parts = |price: &Price| [("in".to_owned(), price.input.0), ("out".to_owned(), price.output.0)].into();
    let (evm, solana) = (config.evm.as_ref(), config.solana.as_ref());
    let api_listen = config.api.map(|address| address.to_string()).or_else(|| given.api_listen.clone());
    Partial {
        network: Some(config.network.to_string()),
        listen: texts(&config.listen),
        chat_listen: Some(config.chat_listen.to_string()),
        chat_advertise: texts(&config.chat_advertise),
        bootstrap: texts(&config.bootstrap.iter().cloned().map(BootstrapAddress::from).collect::<Vec<_>>()),
        mdns: Some(config.mdns),
        max_peers: Some(config.max_peers),
        reach: Some(config.reach.mode.to_string()),
        external_addresses: texts(&config.reach.external),
        hidden_addresses: texts(&config.reach.hidden),
        relays: texts(&config.reach.relays),
        upnp: Some(config.reach.upnp),
        backend: texts(&config.backend),
        allow_link_local_engine: Some(config.allow_link_local_engine),
        price_in: Some(config.pricing.base.input.0),
        price_out: Some(config.pricing.base.output.0),
        prices: Some(config.pricing.models.iter().map(|(model, price)| (model.clone(), parts(price))).collect()),
        price_floor_in: Some(config.pricing.floor.input.0),
        price_floor_out: Some(config.pricing.floor.output.0),
        price_rise: Some(config.pricing.rise_percent),
        slots: Some(config.slots),
        free_credit: Some(config.credit.free.0),
        credit: Some(config.credit.limits.iter().map(|(buyer, limit)| format!("{buyer}={}", limit.0)).collect()),
        model_slots: Some(config.pricing.slots.iter().map(|(model, n)| format!("{model}={n}")).collect()),
        models: Some(config.models.clone()),
        aliases: texts(&config.aliases),
        region: config.region.as_ref().map(ToString::to_string),
        schedule: texts(&config.policy.schedule.0),
        max_celsius: config.policy.max_celsius,
        max_watts: config.policy.max_watts,
        only_idle: Some(config.policy.idle_percent.is_some()),
        idle_percent: Some(config.idle_percent),
        api: Some(config.api.is_some()),
        api_listen: Some(api_listen.unwrap_or_else(|| parse::DEFAULT_API_LISTEN.into())),
        api_hosts: texts(&config.api_hosts),
        api_origins: texts(&config.api_origins),
        max_price: Some(config.max_price.0),
        spend_per_request: config.spend_per_request.map(|limit| limit.0),
        spend_per_day: config.spend_per_day.map(|limit| limit.0),
        allow_workers: texts(&config.allow_workers),
        deny_workers: texts(&config.deny_workers),
        min_reputation: Some(config.min_reputation),
        regions: texts(&config.regions),
        standing: Some(config.standing),
        planes: texts(&config.planes),
        heartbeat_secs: Some(config.heartbeat.as_secs()),
        // Without its path, which is the secret.
        evm_rpc: evm.map(|evm| Secret(evm.rpc.to_string())),
        evm_chain: evm.map(|evm| evm.terms.chain),
        evm_contract: evm.map(|evm| evm.terms.contract.to_string()),
        evm_token: evm.filter(|evm| evm.terms.token != EvmAddress::ZERO).map(|evm| evm.terms.token.to_string()),
        evm_rate: evm.and_then(|evm| evm.terms.rate.try_into().ok()),
        evm_depth: Some(evm.map_or(evm::DEFAULT_DEPTH, |evm| evm.depth)),
        evm_max_gwei: Some(evm.map_or(evm::DEFAULT_MAX_GWEI, |evm| evm.max_gwei)),
        payout_at: Some(config.payout_at.0),
        payout_evm: config.payout_evm.map(|to| to.to_string()),
        solana_rpc: solana.map(|solana| solana.rpc.iter().map(|rpc| Secret(rpc.to_string())).collect()),
        solana_cluster: given.solana_cluster.clone().or_else(|| Some(solana::DEFAULT_CLUSTER.into())),
        solana_mint: solana.map(|solana| solana::mint_text(&solana.coin)).or_else(|| given.solana_mint.clone()),
        solana_decimals: given.solana_decimals.or(Some(solana::DEFAULT_DECIMALS.into())),
        solana_rate: given.solana_rate,
        solana_tranche: given.solana_tranche.or(Some(solana::DEFAULT_TRANCHE)),
        solana_priority_fee: given.solana_priority_fee.or(Some(solana::DEFAULT_PRIORITY_FEE)),
        payout_solana: given.payout_solana.clone(),
        passphrase_file: config.passphrase_file.as_ref().map(|file| file.display().to_string()),
        grace_secs: Some(config.grace.as_secs()),
        log_file: Some(config.log_file),
    }
}
