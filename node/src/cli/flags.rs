//! Flags that are configuration: each fills a key of [`Partial`], and what is not given is left to environment and file.

use super::money;
use crate::config::{self, Partial};
use clap::{Arg, Args, Command, Id};
use std::collections::{BTreeMap, BTreeSet};

/// The structs below whose flags are configuration, as clap calls them.
const GROUPS: [&str; 5] = ["ReachArgs", "SecretArgs", "SellArgs", "BuyArgs", "RunArgs"];
/// The flags of [`MeshArgs`], which are wherever [`ReachArgs`] is: clap knows no flags of a struct that has others within.
const MESH: [&str; 6] = ["listen", "chat_listen", "bootstrap", "no_mdns", "network", "max_peers"];

/// A model, and what `in` and `out` cost.
type ModelPrice = (String, BTreeMap<String, u64>);

fn price(text: &str) -> Result<ModelPrice, String> {
    config::model_price(text).ok_or_else(|| "write MODEL=IN/OUT, such as llama3.1:8b=100000/400000".into())
}

fn list(items: &[String]) -> Option<Vec<String>> {
    (!items.is_empty()).then(|| items.to_vec())
}

/// Says, in the help of each flag that is configuration, which variable says the same. Reading them is not clap's: it would take
/// a variable for a flag, and nobody could tell any more which of the two won.
pub(super) fn with_variables(command: Command) -> Command {
    let groups = command.get_groups().filter(|group| GROUPS.contains(&group.get_id().as_str()));
    let mut ours: BTreeSet<Id> = groups.flat_map(|group| group.get_args().cloned().collect::<Vec<_>>()).collect();
    if command.get_groups().any(|group| group.get_id() == "ReachArgs") {
        ours.extend(MESH.map(Id::from));
    }
    let said = |arg: Arg| if ours.contains(arg.get_id()) { with_variable(arg) } else { arg };
    command.mut_args(said).mut_subcommands(with_variables)
}

fn with_variable(arg: Arg) -> Arg {
    let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
    match arg.get_long() {
        Some(long) => {
            let variable = format!("INFERNET_{}", long.to_uppercase().replace('-', "_"));
            arg.help(format!("{help} [env: {variable}]"))
        }
        None => arg,
    }
}

/// Flags of every command that joins the mesh.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Mesh")]
pub(super) struct MeshArgs {
    /// Multiaddr of the mesh to listen on, TCP or QUIC; repeatable [default: TCP 46337 and QUIC on UDP 46338]
    #[arg(long, value_name = "MULTIADDR")]
    pub(super) listen: Vec<String>,
    /// UDP address of the chat endpoint [default: [::]:46337]
    #[arg(long, value_name = "ADDR")]
    pub(super) chat_listen: Option<String>,
    /// Multiaddr of a peer to meet first, or a relay's http://HOST:46382/bootstrap.json; repeatable.
    #[arg(long, value_name = "ADDRESS")]
    bootstrap: Vec<String>,
    /// Don't look for peers on the local network.
    #[arg(long)]
    no_mdns: bool,
    /// Network to take part in [default: main]
    #[arg(long, value_name = "NAME")]
    network: Option<String>,
    /// Connections at most [default: 128]
    #[arg(long, value_name = "N")]
    max_peers: Option<u32>,
    #[command(flatten)]
    reach: ReachArgs,
    #[command(flatten)]
    secret: SecretArgs,
}

/// How an encrypted key opens.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Running")]
struct SecretArgs {
    /// File whose first line is the passphrase of this node's key, if that is encrypted [default: the terminal is asked]
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<String>,
}

/// How others are to reach this node.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Mesh")]
struct ReachArgs {
    /// How others reach this node: auto (relays if need be), direct, outbound-only (listen nowhere), relay-only (tell no address of
    /// this machine) [default: auto]
    #[arg(long, value_name = "HOW")]
    reach: Option<String>,
    /// Multiaddr at which others reach this node, such as that of a mapped port; repeatable.
    #[arg(long, value_name = "MULTIADDR")]
    external_address: Vec<String>,
    /// IP address of this machine that nobody is told, such as a container bridge's; repeatable.
    #[arg(long, value_name = "IP")]
    hide_address: Vec<String>,
    /// Multiaddr of a relay to use first; repeatable [default: those that the mesh knows]
    #[arg(long, value_name = "MULTIADDR")]
    relay: Vec<String>,
    /// Have the router map the mesh's ports [default: on]
    #[arg(long, value_name = "on|off", value_parser = on_or_off)]
    upnp: Option<bool>,
}

fn on_or_off(text: &str) -> Result<bool, String> {
    match text {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err("write on or off".into()),
    }
}

