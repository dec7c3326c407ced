use std::fs;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::PathBuf;

use nvmet_dma::{LoopbackMemory, SegmentBuf};
use tempfile::TempDir;

use super::*;
use crate::queue::{Op, Submitted};

fn directory() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn image(directory: &TempDir, size: u64) -> PathBuf {
    let path = directory.path().join("image");
    fs::File::create(&path).unwrap().set_len(size).unwrap();
    path
}

fn creating(size: u64) -> OpenOptions {
    OpenOptions { create: Some(size), ..OpenOptions::default() }
}

const READ_ONLY: OpenOptions =
    OpenOptions { read_only: true, create: None, block_size: 512, fixed_buffers: true, iopoll: false };

fn error(path: &Path, options: OpenOptions) -> String {
    let text = FileBackend::open(path, options).unwrap_err().to_string();
    assert!(text.starts_with(&path.display().to_string()), "{text}");
    assert!(!text.contains('\n'), "{text}");
    text
}

/// Runs one operation on 8 KiB of guest memory.
fn run(
    backend: &FileBackend,
    op: impl Fn(nvmet_dma::Segments<'_>) -> Op<'_>,
    to_guest: bool,
) -> Result<(), IoError> {
    let guest = LoopbackMemory::new(8192).unwrap();
    let mut reader = guest.handle().reader();
    let mut room = SegmentBuf::new(1, 8192);
    let direction = if to_guest { nvmet_dma::Direction::ToGuest } else { nvmet_dma::Direction::FromGuest };
    let mut builder = room.begin(reader.snapshot(), direction);
    builder.push(LoopbackMemory::IOVA, 8192).unwrap();
    let mut queue = backend.open_queue(4).unwrap();
    let mut answer = None;
    match queue.submit(1, op(builder.finish())) {
        Submitted::Done(result) => return result,
        Submitted::Full => panic!("an empty queue is full"),
        Submitted::Pending => {}
    }
    while answer.is_none() {
        queue.kick();
        queue.reap(&mut |_, result| answer = Some(result));
    }
    answer.unwrap()
}

#[test]
fn a_created_file_has_its_size_and_belongs_to_its_owner() {
    let directory = directory();
    let path = directory.path().join("new");
    let backend = FileBackend::open(&path, creating(1 << 20)).unwrap();
    let meta = fs::metadata(&path).unwrap();
    assert_eq!((meta.len(), meta.permissions().mode() & 0o777), (1 << 20, 0o600));
    assert_eq!(backend.geometry().size, 1 << 20);
    assert!(backend.describe().contains("1M"), "{}", backend.describe());
}

#[test]
fn a_file_that_exists_is_not_created_over() {
    let directory = directory();
    let path = image(&directory, 4096);
    fs::write(&path, vec![7; 4096]).unwrap();
    assert!(error(&path, creating(1 << 20)).contains("exists already"));
    assert_eq!(fs::read(&path).unwrap(), vec![7; 4096]);
}

#[test]
fn a_failed_creation_leaves_nothing() {
    let directory = directory();
    let path = directory.path().join("new");
    assert!(error(&path, creating(1000)).contains("multiple of the block size"));
    assert!(error(&path, creating(0)).contains("zero"));
    // More than ext4, and nearly any other file system, takes: `ftruncate` fails after the file was made.
    let huge = i64::MAX as u64 & !511;
    if let Err(error) = FileBackend::open(&path, creating(huge)) {
        assert!(error.to_string().contains("cannot be made"), "{error}");
    } else {
        fs::remove_file(&path).unwrap();
    }
    let read_only = OpenOptions { read_only: true, ..creating(4096) };
    assert!(error(&path, read_only).contains("--read-only"));
    assert!(!path.exists());
    assert!(error(&directory.path().join("no/new"), creating(4096)).contains("directory does not exist"));
}

#[test]
fn what_cannot_be_a_disk_is_named_with_what_to_do() {
    let directory = directory();
    let options = OpenOptions::default();
    assert!(error(&directory.path().join("none"), options).contains("--create"));
    assert!(error(directory.path(), options).contains("directory"));
    assert!(error(Path::new("/dev/null"), options).contains("neither a regular file nor a block device"));
    let path = image(&directory, 0);
    assert!(error(&path, options).contains("empty"));
    fs::write(&path, vec![1; 1000]).unwrap();
    assert!(error(&path, options).contains("1000 bytes is not a multiple of the block size 512"));
    assert_eq!(fs::metadata(&path).unwrap().len(), 1000);
    let odd = OpenOptions { block_size: 4096, ..options };
    fs::write(&path, vec![1; 512]).unwrap();
    assert!(error(&path, odd).contains("make it 4096 bytes"));
    let fifo = directory.path().join("fifo");
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU, 0)
        .unwrap();
    assert!(error(&fifo, options).contains("neither"));
}

