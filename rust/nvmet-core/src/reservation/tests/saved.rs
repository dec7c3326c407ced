//! The format of the state file.

use proptest::prelude::*;

use super::*;

fn identity() -> Identity {
    Identity { nqn: "nqn.a".into(), nsid: 0x0102, uuid: [0xaa; 16] }
}

fn persistent() -> Saved {
    let mut state = held(ReservationType::WriteExclusive, &[(2, 0x22), (1, 0x11)]);
    state.set_ptpl(true);
    Saved { reservations: state, write_protected: true }
}

/// A file with this body whose header is right.
fn sealed(version: u32, body: &[u8]) -> Vec<u8> {
    let mut head = version.to_le_bytes().to_vec();
    head.extend((body.len() as u32).to_le_bytes());
    let crc = crc32fast::hash(&[&head[..], body].concat());
    [b"nvmetvst", &head[..], &crc.to_le_bytes(), body].concat()
}

fn body_of(saved: &Saved) -> Vec<u8> {
    saved.encode(&identity())[20..].to_vec()
}

#[test]
fn the_format_of_version_1_is_this() {
    let mut body = vec![5, 0];
    body.extend(b"nqn.a");
    body.extend([2, 1, 0, 0]);
    body.extend([0xaa; 16]);
    body.extend([3, 1, 2, 0, 0, 0, 1, 0, 2, 0]);
    for (host, key) in [(1, 0x11), (2, 0x22)] {
        body.extend([host; 16]);
        body.extend([key, 0, 0, 0, 0, 0, 0, 0]);
    }
    let bytes = persistent().encode(&identity());
    assert_eq!(bytes[20..], body);
    assert_eq!(bytes, sealed(1, &body));
    assert_eq!(bytes[16..20], [0x16, 0x86, 0x3a, 0x96]);
    assert_eq!(Saved::decode(&bytes, &identity()), Ok(persistent()));
}

#[test]
fn without_ptpl_a_power_loss_leaves_no_reservations() {
    let mut saved = persistent();
    saved.reservations.set_ptpl(false);
    let kept = Saved::decode(&saved.encode(&identity()), &identity());
    assert_eq!(kept, Ok(Saved { reservations: State::default(), write_protected: true }));
    assert_eq!(saved.reservations.at_power_on(), State::default());
}

#[test]
fn with_ptpl_a_power_loss_leaves_registrants_reservation_generation_and_ptpl() {
    for rtype in TYPES {
        let mut state = held(rtype, &[(2, 0x22), (1, 0x11), (3, 0x33)]);
        state.set_ptpl(true);
        let saved = Saved { reservations: state.clone(), write_protected: false };
        let kept = Saved::decode(&saved.encode(&identity()), &identity()).expect("decoded");
        assert_eq!((kept.reservations.generation(), kept.reservations.rtype()), (3, rtype));
        assert_eq!(kept, saved);
    }
}

#[test]
fn a_newer_version_says_so() {
    let newer = sealed(2, &[1, 2, 3]);
    assert_eq!(Saved::decode(&newer, &identity()), Err(DecodeError::Newer(2)));
    let mut damaged = newer;
    damaged[8] = 3;
    assert!(
        matches!(Saved::decode(&damaged, &identity()), Err(DecodeError::Corrupt(_))),
        "and is not made up by damage"
    );
}

#[test]
fn a_file_of_another_namespace_says_what_differs() {
    let bytes = persistent().encode(&identity());
    let foreign = |identity: Identity| match Saved::decode(&bytes, &identity) {
        Err(DecodeError::Foreign(what)) => what,
        other => panic!("{other:?}"),
    };
    assert_eq!(
        foreign(Identity { nqn: "nqn.b".into(), ..identity() }),
        "its NQN is \"nqn.a\" instead of \"nqn.b\""
    );
    assert_eq!(foreign(Identity { nsid: 1, ..identity() }), "its NSID is 258 instead of 1");
    assert_eq!(
        foreign(Identity { nsid: 1, uuid: [1; 16], ..identity() }),
        "its NSID is 258 instead of 1, its UUID is aaaaaaaa-aaaa-aaaa-aaaa-aaaaaaaaaaaa \
         instead of 01010101-0101-0101-0101-010101010101"
    );
}

#[test]
fn a_name_that_is_too_long_is_still_bounded() {
    let long = Identity { nqn: "nqn.".repeat(100_000), ..identity() };
    let bytes = persistent().encode(&long);
    assert!(bytes.len() < 1000);
    assert_eq!(Saved::decode(&bytes, &long), Ok(persistent()));
}

