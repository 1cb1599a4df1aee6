//! Encodes a scrape in either text format.
//!
//! `prometheus-client` writes `OpenMetrics`, which Prometheus requests. This module makes it write the older text
//! format too, for `curl` and `promtool check metrics`. That format differs in three points: a family of counters or
//! infos has the name of its samples, there is no type `info`, and there is no final `# EOF` line.

use std::fmt::{self, Display};

use prometheus_client::{
    encoding::{
        DescriptorEncoder, EncodeCounterValue, EncodeGaugeValue, MetricEncoder, NoLabelSet,
    },
    metrics::MetricType,
};

use super::snapshot::Snapshot;

/// A text format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `OpenMetrics` 1.0.
    OpenMetrics,
    /// The Prometheus text format, version 0.0.4.
    Text,
}

impl Format {
    /// Chooses the format for an `Accept` header. Weights are ignored: clients that list `OpenMetrics`, such as
    /// Prometheus, prefer it.
    pub fn accepted(accept: Option<&str>) -> Self {
        match accept {
            Some(accept) if accept.contains("application/openmetrics-text") => Self::OpenMetrics,
            _ => Self::Text,
        }
    }

    /// The `Content-Type` header.
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

/// A metric.
#[derive(Debug)]
pub struct Metric {
    /// The name of the samples, as queries use it.
    pub name: &'static str,
    /// Counter, gauge or info.
    pub kind: MetricType,
    /// The label names.
    pub labels: &'static [&'static str],
    /// The help text: one sentence.
    pub help: &'static str,
    /// Adds the samples.
    pub(super) collect: fn(&Snapshot, &mut Samples<'_>) -> fmt::Result,
}

impl Metric {
    /// The family name in `OpenMetrics` 1.0, which lacks the suffix of the samples.
    pub(super) fn family(&self) -> &'static str {
        let suffix = match self.kind {
            MetricType::Counter => "_total",
            MetricType::Info => "_info",
            _ => "",
        };
        self.name.strip_suffix(suffix).unwrap_or(self.name)
    }
}

/// Encodes the samples of one metric.
pub(super) struct Samples<'e> {
    encoder: MetricEncoder<'e>,
    encoded_as: MetricType,
    labels: &'static [&'static str],
}

impl<'e> Samples<'e> {
    pub fn begin(
        descriptors: &'e mut DescriptorEncoder<'_>,
        metric: &Metric,
        format: Format,
    ) -> Result<Self, fmt::Error> {
        // In the text format the name already has the suffix. The library adds none to the samples of a gauge.
        let (name, kind, encoded_as) = match (format, metric.kind) {
            (Format::OpenMetrics, kind) => (metric.family(), kind, kind),
            (Format::Text, MetricType::Info) => (metric.name, MetricType::Gauge, MetricType::Gauge),
            (Format::Text, kind) => (metric.name, kind, MetricType::Gauge),
        };
        Ok(Self {
            encoder: descriptors.encode_descriptor(name, metric.help, None, kind)?,
            encoded_as,
            labels: metric.labels,
        })
    }

    /// Adds a sample with a value for each label of the metric.
    pub fn add<V>(&mut self, labels: &[&dyn Display], value: V) -> fmt::Result
    where
        V: EncodeCounterValue + EncodeGaugeValue,
    {
        debug_assert_eq!(labels.len(), self.labels.len(), "{:?}", self.labels);
        let values = labels.iter().map(ToString::to_string);
        let labels: Vec<_> = self.labels.iter().copied().zip(values).collect();
        let write = |encoder: &mut MetricEncoder<'_>| match self.encoded_as {
            MetricType::Counter => encoder.encode_counter::<NoLabelSet, _, f64>(&value, None),
            _ => encoder.encode_gauge(&value),
        };
        match self.encoded_as {
            MetricType::Info => self.encoder.encode_info(&labels),
            // `encode_family` would write empty braces.
            _ if labels.is_empty() => write(&mut self.encoder),
            _ => write(&mut self.encoder.encode_family(&labels)?),
        }
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::{collector::Collector, encoding::text, registry::Registry};

    use super::*;

    const fn metric(
        name: &'static str,
        kind: MetricType,
        labels: &'static [&'static str],
    ) -> Metric {
        Metric {
            name,
            kind,
            labels,
            help: "Help.",
            collect: |_, _| Ok(()),
        }
    }

    static BUILD: Metric = metric("build_info", MetricType::Info, &["version", "layout"]);
    static START: Metric = metric("start_seconds", MetricType::Gauge, &[]);
    static OUTCOMES: Metric = metric("outcomes_total", MetricType::Counter, &["outcome"]);

    #[derive(Debug)]
    struct Example(Format);

    impl Collector for Example {
        fn encode(&self, mut descriptors: DescriptorEncoder<'_>) -> fmt::Result {
            let Self(format) = *self;
            Samples::begin(&mut descriptors, &BUILD, format)?.add(&[&"1.0\"\\\n", &5], 1_u32)?;
            Samples::begin(&mut descriptors, &START, format)?.add(&[], 1.5)?;
            let mut outcomes = Samples::begin(&mut descriptors, &OUTCOMES, format)?;
            outcomes.add(&[&"malformed"], 3_u64)?;
            outcomes.add(&[&"no_rule"], u64::MAX)
        }
    }

    fn encoded(format: Format) -> String {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Example(format)));
        let mut text = String::new();
        text::encode_registry(&mut text, &registry).expect("writing to a string cannot fail");
        text
    }

    #[test]
    fn openmetrics_has_suffixes_on_samples_only() {
        let expected = "\
# HELP build Help.
# TYPE build info
build_info{version=\"1.0\\\"\\\\\\n\",layout=\"5\"} 1
# HELP start_seconds Help.
# TYPE start_seconds gauge
start_seconds 1.5
# HELP outcomes Help.
# TYPE outcomes counter
outcomes_total{outcome=\"malformed\"} 3
outcomes_total{outcome=\"no_rule\"} 18446744073709551615
";
        assert_eq!(encoded(Format::OpenMetrics), expected);
    }

    #[test]
    fn the_text_format_names_families_as_their_samples() {
        let expected = "\
# HELP build_info Help.
# TYPE build_info gauge
build_info{version=\"1.0\\\"\\\\\\n\",layout=\"5\"} 1
# HELP start_seconds Help.
# TYPE start_seconds gauge
start_seconds 1.5
# HELP outcomes_total Help.
# TYPE outcomes_total counter
outcomes_total{outcome=\"malformed\"} 3
outcomes_total{outcome=\"no_rule\"} 18446744073709551615
";
        assert_eq!(encoded(Format::Text), expected);
    }

    #[test]
    fn a_client_that_accepts_openmetrics_gets_it() {
        let prometheus = "application/openmetrics-text;version=1.0.0;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        assert_eq!(Format::accepted(Some(prometheus)), Format::OpenMetrics);
        assert_eq!(Format::accepted(Some("*/*")), Format::Text);
        assert_eq!(Format::accepted(None), Format::Text);
    }
}
