//! Windows: rings and doorbells in guest memory, in one piece and in several.

use super::{PAGE, byte_at, bytes_of, copy_of, file, mapped, space};
use crate::error::DmaError;
use crate::memory::Access;

const RW: Access = Access::READ_WRITE;

#[test]
fn entries_and_dwords_work_across_pieces() {
    let fd = file(7, 4);
    let mut space = space();
    // Two pages in the wrong order, and a first part of which only the end is used.
    space.map(0, PAGE, 2 * PAGE, RW, copy_of(&fd)).expect("map");
    space.map(PAGE, 2 * PAGE, 0, RW, copy_of(&fd)).expect("map");
    let mut reader = space.handle().reader();
    let window = reader.snapshot().window(PAGE - 32, 4096, RW).expect("window");
    assert_eq!(window.len(), 4096);
    let entry = window.read_entry64(0).expect("inside");
    let expected = [bytes_of(&fd, 3 * PAGE - 32, 32), bytes_of(&fd, 0, 32)].concat();
    assert_eq!(entry.to_vec(), expected);
    assert_eq!(window.load_u32(28).map(u32::to_le_bytes).expect("inside").to_vec(), expected[28..32]);
    assert_eq!(window.load_u32(32).map(u32::to_le_bytes).expect("inside").to_vec(), expected[32..36]);
    window.write_cqe(24, [1, 2, 3, 4]).expect("inside");
    assert_eq!(bytes_of(&fd, 3 * PAGE - 8, 8), [1, 0, 0, 0, 2, 0, 0, 0]);
    assert_eq!(bytes_of(&fd, 0, 8), [3, 0, 0, 0, 4, 0, 0, 0]);
    window.store_u32(4092, 0x0102_0304).expect("the last one");
    assert_eq!(bytes_of(&fd, PAGE * 4 / 4 - 36, 4), [4, 3, 2, 1]);
    window.write_bytes(30, &[9; 4]).expect("inside");
    let mut back = [0; 6];
    window.read_bytes(29, &mut back).expect("inside");
    assert_eq!(back[1..5], [9; 4]);
    window.prefetch(0);
    window.prefetch(usize::MAX);
}

#[test]
fn nothing_outside_of_a_window_is_reached() {
    let (_space, fd, mut reader) = mapped(0, 2);
    let window = reader.snapshot().window(0, 128, RW).expect("window");
    for offset in [65, 128, 4096, usize::MAX - 3, usize::MAX] {
        assert!(matches!(window.read_entry64(offset), Err(DmaError::OutOfBounds { .. })), "{offset}");
    }
    for offset in [128, usize::MAX - 3] {
        assert!(matches!(window.load_u32(offset), Err(DmaError::OutOfBounds { .. })));
        assert!(matches!(window.store_u32(offset, 0), Err(DmaError::OutOfBounds { .. })));
        assert!(matches!(window.write_cqe(offset, [0; 4]), Err(DmaError::OutOfBounds { .. })));
    }
    assert!(matches!(window.write_cqe(116, [0; 4]), Err(DmaError::OutOfBounds { .. })));
    assert_eq!(window.write_cqe(112, [0; 4]), Ok(()));
    assert_eq!(bytes_of(&fd, 128, 1)[0], byte_at(7, 128));
    assert_eq!(window.load_u32(2), Err(DmaError::Misaligned { at: 2 }));
    let empty = reader.snapshot().window(0, 0, RW).expect("window");
    assert!(empty.is_empty() && empty.read_entry64(0).is_err() && empty.load_u32(0).is_err());
    assert_eq!(empty.read_bytes(0, &mut []), Ok(()));
}

#[test]
fn a_window_allows_what_it_was_made_for() {
    let (mut space, fd, mut reader) = mapped(0, 1);
    space.map(PAGE, PAGE, 0, Access::READ, copy_of(&fd)).expect("map");
    let submission = reader.snapshot().window(PAGE, 64, Access::READ).expect("window");
    assert_eq!(submission.store_u32(0, 1), Err(DmaError::WrongDirection));
    assert_eq!(submission.write_bytes(0, &[1]), Err(DmaError::WrongDirection));
    assert!(submission.read_entry64(0).is_ok());
    let completion = reader.snapshot().window(0, 64, Access::WRITE).expect("window");
    assert_eq!(completion.load_u32(0), Err(DmaError::WrongDirection));
    assert_eq!(completion.read_entry64(0), Err(DmaError::WrongDirection));
    assert!(matches!(reader.snapshot().window(PAGE, 64, RW), Err(DmaError::AccessDenied { .. })));
    assert!(matches!(reader.snapshot().window(PAGE, 8192, Access::READ), Err(DmaError::NotMapped { .. })));
}

#[test]
fn a_dword_can_never_lie_across_two_pieces() {
    let fd = file(7, 4);
    let mut space = space();
    space.map(0, 6, 0, RW, copy_of(&fd)).expect("map");
    space.map(6, 64, 512, RW, copy_of(&fd)).expect("map");
    space.map(PAGE, PAGE, 2, RW, copy_of(&fd)).expect("map");
    let mut reader = space.handle().reader();
    let snapshot = reader.snapshot();
    assert_eq!(snapshot.window(0, 64, RW).map(drop), Err(DmaError::Misaligned { at: 6 }));
    assert_eq!(snapshot.window(2, 4, RW).map(drop), Err(DmaError::Misaligned { at: 2 }));
    assert_eq!(snapshot.window(PAGE, 64, RW).map(drop), Err(DmaError::Misaligned { at: PAGE }));
    let short = snapshot.window(0, 6, RW).expect("one piece");
    assert!(matches!(short.load_u32(4), Err(DmaError::OutOfBounds { .. })));
}