impl MeshArgs {
    pub(super) fn partial(&self) -> Partial {
        Partial {
            network: self.network.clone(),
            listen: list(&self.listen),
            chat_listen: self.chat_listen.clone(),
            bootstrap: list(&self.bootstrap),
            mdns: self.no_mdns.then_some(false),
            max_peers: self.max_peers,
            reach: self.reach.reach.clone(),
            external_addresses: list(&self.reach.external_address),
            hidden_addresses: list(&self.reach.hide_address),
            relays: list(&self.reach.relay),
            upnp: self.reach.upnp,
            passphrase_file: self.secret.passphrase_file.clone(),
            ..Partial::default()
        }
    }
}

/// Flags of a node that stays: everything that a configuration file can say and that makes sense on a command line.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct NodeArgs {
    #[command(flatten)]
    sell: SellArgs,
    #[command(flatten)]
    buy: BuyArgs,
    #[command(flatten)]
    run: RunArgs,
    #[command(flatten)]
    mesh: MeshArgs,
}

#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Selling")]
struct SellArgs {
    /// Engine to sell: ollama, vllm, sglang, max or llamacpp, and its URL; repeatable [default: the first on this machine that
    /// answers]
    #[arg(long, value_name = "KIND=URL", conflicts_with = "no_serve")]
    backend: Vec<String>,
    /// Ask an engine at a link-local or metadata address, where clouds tell machines their secrets.
    #[arg(long)]
    allow_link_local_engine: bool,
    /// Only buy and pass messages on; needs no engine.
    #[arg(long)]
    no_serve: bool,
    /// Price of a million input tokens, in micro-USD [default: 100000]
    #[arg(long, value_name = "MICRO_USD", value_parser = money::micro_usd)]
    price_in: Option<u64>,
    /// Price of a million output tokens, in micro-USD [default: 400000]
    #[arg(long, value_name = "MICRO_USD", value_parser = money::micro_usd)]
    price_out: Option<u64>,
    /// Price of one model, in micro-USD per million tokens; repeatable [default: that of all]
    #[arg(long, value_name = "MODEL=IN/OUT", value_parser = price)]
    price: Vec<ModelPrice>,
    /// Sell no million input tokens below this, in micro-USD [default: 0]
    #[arg(long, value_name = "MICRO_USD", value_parser = money::micro_usd)]
    price_floor_in: Option<u64>,
    /// Sell no million output tokens below this, in micro-USD [default: 0]
    #[arg(long, value_name = "MICRO_USD", value_parser = money::micro_usd)]
    price_floor_out: Option<u64>,
    /// By how much the last slot is dearer than the first [default: 0]
    #[arg(long, value_name = "PERCENT")]
    price_rise: Option<u32>,
    /// Jobs at once [default: 2]
    #[arg(long, value_name = "N")]
    slots: Option<u16>,
    /// What anybody may owe this worker, in micro-USD; a job needs credit for all that it may cost [default: 0]
    #[arg(long, value_name = "MICRO_USD", value_parser = money::micro_usd)]
    free_credit: Option<u64>,
    /// What one buyer may owe, in micro-USD; repeatable [default: --free-credit]
    #[arg(long, value_name = "NODE_ID=MICRO_USD")]
    credit: Vec<String>,
    /// Jobs at once of one model, such as llama3.3:70b=1; repeatable [default: all slots]
    #[arg(long, value_name = "MODEL=N")]
    model_slots: Vec<String>,
    /// Model to offer, and no other; repeatable [default: all]
    #[arg(long, value_name = "MODEL")]
    model: Vec<String>,
    /// Another name of a model, such as llama3.1:8b=meta-llama/Llama-3.1-8B-Instruct; repeatable.
    #[arg(long, value_name = "MODEL=ALIAS")]
    alias: Vec<String>,
    /// Where this worker is, such as eu-central, for buyers who care.
    #[arg(long, value_name = "NAME")]
    region: Option<String>,
    /// When to sell, in local time, such as "22:00-07:00 mon-fri"; repeatable [default: always]
    #[arg(long, value_name = "WINDOW")]
    schedule: Vec<String>,
    /// Take no job while a GPU is hotter, in degrees Celsius [default: no limit]
    #[arg(long, value_name = "DEGREES")]
    max_celsius: Option<u16>,
    /// Take no job while the GPUs draw more, in watts [default: no limit]
    #[arg(long, value_name = "WATTS")]
    max_watts: Option<u32>,
    /// Sell only while nobody else uses the machine.
    #[arg(long)]
    only_idle: bool,
    /// What others may use of a GPU or the processors with --only-idle [default: 20]
    #[arg(long, value_name = "PERCENT")]
    idle_percent: Option<u16>,
    /// Outer address of the chat endpoint behind a mapped port; repeatable [default: its own addresses]
    #[arg(long, value_name = "ADDR")]
    chat_advertise: Vec<String>,
}

