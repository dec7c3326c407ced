use nvmet_dma::memory::Direction;
use nvmet_dma::{LoopbackMemory, SegmentBuf};
use proptest::prelude::*;

use super::*;

const BASE: u64 = LoopbackMemory::IOVA;
const SIZE: usize = 1 << 20;

fn data(address: u64, length: u32) -> SglDescriptor {
    SglDescriptor::new(SglType::DataBlock, address, length)
}

fn bucket(length: u32) -> SglDescriptor {
    SglDescriptor::new(SglType::BitBucket, 0, length)
}

fn segment(address: u64, count: u32) -> SglDescriptor {
    SglDescriptor::new(SglType::Segment, address, count * 16)
}

fn last(address: u64, count: u32) -> SglDescriptor {
    SglDescriptor::new(SglType::LastSegment, address, count * 16)
}

fn memory() -> LoopbackMemory {
    let memory = LoopbackMemory::new(SIZE).unwrap();
    let bytes: Vec<u8> = (0..SIZE as u32).step_by(4).flat_map(u32::to_le_bytes).collect();
    memory.memory().write_bytes(0, &bytes).unwrap();
    memory
}

fn put(memory: &LoopbackMemory, at: u64, list: &[SglDescriptor]) {
    memory.memory().write_bytes((at - BASE) as usize, list.as_bytes()).unwrap();
}

