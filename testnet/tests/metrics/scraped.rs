//! OpenMetrics text, read back.

use std::collections::{BTreeMap, BTreeSet};

/// One scrape.
#[derive(Debug, Default)]
pub(crate) struct Scraped {
    /// Help by family.
    help: BTreeMap<String, String>,
    kinds: BTreeMap<String, String>,
    samples: Vec<Sample>,
}

#[derive(Debug, Clone)]
struct Sample {
    name: String,
    labels: BTreeMap<String, String>,
    value: f64,
}

impl Scraped {
    /// Reads `text`, which must be whole and in order.
    pub(crate) fn parse(text: &str) -> Self {
        let mut scraped = Scraped::default();
        assert!(text.ends_with("# EOF\n"), "the end is missing");
        for line in text.lines() {
            let mut words = line.splitn(4, ' ');
            match (words.next(), words.next(), words.next(), words.next()) {
                (Some("#"), Some("HELP"), Some(name), Some(help)) => {
                    let twice = scraped.help.insert(name.into(), help.into());
                    assert!(twice.is_none(), "{name} is told twice");
                    assert!(help.ends_with('.') && help.len() > 8, "{name} has a poor help text: {help:?}");
                }
                (Some("#"), Some("TYPE"), Some(name), Some(kind)) => {
                    assert!(scraped.help.contains_key(name), "{name} has no help");
                    scraped.kinds.insert(name.into(), kind.into());
                }
                (Some("#"), Some("EOF"), None, None) => {}
                _ => scraped.samples.push(sample(line)),
            }
        }
        let families: BTreeSet<&str> = scraped.samples.iter().map(|sample| scraped.family(&sample.name)).collect();
        assert!(families.iter().all(|family| scraped.kinds.contains_key(*family)), "a sample without a family: {families:?}");
        scraped
    }

    /// All samples of some nodes, which tell the same families.
    pub(crate) fn merged<'a>(all: impl IntoIterator<Item = &'a Scraped>) -> Self {
        let mut merged = Scraped::default();
        for scraped in all {
            merged.help.extend(scraped.help.clone());
            merged.kinds.extend(scraped.kinds.clone());
            merged.samples.extend(scraped.samples.clone());
        }
        merged
    }

    /// The family of a sample's name.
    fn family<'a>(&self, sample: &'a str) -> &'a str {
        let endings = ["_total", "_info", "_bucket", "_sum", "_count"];
        let stems = endings.iter().filter_map(|ending| sample.strip_suffix(ending));
        stems.chain([sample]).find(|name| self.kinds.contains_key(*name)).unwrap_or(sample)
    }

    pub(crate) fn families(&self) -> impl Iterator<Item = &str> {
        self.kinds.keys().map(String::as_str)
    }

    /// Whether the family has no series.
    pub(crate) fn is_empty(&self, family: &str) -> bool {
        !self.samples.iter().any(|sample| self.family(&sample.name) == family)
    }

    /// The sum of the series with these labels; an empty value means that the label is absent.
    pub(crate) fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let has = |sample: &&Sample| {
            let label = |name: &str| sample.labels.get(name).map(String::as_str).unwrap_or_default();
            sample.name == name && labels.iter().all(|(name, value)| label(name) == *value)
        };
        self.samples.iter().filter(has).map(|sample| sample.value).sum()
    }

    /// Whether Prometheus knows series of this name: a family, with the ending that its kind gives it.
    pub(crate) fn exports(&self, name: &str) -> bool {
        let family = self.family(name);
        let ending = name.strip_prefix(family).unwrap_or_default();
        match self.kinds.get(family).map(String::as_str) {
            Some("counter") => ending == "_total",
            Some("gauge") => ending.is_empty(),
            Some("info") => ending == "_info",
            Some("histogram") => ["_bucket", "_sum", "_count"].contains(&ending),
            _ => false,
        }
    }

    /// The labels of the series of this name; `None` if there are no series.
    pub(crate) fn labels(&self, name: &str) -> Option<BTreeSet<&str>> {
        let mut series = self.samples.iter().filter(|sample| sample.name == name).peekable();
        series.peek()?;
        Some(series.flat_map(|sample| sample.labels.keys().map(String::as_str)).collect())
    }

    /// The family of a series' name.
    pub(crate) fn family_of(&self, name: &str) -> String {
        self.family(name).to_owned()
    }

    /// Counts without a family of their own.
    pub(crate) fn events(&self) -> Vec<String> {
        let events = self.samples.iter().filter(|sample| sample.name == "infernet_events_total");
        events.filter_map(|sample| sample.labels.get("event").cloned()).collect()
    }
}

fn sample(line: &str) -> Sample {
    let (series, value) = line.rsplit_once(' ').expect("a series and a value");
    let (name, labels) = match series.split_once('{') {
        Some((name, labels)) => (name, labels.strip_suffix('}').expect("a closing brace")),
        None => (series, ""),
    };
    let pairs = labels.split("\",").filter(|pair| !pair.is_empty());
    let label = |pair: &str| {
        let (label, value) = pair.split_once("=\"").expect("a label and a value");
        (label.to_owned(), value.trim_end_matches('"').to_owned())
    };
    Sample { name: name.into(), labels: pairs.map(label).collect(), value: value.parse().expect("a number") }
}