#[test]
fn every_single_damaged_bit_and_every_cut_is_noticed() {
    let bytes = persistent().encode(&identity());
    for bit in 0..bytes.len() * 8 {
        let mut damaged = bytes.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        let result = Saved::decode(&damaged, &identity());
        assert!(matches!(result, Err(DecodeError::Corrupt(_))), "bit {bit}: {result:?}");
    }
    for len in 0..bytes.len() {
        let result = Saved::decode(&bytes[..len], &identity());
        assert!(matches!(result, Err(DecodeError::Corrupt(_))), "{len} bytes: {result:?}");
    }
    let result = Saved::decode(&[&bytes[..], &[0]].concat(), &identity());
    assert!(matches!(result, Err(DecodeError::Corrupt(_))), "{result:?}");
}

/// Where the parts of the body are, for this identity.
const FLAGS: usize = 2 + 5 + 4 + 16;
const RTYPE: usize = FLAGS + 1;
const HOLDER: usize = RTYPE + 5;
const COUNT: usize = HOLDER + 2;
const FIRST: usize = COUNT + 2;

#[test]
fn what_nobody_could_have_written_is_corrupt_although_its_checksum_is_right() {
    let edits: [(&str, &[(usize, u8)]); 13] = [
        ("an unknown flag", &[(FLAGS, 7)]),
        ("registrants without PTPL", &[(FLAGS, 1)]),
        ("an unknown type", &[(RTYPE, 7)]),
        ("a holder without a reservation", &[(RTYPE, 0)]),
        ("a holder alone of a reservation of all", &[(RTYPE, 5)]),
        ("a holder that is not registered", &[(HOLDER, 2)]),
        ("an exclusive reservation of nobody", &[(HOLDER, 0xff), (HOLDER + 1, 0xff)]),
        ("more registrants than there are", &[(COUNT, 3)]),
        ("fewer registrants than there are", &[(COUNT, 1)]),
        ("far more registrants than there are", &[(COUNT + 1, 0x0f)]),
        ("more registrants than there can be", &[(COUNT + 1, 0xff)]),
        ("registrants in disorder", &[(FIRST, 3)]),
        ("a key of 0", &[(FIRST + 16, 0)]),
    ];
    for (what, edit) in edits {
        let mut body = body_of(&persistent());
        for &(at, byte) in edit {
            body[at] = byte;
        }
        let result = Saved::decode(&sealed(1, &body), &identity());
        assert!(matches!(result, Err(DecodeError::Corrupt(_))), "{what}: {result:?}");
    }
    let mut twin = body_of(&persistent());
    twin.copy_within(FIRST + 24..FIRST + 40, FIRST);
    assert!(Saved::decode(&sealed(1, &twin), &identity()).is_err(), "a registrant twice");
    let mut all = body_of(&persistent());
    (all[RTYPE], all[HOLDER]) = (5, 7);
    assert!(
        Saved::decode(&sealed(1, &all), &identity()).is_err(),
        "a holder of a reservation of all that is nobody"
    );
    let nobody = Saved { reservations: State { ptpl: true, ..State::default() }, write_protected: false };
    let mut body = body_of(&nobody);
    body[RTYPE] = 5;
    assert!(Saved::decode(&sealed(1, &body), &identity()).is_err(), "a reservation of all without anybody");
    let twice = [body_of(&persistent()), vec![0; 24]].concat();
    assert!(Saved::decode(&sealed(1, &twice), &identity()).is_err(), "more than it says");
    assert!(Saved::decode(&sealed(0, &body_of(&persistent())), &identity()).is_err(), "version 0");
}

/// What decodes is what would be encoded.
fn check(bytes: &[u8]) {
    if let Ok(saved) = Saved::decode(bytes, &identity()) {
        assert_eq!(saved.encode(&identity()), bytes);
    }
}

proptest! {
    #[test]
    fn any_bytes_decode_to_what_encodes_to_them_or_not_at_all(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        check(&bytes);
        check(&sealed(1, &bytes));
    }

    #[test]
    fn any_change_of_a_body_decodes_to_what_encodes_to_it_or_not_at_all(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        tail in prop::collection::vec(any::<u8>(), 0..60),
    ) {
        let mut body = body_of(&persistent());
        for (at, byte) in changes {
            let at = FLAGS + at.index(body.len() - FLAGS);
            body[at] = byte;
        }
        check(&sealed(1, &body));
        body.extend(tail);
        check(&sealed(1, &body));
    }
}
