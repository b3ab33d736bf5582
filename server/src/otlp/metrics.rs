//! `ExportMetricsServiceRequest` into a [`MetricBatch`], by the OpenTelemetry specification's
//! Prometheus compatibility page. What becomes what: `docs/otlp.md`; names: `translate.rs`.
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

use std::{
    cell::Cell,
    collections::{HashMap, HashSet},
    fmt::Write as _,
};

use rootline_engine::{
    Exemplar, Labels, LabelsBuilder, Metadata, MetricBatch, MetricKind, Rejections, SeriesRow,
    SpanId, Timestamp, TraceId,
};
use xxhash_rust::xxh3::xxh3_64;

use super::{
    any_value::{AnyValue, Fault, key_value, string},
    error::DecodeError,
    series::{LabelList, NAME, PointLabels, TEMPORALITY},
    translate::{Suffixes, Translation},
    wire::{Field, Message},
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

/// Fields of `Metric.data` by their number.
mod data {
    pub(super) const GAUGE: u32 = 5;
    pub(super) const SUM: u32 = 7;
    pub(super) const HISTOGRAM: u32 = 9;
    pub(super) const EXPONENTIAL_HISTOGRAM: u32 = 10;
    pub(super) const SUMMARY: u32 = 11;

    pub(super) fn is_kind(number: u32) -> bool {
        matches!(
            number,
            GAUGE | SUM | HISTOGRAM | EXPONENTIAL_HISTOGRAM | SUMMARY
        )
    }
}

/// A point without a recorded value.
const FLAG_NO_RECORDED_VALUE: u32 = 1;

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

    /// Takes an attribute of a point. Returns its hash.
    fn attribute(&mut self, field: &Field<'_>, extra: Option<&str>) -> Result<u64, Fault> {
        let (key, value) = key_value(field.message()?)?;
        let Scratch { context, point, .. } = &mut *self.scratch;
        let reserved = |name: &str| {
            is_reserved_of_point(name) || extra == Some(name) || context.contains(name)
        };
        point.attribute(self.translation, "", key, &value, reserved)?;
        Ok(xxh3_64(field.bytes()?))
    }

    fn number_point(
        &mut self,
        message: Message<'_>,
        stream: &Stream<'_>,
    ) -> Result<Timestamp, Fault> {
        self.scratch.point.clear();
        let (mut unix_nanos, mut value, mut flags) = (0, None, 0);
        let (mut attributes, mut exemplars) = (0u64, false);
        let mut fields = message.fields();
        while let Some(field) = fields.next()? {
            match field.number {
                3 => unix_nanos = field.fixed64()?,
                4 => value = Some(field.double()?),
                5 => exemplars = true,
                6 => value = Some(field.fixed64()?.cast_signed() as f64),
                7 => attributes = attributes.wrapping_add(self.attribute(&field, None)?),
                8 => flags = field.uint32()?,
                _ => {}
            }
        }
        let time = point_time(unix_nanos)?;
        let stale = flags & FLAG_NO_RECORDED_VALUE != 0;
        let value = if stale {
            f64::from_bits(STALE_NAN_BITS)
        } else {
            value.ok_or(NO_VALUE)?
        };
        self.settle(stream, None);
        let row = self.named(|this, name| {
            this.meet(stream, attributes, time, name, "", None);
            Ok(this.sample(name, "", None, time, value)?)
        })?;
        if exemplars && !stale {
            self.exemplars(message, 5, stream, time, &[row], &[])?;
        }
        Ok(time)
    }

    fn histogram_point(
        &mut self,
        message: Message<'_>,
        stream: &Stream<'_>,
    ) -> Result<Timestamp, Fault> {
        self.scratch.point.clear();
        self.scratch.counts.clear();
        self.scratch.bounds.clear();
        let (mut unix_nanos, mut count, mut sum, mut flags) = (0, 0, None, 0);
        let (mut attributes, mut exemplars) = (0u64, false);
        let mut fields = message.fields();
        while let Some(field) = fields.next()? {
            match field.number {
                3 => unix_nanos = field.fixed64()?,
                4 => count = field.fixed64()?,
                5 => sum = Some(field.double()?),
                6 => self.scratch.counts.extend(field.fixed64s()?),
                7 => self
                    .scratch
                    .bounds
                    .extend(field.fixed64s()?.map(f64::from_bits)),
                8 => exemplars = true,
                9 => attributes = attributes.wrapping_add(self.attribute(&field, Some("le"))?),
                10 => flags = field.uint32()?,
                _ => {}
            }
        }
        let time = point_time(unix_nanos)?;
        let stale = flags & FLAG_NO_RECORDED_VALUE != 0;
        let mut bounds = std::mem::take(&mut self.scratch.bounds);
        let counts = std::mem::take(&mut self.scratch.counts);
        let mut rows = std::mem::take(&mut self.rows);
        rows.clear();
        let taken = check_buckets(&bounds, &counts, stale).and_then(|()| {
            // The last bucket ends at +Inf whether the sender says so or not.
            if bounds.last() == Some(&f64::INFINITY) {
                bounds.pop();
            }
            self.settle(stream, Some("le"));
            let value = |value: f64| {
                if stale {
                    f64::from_bits(STALE_NAN_BITS)
                } else {
                    value
                }
            };
            self.named(|this, name| {
                this.meet(stream, attributes, time, name, "_count", None);
                let mut below = 0u64;
                for (i, bound) in bounds.iter().enumerate() {
                    below = below.saturating_add(counts.get(i).copied().unwrap_or(0));
                    rows.push(this.numbered(
                        name,
                        "_bucket",
                        "le",
                        *bound,
                        time,
                        value(below as f64),
                    )?);
                }
                let all = value(count as f64);
                let infinite = Some(("le", "+Inf"));
                rows.push(this.sample(name, "_bucket", infinite, time, all)?);
                this.sample(name, "_count", None, time, all)?;
                if stale || sum.is_some() {
                    this.sample(name, "_sum", None, time, value(sum.unwrap_or(0.0)))?;
                }
                Ok(())
            })?;
            if exemplars && !stale {
                self.exemplars(message, 8, stream, time, &rows, &bounds)?;
            }
            Ok(time)
        });
        self.scratch.bounds = bounds;
        self.scratch.counts = counts;
        self.rows = rows;
        taken
    }

    fn summary_point(
        &mut self,
        message: Message<'_>,
        stream: &Stream<'_>,
    ) -> Result<Timestamp, Fault> {
        self.scratch.point.clear();
        let (mut unix_nanos, mut count, mut sum, mut flags) = (0, 0, 0.0, 0);
        let mut attributes = 0u64;
        let mut fields = message.fields();
        while let Some(field) = fields.next()? {
            match field.number {
                3 => unix_nanos = field.fixed64()?,
                4 => count = field.fixed64()?,
                5 => sum = field.double()?,
                7 => {
                    attributes = attributes.wrapping_add(self.attribute(&field, Some("quantile"))?);
                }
                8 => flags = field.uint32()?,
                _ => {}
            }
        }
        let time = point_time(unix_nanos)?;
        let stale = flags & FLAG_NO_RECORDED_VALUE != 0;
        let value = |value: f64| {
            if stale {
                f64::from_bits(STALE_NAN_BITS)
            } else {
                value
            }
        };
        self.settle(stream, Some("quantile"));
        self.named(|this, name| {
            this.meet(stream, attributes, time, name, "_count", None);
            let mut fields = message.fields();
            while let Some(field) = fields.next()? {
                if field.number != 6 {
                    continue;
                }
                let (mut quantile, mut at_quantile) = (0.0, 0.0);
                let mut inner = field.message()?.fields();
                while let Some(field) = inner.next()? {
                    match field.number {
                        1 => quantile = field.double()?,
                        2 => at_quantile = field.double()?,
                        _ => {}
                    }
                }
                this.numbered(name, "", "quantile", quantile, time, value(at_quantile))?;
            }
            this.sample(name, "_count", None, time, value(count as f64))?;
            this.sample(name, "_sum", None, time, value(sum))?;
            Ok(())
        })?;
        Ok(time)
    }

    /// Sorts the point's labels among the scope's.
    fn settle(&mut self, stream: &Stream<'_>, extra: Option<&str>) {
        let Scratch {
            context,
            point,
            labels,
            ..
        } = &mut *self.scratch;
        point.settle();
        labels.set([context, point], stream.delta, extra);
    }

    /// Lends the metric's name beside the rest of the decoder.
    fn named<T>(
        &mut self,
        emit: impl FnOnce(&mut Self, &str) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        let name = std::mem::take(&mut self.scratch.name);
        let emitted = emit(self, &name);
        self.scratch.name = name;
        emitted
    }

    /// Counts a point whose series and time another stream of the request has written already.
    fn meet(
        &mut self,
        stream: &Stream<'_>,
        attributes: u64,
        time: Timestamp,
        name: &str,
        suffix: &str,
        extra: Option<(&str, &str)>,
    ) {
        let series = xxh3_64(self.scratch.labels.series(name, suffix, extra));
        let identity = mix([stream.identity, attributes, 0, 0]);
        let before = self
            .scratch
            .seen
            .insert((series, time.as_nanos()), identity);
        if before.is_some_and(|before| before != identity) {
            self.stats.collisions += 1;
        }
    }

    /// One sample of the point whose label is a number.
    fn numbered(
        &mut self,
        name: &str,
        suffix: &str,
        label: &str,
        number: f64,
        time: Timestamp,
        value: f64,
    ) -> Result<S::Row, Fault> {
        let mut text = std::mem::take(&mut self.scratch.number);
        text.clear();
        push_number(&mut text, number);
        let row = self.sample(name, suffix, Some((label, &text)), time, value);
        self.scratch.number = text;
        Ok(row?)
    }

    /// One sample of the point.
    fn sample(
        &mut self,
        name: &str,
        suffix: &str,
        extra: Option<(&str, &str)>,
        time: Timestamp,
        value: f64,
    ) -> Result<S::Row, DecodeError> {
        let bytes = self.scratch.labels.series(name, suffix, extra);
        let need = SERIES_BYTES + bytes.len() as u64;
        if need > self.room_left {
            let step = need.max(ROOM_STEP_BYTES);
            self.room_taken += step;
            if self.room_taken > BATCH_BYTES_MAX {
                return Err(DecodeError::TooLarge {
                    bytes_max: BATCH_BYTES_MAX,
                });
            }
            if !(self.room)(step) {
                return Err(DecodeError::NoRoom);
            }
            self.room_left += step;
        }
        self.room_left -= need;
        let row = self.batch.series(bytes);
        self.batch.sample(row, time, value);
        Ok(row)
    }

    /// Adds the exemplars of a point to its row, or to the row of the bucket they fell into.
    fn exemplars(
        &mut self,
        point: Message<'_>,
        number: u32,
        stream: &Stream<'_>,
        point_time: Timestamp,
        rows: &[S::Row],
        bounds: &[f64],
    ) -> Result<(), DecodeError> {
        let mut fields = point.fields();
        while let Some(field) = fields.next()? {
            if field.number != number {
                continue;
            }
            match self.exemplar(field.message()?, point_time) {
                Ok(exemplar) => {
                    let above = bounds.partition_point(|bound| *bound < exemplar.value);
                    let bucket = if exemplar.value.is_nan() {
                        bounds.len()
                    } else {
                        above
                    };
                    if let Some(row) = rows.get(bucket) {
                        self.batch.exemplar(*row, exemplar);
                    }
                }
                Err(Fault::Request(error)) => return Err(error),
                Err(Fault::Item(reason)) => {
                    let name = stream.name;
                    self.rejections.reject_exemplars(
                        1,
                        format_args!("exemplar of metric {name:?} refused: {reason}"),
                    );
                }
            }
        }
        Ok(())
    }

    fn exemplar(&mut self, message: Message<'_>, point_time: Timestamp) -> Result<Exemplar, Fault> {
        let list = &mut self.scratch.exemplar;
        list.clear();
        let (mut unix_nanos, mut value) = (0, None);
        let (mut span_id, mut trace_id) = (&[][..], &[][..]);
        let mut fields = message.fields();
        while let Some(field) = fields.next()? {
            match field.number {
                2 => unix_nanos = field.fixed64()?,
                3 => value = Some(field.double()?),
                4 => span_id = field.bytes()?,
                5 => trace_id = field.bytes()?,
                6 => value = Some(field.fixed64()?.cast_signed() as f64),
                7 => {
                    let (key, value) = key_value(field.message()?)?;
                    list.attribute(self.translation, "", key, &value, |_| false)?;
                }
                _ => {}
            }
        }
        list.settle();
        if !matches!(trace_id.len(), 0 | 16) || !matches!(span_id.len(), 0 | 8) {
            return Err(Fault::Item(
                "its trace id is not 16 or its span id not 8 bytes long",
            ));
        }
        let time = if unix_nanos == 0 {
            point_time
        } else {
            self::point_time(unix_nanos)?
        };
        let labels = Labels::from_pairs(list.iter()).map_err(|_| Fault::Item("bad attributes"))?;
        Ok(Exemplar {
            time,
            value: value.ok_or(NO_VALUE)?,
            trace_id: TraceId::from_slice(trace_id),
            span_id: SpanId::from_slice(span_id),
            labels,
        })
    }
}

