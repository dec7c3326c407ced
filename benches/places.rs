//! Where the files of benchmarks go: memory and disk.

use std::path::{Path, PathBuf};

use tempfile::TempDir;

/// `f_type` of tmpfs (statfs(2)).
const TMPFS_MAGIC: rustix::fs::FsWord = 0x0102_1994;

/// A directory that goes when this is dropped.
#[derive(Debug)]
pub struct Place {
    /// `tmpfs` or `disk`.
    pub name: &'static str,
    directory: TempDir,
}

impl Place {
    /// A path in it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn new(name: &'static str, below: &Path) -> Option<Self> {
        let directory = tempfile::Builder::new().prefix("nvmet-bench-").tempdir_in(below).ok()?;
        Some(Self { name, directory })
    }
}

fn is_tmpfs(path: &Path) -> bool {
    rustix::fs::statfs(path).is_ok_and(|stat| stat.f_type == TMPFS_MAGIC)
}

/// The first of `$TMPDIR` and `/dev/shm` that is tmpfs, and the file system that this program was built on if it is
/// not. A place that is missing is named on standard error.
pub fn places() -> Vec<Place> {
    let candidates = [std::env::temp_dir(), PathBuf::from("/dev/shm")];
    let memory = candidates.iter().find(|path| is_tmpfs(path)).and_then(|path| Place::new("tmpfs", path));
    if memory.is_none() {
        eprintln!("no tmpfs at $TMPDIR or /dev/shm: file_tmpfs is left out");
    }
    let here = std::env::current_exe().ok().and_then(|exe| Some(exe.parent()?.to_owned()));
    let disk = here.filter(|path| !is_tmpfs(path)).and_then(|path| Place::new("disk", &path));
    if disk.is_none() {
        eprintln!("the target directory is no disk that can be written: file_disk is left out");
    }
    memory.into_iter().chain(disk).collect()
}
