//! Families as OpenMetrics text, which Prometheus and its kin read. The one file that names `prometheus_client`.

use super::family::{Family, Kind, Labels, Sample, Value};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet, text},
    metrics::MetricType,
    registry::Registry,
};
use std::fmt;

/// What the answer's head must say for Prometheus to take it for OpenMetrics.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// `families` as text, in their order.
pub fn encode(families: Vec<Family>) -> Result<String, fmt::Error> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Scraped(families)));
    let mut text = String::new();
    text::encode(&mut text, &registry)?;
    Ok(text)
}

#[derive(Debug)]
struct Scraped(Vec<Family>);

impl Collector for Scraped {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        for family in &self.0 {
            let mut told = encoder.encode_descriptor(family.name, family.help, None, metric_type(family.kind))?;
            for sample in &family.samples {
                write(&mut told, family.kind, sample)?;
            }
        }
        Ok(())
    }
}

fn metric_type(kind: Kind) -> MetricType {
    match kind {
        Kind::Counter => MetricType::Counter,
        Kind::Gauge => MetricType::Gauge,
        Kind::Histogram => MetricType::Histogram,
        Kind::Info => MetricType::Info,
    }
}

fn write(family: &mut MetricEncoder, kind: Kind, Sample { labels, value }: &Sample) -> fmt::Result {
    if kind == Kind::Info {
        return family.encode_info(labels);
    }
    if labels.is_empty() {
        return number(family, kind, value);
    }
    number(&mut family.encode_family::<Labels>(labels)?, kind, value)
}

fn number(encoder: &mut MetricEncoder, kind: Kind, value: &Value) -> fmt::Result {
    match (kind, value) {
        (Kind::Counter, Value::Whole(n)) => encoder.encode_counter::<NoLabelSet, _, u64>(n, None),
        (Kind::Counter, Value::Real(n)) => encoder.encode_counter::<NoLabelSet, _, u64>(n, None),
        (_, Value::Whole(n)) => encoder.encode_gauge(n),
        (_, Value::Real(n)) => encoder.encode_gauge(n),
        (_, Value::Histogram(h)) => encoder.encode_histogram::<NoLabelSet>(h.sum(), h.count(), &h.buckets(), None),
    }
}

#[cfg(test)]
mod tests {
    use super::{super::family::Histogram, *};

    #[test]
    fn it_is_what_prometheus_reads() {
        let mut seconds = Histogram::new(&[0.1, 1.0]);
        seconds.observe(0.5);
        let took = Sample { labels: vec![("model", "a \"b\"".into())], value: Value::Histogram(seconds) };
        let info = Sample { labels: vec![("version", "1".into())], value: Value::Whole(1) };
        let families = vec![
            Family::counter("jobs", "Jobs.", vec![Sample::labelled("side", "sold", 2)]),
            Family::gauge("peers", "Peers.", vec![Sample::whole(3)]),
            Family { name: "took_seconds", help: "Time.", kind: Kind::Histogram, samples: vec![took] },
            Family { name: "build", help: "Build.", kind: Kind::Info, samples: vec![info] },
            Family::counter("never", "Not yet.", Vec::new()),
        ];
        let expected = r##"# HELP jobs Jobs.
# TYPE jobs counter
jobs_total{side="sold"} 2
# HELP peers Peers.
# TYPE peers gauge
peers 3
# HELP took_seconds Time.
# TYPE took_seconds histogram
took_seconds_sum{model="a \"b\""} 0.5
took_seconds_count{model="a \"b\""} 1
took_seconds_bucket{le="0.1",model="a \"b\""} 0
took_seconds_bucket{le="1.0",model="a \"b\""} 1
took_seconds_bucket{le="+Inf",model="a \"b\""} 1
# HELP build Build.
# TYPE build info
build_info{version="1"} 1
# HELP never Not yet.
# TYPE never counter
# EOF
"##;
        assert_eq!(encode(families).expect("it can be written"), expected);
    }
}
