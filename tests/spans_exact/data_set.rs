//! A data set of the load generator: its bodies, and what it says is true of them.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    io::Read as _,
    path::{Path, PathBuf},
};

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use prost::Message as _;
use serde_json::Value;

/// See the module.
pub(crate) struct DataSet {
    dir: PathBuf,
    /// `truth.json`.
    pub(crate) truth: Value,
    trace_ids: Vec<u8>,
    sets: Vec<u8>,
    /// Durations of server and consumer spans by service, sorted.
    pub(crate) entry_durations_ns: BTreeMap<String, Vec<u64>>,
    /// Duration and service by trace and span id, of spans whose trace is kept.
    pub(crate) spans: u64,
}

impl DataSet {
    pub(crate) fn open(dir: &Path) -> Self {
        let read = |name: &str| std::fs::read(dir.join(name)).unwrap();
        let mut set = Self {
            dir: dir.to_owned(),
            truth: serde_json::from_slice(&read("truth.json")).unwrap(),
            trace_ids: read("truth.traces"),
            sets: read("truth.sets"),
            entry_durations_ns: BTreeMap::new(),
            spans: 0,
        };
        set.learn();
        set
    }

    /// Figures that the truth does not give to the digit.
    fn learn(&mut self) {
        let mut durations: HashMap<String, Vec<u64>> = HashMap::new();
        let mut spans = 0;
        self.each_body(&mut |body| {
            let request = ExportTraceServiceRequest::decode(body.as_slice()).unwrap();
            for resource in request.resource_spans {
                let service = service_of(&resource);
                for span in resource.scope_spans.iter().flat_map(|scope| &scope.spans) {
                    spans += 1;
                    if matches!(span.kind, 2 | 5) {
                        let duration = span.end_time_unix_nano - span.start_time_unix_nano;
                        durations.entry(service.clone()).or_default().push(duration);
                    }
                }
            }
        });
        self.spans = spans;
        self.entry_durations_ns = durations.into_iter().collect();
        for durations in self.entry_durations_ns.values_mut() {
            durations.sort_unstable();
        }
    }

    /// Every body, in the order of sending.
    pub(crate) fn each_body(&self, each: &mut dyn FnMut(Vec<u8>)) {
        let file = std::fs::File::open(self.dir.join("spans.otlp")).unwrap();
        let mut file = std::io::BufReader::with_capacity(1 << 20, file);
        let mut magic = [0; 8];
        file.read_exact(&mut magic).unwrap();
        assert_eq!(&magic, b"OTLPBEN1");
        let mut frame = [0; 8];
        while file.read_exact(&mut frame).is_ok() {
            let length = u32::from_le_bytes(*frame.first_chunk().unwrap());
            let mut body = vec![0; length as usize];
            file.read_exact(&mut body).unwrap();
            each(body);
        }
    }

    /// The trace ids that a question of the truth has for answer.
    pub(crate) fn set(&self, predicate: &Value) -> BTreeSet<String> {
        let number = |key: &str| usize::try_from(predicate[key].as_u64().unwrap()).unwrap();
        let (offset, count) = (number("set_off") * 4, number("traces") * 4);
        self.sets[offset..offset + count]
            .chunks_exact(4)
            .map(|row| u32::from_le_bytes(row.try_into().unwrap()) as usize * 16)
            .map(|at| hex(&self.trace_ids[at..at + 16]))
            .collect()
    }
}

fn service_of(resource: &opentelemetry_proto::tonic::trace::v1::ResourceSpans) -> String {
    use opentelemetry_proto::tonic::common::v1::any_value::Value;
    let attributes = resource.resource.iter().flat_map(|r| &r.attributes);
    let mut named = attributes.filter(|attribute| attribute.key == "service.name");
    match named.next().and_then(|a| a.value.as_ref()?.value.clone()) {
        Some(Value::StringValue(name)) => name,
        _ => String::new(),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The quantile of sorted numbers by linear interpolation between the two nearest ranks.
pub(crate) fn quantile(sorted: &[u64], q: f64) -> f64 {
    let rank = q * (sorted.len() - 1) as f64;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a rank is in the list"
    )]
    let below = rank.floor() as usize;
    let above = (below + 1).min(sorted.len() - 1);
    let (low, high) = (sorted[below] as f64, sorted[above] as f64);
    low + (high - low) * (rank - below as f64)
}
