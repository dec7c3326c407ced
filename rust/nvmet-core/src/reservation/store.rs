//! The state file of a namespace: read once, then replaced as a whole, so that whatever happens it is the old or the
//! new one.
//!
//! May know: files, [`Saved`]. Must not know: what is in there, when it is to be saved.
//!
//! Beside the file `NAME` there are `.NAME.lock`, which its only user holds locked (the file itself cannot be it, as
//! it is another one after each change), and for moments `.NAME.tmp`, which becomes the file.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::saved::{DecodeError, Identity, Saved};

mod lock;
#[cfg(test)]
pub(crate) mod testing;

use lock::Lock;

/// Nothing that was ever a state file is as big.
const MAX_LEN: u64 = 1 << 20;

/// Why a state file cannot be used: one line that says which file, what is wrong and what to do.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Its content is not the state of this namespace.
    #[error("state file {}: {reason}; start with discard_state / --discard-state to throw it away, or move it", path.display())]
    Content {
        /// Which file.
        path: PathBuf,
        /// Corrupt, of a newer version, or of another namespace.
        reason: DecodeError,
    },
    /// Somebody else uses it.
    #[error("state file {}: another target uses it; stop that one, or choose another file", path.display())]
    InUse {
        /// Which file.
        path: PathBuf,
    },
    /// It is not a plain file in a directory.
    #[error("state file {}: it is {what}; choose another file", path.display())]
    Kind {
        /// Which file.
        path: PathBuf,
        /// What it is instead.
        what: &'static str,
    },
    /// The operating system refuses something.
    #[error("state file {}: cannot {what}: {source}; make its directory and what is in there accessible, or choose another file", path.display())]
    System {
        /// Which file.
        path: PathBuf,
        /// What was attempted.
        what: &'static str,
        /// The system's answer.
        source: io::Error,
    },
}

/// The state file of one namespace, which nobody else uses meanwhile.
#[derive(Debug)]
pub struct Store {
    identity: Identity,
    directory: OwnedFd,
    name: OsString,
    temporary: OsString,
    /// What the file is known to have on the medium: None if that is not known, an empty one if there is no file.
    /// Its lock also keeps savers apart.
    durable: Mutex<Option<Vec<u8>>>,
    _lock: Lock,
}

impl Store {
    /// Opens the file, which need not exist, and reads it. With `discard`, a file whose content is not the state of
    /// this namespace is removed.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub fn open(path: &Path, identity: Identity, discard: bool) -> Result<(Self, Saved), StoreError> {
        let system =
            |what| move |errno: Errno| StoreError::System { path: path.into(), what, source: errno.into() };
        let Some(name) = path.file_name() else {
            return Err(StoreError::Kind { path: path.into(), what: "no name of a file" });
        };
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory =
            rustix::fs::open(parent, flags, Mode::empty()).map_err(system("open its directory"))?;
        let lock = Lock::take(&directory, &beside(name, ".lock")).map_err(system("lock it"))?;
        let Some(lock) = lock else { return Err(StoreError::InUse { path: path.into() }) };

