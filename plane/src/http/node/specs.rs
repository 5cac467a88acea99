//! What a daemon says of itself, cut to what is known, bounded and plain. Everything else is dropped.
//!
//! The existing control plane keeps and shows whatever a heartbeat brings. Here every field has a shape; text loses its control
//! characters and is cut, numbers are finite and not negative, lists and tables have a length.

use serde_json::{Map, Number, Value};

/// What a value may be.
enum Shape {
    /// Text of at most so many characters.
    Text(usize),
    /// One of these words, else the last.
    OneOf(&'static [&'static str]),
    /// A number from 0 up to this.
    Number(f64),
    /// True or false.
    Flag,
    /// At most so many of a shape.
    List(usize, &'static Shape),
    /// These fields.
    Record(&'static [(&'static str, Shape)]),
    /// At most so many names of at most so many characters, each with a value of a shape.
    Table(usize, usize, &'static Shape),
}

use Shape::{Flag, List, Number as Num, OneOf, Record, Table, Text};

/// More than any machine has of anything that is counted here.
const MANY: f64 = 1e6;
/// The largest memory in gigabytes: a mainframe's.
const GIGABYTES: f64 = 1e6;
/// The largest amount: unix milliseconds and micro-USD.
const AMOUNT: f64 = 1e15;

const MEMORY: &[(&str, Shape)] = &[("total_gb", Num(GIGABYTES)), ("free_gb", Num(GIGABYTES))];
const LINK: &[(&str, Shape)] = &[
    ("available", Flag),
    ("topology", Text(32)),
    ("link_count", Num(MANY)),
    ("active_port_count", Num(MANY)),
    ("adapter_count", Num(MANY)),
];

/// All that is kept. Below `node_id` is what our own nodes say, above it what existing daemons do.
const SPECS: &[(&str, Shape)] = &[
    (
        "cpu",
        Record(&[
            ("vendor", Text(64)),
            ("arch", Text(32)),
            ("cores", Num(MANY)),
            ("groups", Num(MANY)),
            ("ram_gb", Num(GIGABYTES)),
        ]),
    ),
    ("gpu_count", Num(MANY)),
    (
        "gpus",
        List(
            16,
            &Record(&[
                ("vendor", OneOf(&["nvidia", "amd", "apple", "intel", "unknown"])),
                ("vram_tier", OneOf(&["<8gb", "8-16gb", "16-24gb", "24-48gb", ">=48gb", "unknown"])),
                ("model", Text(64)),
                ("busy_percent", Num(100.0)),
                ("celsius", Num(1_000.0)),
                ("watts", Num(MANY)),
            ]),
        ),
    ),
    ("gpu_model", Text(64)),
    ("price", Num(AMOUNT)),
    (
        "interconnects",
        Record(&[
            ("nvlink", Record(LINK)),
            ("xgmi", Record(LINK)),
            ("infiniband", Record(LINK)),
            ("efa", Record(LINK)),
            ("rdma_capable", Flag),
        ]),
    ),
    ("served_models", List(50, &Text(200))),
    (
        "load",
        Record(&[
            ("active_jobs", Num(MANY)),
            ("load_avg_1m", Num(MANY)),
            ("ram", Record(MEMORY)),
            ("vram", Record(MEMORY)),
            ("gpu_utilization_max", Num(100.0)),
            ("measured_at", Text(40)),
        ]),
    ),
    (
        "bench",
        Record(&[("tokens_per_second_avg", Num(MANY)), ("samples", List(32, &Num(MANY))), ("window_started_at", Text(40))]),
    ),
    ("reachable", Record(&[("ok", Flag), ("error", Text(200)), ("checked_at", Text(40))])),
    ("model_keys", Table(50, 200, &Text(128))),
    ("public_key", Text(128)),
    ("cli_version", Text(32)),
    ("e2e_capable", Flag),
    ("e2e_version", Num(MANY)),
    ("node_id", Text(64)),
    ("network", Text(32)),
    ("slots", Num(MANY)),
    ("draining", Flag),
    ("mesh", List(8, &Text(128))),
    ("operators", List(32, &Text(64))),
    ("uptime_ms", Num(AMOUNT)),
];

/// Models that a node has in its row until it was heard for a while: keys cost nothing, and each makes a row.
const FIRST_MODELS: usize = 8;

/// Cuts the two lists that can be long.
pub fn shorten(specs: &mut Value) {
    if let Some(models) = specs.get_mut("served_models").and_then(Value::as_array_mut) {
        models.truncate(FIRST_MODELS);
    }
    if let Some(keys) = specs.get_mut("model_keys").and_then(Value::as_object_mut) {
        *keys = std::mem::take(keys).into_iter().take(FIRST_MODELS).collect();
    }
}

/// What of `given` is kept.
pub fn kept(given: &Value) -> Value {
    record(SPECS, given).unwrap_or_default()
}

