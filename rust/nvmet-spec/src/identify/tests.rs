use core::mem::offset_of;

use super::*;
use proptest::prelude::*;
use zerocopy::{FromBytes, IntoBytes};

macro_rules! offsets {
    ($structure:ident: $($field:ident $offset:literal),* $(,)?) => {
        $(assert_eq!(offset_of!($structure, $field), $offset, stringify!($field));)*
    };
}

#[test]
fn controller_fields_stand_at_their_offsets() {
    offsets!(IdentifyController:
        vid 0, ssvid 2, sn 4, mn 24, fr 64, rab 72, ieee 73, cmic 76, mdts 77, cntlid 78, ver 80, rtd3r 84,
        rtd3e 88, oaes 92, ctratt 96, rrls 100, cntrltype 111, fguid 112, crdt1 128, crdt2 130, crdt3 132,
        nvmsr 253, vwci 254, mec 255, oacs 256, acl_z 258, aerl_z 259, frmw 260, lpa 261, elpe_z 262, npss_z 263,
        avscc 264, apsta 265, wctemp 266, cctemp 268, mtfa 270, hmpre 272, hmmin 276, tnvmcap 280, unvmcap 296,
        rpmbs 312, edstt 316, dsto 318, fwug 319, kas 320, hctma 322, mntmt 324, mxtmt 326, sanicap 328,
        hmminds 332, hmmaxd 336, nsetidmax 338, endgidmax 340, anatt 342, anacap 343, anagrpmax 344,
        nanagrpid 348, pels 352, domain_id 356, megcap 368, sqes 512, cqes 513, maxcmd 514, nn 516, oncs 520,
        fuses 522, fna 524, vwc 525, awun_z 526, awupf_z 528, icsvscc 530, nwpc 531, acwu_z 532, cdfs 534,
        sgls 536, mnan 540, maxdna 544, maxcna 560, subnqn 768, fabrics 1792, psd 2048, vendor_specific 3072);
    offsets!(PowerStateDescriptor:
        mp 0, flags 3, enlat 4, exlat 8, rrt 12, rrl 13, rwt 14, rwl 15, idlp 16, ips 18, actp 20, apws 22);
}

#[test]
fn namespace_fields_stand_at_their_offsets() {
    offsets!(IdentifyNamespace:
        nsze 0, ncap 8, nuse 16, nsfeat 24, nlbaf_z 25, flbas 26, mc 27, dpc 28, dps 29, nmic 30, rescap 31,
        fpi 32, dlfeat 33, nawun_z 34, nawupf_z 36, nacwu_z 38, nabsn_z 40, nabo 42, nabspf_z 44, noiob 46,
        nvmcap 48, npwg_z 64, npwa_z 66, npdg_z 68, npda_z 70, nows_z 72, mssrl 74, mcl 76, msrc_z 80, nulbaf 82,
        anagrpid 92, nsattr 99, nvmsetid 100, endgid 102, nguid 104, eui64 120, lbaf 128, vendor_specific 384);
    offsets!(IdentifyIndependentNamespace:
        nsfeat 0, nmic 1, rescap 2, fpi 3, anagrpid 4, nsattr 8, nvmsetid 10, endgid 12, nstat 14);
    offsets!(NvmIdentifyNamespace: lbstm 0, pic 8, elbaf 12, reserved268 268);
    offsets!(NvmIdentifyController: vsl 0, wzsl 1, wusl 2, dmrl 3, dmrsl 4, dmsl 8);
}

