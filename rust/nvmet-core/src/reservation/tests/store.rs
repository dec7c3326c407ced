//! The state file on a file system. What ends in death runs in a child: this test binary again, told by variables what
//! to do.

use std::cell::OnceCell;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process;
use std::rc::Rc;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

use super::super::store::testing::{Fault, arm, before_lock, steps};
use super::*;

const CHILD: &str = "NVMET_RESERVATION_CHILD";

fn identity() -> Identity {
    Identity { nqn: "nqn.2025-01.io.nvmet-vdev:store".into(), nsid: 7, uuid: [7; 16] }
}

fn open(path: &Path) -> (Store, Saved) {
    Store::open(path, identity(), false).expect("opened")
}

fn read(path: &Path) -> Saved {
    open(path).1
}

fn refused(path: &Path) -> String {
    let text = Store::open(path, identity(), false).expect_err("refused").to_string();
    assert!(!text.contains('\n') && text.contains(path.to_str().unwrap()), "{text}");
    text
}

/// States that differ, by number; 0 is the default one, which is no file.
fn state(number: u8) -> Saved {
    if number == 0 {
        return Saved::default();
    }
    let hosts: Vec<_> = (1..=number).map(|host| (host, u64::from(host))).collect();
    let mut state = held(ReservationType::ExclusiveAccess, &hosts);
    state.set_ptpl(true);
    Saved { reservations: state, write_protected: false }
}

fn names(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn what_was_saved_is_there_at_the_next_start_and_nothing_else() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ns");
    let (store, saved) = open(&path);
    assert_eq!(saved, Saved::default());
    for number in [1, 3, 2] {
        store.save(&state(number)).unwrap();
    }
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
    drop(store);
    assert_eq!(names(directory.path()), ["ns"]);
    assert_eq!(read(&path), state(2));
    let protected = Saved { write_protected: true, ..Saved::default() };
    open(&path).0.save(&protected).unwrap();
    assert_eq!(read(&path), protected);
}

#[test]
fn the_default_state_is_no_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ns");
    let (store, _) = open(&path);
    store.save(&state(0)).unwrap();
    store.save(&state(1)).unwrap();
    assert_eq!(names(directory.path()), [".ns.lock", "ns"]);
    // Nothing of this is kept over a power loss, so it is the default one.
    let mut fleeting = state(2);
    fleeting.reservations.set_ptpl(false);
    store.save(&fleeting).unwrap();
    assert_eq!(names(directory.path()), [".ns.lock"]);
    drop(store);
    assert_eq!(names(directory.path()), [""; 0]);
    assert_eq!(read(&path), state(0));
}

#[test]
fn a_save_writes_syncs_renames_and_syncs_the_directory_in_this_order() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ns");
    let (store, _) = open(&path);
    let traced = |saved: &Saved| {
        arm(None);
        store.save(saved).unwrap();
        steps()
    };
    let whole = ["create", "write", "write", "sync", "rename", "sync directory"];
    assert_eq!(traced(&state(1)), whole);
    assert_eq!(traced(&state(1)), [""; 0], "it is there already");
    assert_eq!(traced(&state(0)), ["remove", "sync directory"]);
    assert_eq!(traced(&state(0)), [""; 0]);
    assert_eq!(traced(&state(2)), whole);
    drop(store);
    let (store, saved) = open(&path);
    arm(None);
    store.save(&saved).unwrap();
    assert_eq!(steps(), [""; 0], "it was read from there");
}

/// Every way from one state to another: making, replacing and removing the file.
const WAYS: [(u8, u8); 4] = [(0, 1), (1, 2), (2, 1), (1, 0)];

