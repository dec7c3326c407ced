//! The host against a mock controller through a real socket: every doorbell mode, load, verify, and what goes wrong.

mod mock;

use mock::{Fault, Mock, Options};
use nvmet_host::{
    ClientProfile, Data, DoorbellPolicy, Drive, HostConfig, HostError, QueueConfig, SqeExt, Transfer,
    bench::{self, BenchConfig, Progress, Rw},
    read_write,
};
use nvmet_spec::{
    command::{AdminOpcode, NvmOpcode, Sqe},
    status::Status,
};
use std::{
    os::unix::net::UnixListener,
    sync::Arc,
    time::{Duration, Instant},
};

fn config() -> HostConfig {
    HostConfig { timeout: Duration::from_secs(5), memory_bytes: 16 << 20, ..HostConfig::default() }
}

fn attach(mock: &Mock) -> Drive {
    Drive::attach(&mock.path, config()).unwrap()
}

fn modes() -> [(Options, &'static str); 3] {
    [
        (Options::default(), "trapped"),
        (Options { mapped: true, ..Options::default() }, "mapped"),
        (Options { shadow: true, ..Options::default() }, "shadow"),
    ]
}

#[test]
fn blocks_are_written_read_compared_and_zeroed_in_every_doorbell_mode() {
    for (options, mode) in modes() {
        let mock = Mock::new(options);
        let mut drive = attach(&mock);
        assert_eq!(drive.doorbell_mode(), mode);
        let mut namespace = drive.open_namespace(1).unwrap();
        let trapped = mock.lock().trapped;
        let data: Vec<u8> = (0..300 * 512).map(|i| (i % 251) as u8).collect();
        namespace.write(5, &data, false).unwrap();
        let mut back = vec![0; data.len()];
        namespace.read(5, &mut back).unwrap();
        assert!(back == data, "{mode}");
        namespace.compare(5, &data).unwrap();
        back[77] ^= 1;
        let different = namespace.compare(5, &back).unwrap_err();
        assert!(matches!(different, HostError::Command { status, .. } if status.is(Status::COMPARE_FAILURE)));
        namespace.write_zeroes(5, 300).unwrap();
        namespace.flush().unwrap();
        namespace.deallocate(&[(0, 8)]).unwrap();
        namespace.read(5, &mut back).unwrap();
        assert!(back.iter().all(|&byte| byte == 0));
        let messages = mock.lock().trapped - trapped;
        // Twelve commands, two doorbells each; one that was posted earlier may arrive meanwhile. The first ring of each
        // shadow is always a message: nobody has set its EventIdx yet.
        let expected = match mode {
            "mapped" => 0..=0,
            "shadow" => 1..=3,
            _ => 24..=25,
        };
        assert!(expected.contains(&messages), "{messages} messages in mode {mode}");
        drive.close_namespace(namespace).unwrap();
        drive.detach().unwrap();
    }
}

#[test]
fn a_queue_wraps_around_many_times_in_every_doorbell_mode() {
    for (options, mode) in modes() {
        let mock = Mock::new(Options { null: true, ..options });
        let mut drive = attach(&mock);
        let depth = 7;
        let mut pair = drive.create_queue_pair(&QueueConfig { depth, ..QueueConfig::default() }).unwrap();
        let mut done = 0;
        for round in 0..2000u32 {
            let batch = 1 + round % (depth - 1);
            for cid in 0..batch {
                let mut sqe = Sqe::new(NvmOpcode::Flush, cid as u16, 1);
                sqe.cdw10 = round;
                pair.submit(&sqe).unwrap();
            }
            pair.ring().unwrap();
            let mut expected = 0;
            while expected < batch {
                pair.wait(Instant::now() + Duration::from_secs(5)).unwrap();
                pair.poll(|cid, completion| {
                    assert_eq!(u32::from(cid), expected, "{mode}");
                    assert!(completion.status().is_success());
                    expected += 1;
                })
                .unwrap();
            }
            done += batch;
        }
        assert!(done > 6000);
        assert_eq!(pair.free_slots(0), depth - 1);
        drive.delete_queue_pair(pair).unwrap();
    }
}

#[test]
fn several_submission_queues_complete_on_one_completion_queue() {
    let mock = Mock::new(Options { null: true, ..Options::default() });
    let mut drive = attach(&mock);
    let config = QueueConfig { submission_queues: 3, depth: 8, ..QueueConfig::default() };
    let mut pair = drive.create_queue_pair(&config).unwrap();
    for sq in 0..3 {
        pair.submit_to(sq, &Sqe::new(NvmOpcode::Flush, 10 + sq as u16, 1)).unwrap();
    }
    assert!(matches!(pair.submit_to(3, &Sqe::new(NvmOpcode::Flush, 0, 1)), Err(HostError::Argument(_))));
    pair.ring().unwrap();
    let mut seen = Vec::new();
    while seen.len() < 3 {
        pair.wait(Instant::now() + Duration::from_secs(5)).unwrap();
        pair.poll(|cid, completion| seen.push((cid, completion.sqid))).unwrap();
    }
    seen.sort_unstable();
    assert_eq!(seen, [(10, 1), (11, 2), (12, 3)]);
}

#[test]
fn a_full_queue_says_so_and_nothing_is_overwritten() {
    let mock = Mock::new(Options { fault: Fault::Silent, ..Options::default() });
    let mut drive = attach(&mock);
    let mut pair = drive.create_queue_pair(&QueueConfig { depth: 4, ..QueueConfig::default() }).unwrap();
    for cid in 0..3 {
        pair.submit(&Sqe::new(NvmOpcode::Flush, cid, 1)).unwrap();
    }
    let full = pair.submit(&Sqe::new(NvmOpcode::Flush, 3, 1)).unwrap_err();
    assert!(matches!(full, HostError::QueueFull { sqid: 1 }));
    let waited = pair.wait(Instant::now() + Duration::from_millis(50)).unwrap_err();
    assert!(matches!(waited, HostError::Timeout { .. }), "{waited}");
}

#[test]
fn interrupts_wake_a_waiting_queue() {
    let mock = Mock::new(Options::default());
    let mut drive = Drive::attach(&mock.path, HostConfig { vectors: 3, ..config() }).unwrap();
    assert_eq!(
        (drive.vector_for(0).unwrap(), drive.vector_for(1).unwrap(), drive.vector_for(2).unwrap()),
        (1, 2, 1)
    );
    let config = QueueConfig { vector: Some(2), ..QueueConfig::default() };
    let mut pair = drive.create_queue_pair(&config).unwrap();
    assert!(pair.eventfd().is_some());
    let read = read_write(NvmOpcode::Read, 1, 0, 8);
    let completion = drive.io(&mut pair, read, Data::In(&mut [0; 4096])).unwrap();
    assert!(completion.status().is_success());
    let unarmed = drive.create_queue_pair(&QueueConfig { vector: Some(3), ..QueueConfig::default() });
    assert!(matches!(unarmed, Err(HostError::Argument(_))));
}

#[test]
fn transfers_start_anywhere_in_a_page() {
    let mock = Mock::new(Options::default());
    let mut drive = attach(&mock);
    let memory = Arc::clone(drive.memory());
    let mut namespace = drive.open_namespace(1).unwrap();
    for (len, offset) in [(512, 4), (4096, 0), (4096, 512), (8192, 4092), (128 << 10, 2052)] {
        let transfer = Transfer::new(&memory, len, offset, 4096).unwrap();
        let data: Vec<u8> = (0..len).map(|i| (i / 7 + offset) as u8).collect();
        transfer.buffer().write(offset, &data).unwrap();
        let write = read_write(NvmOpcode::Write, 1, 3, (len / 512) as u32).with_prp(transfer.prp());
        assert!(namespace.io(write, Data::None).unwrap().status().is_success());
        let mut back = vec![0; len];
        namespace.read(3, &mut back).unwrap();
        assert!(back == data, "{len} bytes at {offset}");
    }
}

#[test]
fn events_are_reported_once_and_armed_again() {
    let mock = Mock::new(Options::default());
    let mut drive = attach(&mock);
    drive.arm_events(2).unwrap();
    assert_eq!(drive.poll_events().unwrap(), []);
    for _ in 0..5 {
        // Requests are taken in order, so one that was answered is behind this command.
        drive.identify(1, 0).unwrap();
        mock.lock().raise(0x0004_0002);
        let deadline = Instant::now() + Duration::from_secs(5);
        loop {
            let events = drive.poll_events().unwrap();
            if let [event] = events[..] {
                assert_eq!((event.event_type, event.info, event.log_page), (2, 0, 4));
                break;
            }
            assert!(Instant::now() < deadline);
        }
    }
    drive.identify(1, 0).unwrap();
    assert_eq!(mock.lock().events.len(), 2);
}

#[test]
fn a_bad_status_names_the_command() {
    let mock = Mock::new(Options::default());
    let mut drive = attach(&mock);
    let error = drive.admin_ok(Sqe::new(AdminOpcode::KeepAlive, 0, 0), Data::None).unwrap_err().to_string();
    assert!(error.starts_with("Keep Alive: Invalid Opcode"), "{error}");
    let raw = drive.admin(Sqe::new(0x55u8, 0, 0), Data::None).unwrap();
    assert!(raw.status().is(Status::INVALID_OPCODE) && raw.status().dnr());
    let mut namespace = drive.open_namespace(1).unwrap();
    let error = namespace.read(1 << 40, &mut [0; 512]).unwrap_err().to_string();
    assert!(error.contains("Read: LBA Out of Range"), "{error}");
    assert!(matches!(namespace.read(0, &mut [0; 500]), Err(HostError::Argument(_))));
    assert!(matches!(drive.open_namespace(7), Err(HostError::Argument(_))));
}

#[test]
fn a_controller_comes_back_after_a_reset() {
    let mock = Mock::new(Options { shadow: true, ..Options::default() });
    let mut drive = attach(&mock);
    for _ in 0..3 {
        let mut namespace = drive.open_namespace(1).unwrap();
        namespace.write(0, &[7; 512], true).unwrap();
        drive.device_reset().unwrap();
        drive.enable().unwrap();
    }
    assert_eq!(drive.info().unwrap().namespaces.len(), 1);
}

#[test]
fn memory_that_was_mapped_later_is_unmapped_when_its_last_user_goes() {
    let mock = Mock::new(Options::default());
    let mut drive = attach(&mock);
    let memory = drive.map_memory(1 << 20).unwrap();
    let buffer = memory.allocate(5000).unwrap();
    assert_eq!((buffer.len(), buffer.iova() % 4096), (5000, 0));
    assert!(matches!(buffer.write(4990, &[0; 20]), Err(HostError::OutOfBuffer { .. })));
    assert!(matches!(memory.allocate(2 << 20), Err(HostError::OutOfMemory { .. })));
    drop(memory);
    drive.identify(1, 0).unwrap();
    assert_eq!(mock.lock().memory.len(), 2);
    drop(buffer);
    drive.identify(1, 0).unwrap();
    assert_eq!(mock.lock().memory.len(), 1);
}

#[test]
fn a_directory_stands_for_the_socket_in_it() {
    let mock = Mock::new(Options { mapped: true, ..Options::default() });
    let config = HostConfig { profile: ClientProfile::Bare, ..config() };
    let drive = Drive::attach(mock.path.parent().unwrap(), config).unwrap();
    assert_eq!(drive.controller().serial, "MOCK");
    assert_eq!(drive.pci().vendor, 0x1b36);
}

#[test]
fn registers_are_used_for_doorbells_when_the_policy_says_so() {
    let mock = Mock::new(Options { mapped: true, shadow: true, ..Options::default() });
    let config = HostConfig { doorbells: DoorbellPolicy::Registers, ..config() };
    let mut drive = Drive::attach(&mock.path, config).unwrap();
    let trapped = mock.lock().trapped;
    drive.identify(1, 0).unwrap();
    assert!(mock.lock().trapped > trapped);
}

#[test]
fn a_way_to_ring_that_was_demanded_is_used_or_refused() {
    let both = Options { mapped: true, shadow: true, ..Options::default() };
    for (word, mode) in
        [("auto", "mapped"), ("shadow", "shadow"), ("mapped", "mapped"), ("trapped", "trapped")]
    {
        let mock = Mock::new(both);
        let drive =
            Drive::attach(&mock.path, HostConfig { doorbells: word.parse().unwrap(), ..config() }).unwrap();
        assert_eq!(drive.doorbell_mode(), mode);
    }
    for policy in [DoorbellPolicy::Shadow, DoorbellPolicy::Mapped] {
        let mock = Mock::new(Options::default());
        let refused =
            Drive::attach(&mock.path, HostConfig { doorbells: policy, ..config() }).unwrap_err().to_string();
        assert!(refused.starts_with("doorbells: "), "{refused}");
    }
    assert!("page".parse::<DoorbellPolicy>().unwrap_err().to_string().contains("`page`"));
}

#[test]
fn what_is_no_drive_is_named() {
    let place = tempfile::tempdir().unwrap();
    let missing = Drive::attach(place.path().join("no"), config()).unwrap_err();
    assert!(matches!(missing, HostError::SocketMissing { .. }), "{missing}");
    let dead = place.path().join("dead");
    drop(UnixListener::bind(&dead).unwrap());
    let refused = Drive::attach(&dead, config()).unwrap_err();
    assert!(matches!(refused, HostError::SocketRefused { .. }), "{refused}");
    let mock = Mock::new(Options { fault: Fault::NoNvme, ..Options::default() });
    let other = Drive::attach(&mock.path, config()).unwrap_err().to_string();
    assert!(other.contains("1b36:9999") && other.contains("NVMe"), "{other}");
    let odd = Drive::attach(&mock.path, HostConfig { page_size: 5000, ..config() }).unwrap_err();
    assert!(matches!(odd, HostError::Argument(_)));
}

#[test]
fn a_drive_in_use_is_said_to_be_in_use() {
    let mock = Mock::new(Options::default());
    let _first = attach(&mock);
    let second = Drive::attach(&mock.path, config()).unwrap_err();
    assert!(matches!(second, HostError::Busy { .. }), "{second}");
}

#[test]
fn a_server_that_accepts_nobody_ends_in_a_timeout() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("s");
    let _listener = UnixListener::bind(&path).unwrap();
    let config = HostConfig { timeout: Duration::from_millis(100), ..config() };
    let silent = Drive::attach(&path, config).unwrap_err();
    assert!(matches!(silent, HostError::Timeout { .. }), "{silent}");
}

