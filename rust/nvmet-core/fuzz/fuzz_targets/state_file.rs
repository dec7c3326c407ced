//! A state file of any content, and one of any content whose header is right: it decodes to what encodes to the same
//! bytes, or not at all, and what decodes can be executed on and reported.

#![no_main]

use libfuzzer_sys::fuzz_target;
use nvmet_core::reservation::{Command, HostId, Identity, MAX_REGISTRANTS, Saved};
use nvmet_spec::command::NvmOpcode;

const HEADER: usize = 20;

fn identity() -> Identity {
    Identity { nqn: "nqn.a".into(), nsid: 1, uuid: [0; 16] }
}

/// The file that the fuzzer's body would be in; without the identity it would hardly ever get past it.
fn sealed(rest: &[u8]) -> Vec<u8> {
    let mut bytes = Saved::default().encode(&identity());
    let identity_len = 2 + 5 + 4 + 16;
    bytes.truncate(HEADER + identity_len);
    bytes.extend_from_slice(rest);
    let len = (bytes.len() - HEADER) as u32;
    bytes[12..16].copy_from_slice(&len.to_le_bytes());
    let mut crc = crc32fast::Hasher::new();
    crc.update(&bytes[8..16]);
    crc.update(&bytes[HEADER..]);
    let crc = crc.finalize();
    bytes[16..HEADER].copy_from_slice(&crc.to_le_bytes());
    bytes
}

fn check(bytes: &[u8], host: &HostId) {
    let Ok(saved) = Saved::decode(bytes, &identity()) else { return };
    assert_eq!(saved.encode(&identity()), bytes);
    let mut state = saved.reservations;
    assert_eq!(state.at_power_on(), state);
    let registrants: Vec<_> = state.registrants().collect();
    assert!(registrants.len() <= MAX_REGISTRANTS);
    assert!(state.holder().is_none_or(|holder| state.snapshot().is_registrant(&holder)));
    assert_eq!(state.report(true, &[]).len(), 64 * (1 + registrants.len()));
    let (host, key) = registrants.first().map_or((*host, 0), |first| (first.host, first.key));
    let data = [key.to_le_bytes(), key.to_le_bytes()].concat();
    for (opcode, cdw10) in [
        (NvmOpcode::ReservationRegister, 0),
        (NvmOpcode::ReservationAcquire, 1 << 8 | 2),
        (NvmOpcode::ReservationRelease, 1 << 8),
        (NvmOpcode::ReservationRelease, 1),
    ] {
        let command = Command::decode(opcode, cdw10, &data).expect("a valid command");
        let _ = state.execute(&host, &command, true);
    }
}

fuzz_target!(|bytes: &[u8]| {
    let host = [1; 16];
    check(bytes, &host);
    check(&sealed(bytes), &host);
});