fn walk<T>(
    memory: &LoopbackMemory,
    first: &SglDescriptor,
    len: u64,
    direction: Direction,
    then: impl FnOnce(nvmet_dma::Segments<'_>) -> T,
) -> Result<T, Status> {
    let mut reader = memory.handle().reader();
    let mut buf = SegmentBuf::new(1024, 64 << 20);
    let snapshot = reader.snapshot();
    let mut builder = buf.begin(snapshot, direction);
    map(snapshot, &mut builder, first, len, direction == Direction::ToGuest)?;
    Ok(then(builder.finish()))
}

fn gather(memory: &LoopbackMemory, first: &SglDescriptor, len: u64) -> Result<Vec<u8>, Status> {
    walk(memory, first, len, Direction::FromGuest, |segments| {
        let mut bytes = vec![0; segments.len()];
        segments.read_to(0, &mut bytes).unwrap();
        bytes
    })
}

fn bytes_at(memory: &LoopbackMemory, offset: usize, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    memory.memory().read_bytes(offset, &mut bytes).unwrap();
    bytes
}

const LENGTH_INVALID: Status = Status::DATA_SGL_LENGTH_INVALID.with_dnr();
const SEGMENT_INVALID: Status = Status::INVALID_SGL_SEGMENT_DESCRIPTOR.with_dnr();
const TYPE_INVALID: Status = Status::SGL_DESCRIPTOR_TYPE_INVALID.with_dnr();
const TOO_MANY: Status = Status::INVALID_NUMBER_OF_SGL_DESCRIPTORS.with_dnr();

#[test]
fn one_data_block_needs_no_alignment() {
    let memory = memory();
    for (offset, len) in [(0, 512), (1, 511), (4095, 8193), (13, 1)] {
        let list = data(BASE + offset, len);
        assert_eq!(
            gather(&memory, &list, u64::from(len)),
            Ok(bytes_at(&memory, offset as usize, len as usize))
        );
    }
}

#[test]
fn a_list_may_be_longer_than_the_transfer_but_not_shorter() {
    let memory = memory();
    assert_eq!(gather(&memory, &data(BASE, 8192), 512), Ok(bytes_at(&memory, 0, 512)));
    assert_eq!(gather(&memory, &data(BASE, 511), 512), Err(LENGTH_INVALID));
    assert_eq!(gather(&memory, &data(BASE, 0), 512), Err(LENGTH_INVALID));
    put(&memory, BASE + 0x8000, &[data(BASE, 256), data(BASE, 255)]);
    assert_eq!(gather(&memory, &last(BASE + 0x8000, 2), 512), Err(LENGTH_INVALID));
}

#[test]
fn segments_chain_to_the_last_one() {
    let memory = memory();
    put(&memory, BASE + 0x8000, &[data(BASE + 3, 100), data(BASE + 0x2000, 200), segment(BASE + 0x9010, 2)]);
    put(&memory, BASE + 0x9010, &[data(BASE + 0x3001, 7), last(BASE + 0xa000, 2)]);
    put(&memory, BASE + 0xa000, &[data(BASE, 0), data(BASE + 0x4000, 205)]);
    let expected =
        [(3, 100), (0x2000, 200), (0x3001, 7), (0x4000, 205)].map(|(at, len)| bytes_at(&memory, at, len));
    assert_eq!(gather(&memory, &segment(BASE + 0x8000, 3), 512), Ok(expected.concat()));
}

#[test]
fn a_segment_of_a_pointer_alone_is_a_hop() {
    let memory = memory();
    put(&memory, BASE + 0x8000, &[last(BASE + 0x9000, 1)]);
    put(&memory, BASE + 0x9000, &[data(BASE, 512)]);
    assert_eq!(gather(&memory, &segment(BASE + 0x8000, 1), 512), Ok(bytes_at(&memory, 0, 512)));
}

#[test]
fn a_bit_bucket_takes_data_to_the_host_and_none_from_it() {
    let memory = memory();
    put(&memory, BASE + 0x8000, &[data(BASE, 100), bucket(300), data(BASE + 0x1000, 112)]);
    let list = last(BASE + 0x8000, 3);
    let before = bytes_at(&memory, 0, 0x1200);
    let source: Vec<u8> = (0..512).map(|at| (at % 251) as u8).collect();
    walk(&memory, &list, 512, Direction::ToGuest, |segments| segments.write_from(0, &source).unwrap())
        .unwrap();
    assert_eq!(bytes_at(&memory, 0, 100), source[..100]);
    assert_eq!(bytes_at(&memory, 0x1000, 112), source[400..]);
    assert_eq!(bytes_at(&memory, 100, 0xf9c), before[100..0x1000], "nothing else was written");
    assert_eq!(gather(&memory, &list, 512), Err(LENGTH_INVALID), "from the host it has no bytes");
    put(&memory, BASE + 0x8000, &[data(BASE, 400), bucket(300), data(BASE + 0x1000, 112)]);
    let expected = [bytes_at(&memory, 0, 400), bytes_at(&memory, 0x1000, 112)].concat();
    assert_eq!(gather(&memory, &list, 512), Ok(expected));
    assert_eq!(walk(&memory, &bucket(512), 512, Direction::ToGuest, |s| s.len()), Ok(512), "all of it");
    assert_eq!(gather(&memory, &bucket(512), 512), Err(LENGTH_INVALID));
}

#[test]
fn other_types_and_sub_types_are_refused() {
    let memory = memory();
    for bits in 0..=255_u8 {
        let list = SglDescriptor { identifier: bits, ..data(BASE, 512) };
        let expected = match bits {
            0x00 => Ok(bytes_at(&memory, 0, 512)),
            0x10 => Err(LENGTH_INVALID),
            // What the list holds are numbers: a data block of a length that ends up short, or nonsense.
            0x20 | 0x30 => continue,
            _ => Err(TYPE_INVALID),
        };
        assert_eq!(gather(&memory, &list, 512), expected, "{bits:#x}");
        put(&memory, BASE + 0x8000, &[list]);
        assert_eq!(gather(&memory, &last(BASE + 0x8000, 1), 512), expected, "{bits:#x} in a list");
    }
}

#[test]
fn a_pointer_stands_at_the_end_of_a_segment_and_nowhere_else() {
    let memory = memory();
    let at = BASE + 0x8000;
    let error = |list: &[SglDescriptor], first: SglDescriptor| {
        put(&memory, at, list);
        gather(&memory, &first, 512).unwrap_err()
    };
    assert_eq!(error(&[last(BASE, 1), data(BASE, 512)], segment(at, 2)), SEGMENT_INVALID, "in the middle");
    assert_eq!(error(&[data(BASE, 512), data(BASE, 512)], segment(at, 2)), SEGMENT_INVALID, "no pointer");
    assert_eq!(
        error(&[data(BASE, 12), segment(BASE, 1)], last(at, 2)),
        SEGMENT_INVALID,
        "in the last segment"
    );
    for length in [0, 1, 15, 17, 24] {
        let first = SglDescriptor { length, ..last(at, 1) };
        assert_eq!(error(&[data(BASE, 512)], first), SEGMENT_INVALID, "{length} bytes");
    }
}

#[test]
fn lists_are_bounded() {
    let memory = memory();
    let at = BASE + 0x8000;
    put(&memory, at, &[segment(at, 1)]);
    assert_eq!(gather(&memory, &segment(at, 1), 512), Err(TOO_MANY), "a loop of pointers");
    put(&memory, at, &[data(BASE, 0), segment(at, 2)]);
    assert_eq!(gather(&memory, &segment(at, 2), 512), Err(TOO_MANY), "a loop without data");
    assert_eq!(gather(&memory, &last(at, 0x0fff_ffff), 512), Err(TOO_MANY), "a huge segment");
    let list: Vec<SglDescriptor> = (0..1024).map(|index| data(BASE + index * 8, 4)).collect();
    put(&memory, at, &list);
    assert_eq!(gather(&memory, &last(at, 1024), 4096).map(|bytes| bytes.len()), Ok(4096));
    let list: Vec<SglDescriptor> = (0..1025).map(|index| data(BASE + index * 8, 4)).collect();
    put(&memory, at, &list);
    assert_eq!(gather(&memory, &last(at, 1025), 4100), Err(TOO_MANY), "more than the system takes at once");
}

#[test]
fn what_is_not_in_memory_is_a_data_transfer_error() {
    let memory = memory();
    let end = BASE + SIZE as u64;
    let error = Err(Status::DATA_TRANSFER_ERROR);
    assert_eq!(gather(&memory, &data(end - 511, 512), 512), error);
    assert_eq!(gather(&memory, &data(u64::MAX, 512), 512), error);
    assert_eq!(gather(&memory, &last(end - 16, 2), 512), error);
    assert_eq!(gather(&memory, &last(u64::MAX - 15, 2), 512), error);
    assert_eq!(gather(&memory, &segment(u64::MAX - 15, 3), 512), error);
    put(&memory, end - 16, &[data(BASE, 4)]);
    assert_eq!(gather(&memory, &segment(end - 16, 2), 512), error, "the pointer");
}

fn descriptor() -> impl Strategy<Value = SglDescriptor> {
    let place = prop_oneof![9 => (0..SIZE as u64).prop_map(|at| BASE + at), 1 => any::<u64>()];
    let length =
        prop_oneof![6 => 0_u32..600, 3 => (0_u32..20).prop_map(|count| count * 16), 1 => any::<u32>()];
    let identifier = prop_oneof![
        5 => Just(0x00), 2 => Just(0x10), 2 => Just(0x20), 2 => Just(0x30), 1 => any::<u8>()
    ];
    (place, length, identifier).prop_map(|(address, length, identifier)| SglDescriptor {
        address,
        length,
        identifier,
        ..data(0, 0)
    })
}

/// The addresses of a transfer's bytes (None: thrown away), one at a time; None if the list is not a good one.
fn naive(memory: &LoopbackMemory, first: SglDescriptor, len: u64, to_host: bool) -> Option<Vec<Option<u64>>> {
    let mut flat = Vec::new();
    let mut next = Some(first);
    let mut hops = 0;
    while let Some(pointer) = next.take() {
        if !matches!(pointer.identifier, 0x20 | 0x30) {
            flat.push(pointer);
            break;
        }
        hops += 1;
        let count = pointer.length as usize / 16;
        let offset = pointer.address.checked_sub(BASE)? as usize;
        if hops > 256 || !pointer.length.is_multiple_of(16) || count == 0 || offset + count * 16 > SIZE {
            return None;
        }
        let bytes = bytes_at(memory, offset, count * 16);
        let mut list: Vec<SglDescriptor> =
            bytes.chunks(16).map(|bytes| SglDescriptor::read_from_bytes(bytes).unwrap()).collect();
        if pointer.identifier == 0x20 {
            next = list.pop();
            next.filter(|next| matches!(next.identifier, 0x20 | 0x30))?;
        }
        flat.append(&mut list);
    }
    let mut bytes = Vec::new();
    for descriptor in flat {
        let wanted = u64::from(descriptor.length).min(len - bytes.len() as u64);
        match descriptor.identifier {
            0x00 => bytes.extend((0..wanted).map(|at| Some(descriptor.address.wrapping_add(at)))),
            0x10 if to_host => bytes.extend((0..wanted).map(|_| None)),
            0x10 => {}
            _ => return None,
        }
    }
    let reachable = |at: &Option<u64>| at.is_none_or(|at| (BASE..BASE + SIZE as u64).contains(&at));
    (bytes.len() as u64 == len && bytes.iter().all(reachable)).then_some(bytes)
}

proptest! {
    #[test]
    fn a_list_names_the_bytes_that_a_naive_walk_names(
        first in descriptor(),
        lists in prop::collection::vec((0_u64..64, prop::collection::vec(descriptor(), 1..6)), 0..12),
        ends in any::<bool>(),
        len in 1_u64..900,
        to_host in any::<bool>(),
    ) {
        let memory = memory();
        for (at, mut list) in lists {
            if ends {
                // Makes chains that hold together likely.
                *list.last_mut().unwrap() = last(BASE + (at * 7 % 64) * 4096, 1 + at as u32 % 3);
            }
            put(&memory, BASE + at * 4096, &list);
        }
        let first = if ends { segment(first.address / 4096 * 4096 % (1 << 18) + BASE, 1 + first.length % 5) } else { first };
        let direction = if to_host { Direction::ToGuest } else { Direction::FromGuest };
        let walked = walk(&memory, &first, len, direction, |segments| {
            let mut bytes = Vec::new();
            if !to_host {
                bytes.resize(segments.len(), 0);
                segments.read_to(0, &mut bytes).unwrap();
            }
            (segments.len(), bytes)
        });
        let expected = naive(&memory, first, len, to_host);
        prop_assert_eq!(walked.is_ok(), expected.is_some(), "{:?}", walked);
        if let (Ok((total, bytes)), Some(expected)) = (walked, expected) {
            prop_assert_eq!(total as u64, len);
            for (byte, address) in bytes.iter().zip(expected) {
                let offset = (address.unwrap() - BASE) as usize;
                prop_assert_eq!(*byte, bytes_at(&memory, offset, 1)[0]);
            }
        }
    }
}
