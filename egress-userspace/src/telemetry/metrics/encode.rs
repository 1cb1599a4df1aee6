//! The text that a scrape gets.
//!
//! Written here and not by a client library, because the values are the kernel's and not ours to keep, and because the same
//! metrics are needed in two formats: `OpenMetrics`, which Prometheus asks for, and the older text format, which `curl` and
//! `promtool check metrics` understand. The two differ in where a counter's `_total` stands, and in the last line.

use std::fmt::{Display, Write as _};

use super::registry::{Kind, Metric};

/// A format of the exposition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `OpenMetrics` 1.0.
    OpenMetrics,
    /// Prometheus' own, version 0.0.4.
    Text,
}

impl Format {
    /// What a client with this `Accept` header gets. Prometheus names what it prefers with weights, but never `OpenMetrics`
    /// without preferring it.
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

/// Writes families one after another.
#[derive(Debug)]
pub(super) struct Encoder {
    format: Format,
    text: String,
}

impl Encoder {
    pub fn new(format: Format) -> Self {
        Self {
            format,
            text: String::with_capacity(16 * 1024),
        }
    }

    /// Begins a family. Its samples have to follow before the next one begins.
    pub fn family<'e>(&'e mut self, metric: &'static Metric) -> Samples<'e> {
        let (name, kind) = match (self.format, metric.kind) {
            (Format::OpenMetrics, Kind::Counter) => (metric.family().to_owned(), "counter"),
            (Format::OpenMetrics, Kind::Info) => (metric.family().to_owned(), "info"),
            (Format::Text, Kind::Counter) => (metric.name(), "counter"),
            // Version 0.0.4 has no such type.
            (Format::Text, Kind::Info) | (_, Kind::Gauge) => (metric.name(), "gauge"),
        };
        let text = &mut self.text;
        let _ = writeln!(text, "# HELP {name} {}", escaped(metric.help));
        let _ = writeln!(text, "# TYPE {name} {kind}");
        Samples { text, metric }
    }

    /// A family of a single sample without labels.
    pub fn single(&mut self, metric: &'static Metric, value: impl Display) {
        self.family(metric).sample(&[], value);
    }

    pub fn finish(mut self) -> String {
        if self.format == Format::OpenMetrics {
            self.text.push_str("# EOF\n");
        }
        self.text
    }
}

/// The samples of one family.
pub(super) struct Samples<'e> {
    text: &'e mut String,
    metric: &'static Metric,
}

impl Samples<'_> {
    /// A sample, with a value for each of the metric's labels.
    pub fn sample(&mut self, labels: &[&dyn Display], value: impl Display) -> &mut Self {
        debug_assert_eq!(labels.len(), self.metric.labels.len(), "{:?}", self.metric);
        self.text.push_str(self.metric.family());
        self.text.push_str(self.metric.suffix());
        for (index, (name, label)) in self.metric.labels.iter().zip(labels).enumerate() {
            let before = if index == 0 { '{' } else { ',' };
            let _ = write!(
                self.text,
                "{before}{name}=\"{}\"",
                escaped(&label.to_string())
            );
        }
        if !labels.is_empty() {
            self.text.push('}');
        }
        let _ = writeln!(self.text, " {value}");
        self
    }
}

/// As both formats want the value of a label, and `OpenMetrics` a help text.
fn escaped(text: &str) -> String {
    text.replace('\\', r"\\")
        .replace('"', r#"\""#)
        .replace('\n', r"\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::metrics::registry::{BUILD, OUTCOMES, START_TIME};

    fn encoded(format: Format) -> String {
        let mut encoder = Encoder::new(format);
        encoder.family(&BUILD).sample(&[&"1.0\"\\\n", &5], 1);
        encoder.single(&START_TIME, 1.5);
        let mut outcomes = encoder.family(&OUTCOMES);
        outcomes.sample(&[&"malformed", &"drop"], 3);
        outcomes.sample(&[&"no_rule", &"pass"], u64::MAX);
        encoder.finish()
    }

    #[test]
    fn openmetrics_has_suffixes_at_samples_only_and_an_end() {
        let help = |metric: &Metric| metric.help;
        let expected = format!(
            "# HELP egress_router_build {}\n# TYPE egress_router_build info\n\
             egress_router_build_info{{version=\"1.0\\\"\\\\\\n\",layout=\"5\"}} 1\n\
             # HELP egress_router_start_time_seconds {}\n# TYPE egress_router_start_time_seconds gauge\n\
             egress_router_start_time_seconds 1.5\n\
             # HELP egress_router_outcomes {}\n# TYPE egress_router_outcomes counter\n\
             egress_router_outcomes_total{{outcome=\"malformed\",verdict=\"drop\"}} 3\n\
             egress_router_outcomes_total{{outcome=\"no_rule\",verdict=\"pass\"}} 18446744073709551615\n\
             # EOF\n",
            help(&BUILD),
            help(&START_TIME),
            help(&OUTCOMES),
        );
        assert_eq!(encoded(Format::OpenMetrics), expected);
    }

    #[test]
    fn the_text_format_names_families_as_their_samples() {
        let text = encoded(Format::Text);
        assert!(
            text.contains("# TYPE egress_router_build_info gauge\n"),
            "{text}"
        );
        assert!(
            text.contains("# TYPE egress_router_outcomes_total counter\n"),
            "{text}"
        );
        assert!(!text.contains("EOF"), "{text}");
    }

    #[test]
    fn who_asks_for_openmetrics_gets_it() {
        let prometheus = "application/openmetrics-text;version=1.0.0;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        assert_eq!(Format::accepted(Some(prometheus)), Format::OpenMetrics);
        assert_eq!(Format::accepted(Some("*/*")), Format::Text);
        assert_eq!(Format::accepted(None), Format::Text);
    }
}
