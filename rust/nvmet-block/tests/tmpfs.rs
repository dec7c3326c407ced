//! Files on tmpfs, which are served through a mapping: holes, full file systems, files cut short, punches.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, ScopedJoinHandle};

use nvmet_block::{Backend, FileBackend, IoError, IoQueue, Op, OpenOptions, Submitted};
use nvmet_dma::{Direction, DmaReader, LoopbackMemory, SegmentBuf};
use proptest::prelude::*;
use rustix::fs::FallocateFlags;
use tempfile::TempDir;

const CHUNK: u64 = 64 << 10;
const ROOM: usize = 4 << 20;

/// A directory on tmpfs, or a loud word and none.
fn directory() -> Option<TempDir> {
    let directory = tempfile::tempdir_in("/dev/shm").ok();
    if directory.is_none() {
        eprintln!("SKIPPED: /dev/shm is not there");
    }
    directory
}

fn image(directory: &Path, size: u64) -> PathBuf {
    let path = directory.join("image");
    File::create(&path).unwrap().set_len(size).unwrap();
    path
}

fn open(path: &Path) -> FileBackend {
    FileBackend::open(path, OpenOptions::default()).unwrap()
}

fn writer(path: &Path) -> File {
    File::options().read(true).write(true).open(path).unwrap()
}

fn blocks(path: &Path) -> u64 {
    fs::metadata(path).unwrap().blocks()
}

/// A queue with guest memory of its own.
struct Drive {
    guest: LoopbackMemory,
    reader: DmaReader,
    room: SegmentBuf,
    queue: Box<dyn IoQueue>,
}

impl Drive {
    fn new(backend: &FileBackend) -> Self {
        let guest = LoopbackMemory::new(ROOM).unwrap();
        let reader = guest.handle().reader();
        Self { guest, reader, room: SegmentBuf::new(1024, ROOM), queue: backend.open_queue(8).unwrap() }
    }

    fn finish(queue: &mut dyn IoQueue, submitted: Submitted) -> Result<(), IoError> {
        let mut answer = match submitted {
            Submitted::Done(result) => Some(result),
            Submitted::Pending => None,
            Submitted::Full => panic!("an empty queue is full"),
        };
        while answer.is_none() {
            queue.kick();
            queue.reap(&mut |_, result| answer = Some(result));
        }
        answer.unwrap()
    }

