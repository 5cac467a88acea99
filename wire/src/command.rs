//! `OperatorCommand`: what an operator tells a node from afar. The node's owner named the operator's key on the node itself;
//! whoever carries the command (a control plane, a file) can delay or lose it, never invent or repeat it.

use crate::{
    envelope::{Kind, Message, Refusal, field},
    id::NodeId,
    limits,
    money::{MicroUsd, Price},
    time::UnixMillis,
};
use serde::{Deserialize, Serialize};
use std::fmt;

/// Stop bidding; running jobs end. Undone by [`RESUME`].
pub const DRAIN: &str = "drain";
/// Bid again.
pub const RESUME: &str = "resume";
/// Fetch a model; its name is the argument.
pub const MODEL_INSTALL: &str = "model_install";
/// Remove a model from the engine's disk; its name is the argument.
pub const MODEL_REMOVE: &str = "model_remove";
/// Sell at another price: `IN/OUT`, or `MODEL=IN/OUT` for one model, in micro-USD per million tokens.
pub const SET_PRICE: &str = "set_price";
/// All of them.
pub const VERBS: [&str; 5] = [DRAIN, RESUME, MODEL_INSTALL, MODEL_REMOVE, SET_PRICE];

/// One dollar per token: whoever asks for more has mistaken the unit.
const MAX_PRICE: u64 = 1_000_000_000_000;

/// One command for one node. Verbs are open: a node refuses what it does not know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperatorCommand {
    /// The node that is to obey.
    pub node: NodeId,
    /// Above every earlier one of the same operator for the same node.
    pub sequence: u64,
    /// When it was made.
    pub issued: UnixMillis,
    /// When it no longer counts.
    pub expires: UnixMillis,
    /// What to do, such as [`DRAIN`].
    pub verb: String,
    /// To what or how; empty where the verb needs nothing.
    pub argument: String,
}

impl Message for OperatorCommand {
    const KIND: Kind = Kind::OperatorCommand;
    const MAX_BYTES: usize = limits::MAX_COMMAND_BYTES;
    const MAX_TTL_MS: u64 = limits::COMMAND_TTL_MS;

    fn issued(&self) -> UnixMillis {
        self.issued
    }

    fn expires(&self) -> UnixMillis {
        self.expires
    }

    fn check(&self) -> Result<(), Refusal> {
        field::ensure(self.sequence > 0, "sequence")?;
        field::name(&self.verb, "verb")?;
        field::optional_name(&self.argument, "argument")
    }
}

/// What a command says to do, read once. Both who carries a command and who obeys it read it by this.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verb {
    /// Bid on nothing more; running jobs end.
    Drain,
    /// Bid again.
    Resume,
    /// Fetch this model.
    ModelInstall(String),
    /// Remove this model.
    ModelRemove(String),
    /// Sell at this price.
    SetPrice {
        /// Only this model; `None`: all that have no price of their own.
        model: Option<String>,
        /// The price of a million tokens.
        price: Price,
    },
}

/// A verb, or its argument, that means nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadVerb {
    /// There is no such verb.
    #[error("unknown verb {0:?}: there are {list}", list = VERBS.join(", "))]
    Unknown(String),
    /// The verb takes none.
    #[error("the verb {0} takes no argument")]
    Needless(&'static str),
    /// No name of a model.
    #[error("{0:?} is no name of a model: write one of at most {limit} bytes, such as llama3.1:8b", limit = limits::MAX_NAME_BYTES)]
    Model(String),
    /// No price.
    #[error("{0:?} is no price: write IN/OUT or MODEL=IN/OUT in micro-USD per million tokens, such as 100000/400000")]
    Price(String),
}

impl Verb {
    /// Reads the verb and argument of a command.
    pub fn parse(verb: &str, argument: &str) -> Result<Self, BadVerb> {
        let alone = |found: Verb| if argument.is_empty() { Ok(found) } else { Err(BadVerb::Needless(found.name())) };
        match verb {
            DRAIN => alone(Verb::Drain),
            RESUME => alone(Verb::Resume),
            MODEL_INSTALL => model(argument).map(Verb::ModelInstall),
            MODEL_REMOVE => model(argument).map(Verb::ModelRemove),
            SET_PRICE => set_price(argument),
            _ => Err(BadVerb::Unknown(verb.into())),
        }
    }

