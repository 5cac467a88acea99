//! TOML as text: what is wrong with it, in one line, and how to change one key of it so that the rest, comments and all, stays as
//! its owner wrote it. The only file that names `toml_edit`.

use toml_edit::{Array, DocumentMut, InlineTable, Item, Key, Value};

/// `text` with `key`, of the top level, set to this list, or without it for `None`. A key that is there keeps its place; a new
/// one comes behind the line that shows its default in a comment, else first. A reason is returned if `text` is no TOML.
pub(crate) fn with_list(text: &str, key: &str, list: Option<&[String]>) -> Result<String, String> {
    match list {
        Some(list) => with_value(text, key, Value::Array(list.iter().collect::<Array>())),
        None => {
            let mut document = document(text)?;
            document.remove(key);
            Ok(document.to_string())
        }
    }
}

/// `text` with `key`, of the top level, set to this number, likewise.
pub(crate) fn with_number(text: &str, key: &str, number: u64) -> Result<String, String> {
    with_value(text, key, whole(number))
}

/// `text` with `key`, of the top level, set to this text, likewise.
pub(crate) fn with_text(text: &str, key: &str, value: &str) -> Result<String, String> {
    with_value(text, key, value.into())
}

/// `text` with these numbers as the entry `name` of the table `key`; everything else stays. A new entry comes last: what its
/// owner uncomments above must not become a part of it.
pub(crate) fn with_entry(text: &str, key: &str, name: &str, numbers: &[(&str, u64)]) -> Result<String, String> {
    let mut document = document(text)?;
    let Some(of_all) = document.get_mut(key) else { return Ok(appended(text, key, name, numbers)) };
    let inline = of_all.is_inline_table();
    let of_all = of_all.as_table_like_mut().ok_or_else(|| format!("{key} is no table"))?;
    if inline && of_all.get(name).is_none() {
        of_all.insert(name, Item::Value(Value::InlineTable(InlineTable::default())));
    }
    let Some(entry) = of_all.get_mut(name) else { return Ok(appended(text, key, name, numbers)) };
    let entry = entry.as_table_like_mut().ok_or_else(|| format!("{key} is no table of tables"))?;
    for (part, number) in numbers {
        entry.insert(part, Item::Value(whole(*number)));
    }
    Ok(document.to_string())
}

/// `text` and, below it, the entry as a table of its own.
fn appended(text: &str, key: &str, name: &str, numbers: &[(&str, u64)]) -> String {
    let path = [key, name].map(|part| Key::new(part).to_string()).join(".");
    let lines: String = numbers.iter().map(|(part, number)| format!("{part} = {number}\n")).collect();
    let above = text.trim_end();
    let gap = if above.is_empty() { "" } else { "\n\n" };
    format!("{above}{gap}[{path}]\n{lines}")
}

/// TOML has no larger numbers, and nothing here is that large.
fn whole(number: u64) -> Value {
    i64::try_from(number).unwrap_or(i64::MAX).into()
}

fn document(text: &str) -> Result<DocumentMut, String> {
    text.parse().map_err(|_| match toml::from_str::<toml::Table>(text) {
        Err(error) => reason(text, &error),
        Ok(_) => "this is no TOML".into(),
    })
}

fn with_value(text: &str, key: &str, mut value: Value) -> Result<String, String> {
    let mut document = document(text)?;
    if let Some(there) = document.get_mut(key) {
        if let Some(old) = there.as_value() {
            *value.decor_mut() = old.decor().clone();
        }
        *there = Item::Value(value);
        return Ok(document.to_string());
    }
    Ok(inserted(text, key, &format!("{key} = {}", value.to_string().trim())))
}

/// `line` behind the commented line of `key`, if that is before the first table, else first.
fn inserted(text: &str, key: &str, line: &str) -> String {
    let is_default = |candidate: &str| {
        let rest = candidate.strip_prefix("# ").and_then(|rest| rest.strip_prefix(key));
        rest.is_some_and(|rest| rest.trim_start().starts_with('='))
    };
    let top = text.lines().take_while(|candidate| !candidate.trim_start().starts_with('['));
    let mut lines: Vec<&str> = text.lines().collect();
    let place = top.enumerate().filter(|(_, candidate)| is_default(candidate)).map(|(at, _)| at + 1).next().unwrap_or(0);
    lines.insert(place, line);
    lines.join("\n") + "\n"
}