const NO_VALUE: Fault = Fault::Item("it has no value");

/// What a `Metric` message says beside its points.
struct Metric<'a> {
    name: &'a str,
    description: &'a str,
    unit: &'a str,
    /// The field number of its data.
    kind: Option<u32>,
    /// Data fields that count for nothing, as one of another kind came later.
    skip: usize,
    temporality: i32,
    monotonic: bool,
    /// What Prometheus called it, if it came from there.
    prometheus_type: &'a str,
}

impl<'a> Metric<'a> {
    fn read(message: Message<'a>) -> Result<Self, Fault> {
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

    fn is_delta(&self) -> bool {
        self.temporality == 1
    }

    fn metric_kind(&self) -> MetricKind {
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

fn check_buckets(bounds: &[f64], counts: &[u64], stale: bool) -> Result<(), Fault> {
    if bounds.iter().any(|bound| bound.is_nan()) || !bounds.is_sorted_by(|a, b| a < b) {
        return Err(Fault::Item("its bucket bounds do not rise"));
    }
    // Without buckets at all a histogram is a count and a sum.
    let fits = counts.len() == bounds.len() + 1 || (counts.is_empty() && bounds.is_empty());
    let unsaid = stale && counts.is_empty();
    if !fits && !unsaid {
        return Err(Fault::Item(
            "its bucket counts are not one more than its bounds",
        ));
    }
    Ok(())
}

fn point_time(unix_nanos: u64) -> Result<Timestamp, Fault> {
    if unix_nanos == 0 {
        return Err(Fault::Item("its time_unix_nano is 0"));
    }
    Timestamp::from_unix_nanos(unix_nanos)
        .map_err(|_| Fault::Item("its time_unix_nano is past the year 2262"))
}

/// A bound or quantile as Prometheus writes it for OTLP: shortest digits that read back, never an
/// exponent.
fn push_number(out: &mut String, number: f64) {
    let _ = if number == f64::INFINITY {
        write!(out, "+Inf")
    } else if number == f64::NEG_INFINITY {
        write!(out, "-Inf")
    } else {
        // Adding 0.0 makes -0 a plain 0.
        write!(out, "{}", number + 0.0)
    };
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