#[test]
fn a_controller_that_never_gets_ready_ends_in_a_timeout() {
    let mock = Mock::new(Options { fault: Fault::NeverReady, ..Options::default() });
    let never = Drive::attach(&mock.path, config()).unwrap_err();
    assert!(matches!(never, HostError::Timeout { .. }), "{never}");
}

#[test]
fn a_target_that_goes_away_is_an_error_and_no_hang() {
    let mock = Mock::new(Options::default());
    let mut drive = attach(&mock);
    let mut namespace = drive.open_namespace(1).unwrap();
    drop(mock);
    let gone = namespace.read(0, &mut [0; 512]).unwrap_err();
    assert!(matches!(gone, HostError::Connection { .. }), "{gone}");
}

fn job() -> BenchConfig {
    BenchConfig { runtime: Duration::from_millis(100), iodepth: 16, ..BenchConfig::default() }
}

fn run(mock: &Mock, config: &BenchConfig) -> Result<bench::BenchResult, HostError> {
    bench::run(&mut attach(mock), config, &Progress::new(config.numjobs))
}

#[test]
fn every_pattern_runs_in_every_doorbell_mode_and_leaves_no_queue_behind() {
    for (options, mode) in modes() {
        let mock = Mock::new(options);
        let mut drive = attach(&mock);
        for rw in [Rw::Read, Rw::Write, Rw::RandRead, Rw::RandWrite, Rw::RandRw] {
            let config = BenchConfig { rw, numjobs: 2, bs: 16 << 10, ..job() };
            let progress = Progress::new(2);
            let result = bench::run(&mut drive, &config, &progress).unwrap();
            let total = result.summary.total;
            assert!(total.ios > 0, "{rw} {mode}");
            assert_eq!((total.ios, total.bytes), (progress.ios(), total.ios * (16 << 10)));
            assert_eq!(total.ios, result.jobs.iter().map(|job| job.total.ios).sum::<u64>());
            assert_eq!(result.summary.write.ios > 0, rw.writes());
            assert_eq!(result.summary.read.ios > 0, !matches!(rw, Rw::Write | Rw::RandWrite));
            assert!(
                total.latency.min_ns <= total.latency.p50_ns && total.latency.p50_ns <= total.latency.max_ns
            );
        }
        drive.identify(1, 0).unwrap();
        assert_eq!(mock.lock().memory.len(), 1);
    }
}

