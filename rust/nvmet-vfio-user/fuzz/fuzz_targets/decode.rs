//! One message: command, number of file descriptors, body.

#![no_main]

use libfuzzer_sys::fuzz_target;
use nvmet_vfio_user::decode::{Request, decode};

fuzz_target!(|input: (u16, u8, &[u8])| {
    let (command, fds, body) = input;
    match decode(command, body, fds.into(), 1 << 20) {
        Ok(Request::RegionRead(access)) => assert!(access.count <= 1 << 20),
        Ok(Request::RegionWrite { access, data }) => assert_eq!(access.count as usize, data.len()),
        Ok(Request::RegionWriteMulti(entries)) => {
            assert!(entries.iter().all(|entry| entry.access.count <= 8))
        }
        Ok(Request::Version { data, .. }) => drop(nvmet_vfio_user::caps::parse(data)),
        _ => {}
    }
});
