//! A listening socket and the file that names it.
//!
//! # How the file gets its mode
//!
//! The umask belongs to the whole process, so it is left alone. Linux takes the mode of a socket file from the inode
//! of the socket, so `fchmod` on the socket before `bind` makes the file appear with its final mode. That is checked
//! after `bind` and put right before `listen`: until then every connection is refused.
//!
//! # Who may remove the file
//!
//! A file is removed only if it is a socket that refuses connections and is still the same inode when that is known,
//! or, on drop, if it is the very inode that was bound here. Servers that start at the same time in one directory
//! are kept apart by a lock on the directory.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use rustix::fs::{FlockOperation, Mode, fchmod, flock};
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, listen, socket_with, sockopt,
};

use crate::Errno;

/// Mode of a socket file unless something else is asked for: the owner alone may connect.
pub const DEFAULT_MODE: u32 = 0o600;
/// Bytes of a path that fit a socket address.
pub const MAX_PATH: usize = 107;
/// Connections that may wait; one is served at a time and a second one is closed at once.
const BACKLOG: i32 = 16;
/// How long another process may hold the lock on the directory before it is no longer waited for.
const LOCK_TRIES: u32 = 100;
const LOCK_PAUSE: Duration = Duration::from_millis(10);

/// Why there is no listener.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// The path does not fit a socket address.
    #[error(
        "{path}: a socket path has at most {MAX_PATH} bytes, this one has {length}; choose a shorter one"
    )]
    PathTooLong {
        /// The path.
        path: PathBuf,
        /// Its length in bytes.
        length: usize,
    },
    /// Somebody listens there.
    #[error("{0}: another server is listening on this socket; stop it or choose another path")]
    AddrInUse(PathBuf),
    /// Something else has that name.
    #[error("{0}: exists and is not a socket; remove it or choose another path")]
    NotASocket(PathBuf),
    /// A file descriptor that was handed over is no listening Unix stream socket.
    #[error("the file descriptor is not a listening Unix stream socket")]
    NotListening,
    /// The system refused.
    #[error("{path}: cannot {what}: {source}; make it possible, or choose another path")]
    System {
        /// The path.
        path: PathBuf,
        /// What was tried.
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

/// A listening socket. Dropping it removes its file, if it was made here and is still the same.
#[derive(Debug)]
pub struct Listener {
    socket: UnixListener,
    file: Option<SocketFile>,
}

#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if let Ok(found) = fs::symlink_metadata(&self.path)
            && (found.dev(), found.ino()) == (self.device, self.inode)
            && let Err(error) = fs::remove_file(&self.path)
        {
            tracing::warn!(path = %self.path.display(), %error, "cannot remove the socket file");
        }
    }
}

impl Listener {
    /// Listens on `path` with mode [`DEFAULT_MODE`].
    ///
    /// # Errors
    ///
    /// [`ListenError`]; a live server, a file that is no socket and a path that is too long have variants of their own.
    pub fn bind(path: impl AsRef<Path>) -> Result<Self, ListenError> {
        Self::bind_with_mode(path, DEFAULT_MODE)
    }

    /// Listens on `path`; the permission bits of the socket file are `mode`. Who may write it may connect.
    ///
    /// # Errors
    ///
    /// As [`bind`](Self::bind).
    pub fn bind_with_mode(path: impl AsRef<Path>, mode: u32) -> Result<Self, ListenError> {
        let path = path.as_ref();
        let failed = |what| move |source| ListenError::System { path: path.to_owned(), what, source };
        let length = path.as_os_str().len();
        if length > MAX_PATH {
            return Err(ListenError::PathTooLong { path: path.to_owned(), length });
        }
        let address = SocketAddrUnix::new(path).map_err(io::Error::from).map_err(failed("name a socket"))?;
        // The file is found again on drop, when the working directory may have changed.
        let absolute = std::path::absolute(path).map_err(failed("find"))?;
        let _lock = lock_directory(&absolute);

        let socket = new_socket().map_err(failed("make a socket"))?;
        fchmod(&socket, Mode::from_raw_mode(mode))
            .map_err(io::Error::from)
            .map_err(failed("set the mode of"))?;
        match bind(&socket, &address) {
            Err(Errno::ADDRINUSE) => {
                remove_stale(path, &address)?;
                match bind(&socket, &address) {
                    Err(Errno::ADDRINUSE) => return Err(ListenError::AddrInUse(path.to_owned())),
                    other => other.map_err(io::Error::from).map_err(failed("bind"))?,
                }
            }
            other => other.map_err(io::Error::from).map_err(failed("bind"))?,
        }
        let found = fs::symlink_metadata(&absolute).map_err(failed("find the socket just bound at"))?;
        let file = SocketFile { path: absolute, device: found.dev(), inode: found.ino() };
        if found.permissions().mode() & 0o777 != mode {
            fs::set_permissions(&file.path, fs::Permissions::from_mode(mode))
                .map_err(failed("set the mode of"))?;
        }
        listen(&socket, BACKLOG).map_err(io::Error::from).map_err(failed("listen on"))?;
        Ok(Self { socket: UnixListener::from(socket), file: Some(file) })
    }

    /// Takes over a socket that is already listening (socket activation). Its file is not ours to remove.
    ///
    /// # Errors
    ///
    /// [`ListenError::NotListening`] if it is anything else.
    pub fn from_fd(fd: OwnedFd) -> Result<Self, ListenError> {
        let private = rustix::io::fcntl_setfd(&fd, rustix::io::FdFlags::CLOEXEC).is_ok();
        let fits = sockopt::socket_domain(&fd) == Ok(AddressFamily::UNIX)
            && sockopt::socket_type(&fd) == Ok(SocketType::STREAM)
            && sockopt::socket_acceptconn(&fd) == Ok(true);
        let socket = UnixListener::from(fd);
        if !(fits && private) || socket.set_nonblocking(true).is_err() {
            return Err(ListenError::NotListening);
        }
        Ok(Self { socket, file: None })
    }

