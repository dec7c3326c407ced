use super::*;
use proptest::prelude::*;

#[test]
fn capability_fields_stand_where_the_specification_puts_them() {
    let cap = Cap::new()
        .with_mqes_z(0x3ff)
        .with_cqr(true)
        .with_to(0x14)
        .with_nssrs(true)
        .with_css(CAP_CSS_NVM | CAP_CSS_IOCS)
        .with_mpsmax(4)
        .with_nsss(true)
        .with_crwms(true);
    let expected = 0x3ff | 1 << 16 | 0x14 << 24 | 1 << 36 | 1 << 37 | 1 << 43 | 4 << 52 | 1 << 58 | 1 << 59;
    assert_eq!(cap.into_bits(), expected);
    assert_eq!(cap.mqes(), 1024);
    assert_eq!(cap.doorbell_stride(), 4);
}

#[test]
fn the_configuration_that_linux_writes_decodes() {
    let cc = Cc::from_bits(0x0046_0001);
    assert!(cc.en());
    assert_eq!(cc.css(), CommandSetSelected::Nvm);
    assert_eq!(cc.page_size(), 4096);
    assert_eq!(cc.ams(), ArbitrationMechanism::RoundRobin);
    assert_eq!(cc.shn(), ShutdownNotification::None);
    assert_eq!((cc.iosqes(), cc.iocqes()), (6, 4));
    assert_eq!(Cc::from_bits(0x0046_4001).shn(), ShutdownNotification::Normal);
    assert_eq!(Cc::from_bits(0x0046_8061).shn(), ShutdownNotification::Abrupt);
    assert_eq!(Cc::from_bits(0x0046_0061).css(), CommandSetSelected::AllSupported);
    assert_eq!(Cc::from_bits(1 << 24), Cc::new().with_crime(true));
}

#[test]
fn status_and_queue_attributes_stand_where_the_specification_puts_them() {
    let csts = Csts::new().with_rdy(true).with_shst(ShutdownStatus::Complete).with_nssro(true);
    assert_eq!(csts.into_bits(), 0b1_1001);
    assert_eq!(Csts::new().with_cfs(true).with_st(true).into_bits(), 0b100_0010);
    let aqa = Aqa::from_bits(0x0fff_001f);
    assert_eq!((aqa.asqs(), aqa.acqs()), (32, 4096));
    assert_eq!(Crto::new().with_crwmt(3).with_crimt(2).into_bits(), 0x0002_0003);
}

#[test]
fn versions_encode_and_order_as_numbers() {
    assert_eq!(Vs::V1_4.into_bits(), 0x0001_0400);
    assert_eq!(Vs::V2_0.into_bits(), 0x0002_0000);
    assert_eq!(Vs::V2_1.into_bits(), 0x0002_0100);
    assert!(Vs::V1_4 < Vs::V2_0 && Vs::V2_0 < Vs::V2_1);
}

#[test]
fn the_magic_numbers_spell_their_words() {
    assert_eq!(&NSSR_MAGIC.to_be_bytes(), b"NVMe");
    assert_eq!(&NSSD_NORMAL_MAGIC.to_be_bytes(), b"Nrml");
    assert_eq!(&NSSD_ABRUPT_MAGIC.to_be_bytes(), b"Abpt");
}

#[test]
fn offsets_outside_the_doorbells_name_none() {
    for offset in [0, CC, 0xfff, 0x1001, 0x1002, 0x1003, 0x1000 + 0x2_0000 * 4, u64::MAX] {
        assert_eq!(Doorbell::at(offset, 0), None, "{offset:#x}");
    }
    assert_eq!(Doorbell::at(0x1004, 1), None);
    assert_eq!(Doorbell::at(0x1000, 0), Some(Doorbell::SqTail(0)));
    assert_eq!(Doorbell::at(0x100c, 0), Some(Doorbell::CqHead(1)));
}

proptest! {
    #[test]
    fn any_register_value_survives_decoding(bits: u32, wide: u64) {
        prop_assert_eq!(Cap::from_bits(wide).into_bits(), wide);
        prop_assert_eq!(Aqa::from_bits(bits).into_bits(), bits);
        prop_assert_eq!(Csts::from_bits(bits).into_bits(), bits);
        let cc = Cc::from_bits(bits);
        let again = cc
            .with_css(cc.css()).with_ams(cc.ams()).with_shn(cc.shn()).with_mps(cc.mps())
            .with_iosqes(cc.iosqes()).with_iocqes(cc.iocqes());
        prop_assert_eq!(again.into_bits(), bits);
        let csts = Csts::from_bits(bits);
        prop_assert_eq!(csts.with_shst(csts.shst()).into_bits(), bits);
    }

    #[test]
    fn a_doorbell_is_found_at_its_own_offset(qid: u16, cq: bool, dstrd in 0u8..16) {
        let doorbell = if cq { Doorbell::CqHead(qid) } else { Doorbell::SqTail(qid) };
        prop_assert_eq!(Doorbell::at(doorbell.offset(dstrd), dstrd), Some(doorbell));
    }

    #[test]
    fn no_offset_panics(offset: u64, dstrd: u8) {
        if let Some(doorbell) = Doorbell::at(offset, dstrd) {
            prop_assert_eq!(doorbell.offset(dstrd), offset);
        }
    }
}
