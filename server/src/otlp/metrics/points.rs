//! Data points, kind by kind: what each says, the series it becomes, and its exemplars.

use std::fmt::Write as _;

use rootline_engine::{Exemplar, Labels, SpanId, Timestamp, TraceId};
use xxhash_rust::xxh3::xxh3_64;

use super::{
    BATCH_BYTES_MAX, Decoder, MetricSink, ROOM_STEP_BYTES, SERIES_BYTES, STALE_NAN_BITS, Scratch,
    Stream, is_reserved_of_point, mix,
};
use crate::otlp::{
    any_value::{Fault, key_value},
    error::DecodeError,
    wire::{Field, Message},
};

/// A point without a recorded value.
const FLAG_NO_RECORDED_VALUE: u32 = 1;

const NO_VALUE: Fault = Fault::Item("it has no value");

impl<S: MetricSink> Decoder<'_, S> {
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

    pub(super) fn number_point(
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

    pub(super) fn histogram_point(
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

    pub(super) fn summary_point(
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
    pub(super) fn meet(
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
    pub(super) fn sample(
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