    /// Runs an operation on the first `len` bytes of guest memory, in segments of at most `piece`.
    fn run(
        &mut self,
        to_guest: bool,
        len: usize,
        op: impl Fn(nvmet_dma::Segments<'_>) -> Op<'_>,
    ) -> Result<(), IoError> {
        let direction = if to_guest { Direction::ToGuest } else { Direction::FromGuest };
        let mut builder = self.room.begin(self.reader.snapshot(), direction);
        builder.push(LoopbackMemory::IOVA, len).unwrap();
        let submitted = self.queue.submit(1, op(builder.finish()));
        Self::finish(self.queue.as_mut(), submitted)
    }

    fn read(&mut self, offset: u64, len: usize) -> Result<Vec<u8>, IoError> {
        self.guest.memory().write_bytes(0, &vec![0xa5; len]).unwrap();
        self.run(true, len, |data| Op::Read { offset, data })?;
        let mut bytes = vec![0; len];
        self.guest.memory().read_bytes(0, &mut bytes).unwrap();
        Ok(bytes)
    }

    fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<(), IoError> {
        self.guest.memory().write_bytes(0, bytes).unwrap();
        self.run(false, bytes.len(), |data| Op::Write { offset, data, fua: false })
    }

    fn compare(&mut self, offset: u64, bytes: &[u8]) -> Result<(), IoError> {
        self.guest.memory().write_bytes(0, bytes).unwrap();
        self.run(false, bytes.len(), |data| Op::Compare { offset, data })
    }

    fn zero(&mut self, offset: u64, len: u64, deallocate: bool) -> Result<(), IoError> {
        self.run(false, 0, |_| Op::WriteZeroes { offset, len, deallocate, fua: false })
    }

    fn deallocate(&mut self, offset: u64, len: u64) -> Result<(), IoError> {
        self.run(false, 0, |_| Op::Deallocate { offset, len })
    }
}

/// Bytes that tell where they belong: every eight of them are their offset, mixed with a version.
fn stamp(offset: u64, len: usize, version: u64) -> Vec<u8> {
    (offset..offset + len as u64).step_by(8).flat_map(|at| (at << 16 | version).to_le_bytes()).collect()
}

fn words(bytes: &[u8]) -> impl Iterator<Item = u64> {
    bytes.chunks_exact(8).map(|word| u64::from_le_bytes(word.try_into().unwrap()))
}

fn punch(file: &File, offset: u64, len: u64) {
    rustix::fs::fallocate(file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, offset, len).unwrap();
}

#[test]
fn a_hole_read_through_the_drive_allocates_nothing() {
    let Some(directory) = directory() else { return };
    let path = image(directory.path(), 16 << 20);
    let backend = open(&path);
    let mut drive = Drive::new(&backend);
    for offset in (0..16 << 20).step_by(1 << 20) {
        assert_eq!(drive.read(offset, 1 << 20), Ok(vec![0; 1 << 20]));
        assert_eq!(drive.compare(offset, &[0; 4096]), Ok(()));
    }
    assert_eq!(blocks(&path), 0);
    // With a chunk that is mapped, and one that is not quite full.
    assert_eq!(drive.write(CHUNK, &stamp(CHUNK, CHUNK as usize, 1)), Ok(()));
    assert_eq!(drive.write(4 * CHUNK, &stamp(4 * CHUNK, CHUNK as usize - 4096, 1)), Ok(()));
    assert_eq!(drive.read(CHUNK, CHUNK as usize), Ok(stamp(CHUNK, CHUNK as usize, 1)));
    let before = blocks(&path);
    assert!(before <= (2 * CHUNK) / 512, "at most the last page came with the mapping: {before}");
    for _ in 0..20 {
        for offset in (0..16 << 20).step_by(CHUNK as usize) {
            drive.read(offset, CHUNK as usize).unwrap();
        }
    }
    assert_eq!(blocks(&path), before);
    // What was punched is a hole again.
    assert_eq!(drive.deallocate(CHUNK, CHUNK), Ok(()));
    let before = blocks(&path);
    assert_eq!(drive.read(CHUNK, CHUNK as usize), Ok(vec![0; CHUNK as usize]));
    assert_eq!(blocks(&path), before);
}

#[test]
fn what_is_written_through_the_drive_is_in_the_file() {
    let Some(directory) = directory() else { return };
    let path = image(directory.path(), (4 << 20) + 512);
    fs::write(&path, vec![7; (4 << 20) + 512]).unwrap();
    let backend = open(&path);
    let mut drive = Drive::new(&backend);
    let old = fs::metadata(&path).unwrap().mtime_nsec();
    let mut wanted = vec![7; (4 << 20) + 512];
    // In chunks, across them, and in the last pages, which are never mapped.
    for (offset, len) in [
        (0, 4096),
        (512, 512),
        (CHUNK - 512, 1024),
        (1 << 20, 200 << 10),
        (4 << 20, 512),
        ((4 << 20) - 4096, 4608),
    ] {
        let bytes = stamp(offset, len, 3);
        assert_eq!(drive.write(offset, &bytes), Ok(()));
        wanted[offset as usize..offset as usize + len].copy_from_slice(&bytes);
        assert_eq!(drive.read(offset, len), Ok(bytes.clone()));
        assert_eq!(drive.compare(offset, &bytes), Ok(()));
        let mut other = bytes;
        other[len - 1] ^= 1;
        assert_eq!(drive.compare(offset, &other), Err(IoError::CompareFailed));
    }
    assert_eq!(drive.zero(2 << 20, 8192, false), Ok(()));
    wanted[2 << 20..(2 << 20) + 8192].fill(0);
    assert!(fs::read(&path).unwrap() == wanted);
    assert_eq!(drive.run(false, 0, |_| Op::Flush), Ok(()));
    assert_ne!(fs::metadata(&path).unwrap().mtime_nsec(), old, "backups see that it changed");
    assert_eq!(fs::metadata(&path).unwrap().len(), (4 << 20) + 512);
}

#[test]
fn a_read_only_file_is_read() {
    let Some(directory) = directory() else { return };
    let path = image(directory.path(), 1 << 20);
    fs::write(&path, stamp(0, 1 << 20, 1)).unwrap();
    let options = OpenOptions { read_only: true, ..OpenOptions::default() };
    let backend = FileBackend::open(&path, options).unwrap();
    let mut drive = Drive::new(&backend);
    assert_eq!(drive.read(4096, 8192), Ok(stamp(4096, 8192, 1)));
    assert_eq!(drive.write(0, &[1; 512]), Err(IoError::ReadOnly));
    assert_eq!(drive.zero(0, 512, false), Err(IoError::ReadOnly));
}

#[test]
fn a_file_too_large_to_map_is_served_all_the_same() {
    let Some(directory) = directory() else { return };
    let size = 1 << 50;
    let path = image(directory.path(), size);
    let backend = open(&path);
    let mut drive = Drive::new(&backend);
    for offset in [0, size / 2, size - 65536] {
        assert_eq!(drive.write(offset, &stamp(0, 65536, 1)), Ok(()));
        assert_eq!(drive.read(offset, 65536), Ok(stamp(0, 65536, 1)));
    }
}

/// A tmpfs of its own, gone when dropped.
struct SmallFs(TempDir);

impl SmallFs {
    fn new(size: &str) -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={size}"), "none"])
            .arg(directory.path())
            .output()
            .is_ok_and(|output| output.status.success());
        if !mounted {
            eprintln!("SKIPPED: no file system can be mounted here (it takes root)");
        }
        mounted.then_some(Self(directory))
    }
}

