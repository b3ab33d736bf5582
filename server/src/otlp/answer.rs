//! The answer to an export: `ExportTraceServiceResponse` and `ExportMetricsServiceResponse`, which are
//! one message on the wire (a partial success of a count and a reason), in both forms.

use super::{
    ingest::{Accepted, Form, Signal},
    series::put_length,
};

/// Writes the answer. Empty in protobuf, `{}` in JSON, unless something was refused.
pub(super) fn write(accepted: &Accepted, signal: Signal, form: Form) -> Vec<u8> {
    match form {
        Form::Protobuf => protobuf(accepted),
        Form::Json => json(accepted, signal).into_bytes(),
    }
}

fn protobuf(accepted: &Accepted) -> Vec<u8> {
    if accepted.message.is_empty() {
        return Vec::new();
    }
    // partial_success = 1 { rejected = 1, error_message = 2 }
    let mut inner = Vec::new();
    if let Ok(rejected @ 1..) = usize::try_from(accepted.rejected) {
        inner.push(0x08);
        put_length(&mut inner, rejected);
    }
    inner.push(0x12);
    put_length(&mut inner, accepted.message.len());
    inner.extend_from_slice(accepted.message.as_bytes());
    let mut out = vec![0x0a];
    put_length(&mut out, inner.len());
    out.extend_from_slice(&inner);
    out
}

fn json(accepted: &Accepted, signal: Signal) -> String {
    if accepted.message.is_empty() {
        return "{}".to_owned();
    }
    let rejected = match signal {
        Signal::Traces => "rejectedSpans",
        Signal::Metrics => "rejectedDataPoints",
    };
    // 64-bit integers are strings in protobuf's JSON form.
    serde_json::json!({ "partialSuccess": {
        rejected: accepted.rejected.to_string(),
        "errorMessage": accepted.message,
    }})
    .to_string()
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::collector::{
        metrics::v1::ExportMetricsServiceResponse, trace::v1::ExportTraceServiceResponse,
    };
    use prost::Message as _;

    use super::*;

    #[test]
    fn a_full_success_is_an_empty_message() {
        let accepted = Accepted::default();
        assert_eq!(write(&accepted, Signal::Traces, Form::Protobuf), b"");
        assert_eq!(write(&accepted, Signal::Metrics, Form::Json), b"{}");
    }

    #[test]
    fn a_partial_success_reads_back_in_both_forms() {
        for rejected in [0, 1, 300] {
            let accepted = Accepted {
                rejected,
                message: "why \"not\"".repeat(20),
            };
            let bytes = write(&accepted, Signal::Traces, Form::Protobuf);
            let traces = ExportTraceServiceResponse::decode(bytes.as_slice()).unwrap();
            let partial = traces.partial_success.unwrap();
            assert_eq!(
                (partial.rejected_spans, &partial.error_message),
                (rejected, &accepted.message)
            );
            let metrics = ExportMetricsServiceResponse::decode(bytes.as_slice()).unwrap();
            assert_eq!(
                metrics.partial_success.unwrap().rejected_data_points,
                rejected
            );

            let json = write(&accepted, Signal::Metrics, Form::Json);
            let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
            assert_eq!(
                json["partialSuccess"]["rejectedDataPoints"],
                rejected.to_string()
            );
            assert_eq!(json["partialSuccess"]["errorMessage"], accepted.message);
        }
    }
}
