use std::collections::VecDeque;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use nvmet_block::{Backend, BackendError, Features, Geometry, IoError};
use nvmet_dma::LoopbackMemory;
use nvmet_spec::command::NvmOpcode;

use super::*;
use crate::io::decode::decode;
use crate::namespace::NamespaceConfig;

const BASE: u64 = LoopbackMemory::IOVA;
const BLOCKS: u64 = 1000;
const MDTS: u64 = 64 << 10;

/// A backend that has no queue: the test has one of its own.
struct Described(Features);

impl Backend for Described {
    fn geometry(&self) -> Geometry {
        Geometry {
            size: BLOCKS * 512,
            min_block: 512,
            preferred_block: 512,
            physical_block: 512,
            optimal_io: 0,
            read_only: false,
        }
    }

    fn features(&self) -> Features {
        self.0
    }

    fn open_queue(&self, _: u32) -> Result<Box<dyn IoQueue>, BackendError> {
        Err(BackendError::Spec { spec: String::new(), why: "it is only described".into() })
    }

    fn sync(&self) -> Result<(), IoError> {
        Ok(())
    }

    fn describe(&self) -> String {
        "described".into()
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Seen {
    Read(u64, usize),
    Write(u64, usize, bool),
    Compare(u64, usize),
    Zeroes(u64, u64, bool, bool),
    Deallocate(u64, u64),
    Flush,
}

/// Notes what it is given and answers as it was told to; then with success.
#[derive(Default)]
struct Recorder {
    seen: Vec<Seen>,
    tags: Vec<u64>,
    answers: VecDeque<Submitted>,
}

impl IoQueue for Recorder {
    fn submit(&mut self, tag: u64, op: Op<'_>) -> Submitted {
        assert_eq!(tag as u32, 77);
        self.tags.push(tag);
        let answer = self.answers.pop_front().unwrap_or(Submitted::Done(Ok(())));
        if answer != Submitted::Full {
            self.seen.push(match op {
                Op::Read { offset, data } => Seen::Read(offset, data.len()),
                Op::Write { offset, data, fua } => Seen::Write(offset, data.len(), fua),
                Op::Compare { offset, data } => Seen::Compare(offset, data.len()),
                Op::WriteZeroes { offset, len, deallocate, fua } => {
                    Seen::Zeroes(offset, len, deallocate, fua)
                }
                Op::Deallocate { offset, len } => Seen::Deallocate(offset, len),
                Op::Flush => Seen::Flush,
            });
        }
        answer
    }

    fn kick(&mut self) {}

    fn reap(&mut self, _: &mut dyn FnMut(u64, Result<(), IoError>)) {}

    fn ready(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn in_flight(&self) -> usize {
        0
    }

    fn cancel(&mut self, _: u64) {}
}

struct Rig {
    memory: LoopbackMemory,
    namespace: Namespace,
    queue: Recorder,
}

impl Rig {
    fn new() -> Self {
        Self::with(Features { volatile_write_cache: true, ..Features::default() }, false)
    }

    fn with(features: Features, read_only: bool) -> Self {
        let config = NamespaceConfig { read_only, ..NamespaceConfig::new(Arc::new(Described(features))) };
        let memory = LoopbackMemory::new(1 << 20).unwrap();
        Self { memory, namespace: Namespace::new(1, config).unwrap(), queue: Recorder::default() }
    }

    fn issue(&mut self, sqe: &Sqe, skip: u32) -> Issued {
        let mut reader = self.memory.handle().reader();
        let mut segments = SegmentBuf::new(1024, 64 << 20);
        let mut context = Context {
            snapshot: reader.snapshot(),
            segments: &mut segments,
            page_size: 4096,
            max_transfer: MDTS,
        };
        let command = decode(sqe).unwrap();
        let request = Request { command: &command, sqe, tag: 77, skip };
        issue(request, &self.namespace, &mut self.queue, &mut context)
    }

    fn status(&mut self, sqe: &Sqe) -> Status {
        self.issue(sqe, 0).status
    }

    /// A Dataset Management command for `ranges`, to deallocate.
    fn dsm(&self, ranges: &[(u64, u32)]) -> Sqe {
        for (at, &(slba, nlb)) in (0..).step_by(16).zip(ranges) {
            let range = DsmRange { cattr: 0, nlb, slba };
            self.memory.memory().write_bytes(at, range.as_bytes()).unwrap();
        }
        let mut sqe = rw(NvmOpcode::DatasetManagement, 0, 1);
        (sqe.cdw10, sqe.cdw11, sqe.cdw12) = (ranges.len() as u32 - 1, 4, 0);
        sqe
    }
}

fn rw(opcode: NvmOpcode, slba: u64, blocks: u32) -> Sqe {
    let mut sqe = Sqe::new(opcode, 1, 1);
    sqe.set_slba(slba);
    sqe.cdw12 = blocks - 1;
    sqe.prp1 = BASE;
    sqe.prp2 = BASE + 0x1000;
    sqe
}

#[test]
fn blocks_become_bytes() {
    let mut rig = Rig::new();
    let mut fua = rw(NvmOpcode::Write, 9, 2);
    fua.cdw12 |= 1 << 30;
    for sqe in
        [rw(NvmOpcode::Read, 3, 1), fua, rw(NvmOpcode::Compare, 999, 1), rw(NvmOpcode::WriteZeroes, 0, 1000)]
    {
        assert_eq!(rig.issue(&sqe, 0), Issued { pending: 0, status: Status::SUCCESS, next: 1, full: false });
    }
    let zeroes = Seen::Zeroes(0, 512_000, false, false);
    let seen = [Seen::Read(1536, 512), Seen::Write(4608, 1024, true), Seen::Compare(511_488, 512), zeroes];
    assert_eq!(rig.queue.seen, seen);
}

#[test]
fn a_range_beyond_the_namespace_is_lba_out_of_range() {
    let opcodes = [NvmOpcode::Read, NvmOpcode::Write, NvmOpcode::Compare, NvmOpcode::WriteZeroes];
    for opcode in opcodes {
        let mut rig = Rig::new();
        for (slba, blocks) in
            [(999, 2), (1000, 1), (u64::MAX, 1), (u64::MAX - 7, 8), (u64::MAX - 6, 8), (1 << 55, 1)]
        {
            let status = rig.status(&rw(opcode, slba, blocks));
            assert_eq!(status, Status::LBA_OUT_OF_RANGE.with_dnr(), "{opcode:?} {slba} {blocks}");
        }
        assert_eq!(rig.queue.seen, []);
    }
}

#[test]
fn a_transfer_beyond_mdts_is_an_invalid_field() {
    let mut rig = Rig::new();
    let (most, more) = (MDTS as u32 / 512, MDTS as u32 / 512 + 1);
    let list: Vec<u8> = (0..16_u64).flat_map(|page| (BASE + page * 4096).to_le_bytes()).collect();
    rig.memory.memory().write_bytes(0x1000, &list).unwrap();
    for opcode in [NvmOpcode::Read, NvmOpcode::Write, NvmOpcode::Compare] {
        assert_eq!(rig.status(&rw(opcode, 0, most)), Status::SUCCESS);
        assert_eq!(rig.status(&rw(opcode, 0, more)), Status::INVALID_FIELD.with_dnr());
    }
    assert_eq!(rig.status(&rw(NvmOpcode::WriteZeroes, 0, more)), Status::SUCCESS, "it transfers nothing");
    assert_eq!(rig.queue.seen.len(), 4);
}

#[test]
fn a_read_only_namespace_refuses_whatever_changes_it() {
    let mut rig = Rig::with(Features::default(), true);
    let protected = Status::NAMESPACE_WRITE_PROTECTED.with_dnr();
    assert_eq!(rig.status(&rw(NvmOpcode::Write, 0, 1)), protected);
    assert_eq!(rig.status(&rw(NvmOpcode::WriteZeroes, 0, 1)), protected);
    let dsm = rig.dsm(&[(0, 1)]);
    assert_eq!(rig.status(&dsm), protected);
    assert_eq!(rig.status(&rw(NvmOpcode::Read, 0, 1)), Status::SUCCESS);
    assert_eq!(rig.status(&rw(NvmOpcode::Compare, 0, 1)), Status::SUCCESS);
    assert_eq!(rig.status(&Sqe::new(NvmOpcode::Flush, 1, 1)), Status::SUCCESS);
}

#[test]
fn a_flush_reaches_a_backend_that_has_a_cache() {
    let flush = Sqe::new(NvmOpcode::Flush, 1, 1);
    let mut rig = Rig::new();
    rig.queue.answers.push_back(Submitted::Pending);
    assert_eq!(rig.issue(&flush, 0).pending, 1);
    assert_eq!(rig.queue.seen, [Seen::Flush]);
    let mut rig = Rig::with(Features::default(), false);
    assert_eq!(rig.issue(&flush, 0), Issued::done(Status::SUCCESS));
    assert_eq!(rig.queue.seen, []);
}

#[test]
fn a_deallocation_of_256_ranges_goes_on_where_the_backend_was_full() {
    let mut rig = Rig::new();
    let ranges: Vec<(u64, u32)> = (0..256).map(|at| (at * 3, 2)).collect();
    let dsm = rig.dsm(&ranges);
    let (mut skip, mut pending, mut attempts) = (0, 0, 0);
    loop {
        attempts += 1;
        rig.queue.answers = [Submitted::Pending; 100].into_iter().chain([Submitted::Full]).collect();
        let issued = rig.issue(&dsm, skip);
        (skip, pending) = (issued.next, pending + issued.pending);
        if !issued.full {
            break;
        }
    }
    assert_eq!((skip, pending, attempts), (256, 256, 3));
    rig.queue.tags.sort_unstable();
    rig.queue.tags.dedup();
    assert_eq!(rig.queue.tags.len(), 256, "a tag is in flight once");
    let expected: Vec<Seen> =
        ranges.iter().map(|&(slba, nlb)| Seen::Deallocate(slba * 512, u64::from(nlb) * 512)).collect();
    assert_eq!(rig.queue.seen, expected);
}

#[test]
fn one_range_out_of_range_and_none_is_deallocated() {
    let mut rig = Rig::new();
    for bad in [(1000, 1), (999, 2), (u64::MAX, 1), (u64::MAX - 1, u32::MAX)] {
        let dsm = rig.dsm(&[(0, 1), (5, 5), bad]);
        assert_eq!(rig.status(&dsm), Status::LBA_OUT_OF_RANGE.with_dnr());
    }
    let dsm = rig.dsm(&[(0, 0), (7, 1), (1000, 0)]);
    assert_eq!(rig.status(&dsm), Status::SUCCESS, "a range of none is no range");
    assert_eq!(rig.queue.seen, [Seen::Deallocate(7 * 512, 512)]);
}

#[test]
fn hints_are_accepted_and_forgotten() {
    let mut rig = Rig::with(Features::default(), true);
    let mut hint = rig.dsm(&[(u64::MAX, 1)]);
    (hint.cdw11, hint.prp1) = (3, 1);
    assert_eq!(rig.issue(&hint, 0), Issued { pending: 0, status: Status::SUCCESS, next: 0, full: false });
}

#[test]
fn the_first_failure_is_the_command_s_status() {
    let mut rig = Rig::new();
    let dsm = rig.dsm(&[(0, 1), (1, 1), (2, 1), (3, 1)]);
    let failed = |error| Submitted::Done(Err(error));
    rig.queue.answers =
        [Submitted::Pending, failed(IoError::NoSpace), failed(IoError::Internal), Submitted::Pending].into();
    let issued = rig.issue(&dsm, 0);
    assert_eq!(issued, Issued { pending: 2, status: Status::CAPACITY_EXCEEDED, next: 4, full: false });
}

#[test]
fn data_out_of_reach_never_gets_to_the_backend() {
    let mut rig = Rig::new();
    for opcode in [NvmOpcode::Read, NvmOpcode::Write, NvmOpcode::Compare] {
        let mut sqe = rw(opcode, 0, 1);
        sqe.prp1 = 0x1000;
        assert_eq!(rig.status(&sqe), Status::DATA_TRANSFER_ERROR);
        sqe.prp1 = BASE + 2;
        assert_eq!(rig.status(&sqe), Status::PRP_OFFSET_INVALID.with_dnr());
    }
    let mut dsm = rig.dsm(&[(0, 1)]);
    dsm.prp1 = 0x1000;
    assert_eq!(rig.status(&dsm), Status::DATA_TRANSFER_ERROR);
    assert_eq!(rig.queue.seen, []);
}

#[test]
fn every_error_of_a_backend_has_a_status_of_its_own_kind() {
    use nvmet_block::Direction::{Read, Write};
    let pairs = [
        (IoError::Media(Read), Status::UNRECOVERED_READ_ERROR),
        (IoError::Media(Write), Status::WRITE_FAULT),
        (IoError::CompareFailed, Status::COMPARE_FAILURE),
        (IoError::NoSpace, Status::CAPACITY_EXCEEDED),
        (IoError::ReadOnly, Status::NAMESPACE_WRITE_PROTECTED),
        (IoError::Invalid, Status::INVALID_FIELD),
        (IoError::OutOfRange, Status::LBA_OUT_OF_RANGE),
        (IoError::Unsupported, Status::INVALID_OPCODE),
        (IoError::Retry, Status::INTERNAL_ERROR),
        (IoError::Gone, Status::NAMESPACE_NOT_READY),
        (IoError::Reserved, Status::RESERVATION_CONFLICT),
        (IoError::Integrity, Status::GUARD_CHECK_ERROR),
        (IoError::Aborted, Status::ABORT_REQUESTED),
        (IoError::Internal, Status::INTERNAL_ERROR),
    ];
    for (error, status) in pairs {
        let mut rig = Rig::new();
        rig.queue.answers.push_back(Submitted::Done(Err(error)));
        let got = rig.status(&rw(NvmOpcode::Read, 0, 1));
        assert!(got.is(status), "{error:?}: {got}");
        assert!(!(error == IoError::Retry && got.dnr()), "a temporary failure is worth another try");
    }
}

#[test]
fn only_the_direction_of_user_data_counts() {
    let blocks = Blocks { slba: 1, nlb: 4 };
    assert_eq!(transferred(&IoCommand::Read(blocks), 9), (2048, 0));
    assert_eq!(transferred(&IoCommand::Compare(blocks), 12), (16384, 0));
    assert_eq!(transferred(&IoCommand::Write(blocks, true), 9), (0, 2048));
    let zeroes = IoCommand::WriteZeroes { blocks, deallocate: true, fua: false };
    for command in [IoCommand::Flush, zeroes, IoCommand::DatasetManagement { ranges: 1, deallocate: true }] {
        assert_eq!(transferred(&command, 9), (0, 0));
    }
}