        let store = Self {
            identity,
            directory,
            name: name.into(),
            temporary: beside(name, ".tmp"),
            durable: Mutex::new(None),
            _lock: lock,
        };
        // What a killed process left: nobody else can be at it, as we have the lock.
        store.remove(&store.temporary).map_err(system("remove what a killed process left"))?;
        let (saved, bytes) = match store.read().map_err(|reason| reason.of(path))? {
            None => Default::default(),
            Some(bytes) => match Saved::decode(&bytes, &store.identity) {
                Ok(saved) => (saved, bytes),
                Err(_) if discard => {
                    store.remove(&store.name).map_err(system("remove it"))?;
                    Default::default()
                }
                Err(reason) => return Err(StoreError::Content { path: path.into(), reason }),
            },
        };
        // A process may have been killed between rename and this. It also shows now, and not at a guest's first
        // command, whether the file system can do it.
        rustix::fs::fsync(&store.directory).map_err(system("sync its directory"))?;
        let durable = Mutex::new(Some(bytes));
        Ok((Self { durable, ..store }, saved))
    }

    /// Puts this into the file, on the medium: when this returns, it is there after a power loss. What is the default
    /// at power on is no file. Costs nothing if the file has it already.
    ///
    /// # Errors
    ///
    /// Those of the operating system. The file then is the old or the new one, whole, and can be saved again.
    pub fn save(&self, saved: &Saved) -> io::Result<()> {
        let bytes =
            if saved.at_power_on() == Saved::default() { Vec::new() } else { saved.encode(&self.identity) };
        let mut durable = self.durable.lock().unwrap_or_else(PoisonError::into_inner);
        if durable.as_ref() == Some(&bytes) {
            return Ok(());
        }
        *durable = None;
        if bytes.is_empty() {
            step("remove", || self.remove(&self.name))?;
        } else if let Err(error) = self.replace(&bytes) {
            // The next one would do it too; but until then it takes space that may be what is missing.
            let _ = self.remove(&self.temporary);
            return Err(error);
        }
        step("sync directory", || rustix::fs::fsync(&self.directory))?;
        *durable = Some(bytes);
        Ok(())
    }

    fn replace(&self, bytes: &[u8]) -> io::Result<()> {
        self.remove(&self.temporary)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let mode = Mode::RUSR | Mode::WUSR;
        let file = step("create", || rustix::fs::openat(&self.directory, &self.temporary, flags, mode))?;
        let mut file = File::from(file);
        let (first, rest) = bytes.split_at(bytes.len() / 2);
        step("write", || file.write_all(first))?;
        step("write", || file.write_all(rest))?;
        step("sync", || file.sync_all())?;
        step("rename", || rustix::fs::renameat(&self.directory, &self.temporary, &self.directory, &self.name))
    }

    fn remove(&self, name: &OsStr) -> Result<(), Errno> {
        match rustix::fs::unlinkat(&self.directory, name, AtFlags::empty()) {
            Err(Errno::NOENT) => Ok(()),
            other => other,
        }
    }

    /// The file's content, if there is one. Never waits for what is no file, and reads no more than a state can be.
    fn read(&self) -> Result<Option<Vec<u8>>, ReadError> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let file = match rustix::fs::openat(&self.directory, &self.name, flags, Mode::empty()) {
            Err(Errno::NOENT) => return Ok(None),
            // A link would be replaced, and what it leads to left as it is and unlocked.
            Err(Errno::LOOP) => return Err(ReadError::Kind("a symbolic link")),
            Err(Errno::NXIO) => return Err(ReadError::Kind("a socket or a device")),
            other => other?,
        };
        if FileType::from_raw_mode(rustix::fs::fstat(&file)?.st_mode) != FileType::RegularFile {
            return Err(ReadError::Kind("not a regular file"));
        }
        let mut bytes = Vec::new();
        File::from(file).take(MAX_LEN).read_to_end(&mut bytes)?;
        Ok(Some(bytes))
    }
}

/// Why a file cannot be read, when its path is yet to be said.
enum ReadError {
    Kind(&'static str),
    System(io::Error),
}

impl<E: Into<io::Error>> From<E> for ReadError {
    fn from(error: E) -> Self {
        Self::System(error.into())
    }
}

impl ReadError {
    fn of(self, path: &Path) -> StoreError {
        match self {
            Self::Kind(what) => StoreError::Kind { path: path.into(), what },
            Self::System(source) => StoreError::System { path: path.into(), what: "read it", source },
        }
    }
}

/// The name of a hidden file beside one.
fn beside(name: &OsStr, suffix: &str) -> OsString {
    let mut beside = OsString::from(".");
    beside.push(name);
    beside.push(suffix);
    beside
}

/// One step on the way to the medium. Tests end the process, or fail, in front of any of them.
fn step<T, E: Into<io::Error>>(name: &'static str, act: impl FnOnce() -> Result<T, E>) -> io::Result<T> {
    #[cfg(test)]
    testing::reach(name)?;
    #[cfg(not(test))]
    let _ = name;
    act().map_err(Into::into)
}
