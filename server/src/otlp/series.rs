//! The labels of OTLP data points, from attributes to the canonical label bytes of `rootline-index`
//! (the layout of remote write), in buffers that are used again for every point.
//!
//! A series' labels come from two lists: what all points of a resource and scope share
//! ([`LabelList`], once a scope) and the point's own attributes. `__name__` and `le` or `quantile`
//! differ between the series of one point, so their places are remembered and everything else is
//! encoded once ([`PointLabels`]).
//!
//! Invariants
//! - A settled list has rising, unique names and no empty value.
//! - The two lists of a point share no name: an attribute that would take a label of ours gets
//!   `exported_` before its name, as Prometheus does for scraped labels that clash.

use super::{
    any_value::{AnyValue, Fault},
    translate::Translation,
};

/// The label of the metric's name.
pub(crate) const NAME: &str = "__name__";
/// The label that keeps delta series apart; its value is `delta`.
pub(crate) const TEMPORALITY: &str = "__temporality__";
/// Put before the name of an attribute whose label is ours.
const EXPORTED: &str = "exported_";

/// A stretch of a list's text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Piece {
    start: usize,
    end: usize,
}

#[derive(Clone, Copy, Debug)]
struct Label {
    name: Piece,
    /// The attribute's key before it became a name: decides the order where names meet.
    key: Piece,
    value: Piece,
}

/// Labels in the making.
#[derive(Debug, Default)]
pub(crate) struct LabelList {
    text: String,
    labels: Vec<Label>,
}

impl LabelList {
    pub(crate) fn clear(&mut self) {
        self.text.clear();
        self.labels.clear();
    }

    fn piece(&self, piece: Piece) -> &str {
        self.text.get(piece.start..piece.end).unwrap_or_default()
    }

    fn push(&mut self, text: &str) -> Piece {
        let start = self.text.len();
        self.text.push_str(text);
        Piece {
            start,
            end: self.text.len(),
        }
    }

    /// Adds a label of ours.
    pub(crate) fn fixed(&mut self, name: &str, value: &str) {
        if !value.is_empty() {
            let name = self.push(name);
            let value = self.push(value);
            self.labels.push(Label {
                name,
                key: name,
                value,
            });
        }
    }

    /// Adds an attribute's label, its name behind `prefix`; `reserved` names stay ours.
    pub(crate) fn attribute(
        &mut self,
        translation: &Translation,
        prefix: &str,
        key: &str,
        value: &AnyValue<'_>,
        reserved: impl Fn(&str) -> bool,
    ) -> Result<(), Fault> {
        if key.is_empty() {
            return Err(Fault::Item("an attribute has an empty key"));
        }
        let start = self.text.len();
        translation.push_label_name(&mut self.text, prefix, key);
        while self.text.get(start..).is_some_and(&reserved) {
            self.text.insert_str(start, EXPORTED);
        }
        let name = Piece {
            start,
            end: self.text.len(),
        };
        let key = if self.piece(name) == key {
            name
        } else {
            self.push(key)
        };
        let start = self.text.len();
        value.push_text(&mut self.text)?;
        let value = Piece {
            start,
            end: self.text.len(),
        };
        self.labels.push(Label { name, key, value });
        Ok(())
    }

    /// Sorts by name and makes names unique: values of different keys are joined with `;` in the
    /// order of the keys; of one key sent twice the last value counts.
    pub(crate) fn settle(&mut self) {
        let text = self.text.as_str();
        let of = |piece: Piece| text.get(piece.start..piece.end).unwrap_or_default();
        self.labels.sort_unstable_by(|a, b| {
            let by_name = of(a.name).cmp(of(b.name));
            by_name
                .then_with(|| of(a.key).cmp(of(b.key)))
                .then(a.value.start.cmp(&b.value.start))
        });
        let meet = self
            .labels
            .array_windows()
            .any(|[a, b]| of(a.name) == of(b.name));
        if meet {
            self.join();
        }
        self.labels
            .retain(|label| label.value.start < label.value.end);
    }

    /// Makes one label of each run of labels with one name.
    #[cold]
    fn join(&mut self) {
        let mut sorted = std::mem::take(&mut self.labels);
        // Of one key sent twice only the last stays; `dedup_by` would keep the first, so go backwards.
        sorted.reverse();
        sorted.dedup_by(|next, kept| {
            self.piece(next.name) == self.piece(kept.name)
                && self.piece(next.key) == self.piece(kept.key)
        });
        for label in sorted.into_iter().rev() {
            match self.labels.last().copied() {
                Some(last) if self.piece(last.name) == self.piece(label.name) => {
                    let value = self.joined(last.value, label.value);
                    if let Some(last) = self.labels.last_mut() {
                        last.value = value;
                    }
                }
                _ => self.labels.push(label),
            }
        }
    }

