//! One request, whichever way it came: from its body to what is said of it.
//!
//! Both signals take the same steps on a blocking thread ([`NodeState::write`]): decompress, turn JSON
//! into protobuf if that is what came, decode into a batch, write the batch, wait until it is durable.
//! Memory that a request grows into (JSON's protobuf form, a resource's labels on every series) is
//! reserved before it is held and given back when the batch is stored.

use std::sync::Arc;

use rootline_engine::{Budget, Error, Holder, Rejections, Reservation};

use super::{
    DecodeError, DecodeStats, Translation, decode_metrics_within, decode_traces,
    metrics_to_protobuf, traces_to_protobuf,
};
use crate::{
    body::WireBody,
    node::NodeState,
    refusal::{Refusal, RefusalKind},
    self_metrics::Protocol,
};

/// How a request's message is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Protobuf,
    Json,
}

/// What kind of data a request brings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Signal {
    Traces,
    Metrics,
}

/// What a sender is told of a request that was taken.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Accepted {
    /// Spans or data points refused for good.
    pub(super) rejected: i64,
    /// Why; empty if nothing was refused.
    pub(super) message: String,
}

/// Stores a request.
pub(super) async fn store(
    state: &Arc<NodeState>,
    signal: Signal,
    protocol: Protocol,
    form: Form,
    body: WireBody,
    translation: &Arc<Translation>,
) -> Result<Accepted, Refusal> {
    let budget = Arc::clone(state.budget()?);
    match signal {
        Signal::Traces => {
            let written = state
                .write(protocol, body, move |bytes, batch| {
                    let (_, spans, rejections) = batch.split();
                    let mut growth = Growth::new(&budget)?;
                    let transcoded = growth.protobuf(form, bytes, traces_to_protobuf)?;
                    let bytes = transcoded.as_deref().unwrap_or(bytes);
                    decode_traces(bytes, spans, rejections).map_err(|e| growth.refusal(e))?;
                    Ok(growth.reservation)
                })
                .await?;
            Ok(accepted(
                &written.outcome.rejections,
                Signal::Traces,
                u64::MAX,
            ))
        }
        Signal::Metrics => {
            let translation = Arc::clone(translation);
            let written = state
                .write(protocol, body, move |bytes, batch| {
                    let (metrics, _, rejections) = batch.split();
                    let mut growth = Growth::new(&budget)?;
                    let transcoded = growth.protobuf(form, bytes, metrics_to_protobuf)?;
                    let bytes = transcoded.as_deref().unwrap_or(bytes);
                    let mut room = |bytes| growth.take(bytes);
                    let decoded =
                        decode_metrics_within(bytes, metrics, rejections, &translation, &mut room);
                    let stats = decoded.map_err(|e| growth.refusal(e))?;
                    Ok((stats, growth.reservation))
                })
                .await?;
            let (
                DecodeStats {
                    points, collisions, ..
                },
                _,
            ) = written.decoded;
            state.metrics().collided(collisions);
            Ok(accepted(
                &written.outcome.rejections,
                Signal::Metrics,
                points,
            ))
        }
    }
}

/// Memory a request grows into.
struct Growth {
    reservation: Reservation,
    /// Why more was refused.
    refused: Option<Error>,
}

impl Growth {
    fn new(budget: &Arc<Budget>) -> Result<Self, Refusal> {
        Ok(Self {
            reservation: budget.reserve(Holder::Requests, 0)?,
            refused: None,
        })
    }

    fn take(&mut self, bytes: u64) -> bool {
        match self.reservation.grow(bytes) {
            Ok(()) => true,
            Err(error) => {
                self.refused = Some(error);
                false
            }
        }
    }

    /// The protobuf form of a request that came as JSON; `None` if it is protobuf already.
    fn protobuf(
        &mut self,
        form: Form,
        bytes: &[u8],
        transcode: fn(&[u8], &mut Vec<u8>) -> Result<(), DecodeError>,
    ) -> Result<Option<Vec<u8>>, Refusal> {
        if form == Form::Protobuf {
            return Ok(None);
        }
        // The shortest JSON for a field is `{},` in a list, which becomes a tag and a length of five
        // bytes: twice as long. A vector that grows has at most twice its content again.
        if !self.take(4 * bytes.len() as u64) {
            return Err(self.refusal(DecodeError::NoRoom));
        }
        let mut protobuf = Vec::with_capacity(bytes.len());
        transcode(bytes, &mut protobuf).map_err(|e| self.refusal(e))?;
        Ok(Some(protobuf))
    }

    fn refusal(&mut self, error: DecodeError) -> Refusal {
        match (error, self.refused.take()) {
            (DecodeError::NoRoom, Some(refused)) => refused.into(),
            (error @ DecodeError::NoRoom, None) => Refusal::overloaded(error.to_string()),
            (error @ DecodeError::TooLarge { .. }, _) => {
                Refusal::new(RefusalKind::TooLarge, error.to_string())
            }
            (error, _) => Refusal::invalid(error.to_string()),
        }
    }
}

fn accepted(rejections: &Rejections, signal: Signal, items: u64) -> Accepted {
    let (rejected, what) = match signal {
        Signal::Traces => (rejections.spans, "spans"),
        // The engine counts samples, of which a histogram's point has many.
        Signal::Metrics => (rejections.samples.min(items), "data points"),
    };
    if rejections.is_empty() {
        return Accepted::default();
    }
    let reason = rejections
        .first_reason
        .as_deref()
        .unwrap_or("not acceptable");
    let exemplars = match rejections.exemplars {
        0 => String::new(),
        exemplars => format!(" and {exemplars} exemplars"),
    };
    Accepted {
        rejected: i64::try_from(rejected).unwrap_or(i64::MAX),
        message: format!("{rejected} {what}{exemplars} refused, the first because: {reason}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_refused_is_nothing_said() {
        assert_eq!(
            accepted(&Rejections::default(), Signal::Traces, 5),
            Accepted::default()
        );
    }

    #[test]
    fn a_refused_histogram_counts_as_one_point() {
        let mut rejections = Rejections::default();
        rejections.reject_samples(17, "label value too long");
        let accepted = accepted(&rejections, Signal::Metrics, 1);
        assert_eq!(accepted.rejected, 1);
        assert_eq!(
            accepted.message,
            "1 data points refused, the first because: label value too long"
        );
    }

    #[test]
    fn refused_exemplars_are_a_warning() {
        let mut rejections = Rejections::default();
        rejections.reject_exemplars(2, "no value");
        let accepted = accepted(&rejections, Signal::Metrics, 9);
        assert_eq!(accepted.rejected, 0);
        assert!(accepted.message.contains("2 exemplars refused"));
    }
}
