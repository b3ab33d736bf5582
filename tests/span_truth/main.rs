//! A generated workload of a million spans and more, asked as sets of spans: every count and every list of
//! traces equals the generator's own answers, while the spans are in the head, after they were sealed,
//! merged, and opened again.
//!
//! Needs a folder made by the trace workload generator, named by `ROOTLINE_TESTS_TRACES`. With
//! `--nocapture` it prints what each kind of question took (meaningful in a release build).
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking, in its helpers too"
)]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::{BufReader, Read},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use rootline::otlp::decode_traces;
use rootline_engine::{
    Clock, Engine, QueryControl, QueryLimits, Rejections, Settings, SystemClock, TimeRange, Value,
};
use rootline_query::{
    GroupSpansBy, Memory, SpanAggregation, SpanGroupKey, SpanSet, aggregate_spans, count_spans,
    duration_stats, find_traces,
};
use rootline_tests::requirement;
use serde_json::Value as Json;
use tempfile::tempdir;

/// Before the bodies: what the file is.
const MAGIC_BYTES: usize = 8;
/// Traces asked for by a page of a list that is read to its end, and by one that is only begun.
const PAGE: usize = 1_000;
const FIRST_PAGE: usize = 20;

struct Workload {
    folder: PathBuf,
    truth: Json,
    sets: Vec<u8>,
    traces: Vec<u8>,
}

/// One question with its answer.
struct Question {
    class: String,
    set: SpanSet,
    spans: u64,
    traces: BTreeSet<[u8; 16]>,
}

impl Workload {
    fn read(folder: &Path) -> Self {
        let truth = std::fs::read(folder.join("truth.json")).unwrap();
        Self {
            folder: folder.to_owned(),
            truth: serde_json::from_slice(&truth).unwrap(),
            sets: std::fs::read(folder.join("truth.sets")).unwrap(),
            traces: std::fs::read(folder.join("truth.traces")).unwrap(),
        }
    }

    fn write_to(&self, engine: &Engine) -> u64 {
        let mut file = BufReader::new(File::open(self.folder.join("spans.otlp")).unwrap());
        file.read_exact(&mut [0; MAGIC_BYTES]).unwrap();
        let (mut header, mut body) = ([0; 8], Vec::new());
        let mut stored = 0;
        while file.read_exact(&mut header).is_ok() {
            let length = u32::from_le_bytes(header[..4].try_into().unwrap());
            body.resize(length as usize, 0);
            file.read_exact(&mut body).unwrap();
            let mut batch = engine.batch();
            let mut rejections = Rejections::default();
            decode_traces(&body, batch.spans(), &mut rejections).unwrap();
            stored += batch.spans().len() as u64;
            engine.write(&mut batch).unwrap();
        }
        stored
    }

    fn questions(&self) -> Vec<Question> {
        let predicates = self.truth["predicates"].as_array().unwrap();
        let mut questions: Vec<Question> = predicates.iter().map(|p| self.question(p)).collect();
        // The same structure, asked from above: other spans in the same traces.
        for p in predicates.iter().filter(|p| p["class"] == "descendant") {
            let (above, below) = (text(p, "ancestor"), text(p, "service"));
            let set =
                format!("{{service={above:?}}} with descendant {{service={below:?} status=error}}");
            questions.push(Question {
                class: "above".to_owned(),
                set: SpanSet::parse(&set).unwrap(),
                spans: 0,
                ..self.question(p)
            });
        }
        questions
    }

    fn question(&self, p: &Json) -> Question {
        let (class, service) = (text(p, "class"), text(p, "service"));
        let (ancestor, operation) = (text(p, "ancestor"), text(p, "operation"));
        let failed = format!("{{service={service:?} status=error}}");
        let set = match class {
            "service_op" => format!("{{service={service:?} name={operation:?}}}"),
            "user" => format!("{{span.user.id={:?}}}", text(p, "user_id")),
            "error" => failed,
            "http500" => format!("{{service={service:?} span.http.status_code=500}}"),
            "duration" => {
                let us = number(p, "min_duration_us");
                format!("{{service={service:?} duration>{us}us}}")
            }
            "descendant" => format!("{failed} with ancestor {{service={ancestor:?}}}"),
            "child" => format!("{failed} with parent {{service={ancestor:?}}}"),
            other => panic!("a question of class {other}"),
        };
        let at = usize::try_from(number(p, "set_off")).unwrap() * 4;
        let bytes = usize::try_from(number(p, "traces")).unwrap() * 4;
        let rows = self.sets[at..at + bytes].chunks_exact(4);
        let traces = rows.map(|row| {
            let row = u32::from_le_bytes(row.try_into().unwrap()) as usize * 16;
            self.traces[row..row + 16].try_into().unwrap()
        });
        Question {
            class: class.to_owned(),
            set: SpanSet::parse(&set).unwrap(),
            spans: number(p, "spans"),
            traces: traces.collect(),
        }
    }
}

fn text<'j>(json: &'j Json, field: &str) -> &'j str {
    json[field].as_str().unwrap()
}

fn number(json: &Json, field: &str) -> u64 {
    json[field].as_u64().unwrap()
}

/// What questions of a kind took.
#[derive(Default)]
struct Times(BTreeMap<String, Vec<Duration>>);

impl Times {
    fn measure<T>(&mut self, kind: &str, ask: impl FnOnce() -> T) -> T {
        let clock = SystemClock::default();
        let before = clock.monotonic();
        let answer = ask();
        let took = clock.monotonic() - before;
        self.0.entry(kind.to_owned()).or_default().push(took);
        answer
    }

