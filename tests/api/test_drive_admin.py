"""Log pages, identify lists and events of the driver for Python, as a target fills them."""

from __future__ import annotations

from pathlib import Path

from nvmet_vdev import Drive, Target, attach, open_disk
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


def test_a_host_identifier_is_never_zero(nvme_drive: DriveFactory) -> None:
    drive: Drive = nvme_drive()
    identifier = drive.host_identifier()
    assert len(identifier) == 16
    assert any(identifier)
