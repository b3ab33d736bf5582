//! `ExportMetricsServiceRequest` into a [`MetricBatch`], by the OpenTelemetry specification's
//! Prometheus compatibility page. What becomes what: `docs/otlp.md`; names: `translate.rs`.
//!
//! `metrics/metric.rs` reads what a metric says, `metrics/points.rs` its points; the rest is here.
//!
//! Steps, for each resource, scope and metric: read what the series share (labels of resource and
//! scope, once a scope; the name with its suffixes, once a metric), then for each data point sort its
//! attributes among the shared labels and emit its series as canonical label bytes.
//!
//! Invariants
//! - A malformed message refuses the whole request, and the batch is left empty.
//! - A data point that cannot be kept costs only itself and is counted, once per point, with the first
//!   reason; a resource, scope or metric that cannot be kept costs its points.
//! - A known series costs no allocation: labels are built in buffers that each thread keeps.
//! - What the points grow to is announced before it is held ([`Room`]): the labels of a resource stand
//!   on every one of its series, so that a small request can make a large batch.

mod metric;
mod points;

use std::{
    cell::Cell,
    collections::{HashMap, HashSet},
};

use rootline_engine::{
    Exemplar, LabelsBuilder, Metadata, MetricBatch, MetricKind, Rejections, SeriesRow, Timestamp,
};
use xxhash_rust::xxh3::xxh3_64;

use self::metric::{Metric, data};
use super::{
    any_value::{AnyValue, Fault, key_value, string},
    error::DecodeError,
    series::{LabelList, NAME, PointLabels, TEMPORALITY},
    translate::{Suffixes, Translation},
    wire::Message,
};

/// Prometheus' staleness marker: what a series has where its sender says "no recorded value".
pub const STALE_NAN_BITS: u64 = 0x7ff0_0000_0000_0002;

/// Bytes a batch may grow to by translation: 16 times the default limit of a request. Past it the
/// labels of the request's resources are out of proportion, and it is refused for good.
pub const BATCH_BYTES_MAX: u64 = 1 << 30;

/// Bytes announced to [`Room`] at a time.
const ROOM_STEP_BYTES: u64 = 1 << 20;
/// What a series costs in the batch beside its label bytes.
const SERIES_BYTES: u64 = 96;
/// Buffers a thread keeps between requests; larger ones are given back.
const SCRATCH_BYTES_MAX: usize = 4 << 20;

/// What a decoder has to say beside refusals.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct DecodeStats {
    /// Data points in the request, refused ones included.
    pub points: u64,
    /// Data points of different OTLP streams that met in one series at one time: the later in the
    /// request is kept. A promoted attribute would tell them apart.
    pub collisions: u64,
}

/// Asked before the batch grows by so many bytes; `false` ends the decoding.
pub type Room<'r> = &'r mut dyn FnMut(u64) -> bool;

/// Where decoded series go: a [`MetricBatch`], or what a test looks at.
pub(crate) trait MetricSink {
    /// A series of this request.
    type Row: Copy;
    /// Adds a series by its canonical label bytes.
    fn series(&mut self, labels: &[u8]) -> Self::Row;
    fn sample(&mut self, row: Self::Row, time: Timestamp, value: f64);
    fn exemplar(&mut self, row: Self::Row, exemplar: Exemplar);
    fn metadata(&mut self, metadata: Metadata);
    fn clear(&mut self);
}

impl MetricSink for MetricBatch<'_> {
    type Row = SeriesRow;

    #[inline]
    fn series(&mut self, labels: &[u8]) -> SeriesRow {
        self.series_bytes(0, labels, |bytes, labels| {
            *labels = LabelsBuilder::from_encoded(bytes)?;
            Ok(())
        })
    }

    #[inline]
    fn sample(&mut self, row: SeriesRow, time: Timestamp, value: f64) {
        self.sample(row, time, value);
    }

    fn exemplar(&mut self, row: SeriesRow, exemplar: Exemplar) {
        self.exemplar(row, exemplar);
    }

    fn metadata(&mut self, metadata: Metadata) {
        self.metadata(metadata);
    }

    fn clear(&mut self) {
        self.clear();
    }
}