#[test]
fn interrupts_carry_a_run_too() {
    let mock = Mock::new(Options::default());
    let mut drive = Drive::attach(&mock.path, HostConfig { vectors: 2, ..config() }).unwrap();
    let config = BenchConfig { interrupts: true, ..job() };
    let result = bench::run(&mut drive, &config, &Progress::new(1)).unwrap();
    assert!(result.summary.total.ios > 0);
}

#[test]
fn verify_passes_on_a_drive_that_keeps_its_data() {
    for (rw, bs, numjobs) in [(Rw::Write, 4096, 1), (Rw::RandWrite, 512, 3), (Rw::RandWrite, 128 << 10, 2)] {
        let mock = Mock::new(Options::default());
        let result = run(&mock, &BenchConfig { rw, bs, numjobs, verify: true, ..job() }).unwrap();
        let report = result.verify.unwrap();
        assert_eq!((report.blocks, report.mismatched), (8192, 0));
        assert_eq!(result.summary.read.ios, result.summary.write.ios);
    }
}

#[test]
fn verify_names_a_flipped_bit_and_a_misplaced_block() {
    let mock = Mock::new(Options { fault: Fault::FlippedBit(100), ..Options::default() });
    let config = BenchConfig { verify: true, ..job() };
    let report = run(&mock, &config).unwrap().verify.unwrap();
    assert_eq!((report.mismatched, report.mismatches[0].lba), (1, 100));
    assert!(report.mismatches[0].found.contains("from byte 100"), "{:?}", report.mismatches);

    let mock = Mock::new(Options { fault: Fault::Misplaced(200), ..Options::default() });
    let config = BenchConfig { bs: 512, iodepth: 1, rw: Rw::Write, ..config };
    let report = run(&mock, &config).unwrap().verify.unwrap();
    assert_eq!((report.mismatched, report.mismatches[0].lba), (1, 200));
    assert_eq!(report.mismatches[0].found, "zeroes");
}

