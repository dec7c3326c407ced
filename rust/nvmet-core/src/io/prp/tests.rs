use std::collections::HashMap;

use nvmet_dma::memory::Direction;
use nvmet_dma::{LoopbackMemory, SegmentBuf};
use proptest::prelude::*;

use super::*;

const BASE: u64 = LoopbackMemory::IOVA;
const SIZE: usize = 4 << 20;

/// Memory in which every dword is its own offset.
fn numbered() -> LoopbackMemory {
    let memory = LoopbackMemory::new(SIZE).unwrap();
    let bytes: Vec<u8> = (0..SIZE as u32).step_by(4).flat_map(u32::to_le_bytes).collect();
    memory.memory().write_bytes(0, &bytes).unwrap();
    memory
}

fn put(memory: &LoopbackMemory, at: u64, value: u64) {
    memory.memory().write_bytes((at - BASE) as usize, &value.to_le_bytes()).unwrap();
}

/// The bytes that a transfer from the guest takes.
fn gather(memory: &LoopbackMemory, page: u64, prp1: u64, prp2: u64, len: u64) -> Result<Vec<u8>, Status> {
    let mut reader = memory.handle().reader();
    let mut buf = SegmentBuf::new(1024, 64 << 20);
    let snapshot = reader.snapshot();
    let mut builder = buf.begin(snapshot, Direction::FromGuest);
    map(snapshot, &mut builder, page, prp1, prp2, len)?;
    let segments = builder.finish();
    assert_eq!(segments.len() as u64, len);
    let mut bytes = vec![0; len as usize];
    segments.read_to(0, &mut bytes).unwrap();
    Ok(bytes)
}

fn bytes_at(memory: &LoopbackMemory, at: u64, len: u64) -> Vec<u8> {
    let mut bytes = vec![0; len as usize];
    memory.memory().read_bytes((at - BASE) as usize, &mut bytes).unwrap();
    bytes
}

#[test]
fn a_transfer_within_one_page_needs_one_entry() {
    let memory = numbered();
    for (prp1, len) in [(BASE, 512), (BASE + 4, 4092), (BASE + 0x3ffc, 4), (BASE + 0x1000, 4096)] {
        assert_eq!(gather(&memory, 4096, prp1, 0xbad, len).unwrap(), bytes_at(&memory, prp1, len));
    }
    assert!(gather(&memory, 4096, 1, 1, 0).unwrap().is_empty(), "no data, no pointer");
}

#[test]
fn a_transfer_of_two_pages_has_the_second_in_prp2() {
    let memory = numbered();
    let expected =
        [bytes_at(&memory, BASE + 0x1800, 0x800), bytes_at(&memory, BASE + 0x5000, 0x1000)].concat();
    assert_eq!(gather(&memory, 4096, BASE + 0x1800, BASE + 0x5000, 0x1800).unwrap(), expected);
}

#[test]
fn a_list_may_begin_in_the_middle_of_a_page() {
    let memory = numbered();
    let list = BASE + 0x8f00;
    let pages = [0x10_0000, 0x20_0000, 0x30_0000].map(|offset| BASE + offset);
    for (at, page) in (list..).step_by(8).zip(pages) {
        put(&memory, at, page);
    }
    let mut expected = bytes_at(&memory, BASE + 0x1004, 4092);
    pages.iter().for_each(|&page| expected.extend(bytes_at(&memory, page, 4096)));
    expected.truncate(4092 + 2 * 4096 + 512);
    let len = expected.len() as u64;
    assert_eq!(gather(&memory, 4096, BASE + 0x1004, list, len).unwrap(), expected);
}

#[test]
fn the_last_entry_of_a_list_page_is_data_if_it_is_the_last_one_needed() {
    let memory = numbered();
    let list = BASE + 0x8000 + 4096 - 16;
    put(&memory, list, BASE + 0x1000);
    put(&memory, list + 8, BASE + 0x2000);
    let expected = bytes_at(&memory, BASE, 3 * 4096);
    assert_eq!(gather(&memory, 4096, BASE, list, 3 * 4096).unwrap(), expected);
}

#[test]
fn a_list_in_the_last_entry_of_a_page_is_a_pointer_alone() {
    let memory = numbered();
    let list = BASE + 0x9000 - 8;
    put(&memory, list, BASE + 0xa000);
    put(&memory, BASE + 0xa000, BASE + 0x1000);
    put(&memory, BASE + 0xa008, BASE + 0x2000);
    let expected = bytes_at(&memory, BASE, 3 * 4096);
    assert_eq!(gather(&memory, 4096, BASE, list, 3 * 4096).unwrap(), expected);
}

#[test]
fn misaligned_entries_are_prp_offset_invalid() {
    let memory = numbered();
    let invalid = Err(Status::PRP_OFFSET_INVALID.with_dnr());
    for offset in 1..4 {
        assert_eq!(gather(&memory, 4096, BASE + offset, 0, 512), invalid, "PRP1 is dword aligned");
    }
    for offset in [1, 4, 512, 4095] {
        assert_eq!(gather(&memory, 4096, BASE, BASE + 0x2000 + offset, 8192), invalid, "a second data page");
    }
    for offset in [1, 2, 4] {
        assert_eq!(
            gather(&memory, 4096, BASE, BASE + 0x2000 + offset, 12288),
            invalid,
            "a list is on a qword"
        );
    }
    put(&memory, BASE + 0x8000, BASE + 0x1000);
    put(&memory, BASE + 0x8008, BASE + 0x2004);
    assert_eq!(gather(&memory, 4096, BASE, BASE + 0x8000, 12288), invalid, "an entry of a list");
    put(&memory, BASE + 0x8ff8, BASE + 0x9008);
    assert_eq!(gather(&memory, 4096, BASE, BASE + 0x8ff8, 12288), invalid, "the pointer to the next list");
}

