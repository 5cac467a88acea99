//! Flags over environment over file over defaults, each value knowing where it came from. The only file that names `figment`.

use super::{CONFIG_FILE, ConfigError, KEYS, Partial, partial};
use crate::backend::{BadVariable, EngineVariables};
use figment::{
    Figment, Metadata, Profile, Provider, Source,
    error::Kind,
    providers::{Format, Serialized, Toml},
    value::{Dict, Map, Tag, Value},
};
use std::{collections::BTreeMap, path::Path};

const DEFAULT_LAYER: &str = "default";
const ENV_LAYER: &str = "environment";
const FLAG_LAYER: &str = "command line";

/// What every source says together.
pub(super) struct Layers {
    layers: Figment,
    /// The winners.
    pub(super) partial: Partial,
    /// What the engines' own variables say, such as `OLLAMA_HOST`.
    pub(super) engines: EngineVariables,
    /// The variable that was read for a key, which has two names.
    variables: BTreeMap<&'static str, String>,
}

impl Layers {
    /// Nobody says anything.
    pub(super) fn none() -> Self {
        Layers {
            layers: Figment::new(),
            partial: Partial::default(),
            engines: EngineVariables::default(),
            variables: BTreeMap::new(),
        }
    }

    /// What a file with this text says, under no flag and no variable.
    pub(super) fn of_text(text: &str) -> Result<Self, ConfigError> {
        let layers = Figment::from(Layer { name: DEFAULT_LAYER, values: Partial::default() }).merge(Toml::string(text));
        let partial = layers.extract::<Partial>().map_err(|error| refused(Path::new(CONFIG_FILE), &error))?;
        Ok(Layers { layers, partial, ..Layers::none() })
    }

    /// Reads the sources of `home`. The file need not exist.
    pub(super) fn read(
        defaults: Partial,
        home: &Path,
        flags: Partial,
        env: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, ConfigError> {
        let file = home.join(CONFIG_FILE);
        let exists = file.try_exists().unwrap_or(true);
        let base = Figment::from(Layer { name: DEFAULT_LAYER, values: defaults });
        let layers = if exists { base.merge(Toml::file_exact(&file)) } else { base }
            .merge(Layer { name: ENV_LAYER, values: Partial::of_environment(&env)? })
            .merge(Layer { name: FLAG_LAYER, values: flags });
        let partial = layers.extract::<Partial>().map_err(|error| refused(&file, &error))?;
        let said = |key: &&'static str| Some((*key, partial::said(key, &env).ok()??.0));
        let variables = KEYS.iter().filter_map(said).collect();
        let engines = EngineVariables::read(env).map_err(bad_variable)?;
        Ok(Layers { layers, partial, engines, variables })
    }

    /// Where the value of `key` came from: a flag, a variable, a file; `None` for the default.
    pub(super) fn origin(&self, key: &str) -> Option<String> {
        // A table has no origin of its own; its first value's is meant.
        let first = self.layers.find_value(key).ok().and_then(|value| first_tag(&value));
        match first.and_then(|tag| self.layers.get_metadata(tag)).or_else(|| self.layers.find_metadata(key)) {
            Some(layer) if layer.name == ENV_LAYER => self.variables.get(key).cloned(),
            Some(layer) if layer.name == FLAG_LAYER => Some(self.flag(key)),
            Some(Metadata { source: Some(Source::File(path)), .. }) => Some(path.display().to_string()),
            _ if key == "backend" && !self.engines.host_names().is_empty() => Some(self.engines.host_names().join(", ")),
            _ => None,
        }
    }
}

impl Layers {
    /// The flag that was given for `key`.
    fn flag(&self, key: &str) -> String {
        match &self.partial.backend {
            Some(none) if key == "backend" && none.is_empty() => "--no-serve".into(),
            _ => partial::flag(key),
        }
    }
}

fn first_tag(value: &Value) -> Option<Tag> {
    match value {
        Value::Dict(_, table) => table.values().find_map(first_tag),
        other => Some(other.tag()),
    }
}

/// Values with the name of where they came from.
struct Layer {
    name: &'static str,
    values: Partial,
}

impl Provider for Layer {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.name)
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        Serialized::defaults(&self.values).data()
    }
}

/// An engine's own variable that can't be used, as a sentence.
pub(super) fn bad_variable(bad: BadVariable) -> ConfigError {
    let BadVariable { name, value, why } = bad;
    ConfigError::Value { key: "backend", value, origin: name.into(), fix: why.to_string() }
}

/// Turns figment's refusal of the file into one sentence. Only the file can be refused: the other layers are typed.
fn refused(file: &Path, error: &figment::Error) -> ConfigError {
    let key = error.path.first().and_then(|path| KEYS.iter().find(|key| *key == path));
    match (&error.kind, key) {
        (Kind::UnknownField(key, _), _) => ConfigError::UnknownKey { path: file.into(), key: key.clone() },
        (Kind::InvalidType(value, expected) | Kind::InvalidValue(value, expected), Some(key)) => ConfigError::Value {
            key,
            value: value.to_string(),
            origin: file.display().to_string(),
            fix: format!("write {}", plain(expected)),
        },
        (kind, _) => ConfigError::File { path: file.into(), reason: in_one_line(&kind.to_string()) },
    }
}

/// What is wrong with a TOML file, without the excerpt of it, whose lines have a margin.
pub fn in_one_line(reason: &str) -> String {
    let says = |line: &&str| !line.contains(" |") && !line.trim().is_empty() && !line.trim_start().starts_with('|');
    reason.lines().filter(says).collect::<Vec<_>>().join(": ")
}

/// Rust's names of types, for people.
fn plain(expected: &str) -> &str {
    match expected {
        "u16" | "u32" | "u64" => "a whole number that is not negative",
        "a boolean" => "true or false",
        other => other,
    }
}
