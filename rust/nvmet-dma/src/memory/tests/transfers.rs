//! Segments: splitting, joining, copying, sub-views, discarding.

use super::{PAGE, byte_at, bytes_of, copy_of, file, mapped, space};
use crate::error::DmaError;
use crate::memory::{Access, Direction, SegmentBuf};

#[test]
fn neighbours_are_joined_and_strangers_are_not() {
    let fd = file(1, 8);
    let mut space = space();
    space.map(0, 2 * PAGE, 0, Access::READ_WRITE, copy_of(&fd)).expect("map");
    space.map(2 * PAGE, 2 * PAGE, 2 * PAGE, Access::READ_WRITE, copy_of(&fd)).expect("map");
    space.map(4 * PAGE, PAGE, 6 * PAGE, Access::READ_WRITE, copy_of(&fd)).expect("map");
    let mut reader = space.handle().reader();
    let mut buf = SegmentBuf::new(8, 1 << 20);
    let mut segments = buf.begin(reader.snapshot(), Direction::FromGuest);
    segments.push(100, 4096).expect("push");
    segments.push(4196, 2 * 4096).expect("adjacent in both");
    segments.push(77 * PAGE, 0).expect("an empty range has no address");
    let segments = segments.finish();
    assert_eq!((segments.count(), segments.len()), (1, 3 * 4096));
    let mut segments = buf.begin(reader.snapshot(), Direction::FromGuest);
    segments.push(3 * PAGE, 2 * 4096).expect("push");
    segments.push(2 * PAGE, 512).expect("push");
    let segments = segments.finish();
    assert_eq!((segments.count(), segments.len()), (3, 8704));
    assert!(segments.is_aligned(512) && !segments.is_aligned(1024));
    assert_eq!(segments.iovecs().map(<[_]>::len), Some(3));
}

#[test]
fn a_transfer_that_is_refused_names_the_first_bad_address() {
    let (mut space, fd, mut reader) = mapped(0, 2);
    space.map(2 * PAGE, PAGE, 0, Access::READ, copy_of(&fd)).expect("map");
    space.map(3 * PAGE, PAGE, 0, Access::READ, None).expect("map");
    let mut buf = SegmentBuf::new(2, 10_000);
    let mut push = |iova, len, direction| {
        let mut segments = buf.begin(reader.snapshot(), direction);
        segments.push(iova, len).map(|()| segments.finish().len())
    };
    let from = Direction::FromGuest;
    assert_eq!(push(PAGE, 4096, from), Ok(4096));
    assert_eq!(push(2 * PAGE, 4097, from), Err(DmaError::NotAccessible { iova: 3 * PAGE }));
    assert_eq!(push(4 * PAGE, 1, from), Err(DmaError::NotMapped { iova: 4 * PAGE }));
    assert_eq!(push(u64::MAX, 2, from), Err(DmaError::NotMapped { iova: u64::MAX }));
    let direction = Direction::ToGuest;
    assert_eq!(push(PAGE, 8192, direction), Err(DmaError::AccessDenied { iova: 2 * PAGE, direction }));
    assert_eq!(push(0, 10_001, from), Err(DmaError::TooLong { limit: 10_000 }));
}

#[test]
fn a_transfer_that_wraps_around_the_address_space_is_refused() {
    let fd = file(1, 1);
    let mut space = space();
    space.map(0u64.wrapping_sub(PAGE), PAGE, 0, Access::READ_WRITE, copy_of(&fd)).expect("map");
    space.map(0, PAGE, 0, Access::READ_WRITE, copy_of(&fd)).expect("map");
    let mut reader = space.handle().reader();
    assert_eq!(reader.snapshot().check(u64::MAX, 1, Access::READ), Ok(()));
    let refused = reader.snapshot().check(u64::MAX, 2, Access::READ);
    assert_eq!(refused, Err(DmaError::NotMapped { iova: 0 }));
}

#[test]
fn the_number_of_segments_is_bounded_and_the_buffer_is_used_again() {
    let (_space, _fd, mut reader) = mapped(0, 8);
    let mut buf = SegmentBuf::new(2, usize::MAX);
    for _ in 0..3 {
        let mut segments = buf.begin(reader.snapshot(), Direction::ToGuest);
        segments.push(0, 16).expect("push");
        segments.push(32, 16).expect("push");
        assert_eq!(segments.push(64, 16), Err(DmaError::TooManySegments { limit: 2 }));
        assert_eq!(segments.finish().len(), 32, "what was refused does not count");
    }
}

