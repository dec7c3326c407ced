use proptest::prelude::*;
use zerocopy::FromBytes;

use super::*;

const IMPLEMENTED: [u8; 10] = [0x00, 0x01, 0x02, 0x05, 0x08, 0x09, 0x0d, 0x0e, 0x11, 0x15];

fn sqe(opcode: u8) -> Sqe {
    Sqe::new(opcode, 7, 1)
}

#[test]
fn what_is_not_implemented_is_an_invalid_opcode() {
    for opcode in 0..=255 {
        let decoded = decode(&sqe(opcode));
        if IMPLEMENTED.contains(&opcode) {
            assert!(decoded.is_ok(), "{opcode:#x}");
        } else {
            assert_eq!(decoded, Err(Status::INVALID_OPCODE.with_dnr()), "{opcode:#x}");
        }
    }
}

#[test]
fn numbers_of_blocks_and_ranges_are_one_based() {
    for (nlb_z, nlb) in [(0, 1), (7, 8), (0xffff, 65536)] {
        let mut sqe = sqe(NvmOpcode::Read.into());
        sqe.set_slba(0x1234_5678_9abc);
        sqe.cdw12 = nlb_z;
        assert_eq!(decode(&sqe), Ok(IoCommand::Read(Blocks { slba: 0x1234_5678_9abc, nlb })));
    }
    for (nr_z, ranges) in [(0, 1), (255, 256), (0xffff_ff00, 1)] {
        let mut sqe = sqe(NvmOpcode::DatasetManagement.into());
        (sqe.cdw10, sqe.cdw11) = (nr_z, 4);
        assert_eq!(decode(&sqe), Ok(IoCommand::DatasetManagement { ranges, deallocate: true }));
    }
}

#[test]
fn flags_are_where_the_specification_has_them() {
    let blocks = Blocks { slba: 0, nlb: 1 };
    let mut write = sqe(NvmOpcode::Write.into());
    write.cdw12 = 1 << 30;
    assert_eq!(decode(&write), Ok(IoCommand::Write(blocks, true)));
    let mut zeroes = sqe(NvmOpcode::WriteZeroes.into());
    zeroes.cdw12 = 1 << 25;
    assert_eq!(decode(&zeroes), Ok(IoCommand::WriteZeroes { blocks, deallocate: true, fua: false }));
    zeroes.cdw12 = 1 << 30;
    assert_eq!(decode(&zeroes), Ok(IoCommand::WriteZeroes { blocks, deallocate: false, fua: true }));
    assert_eq!(decode(&sqe(5)), Ok(IoCommand::Compare(blocks)));
}

#[test]
fn directives_and_reserved_values_are_invalid_fields() {
    let invalid = Err(Status::INVALID_FIELD.with_dnr());
    let mut write = sqe(NvmOpcode::Write.into());
    write.cdw12 = 1 << 20;
    assert_eq!(decode(&write), invalid);
    for opcode in IMPLEMENTED {
        let mut psdt = sqe(opcode);
        psdt.cdw0 = psdt.cdw0.with_psdt(Psdt::Reserved);
        assert_eq!(decode(&psdt), invalid);
        let mut fuse = sqe(opcode);
        fuse.cdw0 = fuse.cdw0.with_fuse(Fuse::Reserved);
        assert_eq!(decode(&fuse), invalid);
    }
}

#[test]
fn a_range_fits_up_to_the_last_block_and_never_overflows() {
    assert!(Blocks { slba: 0, nlb: 10 }.fits(10));
    assert!(Blocks { slba: 9, nlb: 1 }.fits(10));
    assert!(!Blocks { slba: 9, nlb: 2 }.fits(10));
    assert!(!Blocks { slba: 10, nlb: 1 }.fits(10));
    assert!(!Blocks { slba: u64::MAX, nlb: 1 }.fits(u64::MAX));
    assert!(!Blocks { slba: u64::MAX, nlb: 65536 }.fits(u64::MAX));
}

proptest! {
    #[test]
    fn no_entry_panics(bytes in prop::array::uniform32(any::<u16>())) {
        let bytes = bytes.map(u16::to_le_bytes);
        let sqe = Sqe::read_from_bytes(bytes.as_flattened()).unwrap();
        match decode(&sqe) {
            Ok(_) => prop_assert!(IMPLEMENTED.contains(&sqe.opcode())),
            Err(status) => prop_assert!(status.dnr() && !status.is_success()),
        }
    }
}
