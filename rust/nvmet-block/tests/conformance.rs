//! Every backend of ours passes the conformance suite.

use std::path::{Path, PathBuf};
use std::process::Command;

use nvmet_block::conformance::{self, Options, Outcome, Report};
use nvmet_block::{Backend, FileBackend, NullBackend, OpenOptions, RamBackend};

fn check(backend: &dyn Backend) -> Report {
    let report = conformance::run(backend, Options::default());
    println!("{report}");
    assert!(report.passed(), "{report}");
    report
}

fn skipped(report: &Report) -> usize {
    report.checks.iter().filter(|check| matches!(check.outcome, Outcome::Skipped(_))).count()
}

fn create(directory: &Path, size: u64, block_size: u32) -> FileBackend {
    let path = directory.join("disk.img");
    let options = OpenOptions { create: Some(size), block_size, ..OpenOptions::default() };
    FileBackend::open(&path, options).unwrap()
}

#[test]
fn null() {
    check(&NullBackend::new(1 << 30, false).unwrap());
}

#[test]
fn null_read_only() {
    check(&NullBackend::new(1 << 30, true).unwrap());
}

#[test]
fn ram() {
    let report = check(&RamBackend::new(64 << 20, false).unwrap());
    assert_eq!(skipped(&report), 1, "only the read-only check does not apply:\n{report}");
}

#[test]
fn ram_of_a_few_blocks() {
    check(&RamBackend::new(512, false).unwrap());
    check(&RamBackend::new(16 * 512, false).unwrap());
}

#[test]
fn ram_with_other_seeds() {
    for seed in 2..6 {
        let backend = RamBackend::new(1 << 20, false).unwrap();
        let report = conformance::run(&backend, Options { seed, depth: 4, ..Options::default() });
        assert!(report.passed(), "{report}");
    }
}

#[test]
fn file_on_disk() {
    for block_size in [512, 4096] {
        let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let backend = create(directory.path(), 16 << 20, block_size);
        if !backend.is_direct() {
            eprintln!("SKIPPED in part: {} has no direct I/O", directory.path().display());
        }
        let report = check(&backend);
        assert_eq!(skipped(&report), 1, "{report}");
        assert_eq!(std::fs::metadata(directory.path().join("disk.img")).unwrap().len(), 16 << 20);
    }
}

#[test]
fn file_on_tmpfs() {
    let Ok(directory) = tempfile::tempdir_in("/dev/shm") else {
        eprintln!("SKIPPED: /dev/shm is not there");
        return;
    };
    let backend = create(directory.path(), 16 << 20, 512);
    check(&backend);
}

#[test]
fn file_on_tmpfs_that_has_all_its_pages() {
    let Ok(directory) = tempfile::tempdir_in("/dev/shm") else {
        eprintln!("SKIPPED: /dev/shm is not there");
        return;
    };
    let path = directory.path().join("disk.img");
    std::fs::write(&path, vec![0; 16 << 20]).unwrap();
    for block_size in [512, 4096] {
        let options = OpenOptions { block_size, ..OpenOptions::default() };
        check(&FileBackend::open(&path, options).unwrap());
    }
}

#[test]
fn file_read_only() {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    drop(create(directory.path(), 1 << 20, 512));
    let options = OpenOptions { read_only: true, ..OpenOptions::default() };
    check(&FileBackend::open(&directory.path().join("disk.img"), options).unwrap());
}

#[test]
fn file_at_depth_one() {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let backend = create(directory.path(), 16 << 20, 512);
    let report = conformance::run(&backend, Options { depth: 1, rounds: 10, ..Options::default() });
    assert!(report.passed(), "{report}");
}

/// A loop device, removed when dropped.
struct Loop(PathBuf);

impl Loop {
    fn new(file: &Path, sector: u32) -> Option<Self> {
        let sector = sector.to_string();
        let output =
            Command::new("losetup").args(["--find", "--show", "--sector-size", &sector]).arg(file).output();
        let output = output.ok().filter(|output| output.status.success())?;
        Some(Self(String::from_utf8(output.stdout).ok()?.trim().into()))
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = Command::new("losetup").arg("--detach").arg(&self.0).status();
    }
}

#[test]
fn block_device() {
    for (sector, block_size) in [(512, 512), (4096, 4096), (4096, 512)] {
        let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let file = directory.path().join("image");
        std::fs::File::create(&file).unwrap().set_len(16 << 20).unwrap();
        let Some(device) = Loop::new(&file, sector) else {
            eprintln!("SKIPPED: no loop device can be made here (it takes root and losetup)");
            return;
        };
        let options = OpenOptions { block_size, ..OpenOptions::default() };
        let backend = FileBackend::open(&device.0, options).unwrap();
        assert_eq!(backend.geometry().size, 16 << 20);
        assert_eq!(backend.is_direct(), sector <= block_size);
        check(&backend);
    }
}