#[test]
fn what_is_not_in_memory_is_a_data_transfer_error() {
    let memory = numbered();
    let error = Err(Status::DATA_TRANSFER_ERROR);
    let end = BASE + SIZE as u64;
    assert_eq!(gather(&memory, 4096, end, 0, 512), error);
    assert_eq!(gather(&memory, 4096, end - 512, end, 1024 + 512), error);
    assert_eq!(gather(&memory, 4096, BASE, end, 12288), error, "the list");
    put(&memory, BASE + 0x8000, BASE);
    put(&memory, BASE + 0x8008, end);
    assert_eq!(gather(&memory, 4096, BASE, BASE + 0x8000, 12288), error, "an entry");
    for top in [u64::MAX - 3, !4095] {
        assert_eq!(gather(&memory, 4096, top, top, 8192), error);
    }
    for list in [u64::MAX - 7, u64::MAX - 15, !4095] {
        assert_eq!(gather(&memory, 4096, BASE, list, 12288), error);
    }
}

#[test]
fn a_list_at_the_top_of_the_address_space_does_not_wrap() {
    let mut memory = LoopbackMemory::new(8192).unwrap();
    let fd = memory.memory().fd().try_clone_to_owned().unwrap();
    let top = 0_u64.wrapping_sub(4096);
    memory.space().map(top, 4096, 4096, nvmet_dma::Access::READ_WRITE, Some(fd)).unwrap();
    for at in [8176, 8184] {
        memory.memory().write_bytes(at, &BASE.to_le_bytes()).unwrap();
    }
    assert_eq!(gather(&memory, 4096, BASE, top + 4080, 12288).unwrap().len(), 12288);
}

#[test]
fn a_chain_that_loops_ends_with_the_transfer() {
    let memory = numbered();
    let list = BASE + 0x8000;
    for entry in 0..512 {
        put(&memory, list + entry * 8, list);
    }
    let len = 4 << 20;
    assert_eq!(gather(&memory, 4096, list, list, len).unwrap().len() as u64, len);
}

/// Where byte `at` of a transfer is, by the words of the specification, one byte at a time.
fn naive(memory: &HashMap<u64, u64>, page: u64, prp1: u64, prp2: u64, len: u64, at: u64) -> u64 {
    let first = page - prp1 % page;
    if at < first {
        return prp1 + at;
    }
    let number = (at - first) / page;
    let within = (at - first) % page;
    if len <= first + page {
        return prp2 + within;
    }
    let total = (len - first).div_ceil(page);
    let (mut slot, mut index) = (prp2, 0);
    loop {
        let last_of_page = (slot + 8) % page == 0;
        if last_of_page && index + 1 < total {
            slot = memory[&slot];
            continue;
        }
        if index == number {
            return memory[&slot] + within;
        }
        (slot, index) = (slot + 8, index + 1);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn every_transfer_takes_the_bytes_that_a_naive_walk_names(
        page_shift in 12_u32..17,
        offset in 0_u64..0x1_0000,
        list_slot in 0_u64..0x2000,
        len in 1_u64..(700 << 10),
        near_end in any::<bool>(),
        seed in prop::collection::vec(0_u64..1024, 200),
    ) {
        let page = 1 << page_shift;
        let memory = numbered();
        // Data pages in the upper half, list pages below; page 0 is the first data page.
        let prp1 = BASE + (offset & !3) % page;
        let first = len.min(page - prp1 % page);
        let entries = (len - first).div_ceil(page);
        let pages = (SIZE as u64 / 2) / page;
        let data = |index: u64| BASE + SIZE as u64 / 2 + seed[index as usize % seed.len()] % pages * page;
        let mut written = HashMap::new();
        let mut next_list = 1;
        let mut list_page = || { next_list += 1; BASE + next_list * page };
        let slots = page / 8;
        let slot = if near_end { slots - 1 - list_slot % 4 } else { list_slot % slots };
        let prp2 = match entries {
            0 => 0xdead,
            1 => data(0),
            _ => {
                let list = list_page() + slot * 8;
                let mut at = list;
                for index in 0..entries {
                    if (at + 8).is_multiple_of(page) && index + 1 < entries {
                        let next = list_page();
                        written.insert(at, next);
                        at = next;
                    }
                    written.insert(at, data(index));
                    at += 8;
                }
                list
            }
        };
        for (&at, &value) in &written {
            put(&memory, at, value);
        }
        let bytes = gather(&memory, page, prp1, prp2, len).unwrap();
        for at in (0..len).step_by(509).chain([len - 1]) {
            let address = naive(&written, page, prp1, prp2, len, at);
            let expected = bytes_at(&memory, address, 1)[0];
            prop_assert_eq!(bytes[at as usize], expected, "byte {} of {}", at, len);
        }
    }

    #[test]
    fn whatever_a_guest_writes_ends(
        page_shift in 12_u32..17,
        prp1 in any::<u64>(),
        prp2 in any::<u64>(),
        near in any::<(bool, bool)>(),
        len in 0_u64..(1 << 20),
        garbage in prop::collection::vec(any::<u64>(), 512),
    ) {
        let memory = LoopbackMemory::new(1 << 16).unwrap();
        for (index, value) in (0..).zip(garbage) {
            let value = if value % 4 != 0 { BASE + (value % (1 << 16)) / 4096 * 4096 } else { value };
            put(&memory, BASE + index * 8, value);
        }
        let place = |address: u64, near| if near { BASE + address % (1 << 16) } else { address };
        let _ = gather(&memory, 1 << page_shift, place(prp1, near.0) & !3, place(prp2, near.1) & !7, len);
    }
}