/// Appends the samples of an encoded `ExportMetricsServiceRequest` to `batch`.
///
/// # Errors
/// The message is malformed or grows past [`BATCH_BYTES_MAX`]; `batch` is then empty.
pub fn decode_metrics(
    bytes: &[u8],
    batch: &mut MetricBatch<'_>,
    rejections: &mut Rejections,
    translation: &Translation,
) -> Result<DecodeStats, DecodeError> {
    decode_metrics_within(bytes, batch, rejections, translation, &mut |_| true)
}

/// As [`decode_metrics`], asking `room` before the batch grows.
///
/// # Errors
/// As [`decode_metrics`], or [`DecodeError::NoRoom`].
pub fn decode_metrics_within(
    bytes: &[u8],
    batch: &mut MetricBatch<'_>,
    rejections: &mut Rejections,
    translation: &Translation,
    room: Room<'_>,
) -> Result<DecodeStats, DecodeError> {
    decode_into(bytes, batch, rejections, translation, room)
}

fn decode_into<S: MetricSink>(
    bytes: &[u8],
    batch: &mut S,
    rejections: &mut Rejections,
    translation: &Translation,
    room: Room<'_>,
) -> Result<DecodeStats, DecodeError> {
    thread_local! {
        static SCRATCH: Cell<Option<Box<Scratch>>> = const { Cell::new(None) };
    }
    let mut scratch = SCRATCH.take().unwrap_or_default();
    scratch.seen.clear();
    scratch.described.clear();
    let mut decoder = Decoder {
        batch,
        rejections,
        translation,
        scratch: &mut scratch,
        rows: Vec::new(),
        room,
        room_left: 0,
        room_taken: 0,
        stats: DecodeStats::default(),
    };
    let decoded = decoder.request(Message::root(bytes));
    let stats = decoder.stats;
    if scratch.heap_bytes() <= SCRATCH_BYTES_MAX {
        SCRATCH.set(Some(scratch));
    }
    match decoded {
        Ok(()) => Ok(stats),
        Err(error) => {
            batch.clear();
            Err(error)
        }
    }
}

/// Buffers used again for every point and request.
#[derive(Debug, Default)]
struct Scratch {
    /// Labels that all points of a scope share.
    context: LabelList,
    /// Labels from a point's attributes.
    point: LabelList,
    /// Labels of an exemplar.
    exemplar: LabelList,
    labels: PointLabels,
    job: String,
    instance: String,
    /// The metric's name with its suffixes, and its unit in words.
    name: String,
    unit: String,
    /// The value of `le` or `quantile`.
    number: String,
    counts: Vec<u64>,
    bounds: Vec<f64>,
    /// By series and time: the stream that wrote it last.
    seen: HashMap<(u64, i64), u64>,
    /// Metadata already given, by hash.
    described: HashSet<u64>,
}

impl Scratch {
    fn heap_bytes(&self) -> usize {
        self.context.heap_bytes()
            + self.point.heap_bytes()
            + self.exemplar.heap_bytes()
            + self.labels.heap_bytes()
            + [
                &self.job,
                &self.instance,
                &self.name,
                &self.unit,
                &self.number,
            ]
            .map(String::capacity)
            .iter()
            .sum::<usize>()
            + (self.counts.capacity() + self.bounds.capacity()) * size_of::<u64>()
            + self.seen.capacity() * size_of::<((u64, i64), u64)>()
            + self.described.capacity() * size_of::<u64>()
    }
}

/// A resource, as far as its series need it.
#[derive(Default)]
struct Resource<'a> {
    attributes: Vec<(&'a str, AnyValue<'a>)>,
    /// Equal for resources with equal attributes in any order.
    identity: u64,
    /// The newest time among its data points.
    newest: Option<Timestamp>,
}

impl Resource<'_> {
    /// Pushes the text of the last attribute with this key; nothing if there is none.
    fn push_text(&self, key: &str, out: &mut String) -> Result<(), Fault> {
        match self.attributes.iter().rev().find(|(k, _)| *k == key) {
            Some((_, value)) => value.push_text(out),
            None => Ok(()),
        }
    }
}

/// What the points of one metric share.
#[derive(Clone, Copy)]
struct Stream<'a> {
    /// As sent.
    name: &'a str,
    delta: bool,
    /// Of resource, scope and metric.
    identity: u64,
}

struct Decoder<'d, S: MetricSink> {
    batch: &'d mut S,
    rejections: &'d mut Rejections,
    translation: &'d Translation,
    scratch: &'d mut Scratch,
    /// The buckets of the histogram point at hand.
    rows: Vec<S::Row>,
    room: Room<'d>,
    room_left: u64,
    room_taken: u64,
    stats: DecodeStats,
}