impl Drop for SmallFs {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.0.path()).status();
    }
}

#[test]
fn a_full_tmpfs_is_no_space_and_keeps_what_was_acknowledged() {
    let Some(small) = SmallFs::new("2M") else { return };
    let path = image(small.0.path(), 8 << 20);
    let backend = open(&path);
    let mut drive = Drive::new(&backend);
    let mut written = Vec::new();
    // Twice over, so that the second time what there is goes through the mapping.
    for version in 1..3 {
        written.clear();
        for offset in (0..8 << 20).step_by(16 << 10) {
            match drive.write(offset, &stamp(offset, 16 << 10, version)) {
                Ok(()) => written.push((offset, version)),
                Err(error) => assert_eq!(error, IoError::NoSpace),
            }
        }
        assert!(!written.is_empty() && written.len() < 512);
    }
    let file = writer(&path);
    let mut bytes = vec![0; 16 << 10];
    for (offset, version) in written {
        let wanted = stamp(offset, 16 << 10, version);
        assert!(drive.read(offset, 16 << 10).unwrap() == wanted, "at {offset}");
        file.read_exact_at(&mut bytes, offset).unwrap();
        assert!(bytes == wanted, "at {offset}");
    }
}

#[test]
fn a_page_that_cannot_be_had_back_is_no_space_and_no_write_is_lost() {
    let Some(small) = SmallFs::new("2M") else { return };
    let path = image(small.0.path(), 1 << 20);
    fs::write(&path, vec![9; 1 << 20]).unwrap();
    let backend = open(&path);
    let mut drive = Drive::new(&backend);
    assert_eq!(drive.write(0, &stamp(0, 4096, 1)), Ok(()));
    assert_eq!(drive.read(CHUNK, CHUNK as usize), Ok(vec![9; CHUNK as usize]));
    // Somebody else takes pages out of it that the drive takes for there, and fills the file system.
    let file = writer(&path);
    punch(&file, CHUNK, CHUNK);
    let filler = small.0.path().join("filler");
    let _ = fs::write(&filler, vec![1; 4 << 20]);
    assert_eq!(drive.write(CHUNK, &stamp(CHUNK, 8192, 2)), Err(IoError::NoSpace));
    assert_eq!(drive.read(CHUNK, 8192), Ok(vec![0; 8192]));
    assert_eq!(drive.write(4096, &stamp(4096, 4096, 3)), Ok(()), "there is room for what is there");
    fs::remove_file(filler).unwrap();
    assert_eq!(drive.write(CHUNK, &stamp(CHUNK, 8192, 4)), Ok(()));
    let mut bytes = vec![0; 8192];
    for (offset, len, version) in [(0, 4096, 1), (4096, 4096, 3), (CHUNK, 8192, 4)] {
        file.read_exact_at(&mut bytes[..len], offset).unwrap();
        assert!(bytes[..len] == stamp(offset, len, version), "at {offset}");
        assert!(drive.read(offset, len).unwrap() == stamp(offset, len, version), "at {offset}");
    }
}

