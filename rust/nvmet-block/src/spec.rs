//! An operator's words for a backend: `ram:SIZE`, `null:SIZE`, or the path of a file or block device.
//!
//! May know: the backends here. Must not know: command lines and configuration files.

use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use crate::backend::Backend;
use crate::error::BackendError;
use crate::file::FileBackend;
use crate::null::NullBackend;
use crate::ram::RamBackend;
use crate::size::{check_size, exact, parse_size};

/// Which backend, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BackendSpec {
    /// Nothing, of that many bytes.
    Null(u64),
    /// Memory, of that many bytes.
    Ram(u64),
    /// A regular file or a block device.
    Path(PathBuf),
}

impl FromStr for BackendSpec {
    type Err = BackendError;

    /// A file whose name starts with `ram:` or `null:` is named `./ram:…`.
    fn from_str(text: &str) -> Result<Self, BackendError> {
        let wrong = |why| BackendError::Spec { spec: text.to_owned(), why };
        if text.is_empty() {
            return Err(wrong("a backend is ram:SIZE, null:SIZE or a path".to_owned()));
        }
        let (make, size): (fn(u64) -> Self, _) = match text.split_once(':') {
            Some(("ram", size)) => (Self::Ram, size),
            Some(("null", size)) => (Self::Null, size),
            _ if text.contains('\0') => return Err(wrong("a path has no NUL character".to_owned())),
            _ => return Ok(Self::Path(PathBuf::from(text))),
        };
        match parse_size(size).map_err(wrong)? {
            0 => Err(wrong("the size is zero: give it at least one block".to_owned())),
            bytes => Ok(make(bytes)),
        }
    }
}

impl std::fmt::Display for BackendSpec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Null(size) => write!(f, "null:{}", exact(*size)),
            Self::Ram(size) => write!(f, "ram:{}", exact(*size)),
            Self::Path(path) => path.display().fmt(f),
        }
    }
}

/// How to open a backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpenOptions {
    /// Refuse everything that changes data.
    pub read_only: bool,
    /// Create the file, with this size in bytes; it must not exist yet.
    pub create: Option<u64>,
    /// Logical block size of the namespace, in bytes: a power of two from 512 on.
    pub block_size: u32,
    /// Let the kernel keep guest memory at hand (io_uring's registered buffers) where the client allows it: direct I/O
    /// takes less CPU time then. The pages are pinned, so nothing may take them from the guest meanwhile.
    pub fixed_buffers: bool,
    /// Ask the device for results instead of waiting for its interrupts (`IORING_SETUP_IOPOLL`): lower latency, and a
    /// worker that is awake while anything is in flight. For block devices with poll queues.
    pub iopoll: bool,
}

impl Default for OpenOptions {
    fn default() -> Self {
        Self { read_only: false, create: None, block_size: 512, fixed_buffers: true, iopoll: false }
    }
}

/// Opens what the words say.
///
/// # Errors
/// [`BackendError`], one clear line; nothing is created, changed or left behind then.
pub fn open(spec: &BackendSpec, options: OpenOptions) -> Result<Arc<dyn Backend>, BackendError> {
    if options.create.is_some() && !matches!(spec, BackendSpec::Path(_)) {
        return Err(BackendError::Spec {
            spec: spec.to_string(),
            why: "only a file can be created: leave --create out".to_owned(),
        });
    }
    if options.iopoll && !matches!(spec, BackendSpec::Path(_)) {
        return Err(BackendError::Spec {
            spec: spec.to_string(),
            why: "only a block device can be polled: leave --iopoll out".to_owned(),
        });
    }
    if let BackendSpec::Null(size) | BackendSpec::Ram(size) = spec {
        check_size(&spec.to_string(), *size, options.block_size)?;
    }
    Ok(match spec {
        BackendSpec::Null(size) => Arc::new(NullBackend::new(*size, options.read_only)?),
        BackendSpec::Ram(size) => Arc::new(RamBackend::new(*size, options.read_only)?),
        BackendSpec::Path(path) => Arc::new(FileBackend::open(path, options)?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_become_backends() {
        assert_eq!("ram:10G".parse::<BackendSpec>().unwrap(), BackendSpec::Ram(10 << 30));
        assert_eq!("null:1T".parse::<BackendSpec>().unwrap(), BackendSpec::Null(1 << 40));
        assert_eq!("disk.img".parse::<BackendSpec>().unwrap(), BackendSpec::Path("disk.img".into()));
        assert_eq!("./ram:1".parse::<BackendSpec>().unwrap(), BackendSpec::Path("./ram:1".into()));
        assert_eq!("a:b".parse::<BackendSpec>().unwrap(), BackendSpec::Path("a:b".into()));
    }

    #[test]
    fn wrong_words_are_named_in_the_error() {
        for text in ["", "ram:", "ram:10X", "null:-1", "ram:0", "null:1.5G", "a\0b"] {
            let error = text.parse::<BackendSpec>().unwrap_err().to_string();
            assert!(error.starts_with(&format!("{text:?}: ")), "{error}");
            assert!(!error.contains('\n'));
        }
    }

    #[test]
    fn memory_is_not_created_and_must_be_whole_blocks() {
        let create = OpenOptions { create: Some(4096), ..OpenOptions::default() };
        assert!(open(&BackendSpec::Ram(4096), create).err().unwrap().to_string().contains("--create"));
        let iopoll = OpenOptions { iopoll: true, ..OpenOptions::default() };
        let error = open(&BackendSpec::Ram(4096), iopoll).err().unwrap().to_string();
        assert!(error.contains("iopoll") && !error.contains('\n'), "{error}");
        let error = open(&BackendSpec::Ram(1000), OpenOptions::default()).err().unwrap().to_string();
        assert!(error.contains("1000") && error.contains("multiple of the block size 512"), "{error}");
        let blocks = OpenOptions { block_size: 4096, ..OpenOptions::default() };
        assert!(open(&BackendSpec::Null(512), blocks).is_err());
        assert!(open(&BackendSpec::Null(512), OpenOptions { block_size: 513, ..blocks }).is_err());
        assert_eq!(open(&BackendSpec::Ram(1 << 30), blocks).unwrap().geometry().size, 1 << 30);
    }

    proptest::proptest! {
        #[test]
        fn any_words_are_a_backend_or_an_error_of_one_line(text in "(ram:|null:)?\\PC{0,20}") {
            if let Err(error) = text.parse::<BackendSpec>() {
                proptest::prop_assert!(!error.to_string().contains('\n'));
            }
        }

        #[test]
        fn a_backend_shows_as_the_words_it_came_from(size in 1..i64::MAX as u64) {
            let spec = BackendSpec::Ram(size);
            proptest::prop_assert_eq!(spec.to_string().parse::<BackendSpec>().unwrap(), spec);
        }
    }
}