#[test]
fn capability_bits_stand_where_the_specification_puts_them() {
    assert_eq!(Oacs::new().with_doorbell_buffer_config(true).into_bits(), 1 << 8);
    assert_eq!(Oncs::new().with_timestamp(true).with_copy(true).into_bits(), 1 << 6 | 1 << 8);
    assert_eq!(Ctratt::new().with_host_id_128(true).with_elbas(true).into_bits(), 1 | 1 << 15);
    assert_eq!(Ctratt::new().with_tbkas(true).into_bits(), 1 << 6);
    assert_eq!(
        Oaes::new().with_namespace_attribute(true).with_ana_change(true).into_bits(),
        1 << 8 | 1 << 11
    );
    assert_eq!(
        Oaes::new().with_zone_descriptor(true).with_discovery_log(true).into_bits(),
        1 << 27 | 1 << 31
    );
    assert_eq!(
        Lpa::new().with_extended_data(true).with_supported_log_pages(true).into_bits(),
        1 << 2 | 1 << 5
    );
    assert_eq!(Frmw::new().with_slot1_read_only(true).with_slots(1).into_bits(), 3);
    assert_eq!(EntrySizes::new().with_required(6).with_maximum(6).into_bits(), 0x66);
    assert_eq!(Vwc::new().with_present(true).with_flush_all(FlushAll::Supported).into_bits(), 7);
    let sgls = Sgls::new().with_support(SglSupport::AnyAlignment).with_bit_bucket(true).with_transport(true);
    assert_eq!(sgls.into_bits(), 1 | 1 << 16 | 1 << 21);
    assert_eq!(Cmic::new().with_multi_controller(true).with_ana(true).into_bits(), 0b1010);
    let dlfeat = Dlfeat::new().with_read(DeallocatedRead::Zeroes).with_write_zeroes_deallocate(true);
    assert_eq!(dlfeat.into_bits(), 9);
    assert_eq!(LbaFormat::new().with_lbads(9).with_rp(2).into_bits(), 0x0209_0000);
    assert_eq!(LbaFormat::new().with_lbads(12).block_size(), Some(4096));
    assert_eq!(LbaFormat::new().block_size(), None);
    assert_eq!(LbaFormat::new().with_lbads(64).block_size(), None);
    assert_eq!(Flbas::for_format(17).into_bits(), 0x21);
    assert_eq!(ExtendedLbaFormat::new().with_sts(16).with_pif(2).into_bits(), 16 | 2 << 7);
    assert_eq!(Nstat::new().with_nrdy(true).into_bits(), 1);
    assert_eq!(IndependentNsfeat::new().with_rmedia(true).into_bits(), 1 << 4);
}

#[test]
fn the_largest_transfer_counts_in_pages() {
    let mut controller = IdentifyController::default();
    assert_eq!(controller.max_transfer(0), None);
    controller.mdts = 7;
    assert_eq!(controller.max_transfer(0), Some(512 * 1024));
    assert_eq!(controller.max_transfer(4), Some(8 << 20));
    controller.mdts = 255;
    assert_eq!(controller.max_transfer(15), None);
}

#[test]
fn the_format_in_use_is_one_that_is_counted() {
    let mut namespace = IdentifyNamespace::default();
    namespace.lbaf[1] = LbaFormat::new().with_lbads(12);
    namespace.flbas = Flbas::for_format(1);
    assert_eq!(namespace.format(), None);
    namespace.nlbaf_z = 1;
    assert_eq!(namespace.format().and_then(|format| format.block_size()), Some(4096));
}

#[test]
fn text_is_padded_and_what_does_not_belong_is_refused() {
    assert_eq!(ascii_field::<8>("1.0"), Ok(*b"1.0     "));
    assert_eq!(ascii_field::<3>("1.0"), Ok(*b"1.0"));
    assert_eq!(ascii_field::<2>("1.0"), Err(AsciiError::TooLong { length: 3, width: 2 }));
    assert_eq!(ascii_field::<8>("a\tb"), Err(AsciiError::NotPrintable { character: '\t', position: 1 }));
    assert_eq!(ascii_field::<8>("é"), Err(AsciiError::NotPrintable { character: 'é', position: 0 }));
    assert_eq!(ascii_text(b"SN 1   \0"), "SN 1");
    assert_eq!(ascii_text(&[0xff, b'a']), "?a");
}