    fn print(mut self, moment: &str) {
        for (kind, times) in &mut self.0 {
            times.sort_unstable();
            let (median, most) = (times[times.len() / 2], times[times.len() - 1]);
            println!(
                "{moment:>9} {kind:<24} {:>4} p50 {median:>10.2?} max {most:>10.2?}",
                times.len()
            );
        }
    }
}

struct Asker<'e> {
    engine: &'e Engine,
    times: Times,
}

impl Asker<'_> {
    fn control(&self) -> QueryControl {
        self.engine.query_control(
            None,
            QueryLimits {
                spans_max: u64::MAX,
                ..QueryLimits::default()
            },
        )
    }

    fn memory(&self) -> Memory {
        Memory::new(self.engine.budget())
    }

    fn check(&mut self, question: &Question) {
        let snapshot = self.engine.snapshot().unwrap();
        let (set, class, all) = (&question.set, &question.class, TimeRange::ALL);
        let (control, mut memory) = (self.control(), self.memory());
        let count = self.times.measure(&format!("count {class}"), || {
            count_spans(&snapshot, set, all, &control, &mut memory).unwrap()
        });
        if question.spans > 0 {
            assert_eq!(count, question.spans, "{set}");
        }
        let first = self.times.measure(&format!("first page {class}"), || {
            find_traces(&snapshot, set, all, FIRST_PAGE, "", &control, &mut memory).unwrap()
        });
        let mut found = BTreeSet::new();
        let mut matched = 0;
        let mut token = String::new();
        let mut begun = Vec::new();
        loop {
            let page = find_traces(&snapshot, set, all, PAGE, &token, &control, &mut memory);
            let page = page.unwrap();
            for trace in page.traces {
                matched += trace.matched_spans;
                begun.push(trace.summary.id);
                assert!(
                    found.insert(*trace.summary.id.as_bytes()),
                    "{set}: shown twice"
                );
            }
            match page.next {
                Some(next) => token = next,
                None => break,
            }
        }
        assert_eq!(matched, count, "{set}");
        assert_eq!(found, question.traces, "{set}");
        let first: Vec<_> = first.traces.iter().map(|trace| trace.summary.id).collect();
        assert_eq!(first, begun[..FIRST_PAGE.min(begun.len())], "{set}");
    }

    fn check_services(&mut self, truth: &Json) {
        let snapshot = self.engine.snapshot().unwrap();
        let (control, mut memory) = (self.control(), self.memory());
        let by_service = SpanAggregation {
            by: vec![SpanGroupKey::Service],
            ..SpanAggregation::default()
        };
        let (everything, all) = (SpanSet::all(), TimeRange::ALL);
        let groups = self.times.measure("services", || {
            aggregate_spans(
                &snapshot,
                &everything,
                all,
                &by_service,
                &control,
                &mut memory,
            )
        });
        let found: BTreeMap<String, (u64, u64)> = groups
            .unwrap()
            .into_iter()
            .map(|group| {
                let Some(Value::Str(service)) = &group.by[0] else {
                    panic!("{group:?}")
                };
                (
                    service.clone(),
                    (group.points[0].spans, group.points[0].errors),
                )
            })
            .collect();
        let services = truth["services"].as_array().unwrap();
        let expected = services.iter().map(|service| {
            let counts = (number(service, "spans"), number(service, "error_spans"));
            (text(service, "name").to_owned(), counts)
        });
        assert_eq!(found, expected.collect());
        let failed = SpanSet::parse("{status=error}").unwrap();
        let count = self.times.measure("count errors", || {
            count_spans(&snapshot, &failed, all, &control, &mut memory).unwrap()
        });
        assert_eq!(count, number(truth, "error_spans"));
        for service in services {
            let set = SpanSet::parse(&format!("{{service={:?}}}", text(service, "name"))).unwrap();
            let stats = self.times.measure("durations of a service", || {
                let by = GroupSpansBy::Nothing;
                duration_stats(&snapshot, &set, all, by, &control, &mut memory).unwrap()
            });
            assert_eq!(stats.groups[0].duration_ns.count, number(service, "spans"));
        }
    }
}

fn check(engine: &Engine, moment: &str, workload: &Workload) {
    let mut asker = Asker {
        engine,
        times: Times::default(),
    };
    asker.check_services(&workload.truth);
    for question in workload.questions() {
        asker.check(&question);
    }
    asker.times.print(moment);
}

#[test]
fn every_question_about_the_workload_is_answered_as_its_generator_does() {
    let Some(folder) = std::env::var_os("ROOTLINE_TESTS_TRACES") else {
        return requirement::skip(
            "traces",
            "a generated workload named by ROOTLINE_TESTS_TRACES",
        );
    };
    let workload = Workload::read(Path::new(&folder));
    let dir = tempdir().unwrap();
    let open = || {
        let mut settings = Settings::default();
        settings.memory_limit_bytes = 4 << 30;
        Engine::builder(dir.path())
            .settings(settings)
            .open()
            .unwrap()
    };
    let engine = open();
    let stored = workload.write_to(&engine);
    assert_eq!(stored, number(&workload.truth, "spans"));
    check(&engine, "head", &workload);
    engine.flush().unwrap();
    check(&engine, "sealed", &workload);
    engine.compact().unwrap();
    check(&engine, "merged", &workload);
    drop(engine);
    check(&open(), "reopened", &workload);
}