    fn joined(&mut self, first: Piece, second: Piece) -> Piece {
        if first.start == first.end {
            return second;
        }
        if second.start == second.end {
            return first;
        }
        let text = format!("{};{}", self.piece(first), self.piece(second));
        self.push(&text)
    }

    /// Whether a settled list has this name.
    pub(crate) fn contains(&self, name: &str) -> bool {
        self.labels
            .binary_search_by(|label| self.piece(label.name).cmp(name))
            .is_ok()
    }

    /// The labels of a settled list, by rising name.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &str)> + Clone {
        self.labels
            .iter()
            .map(|label| (self.piece(label.name), self.piece(label.value)))
    }

    pub(crate) fn heap_bytes(&self) -> usize {
        self.text.capacity() + self.labels.capacity() * size_of::<Label>()
    }
}

/// The encoded labels of a point, into which each of its series puts its own.
#[derive(Debug, Default)]
pub(crate) struct PointLabels {
    shared: Vec<u8>,
    /// Where `__name__` belongs in `shared`.
    name_at: usize,
    /// Where the label that tells the point's series apart belongs; not before `name_at`.
    extra_at: usize,
    series: Vec<u8>,
}

impl PointLabels {
    /// Encodes what all series of a point share. `extra` is the name of the label that tells them
    /// apart, if there is one; it sorts behind `__name__`.
    pub(crate) fn set(&mut self, lists: [&LabelList; 2], delta: bool, extra: Option<&str>) {
        debug_assert!(extra.is_none_or(|extra| extra > NAME));
        self.shared.clear();
        let (mut name_at, mut extra_at) = (None, None);
        let [mut first, mut second] = lists.map(|list| list.iter().peekable());
        let mut temporality = delta.then_some((TEMPORALITY, "delta"));
        loop {
            let heads = [first.peek().copied(), second.peek().copied(), temporality];
            let Some(next) = heads.into_iter().flatten().min() else {
                break;
            };
            if name_at.is_none() && next.0 > NAME {
                name_at = Some(self.shared.len());
            }
            if extra_at.is_none() && extra.is_some_and(|extra| next.0 > extra) {
                extra_at = Some(self.shared.len());
            }
            put_label(&mut self.shared, next.0, [next.1, ""]);
            if first.peek() == Some(&next) {
                first.next();
            } else if second.peek() == Some(&next) {
                second.next();
            } else {
                temporality = None;
            }
        }
        self.name_at = name_at.unwrap_or(self.shared.len());
        self.extra_at = extra_at.unwrap_or(self.shared.len());
    }

    /// The canonical label bytes of one series of the point: its name is `name` and `suffix`.
    pub(crate) fn series(
        &mut self,
        name: &str,
        suffix: &str,
        extra: Option<(&str, &str)>,
    ) -> &[u8] {
        let (before, rest) = self
            .shared
            .split_at_checked(self.name_at)
            .unwrap_or_default();
        let between = self.extra_at - self.name_at;
        let (between, behind) = rest.split_at_checked(between).unwrap_or((rest, &[]));
        self.series.clear();
        self.series.extend_from_slice(before);
        put_label(&mut self.series, NAME, [name, suffix]);
        self.series.extend_from_slice(between);
        if let Some((name, value)) = extra {
            put_label(&mut self.series, name, [value, ""]);
        }
        self.series.extend_from_slice(behind);
        &self.series
    }

    pub(crate) fn heap_bytes(&self) -> usize {
        self.shared.capacity() + self.series.capacity()
    }
}

/// Appends one label in the layout of remote write: `0x0a len [ 0x0a len name 0x12 len value ]`.
fn put_label(out: &mut Vec<u8>, name: &str, value: [&str; 2]) {
    let value_bytes = value[0].len() + value[1].len();
    let inner = 2 + varint_bytes(name.len()) + name.len() + varint_bytes(value_bytes) + value_bytes;
    out.push(0x0a);
    put_length(out, inner);
    out.push(0x0a);
    put_length(out, name.len());
    out.extend_from_slice(name.as_bytes());
    out.push(0x12);
    put_length(out, value_bytes);
    out.extend_from_slice(value[0].as_bytes());
    out.extend_from_slice(value[1].as_bytes());
}

