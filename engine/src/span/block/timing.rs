//! Local measuring: not committed.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::all,
    clippy::pedantic,
    clippy::disallowed_methods,
    missing_docs,
    reason = "tests"
)]
use super::{
    super::{
        LinkFields, ResourceFields, ScopeFields, SpanBatch, SpanFields, SpanKind, StatusCode,
        hidden::Hidden,
        tests::{control, new_head, write_batch},
    },
    *,
};
use crate::{
    block::{Block, BlockId, SectionKind},
    id::{SpanId, TraceId},
    time::Timestamp,
    value::ValueRef,
    varint,
};
use rootline_wal::{FsStorage, Lsn, Storage, StoreId};
use std::{path::Path, sync::Arc, time::Instant};

enum F<'a> {
    V(u64),
    B(&'a [u8]),
}
fn each<'a>(mut b: &'a [u8], mut f: impl FnMut(u64, F<'a>)) {
    while !b.is_empty() {
        let tag = varint::take_u64(&mut b).unwrap();
        let v = match tag & 7 {
            0 => F::V(varint::take_u64(&mut b).unwrap()),
            1 => {
                let (x, r) = b.split_at(8);
                b = r;
                F::V(u64::from_le_bytes(x.try_into().unwrap()))
            }
            2 => F::B(varint::take_bytes(&mut b).unwrap()),
            5 => {
                let (x, r) = b.split_at(4);
                b = r;
                F::V(u32::from_le_bytes(x.try_into().unwrap()) as u64)
            }
            _ => panic!(),
        };
        f(tag >> 3, v);
    }
}
fn s(b: &[u8]) -> &str {
    std::str::from_utf8(b).unwrap()
}
fn kv(b: &[u8]) -> (&str, ValueRef<'_>) {
    let mut key = "";
    let mut val = ValueRef::Empty;
    each(b, |n, f| match (n, f) {
        (1, F::B(b)) => key = s(b),
        (2, F::B(b)) => each(b, |n, f| match (n, f) {
            (1, F::B(b)) => val = ValueRef::Str(s(b)),
            (2, F::V(v)) => val = ValueRef::Bool(v != 0),
            (3, F::V(v)) => val = ValueRef::Int(v as i64),
            (4, F::V(v)) => val = ValueRef::Double(f64::from_bits(v)),
            _ => panic!("value"),
        }),
        _ => {}
    });
    (key, val)
}
pub(super) fn body(batch: &mut SpanBatch, bytes: &[u8]) {
    each(bytes, |n, f| {
        if let (1, F::B(rs)) = (n, f) {
            let mut attrs = vec![];
            let mut schema = "";
            let mut scopes = vec![];
            each(rs, |n, f| match (n, f) {
                (1, F::B(r)) => each(r, |n, f| {
                    if let (1, F::B(b)) = (n, f) {
                        attrs.push(kv(b))
                    }
                }),
                (2, F::B(b)) => scopes.push(b),
                (3, F::B(b)) => schema = s(b),
                _ => {}
            });
            let resource = batch
                .resource(&ResourceFields {
                    attributes: &attrs,
                    schema_url: schema,
                    ..Default::default()
                })
                .unwrap();
            for sc in scopes {
                let (mut name, mut version, mut sattrs, mut schema) = ("", "", vec![], "");
                let mut spans = vec![];
                each(sc, |n, f| match (n, f) {
                    (1, F::B(b)) => each(b, |n, f| match (n, f) {
                        (1, F::B(b)) => name = s(b),
                        (2, F::B(b)) => version = s(b),
                        (3, F::B(b)) => sattrs.push(kv(b)),
                        _ => {}
                    }),
                    (2, F::B(b)) => spans.push(b),
                    (3, F::B(b)) => schema = s(b),
                    _ => {}
                });
                let scope = batch
                    .scope(&ScopeFields {
                        name,
                        version,
                        attributes: &sattrs,
                        schema_url: schema,
                        ..Default::default()
                    })
                    .unwrap();
                for sp in spans {
                    let (
                        mut t,
                        mut id,
                        mut p,
                        mut nm,
                        mut k,
                        mut st,
                        mut en,
                        mut code,
                        mut msg,
                        mut flags,
                        mut state,
                    ) = (None, None, None, "", 0, 0, 0, 0, "", 0, "");
                    let mut w = batch.span(resource, scope);
                    each(sp, |n, f| match (n, f) {
                        (1, F::B(b)) => t = TraceId::from_slice(b),
                        (2, F::B(b)) => id = SpanId::from_slice(b),
                        (3, F::B(b)) => state = s(b),
                        (4, F::B(b)) => p = SpanId::from_slice(b),
                        (5, F::B(b)) => nm = s(b),
                        (6, F::V(v)) => k = v,
                        (7, F::V(v)) => st = v,
                        (8, F::V(v)) => en = v,
                        (9, F::B(b)) => {
                            let (k, v) = kv(b);
                            w.attribute(k, v);
                        }
                        (11, F::B(b)) => {
                            let (mut time, mut name, mut at) = (0, "", vec![]);
                            each(b, |n, f| match (n, f) {
                                (1, F::V(v)) => time = v,
                                (2, F::B(b)) => name = s(b),
                                (3, F::B(b)) => at.push(kv(b)),
                                _ => {}
                            });
                            w.event(Timestamp::from_nanos(time as i64), name, 0);
                            for (k, v) in at {
                                w.event_attribute(k, v);
                            }
                        }
                        (13, F::B(b)) => {
                            let mut l = LinkFields::default();
                            let mut at = vec![];
                            each(b, |n, f| match (n, f) {
                                (1, F::B(b)) => l.trace_id = TraceId::from_slice(b),
                                (2, F::B(b)) => l.span_id = SpanId::from_slice(b),
                                (4, F::B(b)) => at.push(kv(b)),
                                (6, F::V(v)) => l.flags = v as u32,
                                _ => {}
                            });
                            w.link(&l);
                            for (k, v) in at {
                                w.link_attribute(k, v);
                            }
                        }
                        (15, F::B(b)) => each(b, |n, f| match (n, f) {
                            (2, F::B(b)) => msg = s(b),
                            (3, F::V(v)) => code = v,
                            _ => {}
                        }),
                        (16, F::V(v)) => flags = v as u32,
                        _ => {}
                    });
                    let f = SpanFields {
                        parent_span_id: p,
                        kind: SpanKind::from_number(k as i32).unwrap(),
                        status: StatusCode::from_number(code as i32).unwrap(),
                        status_message: msg,
                        flags,
                        trace_state: state,
                        ..SpanFields::new(
                            t.unwrap(),
                            id.unwrap(),
                            nm,
                            Timestamp::from_nanos(st as i64),
                            Timestamp::from_nanos(en as i64),
                        )
                    };
                    w.finish(&f).unwrap();
                }
            }
        }
    });
}
pub(super) fn bodies(path: &str) -> Vec<Vec<u8>> {
    let bytes = std::fs::read(path).unwrap();
    let mut at = 8;
    let mut out = vec![];
    while at < bytes.len() {
        let n = u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
        at += 8;
        out.push(bytes[at..at + n].to_vec());
        at += n;
    }
    out
}
fn cpu() -> f64 {
    let s = std::fs::read_to_string("/proc/self/stat").unwrap();
    let v: Vec<&str> = s.rsplit(')').next().unwrap().split_whitespace().collect();
    (v[11].parse::<f64>().unwrap() + v[12].parse::<f64>().unwrap()) / 100.0
}
fn rss() -> String {
    let s = std::fs::read_to_string("/proc/self/status").unwrap();
    s.lines()
        .filter(|l| l.starts_with("RssAnon") || l.starts_with("VmHWM"))
        .map(|l| l.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect::<Vec<_>>()
        .join(", ")
}

#[test]
#[ignore]
fn measure() {
    let dir = std::path::PathBuf::from("/tmp/h4/core-timing");
    let _ = std::fs::remove_dir_all(&dir);
    std::fs::create_dir_all(&dir).unwrap();
    let storage: Arc<dyn Storage> = Arc::new(FsStorage::default());
    let store = StoreId::from_bytes([7; 16]);
    let origin = || SpanBlockOrigin {
        first_lsn: Lsn(1),
        last_lsn: Lsn(9),
        clean_lsn: Lsn(9),
        level: 0,
        sources: vec![],
        created_ns: 0,
    };
    let parts: usize = std::env::var("PARTS")
        .ok()
        .map_or(2, |v| v.parse().unwrap());
    let file = std::env::var("SPANS").unwrap_or("/tmp/bd/tr/spans.otlp".into());
    let mut all = bodies(&file); if let Ok(n) = std::env::var("BODIES") { all.truncate(n.parse().unwrap()); }
    let mut blocks = vec![];
    let mut total = 0u64;
    for (i, chunk) in all.chunks(all.len().div_ceil(parts)).enumerate() {
        let head = new_head(2);
        let mut batch = SpanBatch::new();
        let (t, c) = (Instant::now(), cpu());
        for (lsn, b) in chunk.iter().enumerate() {
            body(&mut batch, b);
            write_batch(&head, lsn as u64 + 1, &mut batch, false);
        }
        let n = head.stats().spans as f64;
        total += n as u64;
        println!(
            "part {i}: {} spans, head {:.0} ns/span, {:.0} bytes/span; {}",
            n,
            (cpu() - c) * 1e9 / n,
            head.stats().bytes as f64 / n,
            rss()
        );
        let (t1, c1) = (Instant::now(), cpu());
        let loose = LooseRows::from_head(&head, Lsn(u64::MAX), &mut || Ok(())).unwrap();
        println!(
            "  from_head {:.0} ns/span, loose {:.0} bytes/span; {}",
            t1.elapsed().as_secs_f64() * 1e9 / n,
            loose.heap_bytes() as f64 / n,
            rss()
        );
        let runs = [RowRun {
            source: 0,
            first_row: 0,
            rows: loose.rows(),
        }];
        let t2 = Instant::now();
        let meta = write_block(
            &storage,
            &dir,
            store,
            BlockId(i as u64 + 1),
            &[RowSource::Loose(&loose)],
            &runs,
            &[],
            origin(),
            &mut || Ok(()),
        )
        .unwrap()
        .unwrap();
        println!(
            "  write {:.0} ns/span, all cpu {:.0}; {:.2} bytes/span; {}",
            t2.elapsed().as_secs_f64() * 1e9 / n,
            (cpu() - c1) * 1e9 / n,
            meta.file_bytes as f64 / n,
            rss()
        );
        let _ = t;
        blocks.push((
            Arc::new(open(&storage, &dir, store, i as u64 + 1)),
            Arc::new(Hidden::default()),
        ));
    }
    sections(&blocks[0].0);
    let n = total as f64;
    let (t, c) = (Instant::now(), cpu());
    merge(
        &storage,
        &dir,
        store,
        BlockId(90),
        &blocks,
        &|_| true,
        origin(),
        &mut || Ok(()),
    )
    .unwrap()
    .unwrap();
    println!(
        "merge {:.0} ns/span, cpu {:.0}; {}",
        t.elapsed().as_secs_f64() * 1e9 / n,
        (cpu() - c) * 1e9 / n,
        rss()
    );
    let block = open(&storage, &dir, store, 90);
    sections(&block);
    println!("heap {}", block.heap_bytes());
    let ids: Vec<TraceId> = (0..block.traces())
        .step_by(97)
        .map(|t| block.trace_id(t).unwrap())
        .collect();
    let t = Instant::now();
    let mut spans = 0;
    for id in &ids {
        let trace = block.find_trace(*id).unwrap().unwrap();
        spans += block
            .trace(trace, &Hidden::default(), &control())
            .unwrap()
            .spans
            .len();
    }
    println!(
        "trace {:.1} us each, {:.1} spans",
        t.elapsed().as_secs_f64() * 1e6 / ids.len() as f64,
        spans as f64 / ids.len() as f64
    );
    let t = Instant::now();
    for id in &ids {
        let trace = block.find_trace(*id).unwrap().unwrap();
        spans += block
            .trace(trace, &Hidden::default(), &control())
            .unwrap()
            .spans
            .len();
    }
    println!(
        "again {:.1} us each",
        t.elapsed().as_secs_f64() * 1e6 / ids.len() as f64
    );
    let _ = std::fs::remove_dir_all(&dir);
}
fn open(storage: &Arc<dyn Storage>, dir: &Path, store: StoreId, id: u64) -> SpanBlock {
    SpanBlock::open(
        Arc::new(Block::open(storage, dir, Some(store), BlockId(id), &Arc::default()).unwrap()),
        None,
    )
    .unwrap()
}
fn sections(block: &SpanBlock) {
    let n = block.rows() as f64;
    for k in SectionKind::ALL {
        let s = block.block().section(k).unwrap().len_bytes();
        if s > 0 {
            println!("    {:24} {:8.3} bytes/span", k.name(), s as f64 / n);
        }
    }
    println!("    total {:.2}", block.meta().file_bytes as f64 / n);
}