/// Text that can be shown: no control characters, at most `most` characters.
pub fn plain(text: &str, most: usize) -> String {
    text.chars().filter(|c| !c.is_control()).take(most).collect()
}

fn cut(shape: &Shape, given: &Value) -> Option<Value> {
    match shape {
        Text(most) => given.as_str().map(|text| plain(text, *most).into()),
        OneOf(words) => {
            let said = given.as_str()?;
            words.iter().find(|word| **word == said).or(words.last()).map(|word| (*word).into())
        }
        Num(most) => number(given, *most),
        Flag => given.as_bool().map(Value::Bool),
        List(most, shape) => Some(given.as_array()?.iter().take(*most).filter_map(|one| cut(shape, one)).collect()),
        Record(fields) => record(fields, given),
        Table(most, name, shape) => {
            let rows = given.as_object()?.iter().take(*most);
            let rows: Map<_, _> = rows.filter_map(|(key, value)| Some((plain(key, *name), cut(shape, value)?))).collect();
            Some(Value::Object(rows))
        }
    }
}

/// As it was written, if it is within bounds.
fn number(given: &Value, most: f64) -> Option<Value> {
    if given.is_null() {
        return Some(Value::Null);
    }
    let n = given.as_f64()?;
    if !n.is_finite() {
        return None;
    }
    if (0.0..=most).contains(&n) { Some(given.clone()) } else { Number::from_f64(n.clamp(0.0, most)).map(Value::Number) }
}

fn record(fields: &[(&str, Shape)], given: &Value) -> Option<Value> {
    let given = given.as_object()?;
    let kept = |(name, shape): &(&str, Shape)| Some(((*name).to_owned(), cut(shape, given.get(*name)?)?));
    Some(Value::Object(fields.iter().filter_map(kept).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_daemons_say_stays_as_it_is() {
        let specs = json!({
            "cpu": {"vendor": "intel", "arch": "x64", "cores": 2, "groups": 1, "ram_gb": 24},
            "gpu_count": 0, "gpus": [{"vendor": "amd", "vram_tier": ">=48gb", "model": "MI300X"}],
            "interconnects": {"nvlink": {"available": false, "topology": "none", "link_count": 0}, "rdma_capable": false},
            "served_models": ["qwen2.5:0.5b"],
            "load": {"active_jobs": 0, "load_avg_1m": 4.56, "ram": {"total_gb": 23.54, "free_gb": 21.07},
                "gpu_utilization_max": null, "measured_at": "2026-11-22T14:16:13.159Z"},
        });
        assert_eq!(kept(&specs), specs);
    }

    #[test]
    fn what_is_not_known_or_too_much_is_dropped() {
        let specs = json!({
            "cpu": {"vendor": "x".repeat(1_000), "cores": -3, "ram_gb": 1e300, "arch": {"a": 1}},
            "gpus": vec![json!({"vendor": "evil", "vram_tier": 7, "model": "a\u{1b}[2Jb\n"}); 99],
            "served_models": ["m", 7, {"a": "b"}],
            "model_keys": "no table",
            "onload": "<script>",
        });
        let kept = kept(&specs);
        assert_eq!(kept["cpu"], json!({"vendor": "x".repeat(64), "cores": 0.0, "ram_gb": GIGABYTES}));
        assert_eq!(kept["gpus"].as_array().map(Vec::len), Some(16));
        assert_eq!(kept["gpus"][0], json!({"vendor": "unknown", "model": "a[2Jb"}));
        assert_eq!(kept["served_models"], json!(["m"]));
        assert_eq!(kept.as_object().map(Map::len), Some(3));
        assert_eq!(super::kept(&json!([1])), Value::Null);
    }

    #[test]
    fn a_node_that_is_new_has_a_short_row() {
        let many: Vec<String> = (0..40).map(|n| format!("m{n}")).collect();
        let keys: Map<String, Value> = many.iter().map(|model| (model.clone(), "k".into())).collect();
        let mut specs = kept(&json!({ "served_models": many, "model_keys": keys, "slots": 2 }));
        shorten(&mut specs);
        assert_eq!(specs["served_models"].as_array().map(Vec::len), Some(FIRST_MODELS));
        assert_eq!(specs["model_keys"].as_object().map(Map::len), Some(FIRST_MODELS));
        assert_eq!(specs["slots"], 2.0);
    }

    #[test]
    fn the_most_that_is_kept_is_bounded() {
        fn largest(shape: &Shape) -> usize {
            match shape {
                Text(most) => 4 * most,
                OneOf(words) => words.iter().map(|word| word.len()).max().unwrap_or(0),
                Num(_) | Flag => 24,
                List(most, shape) => most * largest(shape),
                Record(fields) => fields.iter().map(|(name, shape)| name.len() + largest(shape)).sum(),
                Table(most, name, shape) => most * (4 * name + largest(shape)),
            }
        }
        let all: usize = SPECS.iter().map(|(name, shape)| name.len() + largest(shape)).sum();
        assert!(all < 128 * 1024, "{all} bytes a node");
    }
}