#[test]
fn qualified_names_follow_the_rule() {
    for good in [
        "nqn.2014-08.org.nvmexpress:uuid:11111111-2222-3333-4444-555555555555",
        "nqn.2014-08.org.nvmexpress.discovery",
        "nqn.2026-12.com.example:a:b c",
    ] {
        assert_eq!(validate_nqn(good), Ok(()), "{good}");
        assert_eq!(nqn_text(&nqn_field(good).unwrap()), Some(good));
    }
    for prefix in [
        "",
        "iqn.2014-08.org",
        "nqn.2014-13.org",
        "nqn.2014-8.org",
        "nqn.201-08.org",
        "nqn.2014-08",
        "nqn.+014-08.a",
    ] {
        assert!(matches!(validate_nqn(prefix), Err(NqnError::Prefix { .. })), "{prefix}");
    }
    for domain in ["nqn.2014-08.", "nqn.2014-08.:a", "nqn.2014-08.org..x"] {
        assert!(matches!(validate_nqn(domain), Err(NqnError::Domain { .. })), "{domain}");
    }
    assert_eq!(validate_nqn("nqn.2014-08.org:\0"), Err(NqnError::Control { position: 16 }));
    let longest = format!("nqn.2014-08.org:{}", "x".repeat(NQN_MAX - 16));
    assert_eq!(validate_nqn(&longest), Ok(()));
    assert_eq!(validate_nqn(&format!("{longest}x")), Err(NqnError::TooLong { length: 224 }));
}

#[test]
fn a_descriptor_list_is_built_and_read_back() {
    let descriptors = [
        NamespaceDescriptor::Eui64([1; 8]),
        NamespaceDescriptor::Nguid([2; 16]),
        NamespaceDescriptor::Uuid([3; 16]),
        NamespaceDescriptor::Csi(csi::NVM),
    ];
    let mut list = NamespaceDescriptorList::new();
    assert!(descriptors.into_iter().all(|descriptor| list.push(descriptor)));
    let bytes = list.as_bytes();
    assert_eq!(bytes[..12], [1, 8, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1]);
    assert_eq!(bytes[52..58], [4, 1, 0, 0, 0, 0]);
    assert!(namespace_descriptors(bytes).eq(descriptors));
}

#[test]
fn a_full_descriptor_list_takes_no_more() {
    let mut list = NamespaceDescriptorList::new();
    while list.push(NamespaceDescriptor::Uuid([7; 16])) {}
    assert_eq!(namespace_descriptors(list.as_bytes()).count(), IDENTIFY_SIZE / 20);
}

#[test]
fn unknown_descriptors_are_skipped() {
    let bytes = [9, 2, 0, 0, 5, 5, 1, 3, 0, 0, 1, 1, 1, 4, 1, 0, 0, 2];
    assert!(namespace_descriptors(&bytes).eq([NamespaceDescriptor::Csi(csi::ZONED)]));
}

proptest! {
    #[test]
    fn any_bytes_are_read_as_descriptors_without_panic(bytes: Vec<u8>) {
        prop_assert!(namespace_descriptors(&bytes).count() <= bytes.len());
    }

    #[test]
    fn any_page_is_an_identify_structure(bytes in proptest::collection::vec(any::<u8>(), IDENTIFY_SIZE)) {
        let controller = IdentifyController::read_from_bytes(&bytes).unwrap();
        prop_assert_eq!(controller.as_bytes(), &bytes);
        let _ = (controller.max_transfer(0), ascii_text(&controller.sn), nqn_text(&controller.subnqn));
        let namespace = IdentifyNamespace::read_from_bytes(&bytes).unwrap();
        prop_assert_eq!(namespace.as_bytes(), &bytes);
        let _ = namespace.format();
    }

    #[test]
    fn any_text_is_judged_without_panic(text: String) {
        let _ = validate_nqn(&text);
        if let Ok(field) = ascii_field::<20>(&text) {
            prop_assert_eq!(ascii_text(&field), text.trim_end());
        }
    }

    #[test]
    fn any_capability_survives_decoding(byte: u8, bits: u32) {
        prop_assert_eq!(Vwc::from_bits(byte).with_flush_all(Vwc::from_bits(byte).flush_all()).into_bits(), byte);
        prop_assert_eq!(Dlfeat::from_bits(byte).with_read(Dlfeat::from_bits(byte).read()).into_bits(), byte);
        prop_assert_eq!(Sgls::from_bits(bits).with_support(Sgls::from_bits(bits).support()).into_bits(), bits);
        prop_assert_eq!(Flbas::for_format(byte & 0x3f).index(), byte & 0x3f);
    }
}
