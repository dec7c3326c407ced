"""What a state directory keeps from one `nvmet-vdev serve` to the next: counters, the error log,
reservations, write protection.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from nvmet_vdev import ControlClient, DeviceError, Drive, NvmetError, attach
from tests.product import Server, run, serve, wait_until

NQN = "nqn.2024-01.com.example:kept"
CONFIG = f"""
[target]
state_dir = "state"

[[subsystem]]
nqn = "{NQN}"

[[subsystem.namespace]]
nsid = 1
backend = "ram:1M"

[[port]]
portid = 1
traddr = "a.sock"
subsystem = "{NQN}"
"""
KEY = 0xFEED


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "drives.toml").write_text(CONFIG)
    return tmp_path


@contextmanager
def serving(place: Path) -> Iterator[Server]:
    with serve("-c", "drives.toml", "--control", place / "c.sock", cwd=place, command="serve") as server:
        yield server


@contextmanager
def drive(place: Path) -> Iterator[Drive]:
    with attach(place / "a.sock") as attached:
        yield attached


@contextmanager
def killed_under(server: Server, place: Path) -> Iterator[Drive]:
    """A drive whose target is killed at the end."""
    doomed = attach(place / "a.sock")
    try:
        yield doomed
        server.process.kill()
        server.process.wait()
    finally:
        with suppress(DeviceError):
            doomed.detach()


def suppressed(call: Callable[..., object], *args: object) -> None:
    with suppress(NvmetError):
        call(*args)


def attached(place: Path) -> bool:
    with ControlClient(place / "c.sock") as control:
        (port,) = control.call("list")["ports"]
        return bool(port["attached"])


def test_smart_and_the_error_log_go_on_where_they_ended(place: Path) -> None:
    with serving(place) as server, drive(place) as first:
        first.write(0, bytes(4096))
        for _ in range(3):
            first.read(0, 8)
        failed = first.io(0x02, cdw10=1 << 20, length=512)
        assert failed.status.name == "LBA Out of Range"
        before, log, of_namespace = first.smart(), first.error_log(), first.smart(1)
        assert (before.host_read_commands, of_namespace.host_read_commands) == (4, 4)
        first.detach()
        wait_until(lambda: not attached(place), "the detach")
        assert server.stop() == 0
    with serving(place), drive(place) as second:
        after = second.smart()
        assert after.host_read_commands == 4
        assert after.data_units_written == before.data_units_written
        assert after.error_log_entries == before.error_log_entries
        assert second.error_log() == log
        assert second.smart(1).host_read_commands == 4
        assert (after.power_cycles, after.unsafe_shutdowns) == (2, 0)
        second.read(0, 8)
        assert second.smart().host_read_commands == 5


def test_a_target_that_is_killed_under_its_guest_was_an_unsafe_shutdown(place: Path) -> None:
    counters = place / "state" / "counters.json"
    with serving(place) as server, killed_under(server, place):
        wait_until(lambda: b'"in_use":1' in counters.read_bytes(), "the attach is taken down")
    with serving(place), drive(place) as second:
        assert second.smart().unsafe_shutdowns == 1


def test_reservations_and_write_protection_outlive_a_killed_target(place: Path) -> None:
    with serving(place) as server, killed_under(server, place) as first:
        first.reservation_register(1, key=KEY, persist=True)
        first.reservation_acquire(1, key=KEY, type=2)
        first.set_write_protection("write-protect")
    with serving(place), drive(place) as second:
        report = second.reservation_report(1)
        assert (report.type, report.ptpl) == (2, True)
        assert [(one.key, one.holder) for one in report.registrants] == [(KEY, True)]
        refused = second.io(0x01, data=bytes(512))
        assert refused.status.name == "Namespace is Write Protected"


def test_a_change_that_never_ends_does_not_keep_the_target_from_ending(place: Path) -> None:
    (place / "hangs.py").write_text(
        "import pathlib, time\n"
        "class Drive:\n"
        "    size = 4096\n"
        "    def open(self):\n"
        "        pathlib.Path('begun').touch()\n"
        "        time.sleep(1000)\n"
        "    def read(self, offset, length):\n"
        "        return bytes(length)\n"
    )
    with serving(place) as server, ControlClient(place / "c.sock", timeout=60) as control:
        threading.Thread(
            target=suppressed, args=(control.namespace_add, NQN, "python:./hangs.py:Drive"), daemon=True
        ).start()
        wait_until((place / "begun").exists, "the backend is opened")
        assert server.stop() == 0
    assert not (place / "a.sock").exists()


@pytest.mark.parametrize("name", ["counters.json", "state"])
def test_a_damaged_file_is_refused_until_it_is_to_be_thrown_away(place: Path, name: str) -> None:
    with serving(place) as server, drive(place) as first:
        first.reservation_register(1, key=KEY, persist=True)
        first.detach()
        assert server.stop() == 0
    files = [path for path in (place / "state").iterdir() if path.name.endswith(name)]
    assert len(files) == 1
    files[0].write_bytes(b"half of what was to be writt")
    refused = run("serve", "-c", "drives.toml", "--control", "none", cwd=place)
    assert refused.returncode == 2
    assert refused.stdout == ""
    (line,) = refused.stderr.splitlines()
    assert str(files[0]) in line
    assert "discard" in line
    with serve(
        "-c", "drives.toml", "--control", "none", "--discard-state", cwd=place, command="serve"
    ) as server:
        assert server.stop() == 0
