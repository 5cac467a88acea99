//! `infernet schema`: what `--json` prints, as JSON Schema, made from the very types that are printed. A field's description is
//! its documentation there. Fields are added, never renamed or given another meaning; a reader should ignore what it does not
//! know.

#[cfg(test)]
mod page;

use super::{
    Context, api_key, command, config::PathReport, drain, exit, exit::Exit, key, login, model, operator, pages, query,
    receipts, service, setup,
};
use crate::{
    config::Row,
    control::schema::{
        CommandReport, CreditReport, DisputeReport, ErrorReport, ModelReport, PeerReport, StatusReport, StepReport,
        TrancheReport, WalletReport,
    },
    doctor::DoctorReport,
    earnings::BookReport,
    jobs::JobReport,
    report::{ChatReport, ReceiptReport},
    why::WhyReport,
};
use schemars::{JsonSchema, Schema, schema_for};
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeMap;

/// What stderr says if a command fails.
#[derive(Debug, Serialize, JsonSchema)]
struct Failure {
    /// What is wrong.
    error: ErrorReport,
}

/// A line of the log, as `tracing` writes it.
#[derive(Debug, Serialize, JsonSchema)]
struct LogLine {
    /// When, in UTC (RFC 3339).
    timestamp: String,
    /// `ERROR`, `WARN`, `INFO`, `DEBUG` or `TRACE`.
    level: String,
    /// `message`, and what else is known.
    fields: BTreeMap<String, Value>,
    /// The module that says it.
    target: String,
}

/// Each command's name with what it prints on stdout; `logs`, `model pull`, `command`, and what is given `--watch`, prints one such value a line. Under `error`: stderr of all.
fn all() -> BTreeMap<&'static str, Schema> {
    BTreeMap::from([
        ("error", schema_for!(Failure)),
        ("init", schema_for!(query::InitReport)),
        ("start", schema_for!(StatusReport)),
        ("status", schema_for!(StatusReport)),
        ("drain", schema_for!(drain::DrainedReport)),
        ("resume", schema_for!(drain::DrainedReport)),
        ("jobs", schema_for!(Vec<JobReport>)),
        ("why", schema_for!(WhyReport)),
        ("doctor", schema_for!(DoctorReport)),
        ("chat", schema_for!(ChatReport)),
        ("models", schema_for!(Vec<ModelReport>)),
        ("model list", schema_for!(Vec<model::InstalledReport>)),
        ("model pull", schema_for!(model::PullEvent)),
        ("model remove", schema_for!(model::RemovedReport)),
        ("model show", schema_for!(model::ModelDetails)),
        ("model use", schema_for!(model::UseReport)),
        ("model recommend", schema_for!(model::RecommendReport)),
        ("peers", schema_for!(Vec<PeerReport>)),
        ("receipts", schema_for!(Vec<ReceiptReport>)),
        ("receipts show", schema_for!(Vec<receipts::WholeReceipt>)),
        ("receipts verify", schema_for!(receipts::VerifyReport)),
        ("receipts disputes", schema_for!(Vec<DisputeReport>)),
        ("api-key add", schema_for!(api_key::NewApiKeyReport)),
        ("api-key list", schema_for!(Vec<api_key::ApiKeyReport>)),
        ("api-key remove", schema_for!(Vec<api_key::ApiKeyReport>)),
        ("earnings", schema_for!(BookReport)),
        ("spend", schema_for!(BookReport)),
        ("credit list", schema_for!(Vec<CreditReport>)),
        ("credit set", schema_for!(Vec<CreditReport>)),
        ("credit paid", schema_for!(Vec<CreditReport>)),
        ("tranche list", schema_for!(Vec<TrancheReport>)),
        ("tranche buy", schema_for!(Vec<TrancheReport>)),
        ("tranche drop", schema_for!(Vec<TrancheReport>)),
        ("wallet balance", schema_for!(WalletReport)),
        ("wallet deposit", schema_for!(Vec<StepReport>)),
        ("wallet close", schema_for!(Vec<StepReport>)),
        ("wallet withdraw", schema_for!(Vec<StepReport>)),
        ("payout set evm", schema_for!(Row)),
        ("payout set solana", schema_for!(Row)),
        ("payout list", schema_for!(WalletReport)),
        ("payout now", schema_for!(Vec<StepReport>)),
        ("key show", schema_for!(key::KeyReport)),
        ("key backup", schema_for!(key::KeyFileReport)),
        ("key restore", schema_for!(key::KeyFileReport)),
        ("key encrypt", schema_for!(key::KeyFileReport)),
        ("key decrypt", schema_for!(key::KeyFileReport)),
        ("key rotate", schema_for!(key::RotationReport)),
        ("operator add", schema_for!(Vec<operator::OperatorReport>)),
        ("operator list", schema_for!(Vec<operator::OperatorReport>)),
        ("operator remove", schema_for!(Vec<operator::OperatorReport>)),
        ("operator sign", schema_for!(operator::SignedCommandReport)),
        ("operator send", schema_for!(CommandReport)),
        ("command", schema_for!(command::CommandState)),
        ("login", schema_for!(login::LoginReport)),
        ("config show", schema_for!(Vec<Row>)),
        ("config path", schema_for!(PathReport)),
        ("logs", schema_for!(LogLine)),
        ("service install", schema_for!(service::InstalledReport)),
        ("service status", schema_for!(service::ServiceReport)),
        ("service uninstall", schema_for!(service::UninstalledReport)),
        ("setup", schema_for!(setup::SetupReport)),
        ("man", schema_for!(pages::ManReport)),
    ])
}