#[test]
fn what_cannot_be_polled_is_refused_with_what_can() {
    let directory = directory();
    let path = image(&directory, 1 << 20);
    let polled = OpenOptions { iopoll: true, ..OpenOptions::default() };
    assert!(error(&path, polled).contains("a block device"));
    let new = directory.path().join("new");
    assert!(error(&new, OpenOptions { iopoll: true, ..creating(4096) }).contains("iopoll"));
    assert!(!new.exists());
    // The reason that the kernel itself has.
    let fd = Arc::new(fs::File::open(&path).unwrap().into());
    let why = super::polling::try_it(&fd, 4096).unwrap_err();
    assert!(why.contains("poll queues"), "{why}");
}

#[test]
fn a_second_writer_is_refused_and_readers_share() {
    let directory = directory();
    let path = image(&directory, 4096);
    let writer = FileBackend::open(&path, OpenOptions::default()).unwrap();
    assert!(error(&path, OpenOptions::default()).contains("another process uses it"));
    assert!(error(&path, READ_ONLY).contains("writes to it"));
    drop(writer);
    let readers =
        [FileBackend::open(&path, READ_ONLY).unwrap(), FileBackend::open(&path, READ_ONLY).unwrap()];
    assert!(error(&path, OpenOptions::default()).contains("--read-only"));
    drop(readers);
    let queue = FileBackend::open(&path, OpenOptions::default()).unwrap().open_queue(1).unwrap();
    assert!(FileBackend::open(&path, READ_ONLY).is_err(), "a queue keeps the lock");
    drop(queue);
    FileBackend::open(&path, OpenOptions::default()).unwrap();
}

#[test]
fn the_lock_is_the_one_that_qemu_takes() {
    use nvmet_dma::ofd::{LockKind, is_locked};
    use std::os::fd::AsFd;

    let directory = directory();
    let path = image(&directory, 4096);
    let _writer = FileBackend::open(&path, OpenOptions::default()).unwrap();
    let other = fs::File::open(&path).unwrap();
    let locked: Vec<u32> =
        (0..300).filter(|byte| is_locked(other.as_fd(), LockKind::Exclusive, *byte, 1).unwrap()).collect();
    assert_eq!(locked, [100, 101, 201, 203]);
}

#[test]
fn a_file_cut_short_underneath_is_an_error_and_not_zeroes() {
    let directory = directory();
    let path = image(&directory, 1 << 20);
    let backend = FileBackend::open(&path, OpenOptions::default()).unwrap();
    fs::File::options().write(true).open(&path).unwrap().set_len(4096).unwrap();
    let media = Err(IoError::Media(Direction::Read));
    for offset in [0, 4096, 65536] {
        assert_eq!(run(&backend, |data| Op::Read { offset, data }, true), media, "at {offset}");
        assert_eq!(run(&backend, |data| Op::Compare { offset, data }, false), media, "at {offset}");
    }
}