fn varint_bytes(value: usize) -> usize {
    let bits = usize::BITS - (value | 1).leading_zeros();
    bits.div_ceil(7) as usize
}

/// Appends a LEB128 length in its shortest form.
#[expect(
    clippy::cast_possible_truncation,
    reason = "seven bits at a time is what is meant"
)]
pub(crate) fn put_length(out: &mut Vec<u8>, mut length: usize) {
    while length >= 0x80 {
        out.push(length as u8 | 0x80);
        length >>= 7;
    }
    out.push(length as u8);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rootline_engine::Labels;

    use super::*;

    fn list(pairs: &[(&str, &str)], reserved: &[&str]) -> LabelList {
        let mut list = LabelList::default();
        for (key, value) in pairs {
            let value = AnyValue::Text(value);
            let is_reserved = |name: &str| reserved.contains(&name);
            list.attribute(&Translation::default(), "", key, &value, is_reserved)
                .unwrap();
        }
        list.settle();
        list
    }

    fn pairs(list: &LabelList) -> Vec<(&str, &str)> {
        list.iter().collect()
    }

    #[test]
    fn attributes_that_meet_in_one_name_are_joined_in_the_order_of_their_keys() {
        let list = list(&[("a_b", "2"), ("a.b", "1"), ("z", "9"), ("a-b", "0")], &[]);
        assert_eq!(pairs(&list), [("a_b", "0;1;2"), ("z", "9")]);
    }

    #[test]
    fn of_one_key_sent_twice_the_last_value_counts() {
        let list = list(
            &[
                ("a.b", "x"),
                ("a", "1"),
                ("a", "2"),
                ("a_b", "y"),
                ("a.b", "z"),
            ],
            &[],
        );
        assert_eq!(pairs(&list), [("a", "2"), ("a_b", "z;y")]);
    }

    #[test]
    fn an_empty_value_is_no_label() {
        let list = list(
            &[("a", ""), ("b.c", ""), ("b_c", "1"), ("d", "1"), ("d", "")],
            &[],
        );
        assert_eq!(pairs(&list), [("b_c", "1")]);
    }

    #[test]
    fn a_clash_with_a_label_of_ours_renames_the_attribute() {
        let list = list(
            &[("job", "mine"), ("le", "1")],
            &["job", "le", "exported_le"],
        );
        assert_eq!(
            pairs(&list),
            [("exported_exported_le", "1"), ("exported_job", "mine")]
        );
    }

    #[test]
    fn an_attribute_without_a_key_is_refused() {
        let added = LabelList::default().attribute(
            &Translation::default(),
            "",
            "",
            &AnyValue::Empty,
            |_| false,
        );
        assert!(matches!(added, Err(Fault::Item(_))));
    }

    #[test]
    fn lengths_are_written_in_their_shortest_form() {
        for length in [0, 1, 127, 128, 16_383, 16_384, 2_097_151, 2_097_152] {
            let mut out = Vec::new();
            put_length(&mut out, length);
            assert_eq!(out.len(), varint_bytes(length), "{length}");
        }
    }

    proptest! {
        #[test]
        fn series_bytes_are_the_canonical_bytes_of_their_labels(
            context in prop::collection::vec(("[A-Za-z._]{0,3}[a-z]", "\\PC{0,4}|[a-z]{150}"), 0..6),
            point in prop::collection::vec(("[A-Za-z._]{0,3}[a-z]", "\\PC{0,4}"), 0..6),
            delta: bool,
        ) {
            let borrow = |pairs: &[(String, String)], reserved: &LabelList| {
                let mut list = LabelList::default();
                for (key, value) in pairs {
                    let value = AnyValue::Text(value);
                    let is_reserved = |n: &str| n == "le" || reserved.contains(n);
                    list.attribute(&Translation::default(), "", key, &value, is_reserved).unwrap();
                }
                list.settle();
                list
            };
            let context = borrow(&context, &LabelList::default());
            let point = borrow(&point, &context);
            let mut labels = PointLabels::default();
            for extra in [None, Some(("le", "0.5"))] {
                labels.set([&context, &point], delta, extra.map(|(name, _)| name));
                let bytes = labels.series("http_requests", "_bucket", extra).to_vec();
                let all = context.iter().chain(point.iter()).chain(extra)
                    .chain(delta.then_some((TEMPORALITY, "delta")))
                    .chain([(NAME, "http_requests_bucket")]);
                let mut canonical = Vec::new();
                Labels::from_pairs(all).unwrap().encode_canonical(&mut canonical);
                prop_assert_eq!(bytes, canonical);
            }
        }
    }
}
