//! The mode of a socket file. On its own, because the umask belongs to the whole process.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use nvmet_vfio_user::listener::Listener;
use rustix::fs::Mode;

#[test]
fn the_file_has_its_mode_whatever_the_umask() {
    let directory = tempfile::tempdir().unwrap();
    let mode =
        |listener: Listener| fs::metadata(listener.path().unwrap()).unwrap().permissions().mode() & 0o777;
    for mask in [0o000, 0o022, 0o777] {
        let old = rustix::process::umask(Mode::from_raw_mode(mask));
        let private = Listener::bind(directory.path().join("private"));
        let shared = Listener::bind_with_mode(directory.path().join("shared"), 0o660);
        rustix::process::umask(old);
        assert_eq!(mode(private.unwrap()), 0o600, "umask {mask:03o}");
        assert_eq!(mode(shared.unwrap()), 0o660, "umask {mask:03o}");
    }
}