#[test]
fn zeroing_and_deallocating_never_change_the_size() {
    let directory = directory();
    let path = image(&directory, 1 << 20);
    let backend = FileBackend::open(&path, OpenOptions::default()).unwrap();
    for deallocate in [false, true] {
        let zero = run(
            &backend,
            |_| Op::WriteZeroes { offset: (1 << 20) - 8192, len: 8192, deallocate, fua: true },
            false,
        );
        assert_eq!(zero, Ok(()));
    }
    assert_eq!(run(&backend, |_| Op::Deallocate { offset: 0, len: 1 << 20 }, false), Ok(()));
    assert_eq!(fs::metadata(&path).unwrap().len(), 1 << 20);
}

#[test]
fn without_fallocate_zeroes_are_written() {
    let directory = directory();
    let path = image(&directory, 1 << 20);
    fs::write(&path, vec![9; 1 << 20]).unwrap();
    let backend = FileBackend::open(&path, OpenOptions::default()).unwrap();
    backend.shared().no_punch.store(true, Ordering::Relaxed);
    backend.shared().no_zero_range.store(true, Ordering::Relaxed);
    for (offset, fua) in [(0, true), (512 << 10, false)] {
        let zero =
            run(&backend, |_| Op::WriteZeroes { offset, len: 300 << 10, deallocate: true, fua }, false);
        assert_eq!(zero, Ok(()));
    }
    let bytes = fs::read(&path).unwrap();
    assert!(bytes[..300 << 10].iter().all(|byte| *byte == 0));
    assert!(bytes[300 << 10..512 << 10].iter().all(|byte| *byte == 9));
    assert!(bytes[512 << 10..812 << 10].iter().all(|byte| *byte == 0));
    assert!(bytes[812 << 10..].iter().all(|byte| *byte == 9));
}

#[test]
fn zeroing_with_fua_keeps_its_bounce_buffers() {
    let directory = directory();
    let path = image(&directory, 1 << 20);
    let backend = FileBackend::open(&path, OpenOptions::default()).unwrap();
    backend.shared().no_zero_range.store(true, Ordering::Relaxed);
    let mut queue = FileQueue::new(backend.shared(), 4).unwrap();
    for tag in 0..200 {
        let op = Op::WriteZeroes { offset: 0, len: 512, deallocate: false, fua: true };
        assert_eq!(queue.submit(tag, op), Submitted::Pending);
        while queue.in_flight() > 0 {
            queue.kick();
            queue.reap(&mut |_, result| assert_eq!(result, Ok(())));
        }
    }
}

/// A file system of 1 MiB, gone when dropped.
struct SmallFs(TempDir);

impl SmallFs {
    fn new() -> Option<Self> {
        let directory = directory();
        let mounted = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=1M", "none"])
            .arg(directory.path())
            .output()
            .is_ok_and(|output| output.status.success());
        mounted.then_some(Self(directory))
    }
}

impl Drop for SmallFs {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("--lazy").arg(self.0.path()).status();
    }
}

#[test]
fn a_full_file_system_is_no_space() {
    let Some(small) = SmallFs::new() else {
        eprintln!("SKIPPED: no file system can be mounted here (it takes root)");
        return;
    };
    let path = small.0.path().join("image");
    let backend = FileBackend::open(&path, creating(4 << 20)).unwrap();
    let results: Vec<_> = (0..512)
        .map(|n| run(&backend, |data| Op::Write { offset: n * 8192, data, fua: false }, false))
        .collect();
    assert_eq!(results[0], Ok(()));
    assert_eq!(results[511], Err(IoError::NoSpace));
    // What was thinned out is there again.
    assert_eq!(run(&backend, |_| Op::Deallocate { offset: 0, len: 65536 }, false), Ok(()));
    assert_eq!(run(&backend, |data| Op::Write { offset: 0, data, fua: true }, false), Ok(()));
}

