//! What is wrong with a TOML text, in one line.

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

    #[test]
    fn every_bad_text_has_a_line_and_a_reason() {
        check("a = 1\n# \0\n", "line 2: this is no TOML");
        check("a = 1\n\na = 2\n", "line 3: duplicate key `a` in document root");
        check("a = [1", "line 1: invalid array, expected `]`");
    }
}
