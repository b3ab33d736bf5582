//! Label sets: what a series or a resource is called.
//!
//! Invariants of [`Labels`]
//! - Names are non-empty, rise strictly by their bytes, and so are unique.
//! - No value is empty: an empty value means that the label is absent, as in Prometheus.
//! - The set is immutable and lives in one shared allocation, so that a clone is a counter.
//!
//! Names and values are any UTF-8, as in Prometheus since version 3, NUL included.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt::{self, Write as _};
use std::iter::FusedIterator;
use std::sync::Arc;

use crate::error::{Error, LabelFault};
use crate::label_limits::LabelLimits;
use crate::varint::{ascii_len_len, push_ascii_len, split_prefixed};

/// The label that holds a series' metric name.
pub const METRIC_NAME: &str = "__name__";

/// Whether `name` needs no quotes where a label name is written: `[a-zA-Z_][a-zA-Z0-9_]*`.
pub fn is_legacy_valid_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes
        .next()
        .is_some_and(|b| b == b'_' || b.is_ascii_alphabetic())
        && bytes.all(|b| b == b'_' || b.is_ascii_alphanumeric())
}

/// A sorted set of unique `(name, value)` pairs. Cheap to clone; equality, order and hash are
/// those of the pairs.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Labels {
    /// Every name and value in order, each behind its length in the ASCII form of `varint.rs`.
    text: Arc<str>,
}

impl Labels {
    /// The set without labels.
    pub fn empty() -> Self {
        Self {
            text: Arc::from(""),
        }
    }

    /// Starts a set.
    pub fn builder<'a>() -> LabelsBuilder<'a> {
        LabelsBuilder::default()
    }

    /// Makes a set of pairs in any order; pairs with an empty value are left out.
    ///
    /// # Errors
    /// [`Error::InvalidLabel`] for an empty or repeated name.
    pub fn from_pairs<'a, N, V>(pairs: impl IntoIterator<Item = (N, V)>) -> Result<Self, Error>
    where
        N: Into<Cow<'a, str>>,
        V: Into<Cow<'a, str>>,
    {
        let mut builder = Self::builder();
        for (name, value) in pairs {
            builder.set(name, value);
        }
        builder.build()
    }

    /// Pairs that already keep the invariants, which the caller has checked.
    pub(crate) fn from_checked_pairs<'p>(
        pairs: impl Iterator<Item = (&'p str, &'p str)> + Clone,
    ) -> Self {
        let bytes = pairs
            .clone()
            .flat_map(|(name, value)| [name, value])
            .map(|s| ascii_len_len(s.len()) + s.len())
            .sum();
        let mut text = String::with_capacity(bytes);
        for part in pairs.flat_map(|(name, value)| [name, value]) {
            push_ascii_len(&mut text, part.len());
            text.push_str(part);
        }
        Self {
            text: Arc::from(text),
        }
    }

    /// The value of a label, if the set has it.
    pub fn get(&self, name: &str) -> Option<&str> {
        for (n, value) in self {
            match n.cmp(name) {
                Ordering::Less => {}
                Ordering::Equal => return Some(value),
                Ordering::Greater => return None,
            }
        }
        None
    }

    /// The value of [`METRIC_NAME`], if the set has it.
    pub fn metric_name(&self) -> Option<&str> {
        self.get(METRIC_NAME)
    }

    /// The pairs in rising order of their names.
    pub fn iter(&self) -> LabelsIter<'_> {
        LabelsIter { rest: &self.text }
    }

    /// How many labels the set has. Walks the set.
    pub fn len(&self) -> usize {
        self.iter().count()
    }

    /// Whether the set has no label.
    pub fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    /// Bytes of the shared allocation, its two counters included.
    pub fn heap_bytes(&self) -> usize {
        self.text.len() + 2 * size_of::<usize>()
    }
}

impl Default for Labels {
    fn default() -> Self {
        Self::empty()
    }
}

impl<'l> IntoIterator for &'l Labels {
    type Item = (&'l str, &'l str);
    type IntoIter = LabelsIter<'l>;

    fn into_iter(self) -> LabelsIter<'l> {
        self.iter()
    }
}

impl Ord for Labels {
    fn cmp(&self, other: &Self) -> Ordering {
        self.iter().cmp(other)
    }
}

impl PartialOrd for Labels {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// The form that `PromQL` reads back: `name{a="b"}`, or with a name that needs quotes
/// `{"http.requests", "a.b"="c"}`.
impl fmt::Display for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let metric = self.metric_name();
        let plain = metric.filter(|name| is_legacy_valid_metric_name(name));
        f.write_str(plain.unwrap_or_default())?;
        if plain.is_some() && self.len() == 1 {
            return Ok(());
        }
        f.write_char('{')?;
        let mut first = true;
        if let (Some(name), None) = (metric, plain) {
            write_quoted(f, name)?;
            first = false;
        }
        for (name, value) in self.iter().filter(|(name, _)| *name != METRIC_NAME) {
            if !first {
                f.write_str(", ")?;
            }
            first = false;
            if is_legacy_valid_name(name) {
                f.write_str(name)?;
            } else {
                write_quoted(f, name)?;
            }
            f.write_char('=')?;
            write_quoted(f, value)?;
        }
        f.write_char('}')
    }
}