#[test]
fn what_is_written_is_in_the_file() {
    let directory = directory();
    let path = image(&directory, 1 << 20);
    fs::write(&path, vec![5; 1 << 20]).unwrap();
    let backend = FileBackend::open(&path, OpenOptions::default()).unwrap();
    assert_eq!(run(&backend, |data| Op::Write { offset: 4096, data, fua: true }, false), Ok(()));
    assert_eq!(backend.sync(), Ok(()));
    let mut bytes = vec![1; 8194];
    fs::File::open(&path).unwrap().read_exact_at(&mut bytes, 4095).unwrap();
    assert_eq!((bytes[0], bytes[8193]), (5, 5));
    assert!(bytes[1..8193].iter().all(|byte| *byte == 0));
}

#[test]
fn a_lone_read_that_the_page_cache_has_is_done_at_once_and_batches_go_to_the_ring() {
    let directory = directory();
    let path = image(&directory, 1 << 20);
    fs::write(&path, vec![5; 1 << 20]).unwrap();
    let mut backend = FileBackend::open(&path, OpenOptions::default()).unwrap();
    Arc::get_mut(backend.shared.get_mut().unwrap()).unwrap().limits.direct = None;
    rustix::fs::fcntl_setfl(&backend.shared().fd, rustix::fs::OFlags::empty()).unwrap();
    let mut bytes = [0; 512];
    let mut place = [std::io::IoSliceMut::new(&mut bytes)];
    let tried = rustix::io::preadv2(&backend.shared().fd, &mut place, 0, rustix::io::ReadWriteFlags::NOWAIT);
    if tried.is_err() || backend.shared().memory.is_some() {
        eprintln!("SKIPPED: the file system here has no reads that do not wait");
        return;
    }
    let guest = LoopbackMemory::new(8192).unwrap();
    let mut reader = guest.handle().reader();
    let mut room = SegmentBuf::new(1, 8192);
    let mut queue = backend.open_queue(4).unwrap();
    let mut submit = |queue: &mut Box<dyn IoQueue>, tag| {
        let mut builder = room.begin(reader.snapshot(), nvmet_dma::Direction::ToGuest);
        builder.push(LoopbackMemory::IOVA, 8192).unwrap();
        queue.submit(tag, Op::Read { offset: 4096, data: builder.finish() })
    };
    let finish = |queue: &mut Box<dyn IoQueue>| {
        while queue.in_flight() > 0 {
            queue.kick();
            queue.reap(&mut |_, result| assert_eq!(result, Ok(())));
        }
        let mut bytes = [0; 8192];
        guest.memory().read_bytes(0, &mut bytes).unwrap();
        assert_eq!(bytes, [5; 8192]);
        guest.memory().write_bytes(0, &[0; 8192]).unwrap();
    };
    assert_eq!(submit(&mut queue, 0), Submitted::Pending);
    finish(&mut queue);
    let mut at_once = 0;
    for _ in 0..200 {
        at_once += u32::from(submit(&mut queue, 0) == Submitted::Done(Ok(())));
        finish(&mut queue);
    }
    assert!(at_once > 190, "{at_once}");
    let mut at_once = 0;
    for _ in 0..200 {
        at_once = (0..3).filter(|tag| submit(&mut queue, *tag) == Submitted::Done(Ok(()))).count();
        finish(&mut queue);
    }
    assert_eq!(at_once, 0);
}

mod resize {
    use super::*;

    const BLOCK: u64 = 8192;

    fn length(path: &Path) -> u64 {
        fs::metadata(path).unwrap().len()
    }

    /// On a medium of each kind that is here: with a ring, and without.
    fn on_every_medium(check: impl Fn(&Path)) {
        let directories = [Some(directory()), tempfile::tempdir_in("/dev/shm").ok()];
        for directory in directories.into_iter().flatten() {
            check(&directory.path().join("image"));
        }
    }

