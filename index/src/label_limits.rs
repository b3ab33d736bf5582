//! How large labels may be. Numbers only: who sets them is the caller's affair.

use crate::error::{Error, LabelFault};
use crate::labels::Labels;

/// Limits on one label set. [`Default`] gives the documented defaults.
///
/// The limits are for what comes from outside; label sets read back from our own log are decoded
/// without them, so that lowering a limit never makes stored data unreadable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LabelLimits {
    /// Labels in one set. Default 128: a `target_info` with all its resource attributes has
    /// about 60, and OTLP's own default bound is 128 attributes.
    pub labels_max: usize,
    /// Bytes of one label name. Default 1,024, as the large hosted Prometheus services have it.
    pub name_bytes_max: usize,
    /// Bytes of one label value. Default 64 KiB: a value must fit one page of a block.
    pub value_bytes_max: usize,
    /// Bytes of all names and values together. Default 128 KiB.
    pub set_bytes_max: usize,
}

impl Default for LabelLimits {
    fn default() -> Self {
        Self {
            labels_max: 128,
            name_bytes_max: 1024,
            value_bytes_max: 64 * 1024,
            set_bytes_max: 128 * 1024,
        }
    }
}

impl LabelLimits {
    /// Checks a finished set.
    ///
    /// # Errors
    /// The first limit passed, naming the label where one label is at fault.
    pub fn check(&self, labels: &Labels) -> Result<(), Error> {
        self.check_pairs(labels.iter())
    }

    pub(crate) fn check_pairs<'p>(
        &self,
        pairs: impl Iterator<Item = (&'p str, &'p str)>,
    ) -> Result<(), Error> {
        let mut count = 0;
        let mut bytes = 0_usize;
        for (name, value) in pairs {
            count += 1;
            bytes = bytes.saturating_add(name.len()).saturating_add(value.len());
            if name.len() > self.name_bytes_max {
                let fault = LabelFault::NameTooLong {
                    bytes: name.len(),
                    max: self.name_bytes_max,
                };
                return Err(Error::label(name, fault));
            }
            if value.len() > self.value_bytes_max {
                let fault = LabelFault::ValueTooLong {
                    bytes: value.len(),
                    max: self.value_bytes_max,
                };
                return Err(Error::label(name, fault));
            }
        }
        if count > self.labels_max {
            return Err(Error::TooManyLabels {
                count,
                max: self.labels_max,
            });
        }
        if bytes > self.set_bytes_max {
            return Err(Error::LabelSetTooLarge {
                bytes,
                max: self.set_bytes_max,
            });
        }
        Ok(())
    }
}