#[test]
fn an_error_at_any_step_leaves_the_old_or_the_new_state_and_the_next_save_works() {
    for (old, new) in WAYS {
        for number in 0.. {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("ns");
            let (store, _) = open(&path);
            store.save(&state(old)).unwrap();
            arm(Some((number, Fault::Fail)));
            let result = store.save(&state(new));
            let failed_at = steps().last().copied();
            arm(None);
            if result.is_ok() {
                assert_eq!(number, steps_of(new), "every step has failed once");
                break;
            }
            assert!(!directory.path().join(".ns.tmp").exists(), "{failed_at:?}");
            drop(store);
            let (store, found) = open(&path);
            let expected = if failed_at == Some("sync directory") { new } else { old };
            assert_eq!(found, state(expected), "{old} to {new}, {failed_at:?}");
            store.save(&state(3)).unwrap();
            drop(store);
            assert_eq!(read(&path), state(3));
        }
    }
}

#[test]
fn after_an_error_the_same_store_can_save_either_state() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ns");
    for next in [1, 2] {
        let (store, _) = open(&path);
        store.save(&state(1)).unwrap();
        // The new one may be in the file, so the old one must not be taken for saved.
        arm(Some((5, Fault::Fail)));
        store.save(&state(2)).unwrap_err();
        arm(None);
        store.save(&state(next)).unwrap();
        drop(store);
        assert_eq!(read(&path), state(next));
    }
}

fn steps_of(new: u8) -> usize {
    if new == 0 { 2 } else { 6 }
}

/// Not a test by itself: what a child of the test below does.
#[test]
fn role_of_a_child() {
    let Ok(role) = std::env::var(CHILD) else { return };
    let [path, new, number] = role.split('|').collect::<Vec<_>>()[..] else { panic!("{role}") };
    let (store, _) = open(Path::new(path));
    arm(Some((number.parse().unwrap(), Fault::Kill)));
    store.save(&state(new.parse().unwrap())).unwrap();
}

#[test]
fn a_kill_at_any_step_leaves_the_old_or_the_new_state_and_nothing_in_the_way() {
    for (old, new) in WAYS {
        // One more than there are steps: it is killed at none, and ends well.
        for number in 0..=steps_of(new) {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("ns");
            open(&path).0.save(&state(old)).unwrap();
            let status = process::Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "reservation::tests::store::role_of_a_child", "--test-threads=1"])
                .env(CHILD, format!("{}|{new}|{number}", path.display()))
                .stdout(process::Stdio::null())
                .status()
                .unwrap();
            let context = format!("{old} to {new}, step {number}");
            let killed = number < steps_of(new);
            assert_eq!(status.signal(), killed.then_some(9), "{context}: {status}");
            // The last step syncs the directory: the change is there, if not yet for certain.
            let expected = if number + 1 < steps_of(new) { old } else { new };
            let (store, found) = open(&path);
            assert_eq!(found, state(expected), "{context}");
            assert!(!directory.path().join(".ns.tmp").exists(), "{context}");
            store.save(&state(3)).unwrap();
            drop(store);
            assert_eq!(names(directory.path()), ["ns"], "{context}");
            assert_eq!(read(&path), state(3), "{context}");
        }
    }
}

#[test]
fn a_file_in_use_is_refused_until_it_is_free() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ns");
    let (store, _) = open(&path);
    store.save(&state(1)).unwrap();
    let text = refused(&path);
    assert!(text.ends_with("another target uses it; stop that one, or choose another file"), "{text}");
    assert!(Store::open(&path, identity(), true).is_err(), "nor can it be thrown away");
    store.save(&state(2)).unwrap();
    let (_other, _) = open(&directory.path().join("ns2"));
    drop(store);
    assert_eq!(read(&path), state(2));
}

#[test]
fn a_lock_whose_file_was_removed_by_its_last_user_meanwhile_is_not_taken_for_one() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ns");
    let (first, _) = open(&path);
    before_lock(|| drop(first));
    let (_second, _) = open(&path);
    assert!(refused(&path).contains("another target uses it"));
    // Nor if there is another one by then, of somebody else.
    let path = directory.path().join("ns2");
    let (first, _) = open(&path);
    let third = Rc::new(OnceCell::new());
    before_lock({
        let (path, third) = (path.clone(), Rc::clone(&third));
        move || {
            drop(first);
            third.set(open(&path)).unwrap();
        }
    });
    assert!(refused(&path).contains("another target uses it"));
    assert!(third.get().is_some());
}

