use super::*;

fn failure(cid: u16) -> CommandFailure {
    CommandFailure {
        sqid: 3,
        cid,
        status: Status::LBA_OUT_OF_RANGE.with_dnr(),
        lba: 0x1122_3344_5566,
        nsid: 7,
    }
}

fn counts(page: &[u8]) -> Vec<u64> {
    page.chunks(64).map(|entry| u64::from_le_bytes(entry[..8].try_into().unwrap())).collect()
}

#[test]
fn an_entry_tells_queue_command_status_block_and_namespace() {
    let mut log = ErrorLog::default();
    log.add(&failure(0x99));
    let page = log.page();
    assert_eq!(page.len(), 4096);
    assert_eq!(page[0..8], 1_u64.to_le_bytes());
    assert_eq!(page[8..10], [3, 0]);
    assert_eq!(page[10..12], [0x99, 0]);
    // Bit 0 is the Phase Tag, the status stands above it.
    assert_eq!(page[12..14], (Status::LBA_OUT_OF_RANGE.with_dnr().into_bits() << 1).to_le_bytes());
    assert_eq!(page[14..16], [0xff, 0xff]);
    assert_eq!(page[16..24], 0x1122_3344_5566_u64.to_le_bytes());
    assert_eq!(page[24..28], [7, 0, 0, 0]);
    assert!(page[64..].iter().all(|&byte| byte == 0));
}

#[test]
fn the_newest_64_errors_are_kept_and_all_are_counted() {
    let mut log = ErrorLog::default();
    (0..100).for_each(|cid| log.add(&failure(cid)));
    assert_eq!(log.count(), 100);
    assert_eq!(counts(&log.page()), (37..=100).rev().collect::<Vec<_>>());
}

#[test]
fn errors_that_were_dropped_leave_a_gap_in_the_counts() {
    let mut log = ErrorLog::default();
    log.add(&failure(1));
    log.add_dropped(5);
    log.add(&failure(2));
    assert_eq!(counts(&log.page())[..3], [7, 1, 0]);
    log.add_dropped(u64::MAX);
    log.add(&failure(3));
    assert_eq!(log.count(), u64::MAX);
}

#[test]
fn a_bad_doorbell_is_no_commands_error() {
    let mut log = ErrorLog::default();
    log.add_doorbell(InvalidDoorbell::Register { offset: 0x1ff0 });
    log.add_doorbell(InvalidDoorbell::Value { qid: 1, completion: true, value: 99 });
    let page = log.page();
    for entry in page.chunks(64).take(2) {
        assert_eq!(entry[8..12], [0xff; 4]);
    }
    assert_eq!(page[12..14], (Status::INVALID_FIELD.into_bits() << 1).to_le_bytes());
    assert_eq!(page[76..78], (Status::INVALID_QUEUE_ID.into_bits() << 1).to_le_bytes());
}
