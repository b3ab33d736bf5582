//! How much memory there is: the machine's, or less if a control group says so.
//!
//! Read from `/proc` and `/sys/fs/cgroup`, cgroup v2 and v1. A limit above the machine's memory
//! ("unlimited" in v1 is a huge number) is no limit. Where nothing can be read the answer is `None`.

use std::{fs, path::Path};

/// What is assumed where nothing can be read: 1 GiB.
pub(crate) const UNKNOWN_BYTES: u64 = 1 << 30;

/// Bytes that this process may use at most, or [`UNKNOWN_BYTES`].
pub(crate) fn available_bytes() -> u64 {
    available_below(Path::new("/")).unwrap_or(UNKNOWN_BYTES)
}

fn available_below(root: &Path) -> Option<u64> {
    let machine = machine_bytes(root);
    let group = control_group_bytes(root);
    match (machine, group) {
        (Some(machine), Some(group)) => Some(machine.min(group)),
        (one, other) => one.or(other),
    }
}

fn machine_bytes(root: &Path) -> Option<u64> {
    let text = fs::read_to_string(root.join("proc/meminfo")).ok()?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

/// The smallest limit of the process's group and all groups above it.
fn control_group_bytes(root: &Path) -> Option<u64> {
    let groups = fs::read_to_string(root.join("proc/self/cgroup")).ok()?;
    groups
        .lines()
        .filter_map(|line| {
            // `hierarchy-id : controllers : path`; cgroup v2 is `0::path`.
            let (_, rest) = line.split_once(':')?;
            let (controllers, path) = rest.split_once(':')?;
            let (mount, file) = if controllers.is_empty() {
                ("sys/fs/cgroup", "memory.max")
            } else if controllers.split(',').any(|c| c == "memory") {
                ("sys/fs/cgroup/memory", "memory.limit_in_bytes")
            } else {
                return None;
            };
            smallest_limit(&root.join(mount), path, file)
        })
        .min()
}

fn smallest_limit(mount: &Path, path: &str, file: &str) -> Option<u64> {
    let path = Path::new(path.trim_start_matches('/'));
    // Inside a container the path may name a group outside its view; then the mount is the group.
    path.ancestors()
        .filter_map(|group| fs::read_to_string(mount.join(group).join(file)).ok())
        .filter_map(|text| text.trim().parse().ok())
        .min()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        dir
    }

    const MEMINFO: (&str, &str) = ("proc/meminfo", "MemTotal:       8000 kB\nMemFree: 1 kB\n");

    #[test]
    fn a_parent_groups_limit_counts_when_it_is_smaller() {
        let dir = tree(&[
            MEMINFO,
            ("proc/self/cgroup", "0::/a/b\n"),
            ("sys/fs/cgroup/a/memory.max", "4096000\n"),
            ("sys/fs/cgroup/a/b/memory.max", "max\n"),
        ]);
        assert_eq!(available_below(dir.path()), Some(4_096_000));
    }

    #[test]
    fn the_unlimited_of_version_one_is_the_machine() {
        let dir = tree(&[
            MEMINFO,
            ("proc/self/cgroup", "5:cpu,cpuacct:/x\n4:memory:/x\n"),
            (
                "sys/fs/cgroup/memory/x/memory.limit_in_bytes",
                "9223372036854771712\n",
            ),
        ]);
        assert_eq!(available_below(dir.path()), Some(8_192_000));
    }

    #[test]
    fn where_nothing_can_be_read_nothing_is_claimed() {
        assert_eq!(available_below(tree(&[]).path()), None);
    }
}
