use core::mem::offset_of;

use super::*;
use crate::sgl::SglType;
use proptest::prelude::*;

#[test]
fn entry_fields_stand_at_their_offsets() {
    assert_eq!(offset_of!(Sqe, nsid), 4);
    assert_eq!(offset_of!(Sqe, mptr), 16);
    assert_eq!(offset_of!(Sqe, prp1), 24);
    assert_eq!(offset_of!(Sqe, prp2), 32);
    assert_eq!(offset_of!(Sqe, cdw10), 40);
    assert_eq!(offset_of!(Sqe, cdw15), 60);
    assert_eq!(offset_of!(Cqe, sqhd), 8);
    assert_eq!(offset_of!(Cqe, sqid), 10);
    assert_eq!(offset_of!(Cqe, cid), 12);
    assert_eq!(offset_of!(Cqe, status), 14);
    assert_eq!(1 << Sqe::SIZE_LOG2, Sqe::SIZE);
    assert_eq!(1 << Cqe::SIZE_LOG2, Cqe::SIZE);
}

#[test]
fn a_command_is_built_and_read_back() {
    let mut sqe = Sqe::new(NvmOpcode::Write, 0x1234, 1);
    sqe.cdw0 = sqe.cdw0.with_fuse(Fuse::Second).with_psdt(Psdt::SglMetadataBuffer);
    sqe.set_slba(0x1_0000_0002);
    sqe.set_sgl1(SglDescriptor::new(SglType::DataBlock, 0x1000, 512));
    assert_eq!(sqe.cdw0.into_bits(), 0x1234_4201);
    assert_eq!((sqe.cdw10, sqe.cdw11, sqe.slba()), (2, 1, 0x1_0000_0002));
    assert_eq!((sqe.prp1, sqe.prp2), (0x1000, 512));
    assert_eq!(sqe.sgl1().kind(), SglType::DataBlock);
    assert_eq!((sqe.fuse(), sqe.psdt(), sqe.cid()), (Fuse::Second, Psdt::SglMetadataBuffer, 0x1234));
}

#[test]
fn a_completion_carries_status_above_the_phase() {
    let status = CqeStatus::new().with_phase(true).with_status(Status::INVALID_OPCODE.with_dnr());
    assert_eq!(status.into_bits(), 0x8003);
    let cqe = Cqe { status, ..Default::default() };
    assert!(cqe.phase());
    assert_eq!(cqe.status(), Status::INVALID_OPCODE.with_dnr());
}

#[test]
fn unknown_opcodes_keep_their_number() {
    let error = AdminOpcode::try_from(0xff).unwrap_err();
    assert_eq!(error.opcode, 0xff);
    assert_eq!(error.to_string(), "unknown Admin opcode ffh");
    assert_eq!(NvmOpcode::try_from(0x03).unwrap_err().to_string(), "unknown NVM opcode 03h");
}

#[test]
fn every_opcode_returns_from_its_number() {
    for &opcode in AdminOpcode::ALL {
        assert_eq!(AdminOpcode::try_from(u8::from(opcode)), Ok(opcode));
    }
    for &opcode in NvmOpcode::ALL {
        assert_eq!(NvmOpcode::try_from(u8::from(opcode)), Ok(opcode));
    }
}

#[test]
fn command_dwords_stand_where_the_specification_puts_them() {
    assert_eq!(CreateQueueCdw10::from_bits(0x03ff_0002).qsize(), 1024);
    assert_eq!(CreateQueueCdw10::from_bits(0x03ff_0002).qid(), 2);
    let cq = CreateCqCdw11::from_bits(0x0005_0003);
    assert_eq!((cq.pc(), cq.ien(), cq.iv()), (true, true, 5));
    let sq = CreateSqCdw11::from_bits(0x0007_0005);
    assert_eq!((sq.pc(), sq.qprio(), sq.cqid()), (true, 2, 7));
    let identify = IdentifyCdw10::from_bits(0x0009_0006);
    assert_eq!((identify.cns(), identify.cntid()), (6, 9));
    assert_eq!(IdentifyCdw11::from_bits(0x0200_0003).csi(), 2);
    let log = GetLogPageCdw10::from_bits(0x007f_8102);
    assert_eq!((log.lid(), log.lsp(), log.rae(), log.numdl()), (2, 1, true, 127));
    assert_eq!(get_log_page_length(log, GetLogPageCdw11::new()), 512);
    assert_eq!(get_log_page_length(log.with_numdl(0xffff), GetLogPageCdw11::from_bits(0xffff)), 1 << 34);
    assert_eq!(get_log_page_offset(4, 1), 0x1_0000_0004);
    assert!(GetLogPageCdw14::from_bits(1 << 23).ot());
    let get = GetFeaturesCdw10::from_bits(0x0000_030b);
    assert_eq!((get.fid(), get.sel()), (0x0b, crate::feature::Select::SupportedCapabilities));
    assert!(SetFeaturesCdw10::from_bits(0x8000_0007).sv());
    let abort = AbortCdw10::from_bits(0x0042_0001);
    assert_eq!((abort.sqid(), abort.cid()), (1, 0x42));
    let rw = RwCdw12::from_bits(0x4200_0007);
    assert_eq!((rw.nlb(), rw.fua(), rw.deac(), rw.lr()), (8, true, true, false));
    assert!(RwCdw12::from_bits(1 << 29).prinfo().pract());
    let dsm = RwCdw13::from_bits(0x0003_00c5);
    assert!(dsm.sequential() && dsm.incompressible());
    assert_eq!((dsm.access_frequency(), dsm.dspec()), (5, 3));
    assert_eq!(DsmCdw10::from_bits(0xff).nr() as usize, DSM_MAX_RANGES);
    assert!(DsmCdw11::from_bits(4).ad());
}

proptest! {
    #[test]
    fn any_64_bytes_are_a_submission_entry(low: [u8; 32], high: [u8; 32]) {
        let bytes: Vec<u8> = low.into_iter().chain(high).collect();
        let sqe = Sqe::read_from_bytes(&bytes).unwrap();
        prop_assert_eq!(sqe.as_bytes(), &bytes);
        let cdw0 = sqe.cdw0;
        let again = cdw0.with_opc(sqe.opcode()).with_cid(sqe.cid()).with_fuse(sqe.fuse()).with_psdt(sqe.psdt());
        prop_assert_eq!(again, cdw0);
        let mut copy = sqe;
        copy.set_sgl1(sqe.sgl1());
        copy.set_slba(sqe.slba());
        prop_assert_eq!(copy, sqe);
    }

    #[test]
    fn any_16_bytes_are_a_completion_entry(bytes: [u8; 16]) {
        let cqe = Cqe::read_from_bytes(&bytes).unwrap();
        let status = CqeStatus::new().with_phase(cqe.phase()).with_status(cqe.status());
        prop_assert_eq!(status, cqe.status);
        prop_assert_eq!(cqe.as_bytes(), &bytes);
    }

    #[test]
    fn any_command_dword_survives_decoding(bits: u32) {
        prop_assert_eq!(RwCdw12::from_bits(bits).into_bits(), bits);
        let rw = RwCdw12::from_bits(bits);
        prop_assert_eq!(rw.with_prinfo(rw.prinfo()), rw);
        let get = GetFeaturesCdw10::from_bits(bits);
        prop_assert_eq!(get.with_sel(get.sel()), get);
        prop_assert_eq!(u64::from(RwCdw12::from_bits(bits).nlb()), u64::from(bits & 0xffff) + 1);
    }
}