#[test]
fn of_many_that_open_and_close_a_file_at_once_no_two_have_it() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ns");
    let (users, opened) = (AtomicU32::new(0), AtomicU32::new(0));
    let open_and_close = || {
        for _ in 0..200 {
            match Store::open(&path, identity(), false) {
                Ok((store, _)) => {
                    assert_eq!(users.fetch_add(1, SeqCst), 0);
                    opened.fetch_add(1, SeqCst);
                    assert_eq!(users.fetch_sub(1, SeqCst), 1);
                    drop(store);
                }
                Err(error) => assert!(matches!(error, StoreError::InUse { .. }), "{error}"),
            }
        }
    };
    std::thread::scope(|scope| {
        let threads = [(); 4].map(|()| scope.spawn(open_and_close));
        // The end of the scope would wait as well, where ThreadSanitizer does not see it.
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    });
    assert!(opened.into_inner() > 0);
    assert_eq!(names(directory.path()), [""; 0]);
}

#[test]
fn a_file_that_is_not_this_namespaces_state_is_refused_and_thrown_away_on_request() {
    let foreign = Identity { nsid: 8, ..identity() };
    let mut newer = state(1).encode(&identity());
    newer[8] = 2;
    let crc = crc32fast::hash(&[&newer[8..16], &newer[20..]].concat());
    newer[16..20].copy_from_slice(&crc.to_le_bytes());
    for (bytes, reason) in [
        (vec![], "it is corrupt: it is empty"),
        (b"{}".to_vec(), "it is corrupt: it ends too early"),
        (b"{\"reservations\": []}\n".to_vec(), "it is corrupt: it is no state file"),
        (vec![0; 5 << 20], "it is corrupt: it is no state file"),
        (state(1).encode(&identity())[..30].to_vec(), "it is corrupt: its length is not what it says"),
        (newer, "its format is version 2, which is newer than 1"),
        (state(1).encode(&foreign), "it belongs to another namespace: its NSID is 8 instead of 7"),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ns");
        std::fs::write(&path, &bytes).unwrap();
        let text = refused(&path);
        let advice = "start with discard_state / --discard-state to throw it away, or move it";
        assert_eq!(text, format!("state file {}: {reason}; {advice}", path.display()));
        assert_eq!(std::fs::read(&path).unwrap(), bytes, "it is as it was");
        let (store, saved) = Store::open(&path, identity(), true).unwrap();
        assert_eq!(saved, Saved::default());
        drop(store);
        assert_eq!(names(directory.path()), [""; 0]);
    }
}

#[test]
fn a_good_file_is_not_thrown_away_on_request() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ns");
    open(&path).0.save(&state(2)).unwrap();
    assert_eq!(Store::open(&path, identity(), true).unwrap().1, state(2));
}

#[test]
fn what_is_no_plain_file_is_refused_without_waiting_and_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    std::fs::create_dir(path("directory")).unwrap();
    std::fs::write(path("target"), "x").unwrap();
    symlink("target", path("link")).unwrap();
    symlink("nowhere", path("dangling")).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, path("fifo"), rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(path("socket")).unwrap();
    for (name, what) in [
        ("directory", "it is not a regular file"),
        ("link", "it is a symbolic link"),
        ("dangling", "it is a symbolic link"),
        ("fifo", "it is not a regular file"),
        ("socket", "it is a socket or a device"),
    ] {
        assert!(
            refused(&path(name)).ends_with(&format!("{what}; choose another file")),
            "{}",
            refused(&path(name))
        );
        assert!(Store::open(&path(name), identity(), true).is_err(), "{name}");
    }
    assert_eq!(names(directory.path()), ["dangling", "directory", "fifo", "link", "socket", "target"]);
    assert!(refused(Path::new("/")).contains("no name of a file"));
}

#[test]
fn a_directory_that_is_not_there_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let text = refused(&directory.path().join("missing").join("ns"));
    assert!(text.contains("cannot open its directory: No such file or directory"), "{text}");
}
