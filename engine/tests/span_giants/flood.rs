//! What keeps coming: many small generations, late spans, repeats. What is held stays that of one.

use super::{
    files::{descriptors_under, files_in},
    on_small_stack,
    sent::{Sent, control, count, everything, open, open_with, parts, trace_id, tree, write},
    size,
};

/// Bytes of all files below a directory.
fn bytes_in(dir: &std::path::Path) -> u64 {
    files_in(dir).iter().map(|(_, bytes)| bytes).sum()
}

#[test]
fn many_small_generations_leave_few_blocks() {
    on_small_stack(|| {
        let dir = tempfile::tempdir().unwrap();
        let engine = open(dir.path());
        let flushes = size(1_000, 100);
        let mut most = 0;
        for flush in 0..flushes {
            let traces = (0..3).map(|i| Sent::new(flush * 3 + i, 1, 0));
            write(&engine, traces);
            engine.flush().unwrap();
            engine.tick();
            most = most.max(engine.stats().span_blocks);
        }
        assert!(most <= 40, "{most} blocks at once");
        assert!(descriptors_under(dir.path()) <= 256);
        assert_eq!(count(&engine, &everything()), flushes * 3);
        engine.compact().unwrap();
        assert_eq!(engine.stats().span_blocks, 1);
        assert_eq!(count(&engine, &everything()), flushes * 3);
        let ctl = control(&engine);
        let traces = parts(&engine)
            .iter()
            .map(|part| part.trace_count(&ctl).unwrap())
            .sum::<u64>();
        assert_eq!(traces, flushes * 3);
    });
}

#[test]
fn a_flood_of_late_spans_leaves_every_trace_once() {
    on_small_stack(|| {
        let dir = tempfile::tempdir().unwrap();
        let traces = size(100_000, 1_000);
        let engine = open(dir.path());
        for trace in 0..traces {
            if trace % 500 == 0 {
                let some = trace..traces.min(trace + 500);
                write(&engine, some.flat_map(|trace| tree(trace, 0..5)));
            }
        }
        engine.flush().unwrap();
        let before = (
            engine.stats().span_block_bytes,
            engine.stats().memory_used_bytes,
        );
        for late in 6..10 {
            write(&engine, (0..traces).map(|trace| Sent::new(trace, late, 1)));
            assert_eq!(count(&engine, &everything()), traces * (late));
            engine.flush().unwrap();
            for _ in 0..10 {
                engine.tick();
            }
            assert_eq!(count(&engine, &everything()), traces * late);
            let ctl = control(&engine);
            let whole = engine.snapshot().unwrap().trace(trace_id(late), &ctl);
            let whole = whole.unwrap().unwrap();
            assert_eq!(whole.spans.len() as u64, late);
        }
        engine.compact().unwrap();
        for _ in 0..10 {
            engine.tick();
        }
        let stats = engine.stats();
        let after = (stats.span_block_bytes, stats.memory_used_bytes);
        assert_eq!((stats.span_blocks, stats.block_spans), (1, traces * 9));
        assert!(after.0 <= before.0 * 3, "{before:?}, {after:?}");
        assert!(after.1 <= before.1 * 2 + (1 << 20), "{before:?}, {after:?}");
    });
}

#[test]
fn a_flood_of_repeats_adds_nothing() {
    on_small_stack(|| {
        let dir = tempfile::tempdir().unwrap();
        let spans = size(100_000, 3_000);
        let engine = open(dir.path());
        let all = || {
            let small = (0..spans / 10).flat_map(|trace| tree(trace, 0..9));
            // One of a tenth of the size of it all.
            small.chain(tree(u64::MAX - 1, 0..spans / 10))
        };
        write(&engine, all());
        engine.flush().unwrap();
        let sent = all().count() as u64;
        let size_of = |engine: &rootline_engine::Engine| {
            let stats = engine.stats();
            (
                bytes_in(&dir.path().join("blocks")),
                stats.memory_used_bytes,
                stats.block_spans,
            )
        };
        let before = size_of(&engine);
        for _ in 0..9 {
            write(&engine, all());
            engine.flush().unwrap();
            engine.tick();
            assert_eq!(count(&engine, &everything()), sent);
        }
        let after = size_of(&engine);
        assert_eq!(after.2, sent, "{before:?}, {after:?}");
        assert!(after.0 <= before.0 + before.0 / 10, "{before:?}, {after:?}");
        assert!(after.1 <= before.1 * 2 + (1 << 20), "{before:?}, {after:?}");
    });
}

/// A batch of repeats costs what the batch is, not what the trace is.
#[test]
fn repeats_of_a_huge_trace_in_small_batches_take_linear_time() {
    on_small_stack(|| {
        let dir = tempfile::tempdir().unwrap();
        let engine = open_with(dir.path(), |settings| settings.span_shards = 1);
        let spans = size(200_000, 5_000);
        write(&engine, tree(1, 0..spans));
        engine.flush().unwrap();
        let begin = super::cpu_ns();
        for first in (0..spans).step_by(spans as usize / 50) {
            write(&engine, tree(1, first..first + 1));
        }
        let repeats = super::cpu_ns() - begin;
        println!("50 repeats: {} ms", repeats / 1_000_000);
        assert_eq!(count(&engine, &everything()), spans);
        assert_eq!(engine.stats().spans.spans, 0, "nothing is recalled");
    });
}