pub(super) fn run(context: &Context, command: &str) -> Result<(), Exit> {
    let all = all();
    let failed = |error: serde_json::Error| Exit::new(exit::FAILED, error);
    let text = match (command, all.get(command)) {
        ("", _) => serde_json::to_string_pretty(&all).map_err(failed)?,
        (_, Some(schema)) => serde_json::to_string_pretty(schema).map_err(failed)?,
        _ => {
            let known: Vec<&str> = all.keys().copied().collect();
            return Err(Exit::new(exit::USAGE, format!("no schema of {command:?}: there are {}", known.join(", "))));
        }
    };
    context.print(text);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Cli;
    use clap::CommandFactory;

    /// Commands whose output is a text for another program, or a screen.
    const TEXTS: [&str; 4] = ["completions", "schema", "service logs", "tui"];

    fn leaves(command: &clap::Command, above: &str) -> Vec<String> {
        let below: Vec<_> = command.get_subcommands().filter(|c| c.get_name() != "help").collect();
        let name = |c: &clap::Command| format!("{above} {}", c.get_name()).trim().to_owned();
        below
            .iter()
            .flat_map(|c| match leaves(c, &name(c)) {
                deeper if c.is_subcommand_required_set() => deeper,
                deeper => [vec![name(c)], deeper].concat(),
            })
            .collect()
    }

    #[test]
    fn every_command_has_a_schema() {
        let mut expected = leaves(&Cli::command(), "");
        expected.retain(|name| !TEXTS.contains(&name.as_str()));
        expected.push("error".into());
        expected.sort();
        assert!(all().keys().copied().eq(expected.iter().map(String::as_str)), "{expected:?}");
    }

    #[test]
    fn every_field_is_described() {
        fn check(path: &str, value: &Value) {
            let properties = value.get("properties").and_then(Value::as_object);
            for (name, field) in properties.into_iter().flatten() {
                assert!(field.get("description").is_some(), "{path}.{name} says nothing: {field}");
            }
            let inner = value.as_object().into_iter().flatten().filter(|(key, _)| *key != "properties");
            inner.for_each(|(key, value)| check(&format!("{path}.{key}"), value));
        }
        for (name, schema) in all() {
            check(name, schema.as_value());
        }
    }
}