impl fmt::Debug for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Metric names may hold colons as well.
fn is_legacy_valid_metric_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes
        .next()
        .is_some_and(|b| matches!(b, b'_' | b':') || b.is_ascii_alphabetic())
        && bytes.all(|b| matches!(b, b'_' | b':') || b.is_ascii_alphanumeric())
}

/// `text` in double quotes, with backslash, quote and line feed escaped.
pub(crate) fn write_quoted(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    f.write_char('"')?;
    for c in text.chars() {
        match c {
            '\\' => f.write_str("\\\\")?,
            '"' => f.write_str("\\\"")?,
            '\n' => f.write_str("\\n")?,
            c => f.write_char(c)?,
        }
    }
    f.write_char('"')
}

/// The pairs of a set. See [`Labels::iter`].
#[derive(Debug, Clone)]
pub struct LabelsIter<'l> {
    rest: &'l str,
}

impl<'l> Iterator for LabelsIter<'l> {
    type Item = (&'l str, &'l str);

    fn next(&mut self) -> Option<Self::Item> {
        let (name, rest) = split_prefixed(self.rest)?;
        let (value, rest) = split_prefixed(rest)?;
        self.rest = rest;
        Some((name, value))
    }
}

impl FusedIterator for LabelsIter<'_> {}

/// Collects pairs in any order and makes [`Labels`] of them.
///
/// Strings are borrowed where the caller has them and owned where it had to make them.
#[derive(Debug, Clone, Default)]
pub struct LabelsBuilder<'a> {
    pairs: Vec<(Cow<'a, str>, Cow<'a, str>)>,
}

impl<'a> LabelsBuilder<'a> {
    /// Adds a pair. An empty value adds nothing; a name given twice is found by [`build`].
    ///
    /// [`build`]: Self::build
    pub fn set(
        &mut self,
        name: impl Into<Cow<'a, str>>,
        value: impl Into<Cow<'a, str>>,
    ) -> &mut Self {
        let value = value.into();
        if !value.is_empty() {
            self.pairs.push((name.into(), value));
        }
        self
    }

    /// Adds a pair in the place of any earlier one of this name. An empty value only removes.
    pub fn replace(
        &mut self,
        name: impl Into<Cow<'a, str>>,
        value: impl Into<Cow<'a, str>>,
    ) -> &mut Self {
        let name = name.into();
        self.del(&name);
        self.set(name, value)
    }

    /// Removes every pair of this name.
    pub fn del(&mut self, name: &str) -> &mut Self {
        self.pairs.retain(|(n, _)| n != name);
        self
    }

    /// The value given last for this name.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.pairs
            .iter()
            .rev()
            .find(|(n, _)| n == name)
            .map(|(_, value)| value.as_ref())
    }

    /// The pairs so far, in no promised order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> + Clone {
        self.pairs
            .iter()
            .map(|(name, value)| (name.as_ref(), value.as_ref()))
    }

    /// Pairs so far.
    pub fn len(&self) -> usize {
        self.pairs.len()
    }

    /// Whether there is no pair yet.
    pub fn is_empty(&self) -> bool {
        self.pairs.is_empty()
    }

    /// Sorts the pairs and makes the set, whatever its size.
    ///
    /// # Errors
    /// [`Error::InvalidLabel`] for an empty or repeated name.
    pub fn build(mut self) -> Result<Labels, Error> {
        self.sort_and_check()?;
        Ok(Labels::from_checked_pairs(self.iter()))
    }

    /// As [`build`](Self::build), and refuses what is larger than `limits`.
    ///
    /// # Errors
    /// As [`build`](Self::build), or the limit that was passed.
    pub fn build_within(mut self, limits: &LabelLimits) -> Result<Labels, Error> {
        limits.check_pairs(self.iter())?;
        self.sort_and_check()?;
        Ok(Labels::from_checked_pairs(self.iter()))
    }

    fn sort_and_check(&mut self) -> Result<(), Error> {
        self.pairs.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        let mut previous: Option<&str> = None;
        for (name, _) in &self.pairs {
            if name.is_empty() {
                return Err(Error::label(name, LabelFault::EmptyName));
            }
            if previous == Some(name) {
                return Err(Error::label(name, LabelFault::Duplicate));
            }
            previous = Some(name);
        }
        Ok(())
    }
}

