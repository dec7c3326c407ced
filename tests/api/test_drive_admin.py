"""Log pages, identify lists and events of the driver for Python, as a target fills them."""

from __future__ import annotations

from pathlib import Path

from nvmet_vdev import Target, attach, open_disk
from nvmet_vdev.pytest_plugin import DriveFactory

PATIENCE = 60.0
BLOCK = 512


def test_smart_counts_what_was_done(nvme_drive: DriveFactory) -> None:
    drive = nvme_drive()
    before = drive.smart()
    drive.write(0, bytes(1000 * BLOCK))
    for lba in range(3):
        drive.read(lba, 1)
    after = drive.smart()
    assert after.host_read_commands - before.host_read_commands == 3
    assert after.data_units_written - before.data_units_written == 1
    assert after.host_write_commands > before.host_write_commands
    assert (after.critical_warning, after.media_errors) == (0, 0)
    assert after.spare > after.spare_threshold
    assert 273 < after.temperature < 373


def test_the_error_log_tells_which_command_failed_and_why(nvme_drive: DriveFactory) -> None:
    drive = nvme_drive()
    before = drive.error_log()
    blocks = drive.namespaces[0].blocks
    failed = drive.io(0x02, cdw10=blocks, length=BLOCK)
    assert failed.status.more
    entry, *others = drive.error_log()
    assert others == before
    assert entry.count == drive.smart().error_log_entries
    assert (entry.sqid, entry.nsid, entry.status.name) == (1, 1, "LBA Out of Range")
    assert entry.lba == blocks


def test_a_new_namespace_is_told_by_an_event_and_listed_once(
    nvmet_target: Target, nvmet_directory: Path
) -> None:
    subsystem = nvmet_target.add_subsystem(serial="S1")
    subsystem.add_namespace(open_disk("ram:1M"))
    socket = nvmet_directory / "s"
    subsystem.listen(socket)
    with attach(socket) as drive:
        assert drive.changed_namespaces() == []
        drive.enable_events()
        subsystem.add_namespace(open_disk("ram:1M"), nsid=7)
        assert drive.next_event(PATIENCE).name == "Namespace Attribute Changed"
        assert drive.changed_namespaces(retain_event=True) == [7]
        assert drive.changed_namespaces() == [7]
        assert drive.changed_namespaces() == []
        assert drive.active_namespaces() == [1, 7]


def test_a_host_identifier_is_the_one_that_the_controller_has(
    nvmet_target: Target, nvmet_directory: Path
) -> None:
    subsystem = nvmet_target.add_subsystem(serial="S1")
    controller = subsystem.listen(nvmet_directory / "s")
    with attach(nvmet_directory / "s") as drive:
        assert drive.host_identifier() == controller.host.id.bytes
        assert any(drive.host_identifier())


def test_controllers_of_a_subsystem_and_of_a_namespace_are_listed(
    nvmet_target: Target, nvmet_directory: Path
) -> None:
    subsystem = nvmet_target.add_subsystem(serial="S1")
    subsystem.add_namespace("ram:1M", hosts=["nqn.2024-01.com.example:b"])
    subsystem.listen(nvmet_directory / "a", cntlid=3, hostnqn="nqn.2024-01.com.example:a")
    subsystem.listen(nvmet_directory / "b", cntlid=70, hostnqn="nqn.2024-01.com.example:b")
    with attach(nvmet_directory / "b") as drive:
        assert drive.controllers() == [3, 70]
        assert drive.attached_controllers(1) == [70]


def test_ana_states_are_in_the_log_and_told_by_an_event(nvmet_target: Target, nvmet_directory: Path) -> None:
    subsystem = nvmet_target.add_subsystem(serial="S1", shared=True)
    subsystem.add_namespace("ram:1M")
    subsystem.add_namespace("ram:1M", nsid=5, ana_group=7)
    controller = subsystem.listen(nvmet_directory / "a", ana={7: "non-optimized"})
    with attach(nvmet_directory / "a") as drive:
        drive.enable_events()
        log = drive.ana_log()
        assert (log.state(1), log.state(5), log.state(2)) == ("optimized", "non-optimized", None)
        controller.set_ana(7, "inaccessible")
        assert drive.next_event(PATIENCE).name == "Asymmetric Namespace Access Change"
        after = drive.ana_log()
        assert after.state(5) == "inaccessible"
        assert after.change_count > log.change_count
        assert {group.id: group.nsids for group in drive.ana_log(groups_only=True).groups}[7] == ()
        assert drive.namespaces[1].ana_group == 7
        assert drive.identify_controller().cmic & 0b1010 == 0b1010


def test_write_protection_is_set_and_seen(nvme_drive: DriveFactory) -> None:
    drive = nvme_drive()
    assert drive.write_protection() == "none"
    drive.set_write_protection("write-protect")
    assert drive.write_protection() == "write-protect"
    assert drive.rescan()[0].write_protected
    assert drive.io(0x01, data=bytes(BLOCK)).status.name == "Namespace is Write Protected"
    drive.set_write_protection("none")
    assert not drive.rescan()[0].write_protected


def test_smart_is_of_the_controller_or_of_a_namespace(nvmet_target: Target, nvmet_directory: Path) -> None:
    subsystem = nvmet_target.add_subsystem(serial="S1")
    for _ in range(2):
        subsystem.add_namespace("ram:1M")
    subsystem.listen(nvmet_directory / "a")
    with attach(nvmet_directory / "a") as drive:
        drive.read(0, 1, nsid=1)
        drive.read(0, 1, nsid=2)
        drive.read(1, 1, nsid=2)
        counts = [drive.smart(nsid).host_read_commands for nsid in (None, 1, 2)]
        assert counts == [3, 1, 2]


def test_a_spare_below_its_threshold_is_an_event(nvmet_target: Target, nvmet_directory: Path) -> None:
    subsystem = nvmet_target.add_subsystem(serial="S1")
    subsystem.listen(nvmet_directory / "a")
    with attach(nvmet_directory / "a") as drive:
        drive.enable_events()
        subsystem.set_health(spare=5, spare_threshold=10)
        event = drive.next_event(PATIENCE)
        assert (event.name, event.log_page) == ("Spare Below Threshold", 2)
        log = drive.smart()
        assert (log.spare, log.spare_threshold, log.critical_warning) == (5, 10, 0b1)