#[test]
fn copies_go_only_the_way_they_were_resolved_for() {
    let (_space, fd, mut reader) = mapped(0, 1);
    let mut buf = SegmentBuf::new(4, 8192);
    let mut bytes = [0; 8];
    let mut segments = buf.begin(reader.snapshot(), Direction::FromGuest);
    segments.push(3, 64).expect("push");
    assert_eq!(segments.push_bit_bucket(1), Err(DmaError::WrongDirection));
    let segments = segments.finish();
    assert_eq!(segments.write_from(0, &bytes), Err(DmaError::WrongDirection));
    assert_eq!(segments.fill(0), Err(DmaError::WrongDirection));
    segments.read_to(5, &mut bytes).expect("read");
    assert_eq!(bytes.to_vec(), bytes_of(&fd, 8, 8));
    assert_eq!(bytes[0], byte_at(7, 8));
    let whole = bytes_of(&fd, 3, 64);
    assert_eq!(segments.compare_with(0, &whole), Ok(true));
    assert_eq!(segments.compare_with(1, &whole[..63]), Ok(false));
    assert!(matches!(segments.read_to(60, &mut bytes), Err(DmaError::OutOfBounds { .. })));
    assert!(matches!(segments.compare_with(usize::MAX, &whole), Err(DmaError::OutOfBounds { .. })));
    let mut segments = buf.begin(reader.snapshot(), Direction::ToGuest);
    segments.push(3, 64).expect("push");
    let segments = segments.finish();
    assert_eq!(segments.read_to(0, &mut bytes), Err(DmaError::WrongDirection));
    segments.fill(0x5a).expect("fill");
    segments.write_from(62, &[1, 2]).expect("write");
    let mut expected = vec![0x5a; 64];
    expected[62..].copy_from_slice(&[1, 2]);
    assert_eq!(bytes_of(&fd, 3, 64), expected);
    assert_eq!(bytes_of(&fd, 67, 1)[0], byte_at(7, 67));
}

#[test]
fn discarded_bytes_leave_the_neighbours_alone() {
    let (_space, fd, mut reader) = mapped(0, 4);
    let mut buf = SegmentBuf::new(16, 1 << 20);
    let mut segments = buf.begin(reader.snapshot(), Direction::ToGuest);
    segments.push(0, 10).expect("push");
    segments.push_bit_bucket(200_000).expect("push");
    segments.push(10, 10).expect("push");
    let segments = segments.finish();
    assert_eq!((segments.len(), segments.count()), (200_020, 6));
    let data: Vec<u8> = (0..200_020u32).map(|index| index as u8 | 1).collect();
    segments.write_from(0, &data).expect("write");
    assert_eq!(bytes_of(&fd, 0, 10), data[..10]);
    assert_eq!(bytes_of(&fd, 10, 10), data[200_010..]);
    assert_eq!(bytes_of(&fd, 20, 1)[0], byte_at(7, 20));
}

#[test]
fn a_part_of_a_transfer_is_a_transfer() {
    let (_space, fd, mut reader) = mapped(0, 1);
    let mut buf = SegmentBuf::new(16, 4096);
    let mut segments = buf.begin(reader.snapshot(), Direction::FromGuest);
    for iova in [0, 100, 200] {
        segments.push(iova, 10).expect("push");
    }
    let segments = segments.finish();
    let all: Vec<u8> = [0, 100, 200].iter().flat_map(|at| bytes_of(&fd, *at, 10)).collect();
    for from in 0..=30 {
        for len in 0..=30 - from {
            let part = segments.slice(from, len).expect("inside");
            let mut bytes = vec![0; len];
            part.read_to(0, &mut bytes).expect("read");
            assert_eq!(bytes, all[from..from + len]);
            assert_eq!(part.pieces().map(|(_, len)| len).sum::<usize>(), len);
            let rest = part.skip(len / 2).expect("inside");
            rest.read_to(0, &mut bytes[..len - len / 2]).expect("read");
            assert_eq!(bytes[..len - len / 2], all[from + len / 2..from + len]);
            let whole = from % 10 == 0 && (from + len) % 10 == 0;
            assert_eq!(part.iovecs().is_some(), whole || len == 0, "{from} {len}");
        }
        assert!(segments.slice(from, 31 - from).is_err());
    }
    assert!(segments.skip(31).is_err());
}