    /// Its name on the wire.
    pub fn name(&self) -> &'static str {
        match self {
            Verb::Drain => DRAIN,
            Verb::Resume => RESUME,
            Verb::ModelInstall(_) => MODEL_INSTALL,
            Verb::ModelRemove(_) => MODEL_REMOVE,
            Verb::SetPrice { .. } => SET_PRICE,
        }
    }

    /// Its argument on the wire.
    pub fn argument(&self) -> String {
        match self {
            Verb::Drain | Verb::Resume => String::new(),
            Verb::ModelInstall(model) | Verb::ModelRemove(model) => model.clone(),
            Verb::SetPrice { model: None, price } => format!("{}/{}", price.input.0, price.output.0),
            Verb::SetPrice { model: Some(model), price } => format!("{model}={}/{}", price.input.0, price.output.0),
        }
    }
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, argument) = (self.name(), self.argument());
        if argument.is_empty() { f.write_str(name) } else { write!(f, "{name} {argument}") }
    }
}

/// A name that no engine's command line could take for an option.
fn model(name: &str) -> Result<String, BadVerb> {
    let fits = (1..=limits::MAX_NAME_BYTES).contains(&name.len()) && !name.starts_with('-');
    let plain = !name.chars().any(|c| c.is_control() || c.is_whitespace());
    if fits && plain { Ok(name.into()) } else { Err(BadVerb::Model(name.into())) }
}

fn set_price(argument: &str) -> Result<Verb, BadVerb> {
    let bad = || BadVerb::Price(argument.into());
    let (of, price) = match argument.rsplit_once('=') {
        Some((name, price)) => (Some(model(name)?), price),
        None => (None, argument),
    };
    let part = |text: &str| text.parse().ok().filter(|price| *price <= MAX_PRICE).map(MicroUsd).ok_or_else(bad);
    let (input, output) = price.split_once('/').ok_or_else(bad)?;
    Ok(Verb::SetPrice { model: of, price: Price { input: part(input)?, output: part(output)? } })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verbs_are_read_as_they_are_written() {
        let price = |input, output| Price { input: MicroUsd(input), output: MicroUsd(output) };
        let all = [
            (Verb::Drain, "drain"),
            (Verb::Resume, "resume"),
            (Verb::ModelInstall("llama3.1:8b".into()), "model_install llama3.1:8b"),
            (Verb::ModelRemove("hf.co/a/b:Q4".into()), "model_remove hf.co/a/b:Q4"),
            (Verb::SetPrice { model: None, price: price(1, 2) }, "set_price 1/2"),
            (Verb::SetPrice { model: Some("a=b".into()), price: price(0, MAX_PRICE) }, "set_price a=b=0/1000000000000"),
        ];
        for (verb, text) in all {
            assert_eq!(verb.to_string(), text);
            assert_eq!(Verb::parse(verb.name(), &verb.argument()), Ok(verb));
        }
    }

    #[test]
    fn what_means_nothing_is_refused_with_the_fix() {
        let check = |verb: &str, argument: &str, expected: &str| {
            let error = Verb::parse(verb, argument).expect_err("refused").to_string();
            assert!(error.contains(expected), "{error}");
        };
        check("dance", "", "drain, resume, model_install");
        check("drain", "now", "takes no argument");
        check("model_install", "", "llama3.1:8b");
        check("model_install", "--insecure", "no name of a model");
        check("model_remove", "a b", "no name of a model");
        check("model_remove", "a\nb", "no name of a model");
        for bad in ["", "1", "1/", "-1/2", "1/2/3", "1/1000000000001", "=1/2"] {
            assert!(Verb::parse("set_price", bad).is_err(), "{bad}");
        }
    }
}