#[test]
fn a_run_on_a_sick_controller_ends_with_the_reason() {
    let quick = BenchConfig { command_timeout: Duration::from_millis(100), ..job() };
    for (fault, reason) in
        [(Fault::Silent, "no answer"), (Fault::Fatal, "fatal"), (Fault::WrongCid, "0x7777")]
    {
        let mock = Mock::new(Options { fault, ..Options::default() });
        let error = run(&mock, &quick).unwrap_err().to_string();
        assert!(error.contains(reason), "{error}");
    }
    let mock = Mock::new(Options { fault: Fault::NoQueues, ..Options::default() });
    let error = run(&mock, &quick).unwrap_err().to_string();
    assert!(error.contains("Create I/O Submission Queue"), "{error}");
}

#[test]
fn a_run_that_cannot_be_is_refused_before_anything_is_made() {
    let mock = Mock::new(Options::default());
    let mut drive = attach(&mock);
    for (config, word) in [
        (BenchConfig { bs: 1000, ..job() }, "bs"),
        (BenchConfig { bs: 1 << 20, ..job() }, "bs"),
        (BenchConfig { size: Some(1 << 40), ..job() }, "size"),
        (BenchConfig { iodepth: 2000, ..job() }, "iodepth"),
        (BenchConfig { numjobs: 5, ..job() }, "numjobs"),
        (BenchConfig { nsid: Some(9), ..job() }, "namespace 9"),
        (BenchConfig { interrupts: true, ..job() }, "vectors"),
        (BenchConfig { cpus: vec![1023], ..job() }, "CPU 1023"),
    ] {
        let error = bench::run(&mut drive, &config, &Progress::new(1)).unwrap_err().to_string();
        assert!(error.contains(word), "{error}");
    }
    bench::run(&mut drive, &job(), &Progress::new(1)).unwrap();
}

