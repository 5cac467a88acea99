//! TOML as text: what is wrong with it, in one line, and how to change one key of it so that the rest, comments and all, stays as
//! its owner wrote it. The only file that names `toml_edit`.

use toml_edit::{Array, DocumentMut, Item, Value};

/// `text` with `key`, of the top level, set to this list, or without it for `None`. A key that is there keeps its place; a new
/// one comes behind the line that shows its default in a comment, else first. The text is returned as a reason if it is no TOML.
pub(crate) fn with_list(text: &str, key: &str, list: Option<&[String]>) -> Result<String, String> {
    let mut document: DocumentMut = text.parse().map_err(|_| match toml::from_str::<toml::Table>(text) {
        Err(error) => reason(text, &error),
        Ok(_) => "this is no TOML".into(),
    })?;
    let Some(list) = list else {
        document.remove(key);
        return Ok(document.to_string());
    };
    let mut value = Value::Array(list.iter().collect::<Array>());
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
    fn every_bad_text_has_a_line_and_a_reason() {
        check("a = 1\n# \0\n", "line 2: this is no TOML");
        check("a = 1\n\na = 2\n", "line 3: duplicate key `a` in document root");
        check("a = [1", "line 1: invalid array, expected `]`");
    }
}