    #[test]
    fn a_file_grows_and_shrinks_and_new_queues_have_its_size() {
        on_every_medium(|path| {
            let backend = FileBackend::open(path, creating(16 * BLOCK)).unwrap();
            let write = |at| run(&backend, |data| Op::Write { offset: at, data, fua: false }, false);
            assert_eq!(write(16 * BLOCK), Err(IoError::OutOfRange));
            backend.resize(32 * BLOCK).unwrap();
            assert_eq!((backend.geometry().size, length(path)), (32 * BLOCK, 32 * BLOCK));
            assert_eq!(write(31 * BLOCK), Ok(()));
            backend.resize(4 * BLOCK).unwrap();
            assert_eq!((backend.geometry().size, length(path)), (4 * BLOCK, 4 * BLOCK));
            assert_eq!(write(4 * BLOCK), Err(IoError::OutOfRange));
            assert_eq!(write(3 * BLOCK), Ok(()));
            assert!(backend.describe().contains("32K"), "{}", backend.describe());
        });
    }

    #[test]
    fn what_a_queue_of_the_larger_size_still_writes_does_not_outlive_it() {
        on_every_medium(|path| {
            let backend = FileBackend::open(path, creating(16 * BLOCK)).unwrap();
            let guest = LoopbackMemory::new(8192).unwrap();
            let mut reader = guest.handle().reader();
            let mut room = SegmentBuf::new(1, 8192);
            let mut queue = backend.open_queue(4).unwrap();
            backend.resize(4 * BLOCK).unwrap();
            // Another change in between: the length that counts is the latest.
            backend.resize(8 * BLOCK).unwrap();
            let mut builder = room.begin(reader.snapshot(), nvmet_dma::Direction::FromGuest);
            builder.push(LoopbackMemory::IOVA, 8192).unwrap();
            let op = Op::Write { offset: 15 * BLOCK, data: builder.finish(), fua: false };
            if queue.submit(1, op) == Submitted::Pending {
                while queue.in_flight() > 0 {
                    queue.kick();
                    queue.reap(&mut |_, _| {});
                }
            }
            assert_eq!(length(path), 16 * BLOCK, "the old queue wrote behind the end");
            drop(queue);
            assert_eq!(length(path), 8 * BLOCK);
            drop(backend);
            assert_eq!(length(path), 8 * BLOCK);
        });
    }

    #[test]
    fn a_size_that_somebody_else_gave_the_file_is_taken_over_when_asked() {
        let directory = directory();
        let path = image(&directory, 16 * BLOCK);
        let backend = FileBackend::open(&path, OpenOptions::default()).unwrap();
        fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(20 * BLOCK).unwrap();
        assert_eq!(backend.geometry().size, 16 * BLOCK);
        backend.refresh().unwrap();
        assert_eq!(backend.geometry().size, 20 * BLOCK);
        fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(1000).unwrap();
        assert!(backend.refresh().unwrap_err().to_string().contains("multiple of the block size"));
        assert_eq!(backend.geometry().size, 20 * BLOCK, "it keeps the size it had");
    }

    #[test]
    fn sizes_that_cannot_be_are_refused_in_one_line_and_change_nothing() {
        let directory = directory();
        let path = image(&directory, 16 * BLOCK);
        let refused = |options, size| {
            let backend = FileBackend::open(&path, options).unwrap();
            let text = backend.resize(size).unwrap_err().to_string();
            assert!(text.starts_with(&path.display().to_string()) && !text.contains('\n'), "{text}");
            assert_eq!((backend.geometry().size, length(&path)), (16 * BLOCK, 16 * BLOCK), "{text}");
        };
        for size in [0, 1000, u64::MAX, 1 << 63] {
            refused(OpenOptions::default(), size);
        }
        refused(READ_ONLY, 8 * BLOCK);
        refused(OpenOptions { block_size: 4096, ..OpenOptions::default() }, 4096 + 512);
        let ram = crate::RamBackend::new(1 << 20, false).unwrap();
        assert!(ram.resize(2 << 20).unwrap_err().to_string().contains("keeps the size"));
    }
}
