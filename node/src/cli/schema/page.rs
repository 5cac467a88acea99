//! `docs/json.md`: the schemas as tables, kept up to date by a test. `INFERNET_BLESS=1` writes it anew.

use serde_json::Value;
use std::{collections::BTreeMap, fs, path::Path};

/// Above the tables.
const HEAD: &str = "\
# What `--json` prints

Made from the types that are printed; `infernet schema [COMMAND]` tells the same as JSON Schema. Fields are added, never renamed
or given another meaning: ignore those that you do not know. A field with `?` may be absent or null. Amounts are integers of
micro-USD (10⁻⁶ USD), times are unix milliseconds, ids are texts.

A command that fails prints nothing on stdout but what it had to tell before, and its `error` on stderr. `logs --json`,
`model pull --json` and `command --json` print one value a line, every other command one in all.
";

/// A table for each of `schemas`, by command.
fn page(schemas: &BTreeMap<&'static str, schemars::Schema>) -> String {
    let mut text = HEAD.to_owned();
    for (name, schema) in schemas {
        let root = schema.as_value();
        let title = if *name == "error" { "`error`, on stderr".into() } else { format!("`infernet {name} --json`") };
        let (kind, inner) = kind(root, root);
        let article = if kind == "object" { "An" } else { "A" };
        let mut rows = Vec::new();
        fields(inner, root, "", &mut rows);
        text += &format!("\n## {title}\n\n{article} {kind}.\n\n| field | type | meaning |\n|---|---|---|\n{}", rows.concat());
    }
    text
}

/// What a value is called, and the schema whose fields it has.
fn kind<'a>(schema: &'a Value, root: &'a Value) -> (String, &'a Value) {
    if let Some(name) = schema["$ref"].as_str().and_then(|path| path.strip_prefix("#/$defs/")) {
        return kind(&root["$defs"][name], root);
    }
    let not_null = |one: &&Value| one["type"] != "null" && **one != "null";
    if let Some(one) = schema["anyOf"].as_array().and_then(|any| any.iter().find(not_null)) {
        return kind(one, root);
    }
    let name = match &schema["type"] {
        Value::Array(all) => all.iter().find(not_null).and_then(Value::as_str),
        other => other.as_str(),
    };
    match name {
        Some("array") => {
            let (item, inner) = kind(&schema["items"], root);
            (format!("list of {item}s"), inner)
        }
        Some("object") if schema["additionalProperties"].is_object() => {
            (format!("object of {}s", kind(&schema["additionalProperties"], root).0), &Value::Null)
        }
        Some("string") => ("text".into(), schema),
        Some("boolean") => ("true or false".into(), schema),
        Some(name) => (name.into(), schema),
        None => ("value".into(), schema),
    }
}

fn fields(schema: &Value, root: &Value, above: &str, rows: &mut Vec<String>) {
    let required: Vec<&str> = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        let (kind, inner) = kind(field, root);
        let optional = if required.contains(&name.as_str()) { "" } else { "?" };
        let meaning = field["description"].as_str().unwrap_or_default().replace('\n', " ").replace('|', "\\|");
        rows.push(format!("| `{above}{name}`{optional} | {kind} | {meaning} |\n"));
        let below = if kind.starts_with("list") { format!("{above}{name}[].") } else { format!("{above}{name}.") };
        fields(inner, root, &below, rows);
    }
}

#[test]
fn the_page_is_up_to_date() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/json.md");
    let text = page(&super::all());
    if std::env::var_os("INFERNET_BLESS").is_some() {
        fs::write(&path, &text).expect("writes the page");
    }
    let kept = fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(kept, text, "docs/json.md is out of date: INFERNET_BLESS=1 cargo test writes it anew");
}
