use super::*;
use proptest::prelude::*;

#[test]
fn a_status_reads_as_a_person_would_write_it() {
    assert_eq!(Status::SUCCESS.to_string(), "Successful Completion (00/00h)");
    assert_eq!(Status::INVALID_OPCODE.with_dnr().to_string(), "Invalid Opcode (00/01h) DNR");
    assert_eq!(
        Status::COMPARE_FAILURE.with_crd(2).with_more().with_dnr().to_string(),
        "Compare Failure (02/85h) CRD2 More DNR"
    );
    assert_eq!(Status::new(7, 0x12).to_string(), "Vendor Specific (07/12h)");
    assert_eq!(Status::new(4, 1).to_string(), "Unknown Status (04/01h)");
}

#[test]
fn names_are_sorted_and_unique_so_that_every_one_is_found() {
    assert!(NAMES.windows(2).all(|pair| pair[0].0.0 < pair[1].0.0));
    for (status, name) in Status::all() {
        assert_eq!(status.name(), Some(name));
        assert_eq!(status.with_dnr().with_more().name(), Some(name));
    }
}

#[test]
fn flags_do_not_make_success_a_failure() {
    assert!(Status::SUCCESS.with_more().with_crd(3).is_success());
    assert!(!Status::INVALID_FIELD.is_success());
    assert!(Status::INVALID_FIELD.with_dnr().is(Status::INVALID_FIELD));
    assert!(!Status::INVALID_FIELD.is(Status::INVALID_OPCODE));
}

#[test]
fn bits_stand_where_the_completion_entry_wants_them() {
    assert_eq!(Status::INVALID_QUEUE_ID.with_dnr().into_bits(), 0x4101);
    assert_eq!(Status::SUCCESS.with_more().into_bits(), 0x2000);
    assert_eq!(Status::SUCCESS.with_crd(3).into_bits(), 0x1800);
}

proptest! {
    #[test]
    fn any_field_survives_decoding(bits: u16) {
        let status = Status::from_bits(bits);
        prop_assert_eq!(status.into_bits(), bits & 0x7fff);
        let mut again = Status::new(status.sct(), status.sc()).with_crd(status.crd());
        if status.more() { again = again.with_more(); }
        if status.dnr() { again = again.with_dnr(); }
        prop_assert_eq!(again, status);
        prop_assert!(!status.to_string().is_empty());
    }
}