impl<S: MetricSink> Decoder<'_, S> {
    fn request(&mut self, message: Message<'_>) -> Result<(), DecodeError> {
        let mut resource = Resource::default();
        let mut fields = message.fields();
        while let Some(field) = fields.next()? {
            if field.number == 1 {
                self.resource_metrics(field.message()?, &mut resource)?;
            }
        }
        Ok(())
    }

    fn resource_metrics<'a>(
        &mut self,
        message: Message<'a>,
        resource: &mut Resource<'a>,
    ) -> Result<(), DecodeError> {
        // The labels of `target_info` are built once before the points, to find out whether every
        // attribute can be a label.
        let read = read_resource(message, resource)
            .and_then(|()| self.name_target(resource))
            .and_then(|()| self.build_target(resource));
        let refused = match read {
            Ok(()) => None,
            Err(Fault::Request(error)) => return Err(error),
            Err(Fault::Item(reason)) => Some(reason),
        };
        let mut fields = message.fields();
        while let Some(field) = fields.next()? {
            if field.number != 2 {
                continue;
            }
            let scope = field.message()?;
            if let Some(reason) = refused {
                self.refuse_scope(scope, &format_args!("resource refused: {reason}"))?;
            } else {
                self.scope_metrics(scope, resource)?;
            }
        }
        self.target_info(resource)
    }

    /// Sets `job` and `instance`.
    fn name_target(&mut self, resource: &Resource<'_>) -> Result<(), Fault> {
        let Scratch { job, instance, .. } = &mut *self.scratch;
        job.clear();
        instance.clear();
        resource.push_text("service.instance.id", instance)?;
        resource.push_text("service.namespace", job)?;
        if !job.is_empty() {
            job.push('/');
        }
        let namespace_bytes = job.len();
        resource.push_text("service.name", job)?;
        if job.len() == namespace_bytes {
            job.clear();
        }
        Ok(())
    }

    /// Puts the labels of `target_info` into the context.
    fn build_target(&mut self, resource: &Resource<'_>) -> Result<(), Fault> {
        let Scratch {
            context,
            job,
            instance,
            ..
        } = &mut *self.scratch;
        context.clear();
        context.fixed("job", job);
        context.fixed("instance", instance);
        let reserved = |name: &str| {
            is_reserved(name)
                || (name == "job" && !job.is_empty())
                || (name == "instance" && !instance.is_empty())
        };
        for (key, value) in &resource.attributes {
            context.attribute(self.translation, "", key, value, reserved)?;
        }
        context.settle();
        Ok(())
    }

    /// The series that carries all attributes of a resource, if it has any that `job` and `instance`
    /// do not say.
    fn target_info(&mut self, resource: &Resource<'_>) -> Result<(), DecodeError> {
        let Some(time) = resource.newest else {
            return Ok(());
        };
        let says_more = |key: &str| {
            !matches!(
                key,
                "service.name" | "service.namespace" | "service.instance.id"
            )
        };
        if !resource.attributes.iter().any(|(key, _)| says_more(key)) {
            return Ok(());
        }
        match self.build_target(resource) {
            Ok(()) => {}
            Err(Fault::Request(error)) => return Err(error),
            // Was checked before the points.
            Err(Fault::Item(_)) => return Ok(()),
        }
        self.scratch.point.clear();
        let Scratch {
            labels,
            context,
            point,
            ..
        } = &mut *self.scratch;
        labels.set([context, point], false, None);
        let stream = Stream {
            name: "target_info",
            delta: false,
            identity: resource.identity,
        };
        self.meet(&stream, 0, time, "target_info", "", None);
        self.sample("target_info", "", None, time, 1.0)?;
        self.describe(
            "target_info",
            MetricKind::Gauge,
            "",
            "Attributes of the resource",
        );
        Ok(())
    }

    fn scope_metrics<'a>(
        &mut self,
        message: Message<'a>,
        resource: &mut Resource<'a>,
    ) -> Result<(), DecodeError> {
        let identity = match self.scope(message, resource) {
            Ok(identity) => identity,
            Err(Fault::Request(error)) => return Err(error),
            Err(Fault::Item(reason)) => {
                return self.refuse_scope(
                    message,
                    &format_args!("instrumentation scope refused: {reason}"),
                );
            }
        };
        let mut fields = message.fields();
        while let Some(field) = fields.next()? {
            if field.number == 2 {
                self.metric(field.message()?, resource, identity)?;
            }
        }
        Ok(())
    }

    /// Builds the labels that all points of a scope share. Returns the identity of the scope.
    fn scope(&mut self, message: Message<'_>, resource: &Resource<'_>) -> Result<u64, Fault> {
        let (mut name, mut version, mut schema_url) = ("", "", "");
        let mut attributes = 0u64;
        let mut fields = message.fields();
        while let Some(field) = fields.next()? {
            match field.number {
                1 => {
                    let mut inner = field.message()?.fields();
                    while let Some(field) = inner.next()? {
                        match field.number {
                            1 => name = string(field.bytes()?)?,
                            2 => version = string(field.bytes()?)?,
                            _ => {}
                        }
                    }
                }
                3 => schema_url = string(field.bytes()?)?,
                _ => {}
            }
        }
        let Scratch {
            context,
            job,
            instance,
            ..
        } = &mut *self.scratch;
        context.clear();
        let ours = [
            ("job", job.as_str()),
            ("instance", instance.as_str()),
            ("otel_scope_name", name),
            ("otel_scope_version", version),
            ("otel_scope_schema_url", schema_url),
        ];
        for (name, value) in ours {
            context.fixed(name, value);
        }
        let reserved = |name: &str| {
            is_reserved(name)
                || ours
                    .iter()
                    .any(|(ours, value)| *ours == name && !value.is_empty())
        };
        for promoted in &self.translation.promoted_attributes {
            let sent = resource
                .attributes
                .iter()
                .rev()
                .find(|(key, _)| key == promoted);
            if let Some((key, value)) = sent {
                context.attribute(self.translation, "", key, value, reserved)?;
            }
        }
        let mut fields = message.fields();
        while let Some(field) = fields.next()? {
            if field.number != 1 {
                continue;
            }
            let mut inner = field.message()?.fields();
            while let Some(field) = inner.next()? {
                if field.number == 3 {
                    let (key, value) = key_value(field.message()?)?;
                    context.attribute(self.translation, "otel_scope_", key, &value, reserved)?;
                    attributes = attributes.wrapping_add(xxh3_64(field.bytes()?));
                }
            }
        }
        context.settle();
        Ok(mix([
            text_hash([name, version, schema_url]),
            attributes,
            0,
            0,
        ]))
    }

    fn metric<'a>(
        &mut self,
        message: Message<'a>,
        resource: &mut Resource<'a>,
        scope_identity: u64,
    ) -> Result<(), DecodeError> {
        let metric = match Metric::read(message) {
            Ok(metric) => metric,
            Err(Fault::Request(error)) => return Err(error),
            Err(Fault::Item(reason)) => {
                return self.refuse_metric(message, &format_args!("metric refused: {reason}"));
            }
        };
        let refusal = match metric.kind {
            None => return Ok(()),
            Some(data::EXPONENTIAL_HISTOGRAM) => Some("exponential histograms are not supported"),
            Some(data::SUM | data::HISTOGRAM) if !matches!(metric.temporality, 1 | 2) => {
                Some("the aggregation temporality is neither delta nor cumulative")
            }
            Some(_) => None,
        };
        if let Some(reason) = refusal {
            let name = metric.name;
            return self.refuse_metric(message, &format_args!("metric {name:?} refused: {reason}"));
        }
        let Scratch { name, unit, .. } = &mut *self.scratch;
        name.clear();
        unit.clear();
        let suffixes = match metric.kind {
            Some(data::GAUGE) => Suffixes::Gauge,
            Some(data::SUM) if metric.monotonic => Suffixes::Counter,
            _ => Suffixes::UnitOnly,
        };
        if !self
            .translation
            .push_metric_name(name, unit, metric.name, metric.unit, suffixes)
        {
            let sent = metric.name;
            return self.refuse_metric(
                message,
                &format_args!("metric {sent:?} refused: its name has no usable character"),
            );
        }
        let type_identity = u64::from(metric.kind.unwrap_or(0)) << 8
            | u64::from(metric.temporality.cast_unsigned()) << 1
            | u64::from(metric.monotonic);
        let name_identity = text_hash([metric.name, metric.unit, ""]);
        let stream = Stream {
            name: metric.name,
            delta: metric.is_delta(),
            identity: mix([
                resource.identity,
                scope_identity,
                name_identity,
                type_identity,
            ]),
        };
        let mut kept = false;
        let mut seen = 0usize;
        let mut fields = message.fields();
        while let Some(field) = fields.next()? {
            if !data::is_kind(field.number) {
                continue;
            }
            seen += 1;
            if seen <= metric.skip {
                continue;
            }
            let mut points = field.message()?.fields();
            while let Some(point) = points.next()? {
                if point.number != 1 {
                    continue;
                }
                let point = point.message()?;
                self.stats.points += 1;
                let taken = match field.number {
                    data::HISTOGRAM => self.histogram_point(point, &stream),
                    data::SUMMARY => self.summary_point(point, &stream),
                    _ => self.number_point(point, &stream),
                };
                match taken {
                    Ok(time) => {
                        kept = true;
                        resource.newest = resource.newest.max(Some(time));
                    }
                    Err(Fault::Request(error)) => return Err(error),
                    Err(Fault::Item(reason)) => {
                        let name = metric.name;
                        self.rejections.reject_samples(
                            1,
                            format_args!("data point of metric {name:?} refused: {reason}"),
                        );
                    }
                }
            }
        }
        if kept {
            let kind = metric.metric_kind();
            let name = std::mem::take(&mut self.scratch.name);
            let unit = std::mem::take(&mut self.scratch.unit);
            self.describe(&name, kind, &unit, metric.description);
            self.scratch.name = name;
            self.scratch.unit = unit;
        }
        Ok(())
    }

    fn describe(&mut self, metric: &str, kind: MetricKind, unit: &str, help: &str) {
        let hash = mix([text_hash([metric, unit, help]), kind as u64, 0, 0]);
        if self.scratch.described.insert(hash) {
            let [metric, unit, help] = [metric, unit, help].map(str::to_owned);
            self.batch.metadata(Metadata {
                metric,
                kind,
                unit,
                help,
            });
        }
    }

    fn refuse_scope(
        &mut self,
        scope_metrics: Message<'_>,
        reason: &dyn std::fmt::Display,
    ) -> Result<(), DecodeError> {
        let mut fields = scope_metrics.fields();
        while let Some(field) = fields.next()? {
            if field.number == 2 {
                self.refuse_metric(field.message()?, reason)?;
            }
        }
        Ok(())
    }

    /// Counts the points of a metric as refused.
    fn refuse_metric(
        &mut self,
        metric: Message<'_>,
        reason: &dyn std::fmt::Display,
    ) -> Result<(), DecodeError> {
        let mut points = 0;
        let mut fields = metric.fields();
        while let Some(field) = fields.next()? {
            if data::is_kind(field.number) {
                let mut inner = field.message()?.fields();
                while let Some(field) = inner.next()? {
                    points += u64::from(field.number == 1);
                }
            }
        }
        self.stats.points += points;
        self.rejections.reject_samples(points, reason);
        Ok(())
    }
}

