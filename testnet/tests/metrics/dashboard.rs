//! The Grafana dashboard against a real scrape: it names nothing that is not there, and leaves out nothing that is.

use super::scraped::Scraped;
use serde_json::Value;
use std::collections::BTreeSet;

const DASHBOARD: &str = include_str!("../../../grafana/infernet.json");
/// Words of PromQL that the dashboard uses.
const WORDS: [&str; 11] =
    ["sum", "min", "count", "by", "rate", "increase", "histogram_quantile", "clamp_min", "time", "le", "instance"];

/// What a query asks for.
#[derive(Debug, Default, PartialEq)]
struct Asks {
    /// Series by name; each is followed by its labels in braces.
    names: Vec<String>,
    /// Labels in braces or behind `by`.
    labels: BTreeSet<String>,
    /// Words that are neither.
    strange: Vec<String>,
}

impl Asks {
    fn of(query: &str) -> Self {
        let mut asks = Asks::default();
        let (mut in_braces, mut in_by) = (false, false);
        let mut words = tokens(query).into_iter().peekable();
        while let Some(word) = words.next() {
            let begins = |c: char| c.is_ascii_alphabetic() || c == '_';
            match word.as_str() {
                "{" => in_braces = true,
                "}" => in_braces = false,
                "by" => in_by = true,
                ")" => in_by = false,
                name if !name.starts_with(begins) => {}
                label if in_braces || in_by => drop(asks.labels.insert(label.into())),
                name if words.peek().is_some_and(|next| next == "{") => asks.names.push(name.into()),
                word if WORDS.contains(&word) => {}
                word => asks.strange.push(word.into()),
            }
        }
        asks
    }
}

/// Words and signs; what is in quotes or square brackets, and Grafana's variables, are left out.
fn tokens(query: &str) -> Vec<String> {
    let mut tokens: Vec<String> = Vec::new();
    let (mut quoted, mut range, mut glued) = (false, false, false);
    for c in query.chars() {
        match c {
            '"' => quoted = !quoted,
            _ if quoted => {}
            '[' => range = true,
            ']' => range = false,
            _ if range => {}
            c if c.is_ascii_alphanumeric() || c == '_' => match tokens.last_mut() {
                Some(word) if glued => word.push(c),
                _ => tokens.push(c.into()),
            },
            c if !c.is_whitespace() => tokens.push(c.into()),
            _ => {}
        }
        glued = c.is_ascii_alphanumeric() || c == '_';
    }
    tokens
}

/// Every query of every panel, with the panel's title.
fn queries(dashboard: &Value) -> Vec<(String, String)> {
    let panels = dashboard["panels"].as_array().expect("panels");
    let queries = panels.iter().flat_map(|panel| {
        let title = panel["title"].as_str().expect("a title");
        let targets = panel["targets"].as_array().map(Vec::as_slice).unwrap_or_default();
        assert!(panel["type"] == "row" || !targets.is_empty(), "{title} shows nothing");
        assert!(panel["type"] == "row" || panel["description"].is_string(), "{title} does not say what it shows");
        targets.iter().map(move |target| (title.to_owned(), target["expr"].as_str().expect("a query").to_owned()))
    });
    queries.collect()
}

/// Fails if the dashboard asks for a name or label that `scraped` does not have, or leaves out one of its families.
pub(crate) fn check(scraped: &Scraped) {
    let dashboard: Value = serde_json::from_str(DASHBOARD).expect("JSON");
    let mut shown = BTreeSet::new();
    for (title, query) in queries(&dashboard) {
        let asks = Asks::of(&query);
        assert!(asks.strange.is_empty() && !asks.names.is_empty(), "{title}: {query}: {asks:?}");
        assert_eq!(query.matches("instance=~\"$instance\"").count(), asks.names.len(), "{title} ignores $instance: {query}");
        for name in &asks.names {
            assert!(scraped.exports(name), "{title}: no node exports {name}");
            shown.insert(scraped.family_of(name));
        }
        let known: Vec<BTreeSet<&str>> = asks.names.iter().filter_map(|name| scraped.labels(name)).collect();
        for label in asks.labels.iter().filter(|label| !["instance", "le"].contains(&label.as_str())) {
            let has = known.is_empty() || known.iter().any(|labels| labels.contains(label.as_str()));
            assert!(has, "{title}: no series has the label {label}: {query}");
        }
    }
    let hidden: Vec<&str> = scraped.families().filter(|family| !shown.contains(*family)).collect();
    assert!(hidden.is_empty(), "no panel shows {hidden:?}");
}

#[test]
fn queries_are_understood() {
    let asks = Asks::of(
        r#"histogram_quantile(0.95, sum by (le, model) (rate(took_bucket{instance=~"$instance", kind!="a{b"}[5m]))) / 1e6"#,
    );
    let labels = ["instance", "kind", "le", "model"].map(str::to_owned).into();
    assert_eq!(asks, Asks { names: vec!["took_bucket".into()], labels, strange: Vec::new() });
    assert_eq!(Asks::of("rate(bare_total[5m])").strange, ["bare_total"]);
}