impl<'a> From<&'a Labels> for LabelsBuilder<'a> {
    fn from(labels: &'a Labels) -> Self {
        Self {
            pairs: labels
                .iter()
                .map(|(n, v)| (Cow::from(n), Cow::from(v)))
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn pairs_are_sorted_and_found() {
        let labels = Labels::from_pairs([("b", "2"), (METRIC_NAME, "up"), ("a", "1")]).unwrap();
        let pairs: Vec<_> = labels.iter().collect();
        assert_eq!(pairs, [("__name__", "up"), ("a", "1"), ("b", "2")]);
        assert_eq!(labels.metric_name(), Some("up"));
        assert_eq!(labels.get("b"), Some("2"));
        assert_eq!(labels.get("aa"), None);
        assert_eq!(labels.get("z"), None);
        assert_eq!(labels.len(), 3);
    }

    #[test]
    fn an_empty_value_is_an_absent_label() {
        let labels = Labels::from_pairs([("a", ""), ("b", "1")]).unwrap();
        assert_eq!(labels, Labels::from_pairs([("b", "1")]).unwrap());
        assert_eq!(labels.get("a"), None);
    }

    #[test]
    fn a_repeated_name_is_refused_by_name() {
        let error = Labels::from_pairs([("a", "1"), ("b", "2"), ("a", "1")]).unwrap_err();
        assert_eq!(error, Error::label("a", LabelFault::Duplicate));
        assert_eq!(
            error.to_string(),
            r#"invalid label "a": the name occurs twice"#
        );
    }

    #[test]
    fn an_empty_name_is_refused() {
        let error = Labels::from_pairs([("", "1")]).unwrap_err();
        assert_eq!(error, Error::label("", LabelFault::EmptyName));
    }

    #[test]
    fn replace_takes_the_place_of_the_earlier_pair() {
        let mut builder = Labels::builder();
        builder
            .set("a", "1")
            .replace("a", "2")
            .set("b", "3")
            .replace("b", "");
        assert_eq!(
            builder.build().unwrap(),
            Labels::from_pairs([("a", "2")]).unwrap()
        );
    }

    #[test]
    fn each_limit_is_refused_with_its_number() {
        let limits = LabelLimits {
            labels_max: 2,
            name_bytes_max: 3,
            value_bytes_max: 4,
            set_bytes_max: 9,
        };
        let build = |pairs: &[(&'static str, &'static str)]| {
            let mut builder = Labels::builder();
            for (name, value) in pairs {
                builder.set(*name, *value);
            }
            builder.build_within(&limits)
        };
        assert!(build(&[("abc", "1234")]).is_ok());
        assert_eq!(
            build(&[("abcd", "1")]).unwrap_err(),
            Error::label("abcd", LabelFault::NameTooLong { bytes: 4, max: 3 })
        );
        assert_eq!(
            build(&[("abc", "12345")]).unwrap_err(),
            Error::label("abc", LabelFault::ValueTooLong { bytes: 5, max: 4 })
        );
        assert_eq!(
            build(&[("a", "1"), ("b", "1"), ("c", "1")]).unwrap_err(),
            Error::TooManyLabels { count: 3, max: 2 }
        );
        assert_eq!(
            build(&[("abc", "1234"), ("bcd", "1")]).unwrap_err(),
            Error::LabelSetTooLarge { bytes: 11, max: 9 }
        );
    }

    #[test]
    fn the_written_form_escapes_and_quotes() {
        let show = |pairs: &[(&'static str, &'static str)]| {
            Labels::from_pairs(pairs.iter().copied())
                .unwrap()
                .to_string()
        };
        assert_eq!(show(&[]), "{}");
        assert_eq!(show(&[(METRIC_NAME, "up")]), "up");
        assert_eq!(
            show(&[(METRIC_NAME, "a:b"), ("x", "1"), ("y", "2")]),
            r#"a:b{x="1", y="2"}"#
        );
        assert_eq!(show(&[("x", "a\"b\\c\nd")]), r#"{x="a\"b\\c\nd"}"#);
        assert_eq!(
            show(&[(METRIC_NAME, "a.b"), ("c.d", "e")]),
            r#"{"a.b", "c.d"="e"}"#
        );
    }

    #[test]
    fn legacy_names_are_told_from_utf8_names() {
        assert!(is_legacy_valid_name("_a9"));
        assert!(!is_legacy_valid_name("9a"));
        assert!(!is_legacy_valid_name("a.b"));
        assert!(!is_legacy_valid_name(""));
        assert!(!is_legacy_valid_name("é"));
    }

    proptest! {
        #[test]
        fn labels_are_the_map_of_their_pairs(
            map in prop::collection::btree_map("\\PC{1,8}|[a-c\0]{1,2}", "\\PC{1,90}", 0..8),
            other in prop::collection::btree_map("[a-c]{1,2}", "[a-c]{1,2}", 0..4),
        ) {
            let make = |map: &BTreeMap<String, String>| {
                Labels::from_pairs(map.iter().rev().map(|(n, v)| (n.clone(), v.clone()))).unwrap()
            };
            let labels = make(&map);
            let back: BTreeMap<String, String> =
                labels.iter().map(|(n, v)| (n.to_owned(), v.to_owned())).collect();
            prop_assert_eq!(&back, &map);
            prop_assert_eq!(labels.len(), map.len());
            for (name, value) in &map {
                prop_assert_eq!(labels.get(name), Some(value.as_str()));
            }
            let second = make(&other);
            prop_assert_eq!(labels.cmp(&second), map.cmp(&other));
            prop_assert_eq!(labels == second, map == other);
            prop_assert_eq!(LabelsBuilder::from(&labels).build().unwrap(), labels);
        }
    }
}
