//! A `Metric` message without its points: name, unit, kind of data, temporality.

use rootline_engine::MetricKind;

use crate::otlp::{
    any_value::{AnyValue, Fault, key_value, string},
    error::DecodeError,
    wire::Message,
};

/// Fields of `Metric.data` by their number.
pub(super) mod data {
    pub(in super::super) const GAUGE: u32 = 5;
    pub(in super::super) const SUM: u32 = 7;
    pub(in super::super) const HISTOGRAM: u32 = 9;
    pub(in super::super) const EXPONENTIAL_HISTOGRAM: u32 = 10;
    pub(in super::super) const SUMMARY: u32 = 11;

    pub(in super::super) fn is_kind(number: u32) -> bool {
        matches!(
            number,
            GAUGE | SUM | HISTOGRAM | EXPONENTIAL_HISTOGRAM | SUMMARY
        )
    }
}

/// What a `Metric` message says beside its points.
pub(super) struct Metric<'a> {
    pub(super) name: &'a str,
    pub(super) description: &'a str,
    pub(super) unit: &'a str,
    /// The field number of its data.
    pub(super) kind: Option<u32>,
    /// Data fields that count for nothing, as one of another kind came later.
    pub(super) skip: usize,
    pub(super) temporality: i32,
    pub(super) monotonic: bool,
    /// What Prometheus called it, if it came from there.
    prometheus_type: &'a str,
}

impl<'a> Metric<'a> {
    pub(super) fn read(message: Message<'a>) -> Result<Self, Fault> {
        let mut metric = Self {
            name: "",
            description: "",
            unit: "",
            kind: None,
            skip: 0,
            temporality: 0,
            monotonic: false,
            prometheus_type: "",
        };
        let mut seen = 0;
        let mut fields = message.fields();
        while let Some(field) = fields.next()? {
            match field.number {
                1 => metric.name = string(field.bytes()?)?,
                2 => metric.description = string(field.bytes()?)?,
                3 => metric.unit = string(field.bytes()?)?,
                12 => {
                    if let ("prometheus.type", AnyValue::Text(text)) = key_value(field.message()?)?
                    {
                        metric.prometheus_type = text;
                    }
                }
                number if data::is_kind(number) => {
                    if metric.kind != Some(number) {
                        metric.kind = Some(number);
                        metric.skip = seen;
                        (metric.temporality, metric.monotonic) = (0, false);
                    }
                    seen += 1;
                    metric.read_data(field.message()?, number)?;
                }
                _ => {}
            }
        }
        Ok(metric)
    }

    fn read_data(&mut self, message: Message<'_>, kind: u32) -> Result<(), DecodeError> {
        if !matches!(kind, data::SUM | data::HISTOGRAM) {
            return Ok(());
        }
        let mut fields = message.fields();
        while let Some(field) = fields.next()? {
            match field.number {
                2 => self.temporality = field.int32()?,
                3 if kind == data::SUM => self.monotonic = field.varint()? != 0,
                _ => {}
            }
        }
        Ok(())
    }

    pub(super) fn is_delta(&self) -> bool {
        self.temporality == 1
    }

    pub(super) fn metric_kind(&self) -> MetricKind {
        match self.kind {
            Some(data::GAUGE) if self.prometheus_type == "unknown" => MetricKind::Unknown,
            Some(data::SUM) if self.monotonic => MetricKind::Counter,
            Some(data::SUM) if self.prometheus_type == "info" => MetricKind::Info,
            Some(data::SUM) if self.prometheus_type == "stateset" => MetricKind::StateSet,
            Some(data::HISTOGRAM) => MetricKind::Histogram,
            Some(data::SUMMARY) => MetricKind::Summary,
            _ => MetricKind::Gauge,
        }
    }
}