#[test]
fn a_file_cut_short_under_load_gives_errors_and_never_wrong_data() {
    const SIZE: u64 = 4 << 20;
    let Some(directory) = directory() else { return };
    // In the middle, in the middle of a page, in the last page.
    for cut in [SIZE / 2, SIZE / 2 + 512, SIZE - 512, 0] {
        let path = image(directory.path(), SIZE);
        fs::write(&path, stamp(0, SIZE as usize, 1)).unwrap();
        let backend = open(&path);
        let (reads, is_cut) = (AtomicU64::new(0), AtomicBool::new(false));
        thread::scope(|scope| {
            let readers = [1_u64, 2, 3].map(|seed| {
                let (backend, reads, is_cut) = (&backend, &reads, &is_cut);
                scope.spawn(move || {
                    let mut drive = Drive::new(backend);
                    let mut at = seed;
                    let mut after = 0;
                    while after < 3000 {
                        after += u64::from(is_cut.load(Ordering::Relaxed));
                        at = at.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(seed);
                        let len = 512 << (at >> 62);
                        // Half of them where the file will end.
                        let near = (cut + 4096).saturating_sub(at % 8192) / 512;
                        let around = if at >> 40 & 1 == 0 { at >> 20 } else { near };
                        let offset = around * 512 % (SIZE - len);
                        let was_cut = is_cut.load(Ordering::SeqCst);
                        match drive.read(offset, len as usize) {
                            Ok(bytes) => {
                                assert!(bytes == stamp(offset, len as usize, 1), "{offset} of {cut}");
                                assert!(!was_cut || offset + len <= cut, "{offset} of {cut}");
                            }
                            Err(error) => {
                                assert_eq!(error, IoError::Media(nvmet_block::Direction::Read));
                                assert!(offset + len > cut);
                            }
                        }
                        reads.fetch_add(1, Ordering::Relaxed);
                    }
                })
            });
            while reads.load(Ordering::Relaxed) < 1000 && !readers.iter().any(ScopedJoinHandle::is_finished) {
                thread::yield_now();
            }
            writer(&path).set_len(cut).unwrap();
            is_cut.store(true, Ordering::SeqCst);
        });
        fs::remove_file(&path).unwrap();
    }
}

#[test]
fn a_write_after_the_file_was_cut_short_is_in_the_file_or_an_error() {
    const SIZE: u64 = 1 << 20;
    let Some(directory) = directory() else { return };
    let path = image(directory.path(), SIZE);
    fs::write(&path, vec![3; SIZE as usize]).unwrap();
    let backend = open(&path);
    let mut drive = Drive::new(&backend);
    // The chunk is mapped.
    assert_eq!(drive.write(SIZE / 2 + 1024, &[4; 4096]), Ok(()));
    let file = writer(&path);
    // The page stays mapped, and what is written behind the end of the file is nowhere.
    file.set_len(SIZE / 2 + 512).unwrap();
    assert_eq!(drive.write(SIZE / 2 + 1024, &[5; 512]), Ok(()));
    assert_eq!(drive.write(SIZE - 8192, &[6; 4096]), Ok(()));
    let mut bytes = [0; 4096];
    file.read_exact_at(&mut bytes[..512], SIZE / 2 + 1024).unwrap();
    assert_eq!(bytes[..512], [5; 512]);
    file.read_exact_at(&mut bytes, SIZE - 8192).unwrap();
    assert_eq!(bytes, [6; 4096]);
}

#[test]
fn a_read_after_the_file_was_cut_short_in_a_page_is_an_error() {
    const SIZE: u64 = 1 << 20;
    let Some(directory) = directory() else { return };
    let path = image(directory.path(), SIZE);
    for (cut, offset) in [(SIZE / 2 + 512, SIZE / 2 + 1024), (SIZE - 1024, SIZE - 512)] {
        fs::write(&path, vec![3; SIZE as usize]).unwrap();
        let backend = open(&path);
        let mut drive = Drive::new(&backend);
        assert_eq!(drive.read(offset, 512), Ok(vec![3; 512]));
        writer(&path).set_len(cut).unwrap();
        assert_eq!(drive.read(offset, 512), Err(IoError::Media(nvmet_block::Direction::Read)));
        assert_eq!(drive.read(cut - 512, 512), Ok(vec![3; 512]));
    }
}

#[test]
fn punches_among_reads_and_writes_never_show_data_that_was_never_there() {
    const SIZE: u64 = 1 << 20;
    let Some(directory) = directory() else { return };
    let path = image(directory.path(), SIZE);
    fs::write(&path, stamp(0, SIZE as usize, 0)).unwrap();
    let backend = open(&path);
    let version = AtomicU64::new(0);
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut drive = Drive::new(&backend);
            for round in 0..4000_u64 {
                let offset = round * 7 % 15 * CHUNK + round % 3 * 4096;
                match round % 3 {
                    0 => drive.deallocate(offset, CHUNK),
                    1 => drive.zero(offset, 4096 + round % 5 * 512, true),
                    _ => drive.zero(offset, 8192, false),
                }
                .unwrap();
            }
            over.store(true, Ordering::Relaxed);
        });
        scope.spawn(|| {
            let mut drive = Drive::new(&backend);
            let mut now = 1;
            while !over.load(Ordering::Relaxed) {
                version.store(now % 60_000, Ordering::SeqCst);
                let offset = now * 11 % 15 * CHUNK;
                drive.write(offset, &stamp(offset, CHUNK as usize, now % 60_000)).unwrap();
                now += 1;
            }
        });
        for seed in 0..2 {
            let (backend, version, over) = (&backend, &version, &over);
            scope.spawn(move || {
                let mut drive = Drive::new(backend);
                let mut round = seed;
                while !over.load(Ordering::Relaxed) {
                    let offset = round * 5 % 240 * 4096;
                    let bytes = drive.read(offset, 8192).unwrap();
                    let newest = version.load(Ordering::SeqCst);
                    for (index, word) in words(&bytes).enumerate() {
                        let at = offset + index as u64 * 8;
                        let fits = word >> 16 == at && (word & 0xffff <= newest || newest < 1000);
                        assert!(word == 0 || fits, "{word:#x} at {at:#x}, newest {newest}");
                    }
                    round += 1;
                }
            });
        }
    });
}