#[test]
fn a_cancelled_run_reports_what_was_done() {
    let mock = Mock::new(Options::default());
    let mut drive = attach(&mock);
    let config = BenchConfig { runtime: Duration::from_secs(60), ..job() };
    let progress = Progress::new(1);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while progress.ios() == 0 {
                std::thread::yield_now();
            }
            progress.cancel();
        });
        let result = bench::run(&mut drive, &config, &progress).unwrap();
        assert!(result.cancelled && result.summary.total.ios > 0);
        assert!(result.summary.elapsed_s < 30.0);
    });
}

#[test]
fn a_run_that_holds_keeps_its_queues_without_a_command_until_it_is_cancelled() {
    let mock = Mock::new(Options::default());
    let mut drive = attach(&mock);
    let config = BenchConfig { hold: Duration::from_secs(60), ..job() };
    let progress = Progress::new(1);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while progress.ios() == 0 {
                std::thread::yield_now();
            }
            progress.cancel();
        });
        let result = bench::run(&mut drive, &config, &progress).unwrap();
        assert!(result.cancelled && result.summary.total.ios > 0);
    });
    let short = BenchConfig { hold: Duration::from_millis(300), ..job() };
    let started = Instant::now();
    bench::run(&mut drive, &short, &Progress::new(1)).unwrap();
    assert!(started.elapsed() >= short.runtime + short.hold);
}

#[test]
fn a_drive_and_its_queue_pairs_may_move_to_other_threads() {
    const fn sendable<T: Send>() {}
    sendable::<Drive>();
    sendable::<nvmet_host::QueuePair>();
    sendable::<nvmet_host::DmaBuffer>();
    sendable::<HostError>();
}
