//! What the facts mean, and what to do about it. Pure. In the order in which things are to be mended.

mod machine;
mod network;

use super::{
    Check,
    facts::{Facts, Running},
};
use crate::identity::IdentityError;

/// Permission bits of group and others.
const OTHERS: u32 = 0o077;

/// One check or more of everything.
pub(super) fn checks(facts: &Facts) -> Vec<Check> {
    let all = [
        vec![version(facts)],
        home(facts),
        vec![key(facts)],
        secrets(facts),
        vec![config(facts)],
        variables(facts),
        machine::disk(facts),
        vec![machine::store(facts)],
        vec![node(facts)],
        network::ports(facts),
        machine::engines(facts),
        network::peers(facts),
        network::reach(facts),
        network::bootstrap(facts),
        vec![network::mdns(facts)],
        vec![machine::clock(facts)],
        vec![machine::descriptors(facts)],
        vec![network::buffers(facts)],
        warnings(facts),
    ];
    all.into_iter().flatten().collect()
}

fn version(facts: &Facts) -> Check {
    let ours = env!("CARGO_PKG_VERSION");
    match facts.node.facts() {
        Some(node) if node.status.version != ours => Check::warning(
            "version",
            format!("this is version {ours}, and the running node is of version {}", node.status.version),
            "start the node again, so that both are the same",
        ),
        _ => Check::ok("version", format!("infernet {ours}")),
    }
}

fn home(facts: &Facts) -> Vec<Check> {
    let shown = facts.home.display();
    let check = match facts.home_mode {
        None => Check::warning("home", format!("there is no home at {shown} yet"), "infernet setup"),
        Some(mode) if mode & 0o022 != 0 => Check::problem(
            "home",
            format!("others may write to the home {shown} (mode {mode:04o}), and so replace its key"),
            format!("chmod 700 {shown}"),
        ),
        Some(mode) if mode & OTHERS != 0 => Check::warning(
            "home",
            format!("others may look into the home {shown} (mode {mode:04o}), and see its log and receipts"),
            format!("chmod 700 {shown}"),
        ),
        Some(_) => Check::ok("home", format!("{shown} is yours alone")),
    };
    vec![check]
}

fn key(facts: &Facts) -> Check {
    match &facts.key {
        Ok((id, sealed)) => {
            let how = if *sealed { "encrypted" } else { "in plain, readable by you alone" };
            Check::ok("key", format!("node {id}; its key is {how}"))
        }
        Err(IdentityError::Missing { .. }) if let Some(node) = facts.node.facts() => {
            let short = node.status.id.short();
            Check::ok("key", format!("none is in this home: the running node {short} has its key from elsewhere"))
        }
        Err(IdentityError::Missing { .. }) => Check::warning("key", "there is no key yet", "infernet setup"),
        Err(error) => {
            let text = error.to_string();
            // The errors of keys end with their way out.
            match text.rsplit_once(": ") {
                Some((said, fix)) => Check::problem("key", said, fix),
                None => Check::problem("key", text, "restore it from your backup with `infernet key restore FILE`"),
            }
        }
    }
}

fn secrets(facts: &Facts) -> Vec<Check> {
    let exposed = facts.secrets.iter().filter(|(_, mode)| mode & OTHERS != 0);
    let mut checks: Vec<Check> = exposed
        .map(|(path, mode)| {
            let shown = path.display();
            let said = format!("others may use {shown} (mode {mode:04o})");
            Check::problem("secrets", said, format!("chmod 600 {shown}"))
        })
        .collect();
    if checks.is_empty() {
        checks.push(match facts.secrets.len() {
            0 => Check::ok("secrets", "no API token, API keys or operators yet"),
            _ => Check::ok("secrets", "API token, keys and operators are readable by you alone"),
        });
    }
    checks
}

fn config(facts: &Facts) -> Check {
    match &facts.config {
        Ok(config) if config.has_file => Check::ok("config", "config.toml can be used"),
        Ok(_) => Check::ok("config", "there is no config.toml, so the defaults hold"),
        Err(error) => {
            Check::problem("config", error.clone(), "mend that line; `infernet config show --origin` then tells what holds")
        }
    }
}

fn variables(facts: &Facts) -> Vec<Check> {
    let told = |said: &String| {
        let (said, fix) = said.split_once(": ").unwrap_or((said, "unset it"));
        Check::warning("config", said, fix)
    };
    facts.unknown_variables.iter().map(told).collect()
}

fn node(facts: &Facts) -> Check {
    match &facts.node {
        Running::No => Check::ok("node", "no node runs here; `infernet start` starts it"),
        Running::Stuck(why) => {
            Check::problem("node", format!("a node runs here and does not answer: {why}"), "infernet logs, then start it again")
        }
        Running::Yes(node) => {
            let what = if node.status.seller.is_some() { "sells and buys" } else { "only buys" };
            let minutes = match node.status.uptime_ms / 60_000 {
                1 => "1 minute".to_owned(),
                n => format!("{n} minutes"),
            };
            Check::ok("node", format!("runs for {minutes} on network {}, and {what}", node.status.network))
        }
    }
}

/// What the running node warns of, but for what is checked here anyway.
fn warnings(facts: &Facts) -> Vec<Check> {
    const OURS: [&str; 4] = ["no_peers", "engine_down", "no_model", "clock"];
    let warnings = facts.node.facts().into_iter().flat_map(|node| &node.status.warnings);
    let new = warnings.filter(|warning| !OURS.contains(&warning.code.as_str()));
    new.map(|warning| {
        let fix = warning.change.clone().unwrap_or_else(|| "infernet why".into());
        Check::warning(&warning.code, format!("{}: {}", warning.seen, warning.means), fix)
    })
    .collect()
}

#[cfg(test)]
mod tests;