/// One operation on blocks of 512 bytes.
#[derive(Debug, Clone)]
enum Step {
    Write(u64, u64, u8),
    Read(u64, u64),
    Compare(u64, u64),
    Zero(u64, u64, bool),
    Deallocate(u64, u64),
    Flush,
}

const BLOCKS: u64 = 2049;

fn step() -> impl Strategy<Value = Step> {
    let range = || {
        // Anything, and whole chunks.
        prop_oneof![
            (0..BLOCKS, 1..300_u64).prop_map(|(at, len)| (at, len.min(BLOCKS - at))),
            (0..16_u64, 1..4_u64).prop_map(|(at, len)| (at * 128, (len * 128).min(BLOCKS - at * 128))),
        ]
    };
    prop_oneof![
        4 => (range(), any::<u8>()).prop_map(|((at, len), byte)| Step::Write(at, len, byte)),
        4 => range().prop_map(|(at, len)| Step::Read(at, len)),
        1 => range().prop_map(|(at, len)| Step::Compare(at, len)),
        1 => (range(), any::<bool>()).prop_map(|((at, len), deallocate)| Step::Zero(at, len, deallocate)),
        1 => range().prop_map(|(at, len)| Step::Deallocate(at, len)),
        1 => Just(Step::Flush),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn the_drive_is_what_was_written(
        dense in proptest::collection::vec(any::<bool>(), 17),
        steps in proptest::collection::vec((step(), any::<bool>()), 1..80),
    ) {
        let Some(directory) = directory() else { return Ok(()) };
        let path = image(directory.path(), BLOCKS * 512);
        let mut model = vec![0; BLOCKS as usize * 512];
        let file = writer(&path);
        for (chunk, _) in dense.iter().enumerate().filter(|(_, dense)| **dense) {
            let range = chunk * CHUNK as usize..((chunk + 1) * CHUNK as usize).min(model.len());
            model[range.clone()].fill(chunk as u8 + 1);
            file.write_all_at(&model[range.clone()], range.start as u64).unwrap();
        }
        let backend = open(&path);
        let mut drives = [Drive::new(&backend), Drive::new(&backend)];
        for (step, second) in steps {
            let drive = &mut drives[usize::from(second)];
            let bytes = |at: u64, len: u64| (at * 512) as usize..((at + len) * 512) as usize;
            match step {
                Step::Write(at, len, byte) => {
                    model[bytes(at, len)].fill(byte);
                    prop_assert_eq!(drive.write(at * 512, &model[bytes(at, len)]), Ok(()));
                }
                Step::Read(at, len) => {
                    let read = drive.read(at * 512, len as usize * 512).unwrap();
                    prop_assert!(read == model[bytes(at, len)]);
                }
                Step::Compare(at, len) => {
                    let mut data = model[bytes(at, len)].to_vec();
                    prop_assert_eq!(drive.compare(at * 512, &data), Ok(()));
                    data[0] ^= 1;
                    prop_assert_eq!(drive.compare(at * 512, &data), Err(IoError::CompareFailed));
                }
                Step::Zero(at, len, deallocate) => {
                    model[bytes(at, len)].fill(0);
                    prop_assert_eq!(drive.zero(at * 512, len * 512, deallocate), Ok(()));
                }
                Step::Deallocate(at, len) => {
                    model[bytes(at, len)].fill(0);
                    prop_assert_eq!(drive.deallocate(at * 512, len * 512), Ok(()));
                }
                Step::Flush => prop_assert_eq!(drive.run(false, 0, |_| Op::Flush), Ok(())),
            }
        }
        prop_assert!(fs::read(&path).unwrap() == model);
    }
}
