use super::*;
use proptest::prelude::*;

#[test]
fn the_identifier_is_the_last_byte() {
    let descriptor = SglDescriptor::new(SglType::LastSegment, 0x1122_3344_5566_7788, 0x99aa_bbcc);
    let bytes = descriptor.as_bytes();
    assert_eq!(bytes[..8], 0x1122_3344_5566_7788u64.to_le_bytes());
    assert_eq!(bytes[8..12], 0x99aa_bbccu32.to_le_bytes());
    assert_eq!(bytes[12..], [0, 0, 0, 0x30]);
}

proptest! {
    #[test]
    fn any_descriptor_survives_decoding(bytes: [u8; 16]) {
        let descriptor = SglDescriptor::read_from_bytes(&bytes).unwrap();
        let identifier = descriptor.kind().into_bits() << 4 | descriptor.subtype();
        prop_assert_eq!(identifier, bytes[15]);
        prop_assert_eq!(descriptor.as_bytes(), &bytes);
    }
}
