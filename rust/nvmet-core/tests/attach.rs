//! A host attaches to a device through a real socket and moves data, in every doorbell mode.

mod common;

use common::{namespace, ram, serve, serve_with};
use nvmet_core::device::DoorbellMode;
use nvmet_host::{ClientProfile, DoorbellPolicy, Drive, HostConfig};

fn move_data(drive: &mut Drive) {
    let mut namespace = drive.open_namespace(1).unwrap();
    for (round, blocks) in [1usize, 3, 8, 9, 64, 255, 1024, 2048].into_iter().enumerate() {
        let data: Vec<u8> = (0..blocks * 512).map(|at| (at / 7 + round) as u8).collect();
        namespace.write(round as u64 * 17, &data, round % 2 == 0).unwrap();
        let mut read = vec![0; data.len()];
        namespace.read(round as u64 * 17, &mut read).unwrap();
        assert!(read == data, "{blocks} blocks");
        namespace.compare(round as u64 * 17, &data).unwrap();
    }
    namespace.flush().unwrap();
    namespace.write_zeroes(3, 5).unwrap();
    let mut read = vec![1; 5 * 512];
    namespace.read(3, &mut read).unwrap();
    assert!(read.iter().all(|&byte| byte == 0));
    drive.close_namespace(namespace).unwrap();
}

#[test]
fn a_host_moves_data_in_every_doorbell_mode() {
    for mode in [DoorbellMode::Auto, DoorbellMode::Trapped, DoorbellMode::Mapped] {
        for profile in [ClientProfile::Json, ClientProfile::Bare] {
            for doorbells in [DoorbellPolicy::Auto, DoorbellPolicy::NoShadow, DoorbellPolicy::Registers] {
                let served = serve(mode);
                let config = HostConfig { profile, doorbells, ..HostConfig::default() };
                let mut drive = Drive::attach(&served.socket, config).unwrap();
                move_data(&mut drive);
                drive.detach().unwrap();
            }
        }
    }
}

#[test]
fn interrupts_wake_a_host_that_waits() {
    let served = serve_with(2, vec![namespace(ram(16 << 20), 4096)], |_| {});
    let config = HostConfig { vectors: 3, ..HostConfig::default() };
    let mut drive = Drive::attach(&served.socket, config).unwrap();
    let mut namespace = drive.open_namespace(1).unwrap();
    namespace.write(1, &[5; 4096], true).unwrap();
    let mut read = [0; 4096];
    namespace.read(1, &mut read).unwrap();
    assert_eq!(read, [5; 4096]);
    drive.close_namespace(namespace).unwrap();
    drive.detach().unwrap();
}

#[test]
fn clients_come_and_go_and_data_stays() {
    let served = serve(DoorbellMode::Auto);
    for round in 0..5u8 {
        let mut drive = Drive::attach(&served.socket, HostConfig::default()).unwrap();
        let mut namespace = drive.open_namespace(1).unwrap();
        let mut read = [0; 512];
        namespace.read(9, &mut read).unwrap();
        assert_eq!(read, [round; 512]);
        namespace.write(9, &[round + 1; 512], true).unwrap();
        if round % 2 == 0 {
            drop(namespace);
            drop(drive);
        } else {
            drive.detach().unwrap();
        }
    }
    served.target.shutdown(std::time::Duration::from_secs(20)).unwrap();
    assert!(!served.socket.exists());
}