fn read_resource<'a>(
    resource_metrics: Message<'a>,
    resource: &mut Resource<'a>,
) -> Result<(), Fault> {
    resource.attributes.clear();
    resource.identity = 0;
    resource.newest = None;
    let mut fields = resource_metrics.fields();
    while let Some(field) = fields.next()? {
        if field.number != 1 {
            continue;
        }
        let mut inner = field.message()?.fields();
        while let Some(field) = inner.next()? {
            if field.number == 1 {
                resource.attributes.push(key_value(field.message()?)?);
                resource.identity = resource.identity.wrapping_add(xxh3_64(field.bytes()?));
            }
        }
    }
    Ok(())
}

/// Names that a translated attribute never takes, whichever metric it is on.
fn is_reserved(name: &str) -> bool {
    is_reserved_of_point(name) || name == "le" || name == "quantile"
}

fn is_reserved_of_point(name: &str) -> bool {
    name == NAME || name == TEMPORALITY
}

fn mix(parts: [u64; 4]) -> u64 {
    let mut bytes = [0; 32];
    for (place, part) in bytes.chunks_exact_mut(8).zip(parts) {
        place.copy_from_slice(&part.to_le_bytes());
    }
    xxh3_64(&bytes)
}

fn text_hash(texts: [&str; 3]) -> u64 {
    let [a, b, c] = texts.map(|text| xxh3_64(text.as_bytes()));
    mix([a, b, c, 0])
}

#[cfg(test)]
mod tests;