/// The line, and the reason. The parser itself has none for some texts, such as a zero byte in a comment.
pub(crate) fn reason(text: &str, error: &toml::de::Error) -> String {
    let said = error.message().lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join(", ");
    let said = if said.is_empty() { "this is no TOML" } else { &said };
    match error.span() {
        Some(span) => format!("line {}: {said}", 1 + text.bytes().take(span.start).filter(|byte| *byte == b'\n').count()),
        None => said.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &str) {
        let error = toml::from_str::<toml::Table>(text).expect_err("no TOML");
        assert_eq!(reason(text, &error), expected);
    }

    fn set(text: &str, list: &[&str]) -> String {
        let list: Vec<String> = list.iter().map(|one| (*one).to_owned()).collect();
        let changed = with_list(text, "models", Some(&list)).expect("TOML");
        let read: toml::Table = toml::from_str(&changed).expect("still TOML");
        assert_eq!(read.get("models").and_then(|m| m.as_array()).map(Vec::len), Some(list.len()), "{changed}");
        changed
    }

    #[test]
    fn a_list_is_set_and_everything_else_stays() {
        assert_eq!(
            set("# mine\nslots = 3 # three\n\nmodels = [ 'a' ] # only it\n[prices.x]\nin = 1\n", &["b", "c"]),
            "# mine\nslots = 3 # three\n\nmodels = [\"b\", \"c\"] # only it\n[prices.x]\nin = 1\n"
        );
        assert_eq!(set("# a\n\n# models = []\n\n# b\n", &["x:\"1\""]), "# a\n\n# models = []\nmodels = ['x:\"1\"']\n\n# b\n");
        assert_eq!(set("", &[]), "models = []\n");
        assert_eq!(set("[prices.x]\n# models = []\nin = 1\n", &["a"]), "models = [\"a\"]\n[prices.x]\n# models = []\nin = 1\n");
        assert_eq!(set("models = 'a'\n", &["b"]), "models = [\"b\"]\n");
    }

    #[test]
    fn a_key_is_taken_away_with_nothing_else() {
        let without = |text: &str| with_list(text, "models", None).expect("TOML");
        assert_eq!(without("slots = 1 # a\nmodels = ['x']\nmdns = true\n"), "slots = 1 # a\nmdns = true\n");
        assert_eq!(without("# models = []\n"), "# models = []\n");
        assert_eq!(with_list("a = [1", "models", None), Err("line 1: invalid array, expected `]`".into()));
    }

    #[test]
    fn numbers_and_entries_are_set_and_everything_else_stays() {
        let number = |text: &str| with_number(text, "price_in", 7).expect("TOML");
        assert_eq!(number("price_in = 1 # cheap\nslots = 2\n"), "price_in = 7 # cheap\nslots = 2\n");
        assert_eq!(number("# price_in = 1\n# price_out = 2\n"), "# price_in = 1\nprice_in = 7\n# price_out = 2\n");
        let entry = |text: &str| with_entry(text, "prices", "a:1", &[("in", 1), ("out", 2)]).expect("TOML");
        assert_eq!(entry("slots = 2 # two\n"), "slots = 2 # two\n\n[prices.\"a:1\"]\nin = 1\nout = 2\n");
        assert_eq!(entry("# slots = 2\n# mdns = true\n"), "# slots = 2\n# mdns = true\n\n[prices.\"a:1\"]\nin = 1\nout = 2\n");
        assert_eq!(entry("[prices.b]\nin = 3\n"), "[prices.b]\nin = 3\n\n[prices.\"a:1\"]\nin = 1\nout = 2\n");
        assert_eq!(entry(""), "[prices.\"a:1\"]\nin = 1\nout = 2\n");
        let kept = "[prices.b]\nin = 3 # b\n\n[prices.\"a:1\"]\nin = 9\nout = 9\n";
        assert_eq!(entry(kept), "[prices.b]\nin = 3 # b\n\n[prices.\"a:1\"]\nin = 1\nout = 2\n");
        let inline: toml::Table = toml::from_str(&entry("prices = { b = { in = 3 } }\n")).expect("still TOML");
        assert_eq!((inline["prices"]["a:1"]["out"].as_integer(), inline["prices"]["b"]["in"].as_integer()), (Some(2), Some(3)));
        assert!(with_entry("prices = 1", "prices", "a", &[]).is_err());
    }

    #[test]
    fn every_bad_text_has_a_line_and_a_reason() {
        check("a = 1\n# \0\n", "line 2: this is no TOML");
        check("a = 1\n\na = 2\n", "line 3: duplicate key `a` in document root");
        check("a = [1", "line 1: invalid array, expected `]`");
    }
}