#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Buying")]
struct BuyArgs {
    /// TCP address of the OpenAI endpoint [default: 127.0.0.1:46339]
    #[arg(long, value_name = "ADDR", conflicts_with = "no_api")]
    api_listen: Option<String>,
    /// No OpenAI endpoint.
    #[arg(long)]
    no_api: bool,
    /// Price ceiling of API requests, in micro-USD per million tokens [default: 10000000]
    #[arg(long, value_name = "MICRO_USD", value_parser = money::micro_usd)]
    max_price: Option<u64>,
    /// The most that one job may cost, in micro-USD [default: no limit]
    #[arg(long, value_name = "MICRO_USD", value_parser = money::micro_usd)]
    spend_per_request: Option<u64>,
    /// The most that all jobs of a UTC day may cost, in micro-USD [default: no limit]
    #[arg(long, value_name = "MICRO_USD", value_parser = money::micro_usd)]
    spend_per_day: Option<u64>,
    /// Node id of a worker that may get jobs; then no other may; repeatable.
    #[arg(long, value_name = "NODE_ID")]
    allow: Vec<String>,
    /// Node id of a worker that gets no job; repeatable.
    #[arg(long, value_name = "NODE_ID")]
    deny: Vec<String>,
    /// Settled receipts that a worker must have [default: 0]
    #[arg(long, value_name = "N")]
    min_reputation: Option<u32>,
    /// Only workers that say they are there; repeatable [default: everywhere]
    #[arg(long, value_name = "NAME")]
    only_region: Vec<String>,
    /// Hold an auction for every job, even where an advertised price is good enough.
    #[arg(long)]
    no_standing: bool,
}

#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Running")]
struct RunArgs {
    /// Control plane to tell of this node, such as https://plane.example; repeatable [default: none]
    #[arg(long, value_name = "URL")]
    plane: Vec<String>,
    /// Seconds between two heartbeats to a plane [default: 30]
    #[arg(long, value_name = "SECS")]
    heartbeat_secs: Option<u64>,
    /// Seconds that running jobs may take to end when told to stop [default: 60]
    #[arg(long, value_name = "SECS")]
    grace_secs: Option<u64>,
    /// Don't write infernet.log in the home.
    #[arg(long)]
    no_log_file: bool,
}

impl NodeArgs {
    pub(super) fn partial(&self) -> Partial {
        let (sell, buy, run) = (&self.sell, &self.buy, &self.run);
        Partial {
            backend: if sell.no_serve { Some(Vec::new()) } else { list(&sell.backend) },
            allow_link_local_engine: sell.allow_link_local_engine.then_some(true),
            price_in: sell.price_in,
            price_out: sell.price_out,
            prices: (!sell.price.is_empty()).then(|| sell.price.iter().cloned().collect()),
            price_floor_in: sell.price_floor_in,
            price_floor_out: sell.price_floor_out,
            price_rise: sell.price_rise,
            slots: sell.slots,
            free_credit: sell.free_credit,
            credit: list(&sell.credit),
            model_slots: list(&sell.model_slots),
            models: list(&sell.model),
            schedule: list(&sell.schedule),
            max_celsius: sell.max_celsius,
            max_watts: sell.max_watts,
            only_idle: sell.only_idle.then_some(true),
            idle_percent: sell.idle_percent,
            aliases: list(&sell.alias),
            region: sell.region.clone(),
            chat_advertise: list(&sell.chat_advertise),
            api: buy.no_api.then_some(false),
            api_listen: buy.api_listen.clone(),
            max_price: buy.max_price,
            spend_per_request: buy.spend_per_request,
            spend_per_day: buy.spend_per_day,
            allow_workers: list(&buy.allow),
            deny_workers: list(&buy.deny),
            min_reputation: buy.min_reputation,
            regions: list(&buy.only_region),
            standing: buy.no_standing.then_some(false),
            planes: list(&run.plane),
            heartbeat_secs: run.heartbeat_secs,
            grace_secs: run.grace_secs,
            log_file: run.no_log_file.then_some(false),
            ..self.mesh.partial()
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::cli::command_line;

    #[test]
    fn the_help_of_every_setting_names_a_variable_that_is_read() {
        let mut cli = command_line();
        for name in ["start", "chat"] {
            let help = cli.find_subcommand_mut(name).unwrap().render_long_help().to_string();
            let named: Vec<&str> = help.split("[env: ").skip(1).filter_map(|rest| rest.split([']', '=']).next()).collect();
            assert!(named.contains(&"INFERNET_BOOTSTRAP"), "{help}");
            assert_eq!(named.contains(&"INFERNET_PRICE_OUT"), name == "start", "{help}");
            assert!(named.iter().all(|name| crate::config::is_variable(name)), "{named:?}");
        }
        let start = cli.find_subcommand_mut("start").unwrap();
        let is_setting = |arg: &clap::Arg| !arg.is_global_set() && arg.get_id() != "help";
        let silent = |arg: &&clap::Arg| is_setting(arg) && !arg.get_help().unwrap().to_string().contains("[env: ");
        let silent: Vec<_> = start.get_arguments().filter(silent).map(|arg| arg.get_id().as_str()).collect();
        assert!(silent.is_empty(), "{silent:?}");
    }
}
