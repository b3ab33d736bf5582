//! A disk that fills up: a small file system of its own.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use rootline_tests::{Node, http, remote_write, requirement, seeded::Random};
use tempfile::{TempDir, tempdir};

use crate::{wait_until, write_patiently};

const NOW_MS: i64 = 1_780_000_000_000;
const SERIES_OF_REQUEST: u64 = 200;
/// Bytes of the label that fills the disk.
const NOISE_BYTES: usize = 1_000;
const PATIENCE: Duration = Duration::from_mins(1);

/// A file system in memory, of a fixed size. Unmounted when dropped.
struct Mounted {
    dir: TempDir,
}

impl Mounted {
    fn new(size: &str) -> Option<Self> {
        let dir = tempdir().unwrap();
        let option = format!("size={size}");
        let output = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &option, "rootline-test"])
            .arg(dir.path())
            .output();
        let is_mounted = output.is_ok_and(|output| output.status.success());
        is_mounted.then_some(Self { dir })
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("data")
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount")
            .arg("-l")
            .arg(self.dir.path())
            .status();
    }
}

/// Series whose labels do not compress.
fn request(random: &mut Random, group: &str, number: u64) -> Vec<u8> {
    let series: Vec<Vec<u8>> = (0..SERIES_OF_REQUEST)
        .map(|i| {
            let noise: Vec<u8> = (0..NOISE_BYTES)
                .map(|_| b'!' + u8::try_from(random.below(90)).unwrap())
                .collect();
            let i = (number * SERIES_OF_REQUEST + i).to_string();
            let labels: [(&[u8], &[u8]); 4] = [
                (b"__name__", b"m"),
                (b"group", group.as_bytes()),
                (b"i", i.as_bytes()),
                (b"noise", &noise),
            ];
            remote_write::series(&labels, &[(NOW_MS, 1.0)])
        })
        .collect();
    remote_write::request(&series)
}

fn count(node: &Node, selector: &str) -> u64 {
    let answer = node.cli_json(&["query", "stats", selector, "--all-time", "--json"]);
    answer["groups"][0]["statistics"]["count"]
        .as_u64()
        .unwrap_or(0)
}

/// Writes until the node refuses; how many requests it took.
fn fill(node: &Node, random: &mut Random, group: &str, first: u64, dir: &Path) -> u64 {
    for number in first..first + 2_000 {
        let response = remote_write::post(node.http, &request(random, group, number)).unwrap();
        if response.status == 503 {
            let retry_after = response.header("retry-after");
            let seconds: Option<u64> = retry_after.and_then(|text| text.parse().ok());
            assert!(seconds.is_some_and(|s| s >= 1), "{response:?}");
            return number - first;
        }
        assert!((200..300).contains(&response.status), "{response:?}");
    }
    panic!("{} never got full", dir.display())
}

#[test]
fn a_full_disk_refuses_writes_serves_reads_and_recovers_by_a_delete() {
    let Some(disk) = Mounted::new("48m") else {
        requirement::skip("mount", "the right to mount a tmpfs");
        return;
    };
    let node = Node::start_with(&disk.path(), &["--disk-reserve", "8MiB"]);
    let mut random = Random::new(3);
    write_patiently(&node, &request(&mut random, "kept", 0));
    let mut stored = 0;
    for round in 0..2 {
        // Sealing makes some room, so it takes a few times until nothing more fits.
        let mut idle_rounds = 0;
        while idle_rounds < 3 {
            let taken = fill(&node, &mut random, "filler", stored, &disk.path());
            stored += taken;
            idle_rounds = if taken == 0 { idle_rounds + 1 } else { 0 };
            std::thread::sleep(Duration::from_millis(1_200));
        }
        assert!(stored > 0);
        // Full, and still the node answers.
        assert!(node.is_healthy());
        assert_eq!(
            count(&node, "m{group=\"kept\"}"),
            (round + 1) * SERIES_OF_REQUEST
        );
        assert_eq!(
            count(&node, "m{group=\"filler\"}"),
            stored * SERIES_OF_REQUEST
        );
        let metrics = http::get(node.http, "/metrics").unwrap();
        assert_eq!(metrics.status, 200);

        let delete = [
            "admin",
            "delete-series",
            "m{group=\"filler\"}",
            "--all-time",
        ];
        let output = node.cli(&delete);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{stderr}");
        assert_eq!(count(&node, "m{group=\"filler\"}"), 0);
        stored = 0;
        let kept = request(&mut random, "kept", round + 1);
        wait_until("writes are taken again", PATIENCE, || {
            let response = remote_write::post(node.http, &kept).unwrap();
            (200..300).contains(&response.status)
        });
        assert_eq!(
            count(&node, "m{group=\"kept\"}"),
            (round + 2) * SERIES_OF_REQUEST
        );
    }
    // Nothing of it depends on the process that saw it.
    node.kill();
    let node = Node::start_with(&disk.path(), &["--disk-reserve", "8MiB"]);
    assert_eq!(count(&node, "m{group=\"kept\"}"), 3 * SERIES_OF_REQUEST);
    assert_eq!(count(&node, "m{group=\"filler\"}"), 0);
}