    /// The path of the socket file, if it was made here.
    pub fn path(&self) -> Option<&Path> {
        self.file.as_ref().map(|file| file.path.as_path())
    }

    /// Accepts one waiting connection, `None` if there is none. Never blocks; the connection never does either.
    ///
    /// # Errors
    ///
    /// What the system says; too many open files is the one to expect.
    pub fn accept(&self) -> io::Result<Option<UnixStream>> {
        loop {
            match self.socket.accept() {
                Ok((stream, _)) => {
                    stream.set_nonblocking(true)?;
                    return Ok(Some(stream));
                }
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock => return Ok(None),
                    io::ErrorKind::Interrupted | io::ErrorKind::ConnectionAborted => {}
                    _ => return Err(error),
                },
            }
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn new_socket() -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?)
}

/// Locks the directory of `path`, if that can be had soon. The lock goes with the file.
fn lock_directory(path: &Path) -> Option<File> {
    let directory = File::open(path.parent()?).ok()?;
    for _ in 0..LOCK_TRIES {
        match flock(&directory, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Some(directory),
            Err(Errno::WOULDBLOCK) => thread::sleep(LOCK_PAUSE),
            Err(_) => return None,
        }
    }
    None
}

/// Removes the socket file at `path` if nobody listens there.
fn remove_stale(path: &Path, address: &SocketAddrUnix) -> Result<(), ListenError> {
    let failed = |what| move |source| ListenError::System { path: path.to_owned(), what, source };
    let before = match fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed("look at")(error)),
    };
    if !before.file_type().is_socket() {
        return Err(ListenError::NotASocket(path.to_owned()));
    }
    let probe = new_socket().map_err(failed("make a socket"))?;
    match connect(&probe, address) {
        Err(Errno::CONNREFUSED) => {}
        Err(Errno::NOENT) => return Ok(()),
        // Connected, or the backlog is full, or it may not be asked: in any case not known to be dead.
        _ => return Err(ListenError::AddrInUse(path.to_owned())),
    }
    let after = fs::symlink_metadata(path).map_err(failed("look at"))?;
    if (before.dev(), before.ino()) != (after.dev(), after.ino()) {
        return Err(ListenError::AddrInUse(path.to_owned()));
    }
    tracing::info!(path = %path.display(), "removing a socket file that nobody listens on");
    fs::remove_file(path).map_err(failed("remove the stale socket at"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    fn scratch() -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("cntrl");
        (directory, path)
    }

    #[test]
    fn a_listener_removes_its_own_file_and_no_other() {
        let (_directory, path) = scratch();
        let first = Listener::bind(&path).unwrap();
        assert_eq!(first.path(), Some(path.as_path()));
        drop(first);
        assert!(!path.exists());

        let second = Listener::bind(&path).unwrap();
        fs::remove_file(&path).unwrap();
        fs::write(&path, "somebody else's").unwrap();
        drop(second);
        assert!(path.exists());
    }

    #[test]
    fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
        let (_directory, path) = scratch();
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let live = Listener::bind(&path).unwrap();
        assert!(matches!(Listener::bind(&path), Err(ListenError::AddrInUse(_))));
        // The probe of the second server is a connection that has gone already.
        let mut probe = live.accept().unwrap().unwrap();
        probe.set_nonblocking(false).unwrap();
        assert_eq!(probe.read(&mut [0; 1]).unwrap(), 0);
    }

    #[test]
    fn only_sockets_are_ever_replaced() {
        let (_directory, path) = scratch();
        fs::write(&path, "data").unwrap();
        assert!(matches!(Listener::bind(&path), Err(ListenError::NotASocket(_))));
        assert_eq!(fs::read(&path).unwrap(), b"data");
    }

    #[test]
    fn a_path_that_does_not_fit_is_said_so() {
        let long = format!("/tmp/{}", "x".repeat(MAX_PATH));
        assert!(matches!(Listener::bind(long), Err(ListenError::PathTooLong { length: 112, .. })));
    }

    #[test]
    fn an_inherited_listener_keeps_its_file() {
        let (_directory, path) = scratch();
        let inherited = UnixListener::bind(&path).unwrap();
        let listener = Listener::from_fd(inherited.into()).unwrap();
        let _client = UnixStream::connect(&path).unwrap();
        assert!(listener.accept().unwrap().is_some());
        assert!(listener.accept().unwrap().is_none());
        drop(listener);
        assert!(path.exists());
    }

    #[test]
    fn what_is_not_a_listening_socket_is_refused() {
        let (one, _other) = UnixStream::pair().unwrap();
        assert!(matches!(Listener::from_fd(one.into()), Err(ListenError::NotListening)));
        let file = tempfile::tempfile().unwrap();
        assert!(matches!(Listener::from_fd(file.into()), Err(ListenError::NotListening)));
    }

    #[test]
    fn servers_that_start_together_over_a_stale_file_leave_one_alive() {
        let (_directory, path) = scratch();
        drop(UnixListener::bind(&path).unwrap());
        let start = std::sync::Barrier::new(4);
        let results: Vec<_> = thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| {
                        start.wait();
                        Listener::bind(&path)
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1);
        UnixStream::connect(&path).unwrap();
    }
}
