"""The NVMe driver for Python against a target in the same process: every method, every kind of mistake."""

from __future__ import annotations

import contextlib
import gc
import signal
import struct
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nvmet_vdev import (
    Backend,
    Command,
    ConfigError,
    DeviceError,
    Drive,
    NvmeStatusError,
    Status,
    Target,
    attach,
    open_disk,
)
from nvmet_vdev.pytest_plugin import DriveFactory
from tests.product import run

PATIENCE = 60.0
"""Seconds before a test gives up; nothing waits this long when it works."""
BLOCK = 512
BLOCKS = (64 << 20) // BLOCK
ASYNC_EVENT_REQUEST = Command(0x0C, admin=True)
PATTERN = bytes(range(256)) * 2


@pytest.fixture
def drive(nvme_drive: DriveFactory) -> Drive:
    return nvme_drive()


@contextlib.contextmanager
def status(name: str) -> Iterator[pytest.ExceptionInfo[NvmeStatusError]]:
    """The block ends with an error status of this name."""
    with pytest.raises(NvmeStatusError) as caught:
        yield caught
    assert caught.value.status.name == name


# Data


def test_what_is_written_is_read_whatever_its_size(drive: Drive) -> None:
    # Larger than MDTS, so that it takes several commands.
    for blocks in (1, 8, 9, 2 * drive.max_transfer // BLOCK + 3):
        data = bytes(range(1, 256)) * (blocks * BLOCK // 255 + 1)
        data = data[: blocks * BLOCK]
        drive.write(5, data)
        assert drive.read(5, blocks) == data
    assert drive.read(4, 1) == bytes(BLOCK)


def test_any_buffer_is_written_and_read_into(drive: Drive) -> None:
    drive.write(0, bytearray(PATTERN), fua=True)
    drive.write(1, memoryview(PATTERN * 2).cast("I"))
    buffer = bytearray(3 * BLOCK)
    drive.read_into(0, buffer)
    assert buffer == PATTERN * 3
    drive.read_into(1, memoryview(buffer)[:BLOCK])
    assert buffer == PATTERN * 3


def test_many_ranges_are_read_at_once_and_come_in_order(nvme_drive: DriveFactory) -> None:
    drive = nvme_drive(attach_options={"depth": 7})
    assert drive.depth == 7
    for lba in range(100):
        drive.write(lba, struct.pack("<I", lba) * (BLOCK // 4))
    ranges = [(99 - n, 1 + n % 2) for n in range(100)]
    for (lba, blocks), data in zip(ranges, drive.read_many(ranges), strict=True):
        found = struct.unpack_from("<I", data)[0]
        assert (found, len(data)) == (lba, blocks * BLOCK)


def test_compare_says_whether_blocks_are_equal(drive: Drive) -> None:
    drive.write(0, PATTERN * 4)
    assert drive.compare(0, PATTERN * 4)
    assert not drive.compare(0, PATTERN * 3 + bytes(BLOCK))


def test_zeroes_and_deallocation_leave_zeroes(drive: Drive) -> None:
    drive.write(0, PATTERN * 16)
    drive.write_zeroes(1, 2)
    drive.write_zeroes(4, 2, deallocate=True, fua=True)
    drive.deallocate([(8, 4), (15, 1)])
    drive.flush()
    drive.flush(0xFFFF_FFFF)
    zero = {1, 2, 4, 5, 8, 9, 10, 11, 15}
    for lba in range(16):
        assert drive.read(lba, 1) == (bytes(BLOCK) if lba in zero else PATTERN)
    # More blocks than one command can name.
    drive.write_zeroes(0, BLOCKS)
    assert drive.read(0, 16) == bytes(16 * BLOCK)


def test_a_namespace_of_4096_bytes_is_addressed_by_its_blocks(nvme_drive: DriveFactory) -> None:
    drive = nvme_drive("ram:16M", block_size=4096, nsid=3)
    drive.write(7, PATTERN * 8, nsid=3)
    assert drive.read(7, 1, nsid=3) == PATTERN * 8
    assert [(one.nsid, one.block_size, one.blocks) for one in drive.namespaces] == [(3, 4096, 4096)]
    with pytest.raises(ConfigError, match="512 bytes are no whole blocks of namespace 3: 4096 bytes each"):
        drive.write(0, bytes(512), nsid=3)


# Identify, logs, features


def test_identify_is_there_as_bytes_and_as_values(drive: Drive) -> None:
    raw = drive.identify(1)
    controller = drive.identify_controller()
    assert len(raw) == 4096
    assert raw[4:24].decode().strip() == controller.serial == "DRIVE1"
    assert controller.version == "2.0.0"
    assert drive.registers.vs == 0x0002_0000
    assert drive.active_namespaces() == [1]
    namespace = drive.identify_namespace()
    assert (namespace.nsid, namespace.blocks, namespace.block_size) == (1, BLOCKS, BLOCK)
    assert namespace.size == 64 << 20
    assert namespace.lba_formats[namespace.lba_format] == BLOCK
    assert drive.namespaces == (namespace,)
    with pytest.raises(ConfigError, match=r"namespace 9 is not active; active are \[1\]"):
        drive.identify_namespace(9)


def test_log_pages_are_read_from_any_offset(drive: Drive) -> None:
    health = drive.get_log_page(2, 512)
    assert len(health) == 512
    assert drive.get_log_page(2, 64, offset=128) == health[128:192]
    with status("Invalid Log Page"):
        drive.get_log_page(0x7F, 64)


def test_features_are_got_and_set(drive: Drive) -> None:
    assert drive.set_features(0x04, 0x0150).status.success
    assert drive.get_features(0x04).dw0 == 0x0150
    assert drive.get_features(0x04, select=1).dw0 != 0x0150
    with status("Invalid Field in Command"):
        drive.get_features(0x7F)


def test_registers_are_those_of_the_controller(drive: Drive) -> None:
    registers = drive.registers
    assert registers.cap == registers.read(0, 8) == registers.read(0) | registers.read(4) << 32
    assert registers.cc & 1 == 1
    assert registers.csts & 1 == 1
    # INTMS and INTMC are not used with MSI-X; a read-only register keeps its value.
    registers.write(0x08, 0)
    assert registers.vs == 0x0002_0000


# Passthrough


def test_an_error_status_of_a_raw_command_is_handed_out(drive: Drive) -> None:
    for completion in (drive.admin(0x55), drive.io(0x55)):
        assert completion.status.code == (0, 0x01)
        assert completion.status.name == "Invalid Opcode"
        assert completion.status.dnr
        assert not completion.status.success
        assert "Invalid Opcode (00/01h)" in str(completion.status)
    # A namespace that is not active, and one that cannot be (beyond NN).
    assert drive.io(0x02, nsid=9, length=BLOCK).status.name == "Invalid Field in Command"
    assert drive.io(0x02, nsid=5000, length=BLOCK).status.name == "Invalid Namespace or Format"
    vendor = Status(7, 3, crd=2)
    assert (vendor.name, str(vendor)) == ("Vendor Specific", "Vendor Specific (07/03h) CRD2")


def test_a_raw_command_carries_what_it_is_given(drive: Drive) -> None:
    assert drive.io(0x01, cdw10=3, cdw12=1, data=PATTERN * 2).status.success
    read = drive.io(0x02, cdw10=3, cdw12=1, length=2 * BLOCK)
    assert (read.data, read.dw0) == (PATTERN * 2, 0)
    assert drive.admin(0x06, cdw10=1, length=4096).data == drive.identify(1)
    # A reserved PSDT stands in the flags, and so do fused commands.
    wrong = drive.submit(Command(0x02, 1, flags=0xC0, length=BLOCK)).wait()
    assert wrong.status.name == "Invalid Field in Command"


@pytest.mark.parametrize("length", [1, 3, 511, 513, 4095, 4097, 12289])
def test_odd_lengths_are_no_concern_of_the_driver(drive: Drive, length: int) -> None:
    drive.write(0, PATTERN * 32)
    # The controller moves whole blocks; the rest of a buffer's last page is not shown.
    blocks = -(-length // BLOCK)
    read = drive.io(0x02, cdw12=blocks - 1, length=length)
    assert read.status.success
    assert read.data == (PATTERN * 32)[:length]


def test_fused_commands_go_in_together(drive: Drive) -> None:
    drive.write(0, PATTERN)
    new = PATTERN[::-1]
    compare = Command(0x05, 1, flags=1, data=PATTERN)
    first, second = drive.submit_many([compare, Command(0x01, 1, flags=2, data=new)])
    assert first.wait().status.success
    assert second.wait().status.success
    assert drive.read(0, 1) == new
    first, second = drive.submit_many([compare, Command(0x01, 1, flags=2, data=PATTERN)])
    assert first.wait().status.name == "Compare Failure"
    assert second.wait().status.name == "Command Aborted due to Failed Fused Command"


def test_more_commands_than_the_queue_holds_are_submitted_at_once(nvme_drive: DriveFactory) -> None:
    drive = nvme_drive(attach_options={"depth": 3})
    pending = drive.submit_many([Command(0x02, 1, cdw10=n, length=BLOCK) for n in range(50)])
    assert len(pending) == 50
    for one in reversed(pending):
        assert drive.wait(one).status.success
        assert one.done()
        assert one.wait() is one.wait()


def test_a_command_whose_outcome_nobody_wants_leaves_nothing(nvme_drive: DriveFactory) -> None:
    drive = nvme_drive(attach_options={"memory": 4 << 20})
    for _ in range(100):
        drive.submit(Command(0x02, 1, cdw12=1023, length=1 << 19))
        gc.collect(0)
    assert drive.read(0, 1) == bytes(BLOCK)


def test_polling_and_every_way_to_ring_work_as_well(nvme_drive: DriveFactory) -> None:
    for options in ({"interrupts": False}, {"doorbells": "trapped"}, {"doorbells": "shadow"}):
        drive = nvme_drive(attach_options=options)
        drive.write(1, PATTERN)
        assert drive.read(1, 1) == PATTERN


# Statuses


def test_a_bad_status_says_which_command_and_why(drive: Drive) -> None:
    with status("LBA Out of Range") as caught:
        drive.read(BLOCKS, 1)
    error = caught.value
    assert (error.opcode, error.nsid, error.status.code) == (0x02, 1, (0, 0x80))
    assert str(error).startswith("Read of namespace 1: LBA Out of Range (00/80h)")
    assert isinstance(error, DeviceError)
    with status("LBA Out of Range"):
        drive.read(2**64 - 1, 1)
    with status("LBA Out of Range"):
        drive.write(BLOCKS - 1, PATTERN * 2)
    with status("LBA Out of Range"):
        drive.compare(BLOCKS, PATTERN)
    with status("LBA Out of Range"):
        drive.write_zeroes(BLOCKS - 1, 2)
    with status("Invalid Namespace or Format"):
        drive.read(0, 1, nsid=5000)
    with status("Invalid Field in Command"):
        drive.write(0, PATTERN, nsid=9)


def test_a_read_only_namespace_refuses_writes(nvme_drive: DriveFactory, tmp_path: Path) -> None:
    (tmp_path / "disk.img").write_bytes(PATTERN * 64)
    drive = nvme_drive(str(tmp_path / "disk.img"), read_only=True)
    assert drive.read(0, 1) == PATTERN
    with status("Namespace is Write Protected"):
        drive.write(0, PATTERN)


# Events and abort


def test_an_event_tells_of_a_new_namespace(nvmet_target: Target, nvmet_directory: Path) -> None:
    subsystem = nvmet_target.add_subsystem(serial="S1")
    subsystem.add_namespace(open_disk("ram:1M"))
    socket = nvmet_directory / "s"
    subsystem.listen(socket)
    with attach(socket) as drive:
        assert [one.nsid for one in drive.namespaces] == [1]
        drive.enable_events()
        with pytest.raises(DeviceError, match="asynchronous event"):
            drive.next_event(timeout=0)
        for nsid in (2, 3):
            subsystem.add_namespace(open_disk("ram:1M"))
            event = drive.next_event(PATIENCE)
            assert (event.type, event.info, event.log_page) == (2, 0, 4)
            changed = struct.unpack("<1024I", drive.get_log_page(event.log_page, 4096))
            assert changed[:2] == (nsid, 0)
            # The notice is enough: nobody has to ask for a scan.
            assert [one.nsid for one in drive.namespaces] == list(range(1, nsid + 1))
        drive.write(0, PATTERN, nsid=3)
        assert [one.nsid for one in drive.rescan()] == [1, 2, 3]


def test_an_abort_ends_a_command_and_says_so(drive: Drive) -> None:
    pending = drive.submit(ASYNC_EVENT_REQUEST)
    assert not pending.done()
    assert drive.abort(pending)
    assert pending.wait().status.name == "Command Abort Requested"
    assert not drive.abort(pending)
    read = drive.submit(Command(0x02, 1, length=BLOCK))
    read.wait()
    assert not drive.abort(read)


# Life


def test_a_reset_ends_what_is_in_flight_and_the_drive_goes_on(drive: Drive) -> None:
    drive.write(0, PATTERN)
    pending = drive.submit(ASYNC_EVENT_REQUEST)
    drive.reset()
    with pytest.raises(DeviceError, match="reset before the command completed"):
        pending.wait()
    assert drive.read(0, 1) == PATTERN
    # Also after the registers were written behind the driver's back.
    drive.registers.cc &= ~1
    drive.reset()
    assert drive.read(0, 1) == PATTERN


def test_a_shutdown_is_complete_and_a_reset_ends_it(drive: Drive) -> None:
    drive.shutdown()
    assert drive.registers.csts >> 2 & 3 == 2
    drive.reset()
    assert drive.registers.csts >> 2 & 3 == 0
    assert drive.read(0, 1) == bytes(BLOCK)


def test_a_drive_that_is_gone_says_so(drive: Drive) -> None:
    pending = drive.submit(ASYNC_EVENT_REQUEST)
    with drive:
        pass
    drive.detach()
    drive.close()
    uses = (
        lambda: drive.read(0, 1),
        lambda: drive.identify(1),
        lambda: drive.registers.csts,
        lambda: drive.next_event(0),
        drive.reset,
        drive.shutdown,
        pending.wait,
        pending.done,
        lambda: drive.abort(pending),
    )
    for use in uses:
        with pytest.raises(ConfigError, match="the drive is detached"):
            use()
    assert repr(drive).startswith("Drive('/")


def test_a_socket_is_free_again_after_a_close_without_a_word(drive: Drive) -> None:
    drive.write(0, PATTERN)
    with pytest.raises(ConfigError, match="another client"):
        attach(drive.socket)
    drive.close()
    with attach(Path(drive.socket)) as again:
        assert again.read(0, 1) == PATTERN


def test_an_error_in_the_block_is_not_hidden_by_the_end_of_the_target(
    nvmet_target: Target, nvme_drive: DriveFactory
) -> None:
    drive = nvme_drive()
    nvmet_target.shutdown()
    with pytest.raises(KeyError), drive:
        raise KeyError


def test_a_target_that_goes_ends_every_wait(nvmet_target: Target, nvme_drive: DriveFactory) -> None:
    drive = nvme_drive()
    drive.submit(ASYNC_EVENT_REQUEST)
    stopper = threading.Thread(target=nvmet_target.shutdown)
    stopper.start()
    with pytest.raises(DeviceError):
        drive.next_event(PATIENCE)
    stopper.join(PATIENCE)
    drive.close()


# Misuse


def test_what_can_never_work_is_refused_in_one_line(drive: Drive, nvmet_directory: Path) -> None:
    mistakes: dict[str, Callable[[], object]] = {
        "0 blocks; use at least 1": lambda: drive.read(0, 0),
        "lba: -1; use a number of 64 bits": lambda: drive.read(-1, 1),
        "100 bytes are no whole blocks of namespace 1: 512 bytes each": lambda: drive.write(0, bytes(100)),
        "the buffer is read-only": lambda: drive.read_into(0, memoryview(bytes(BLOCK))),
        "contiguous": lambda: drive.write(0, memoryview(bytes(1024))[::2]),
        "a multiple of 4": lambda: drive.get_log_page(2, 6),
        "0 ranges; one command takes 1 to 256": lambda: drive.deallocate([]),
        "257 ranges": lambda: drive.deallocate([(0, 1)] * 257),
        "cdw12: 4294967296; use a number of 32 bits": lambda: drive.io(2, cdw12=1 << 32),
        "opcode: 256; use a number of 8 bits": lambda: drive.admin(256),
        "nsid: -1": lambda: drive.flush(-1),
        "nsid: '1'; use a number": lambda: drive.flush("1"),  # type: ignore[arg-type]
        "length: -1 bytes": lambda: drive.io(2, length=-1),
        "cns: 256": lambda: drive.identify(256),
        "a register of 2 bytes; use 4 or 8": lambda: drive.registers.read(0, 2),
        "does not fit into a register of 4 bytes": lambda: drive.registers.write(0x14, 1 << 32),
        "timeout: -1 is not a number of seconds": lambda: drive.next_event(-1),
        "host memory has no run of": lambda: drive.io(0x02, length=1 << 30),
        "depth: 0": lambda: attach(drive.socket, depth=0),
        "no such socket": lambda: attach(nvmet_directory / "none"),
        "doorbells: `loud`": lambda: attach(drive.socket, doorbells="loud"),
    }
    for text, mistake in mistakes.items():
        with pytest.raises(ConfigError) as caught:
            mistake()
        assert text in str(caught.value)
        assert "\n" not in str(caught.value)
    assert drive.read(0, 1) == bytes(BLOCK)


# Threads and signals


def test_threads_share_a_drive(drive: Drive) -> None:
    failures: list[str] = []

    def work(thread: int) -> None:
        for n in range(100):
            data = struct.pack("<II", thread, n) * (BLOCK // 8)
            drive.write(thread, data)
            if drive.read(thread, 1) != data:
                failures.append(f"thread {thread} round {n}")

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert failures == []


class AlarmError(Exception):
    """What the handler raises."""


def test_a_signal_ends_a_wait(drive: Drive) -> None:
    def ring(*_: object) -> None:
        raise AlarmError

    before = signal.signal(signal.SIGALRM, ring)
    try:
        for wait in (drive.next_event, drive.submit(ASYNC_EVENT_REQUEST).wait):
            signal.setitimer(signal.ITIMER_REAL, 0.05)
            with pytest.raises(AlarmError):
                wait(PATIENCE)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert drive.read(0, 1) == bytes(BLOCK)


def test_other_threads_run_while_one_waits(drive: Drive) -> None:
    pending = drive.submit(ASYNC_EVENT_REQUEST)
    waiter = threading.Thread(target=pending.wait, args=(PATIENCE,))
    waiter.start()
    # Each command takes turns with the thread that waits; the last one ends its wait.
    for _ in range(100):
        drive.write(0, PATTERN)
    assert waiter.is_alive()
    assert drive.abort(pending)
    waiter.join(PATIENCE)
    assert not waiter.is_alive()


# Backends in Python, in this very process


class Gate(Backend):
    """A drive whose reads of the second block wait until somebody opens the gate."""

    size = 1 << 20
    thread_safe = True

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.gate = threading.Event()

    def read(self, offset: int, buf: memoryview) -> None:
        if offset == BLOCK:
            self.entered.set()
            self.gate.wait(PATIENCE)
        buf[:] = bytes([offset // BLOCK]) * len(buf)


@pytest.fixture
def gate() -> Iterator[Gate]:
    gate = Gate()
    yield gate
    gate.gate.set()


def test_a_backend_of_the_same_process_answers_while_a_drive_waits(
    nvme_drive: DriveFactory, gate: Gate
) -> None:
    drive = nvme_drive(gate)
    assert [data[0] for data in drive.read_many([(2 + n, 1) for n in range(200)])] == list(range(2, 202))

    def open_it() -> None:
        gate.entered.wait(PATIENCE)
        gate.gate.set()

    opener = threading.Thread(target=open_it)
    opener.start()
    assert drive.read(1, 1) == b"\1" * BLOCK
    opener.join(PATIENCE)


def test_a_command_that_hangs_is_aborted_and_others_go_on(nvme_drive: DriveFactory, gate: Gate) -> None:
    drive = nvme_drive(gate)
    hanging = drive.submit(Command(0x02, 1, cdw10=1, length=BLOCK))
    assert gate.entered.wait(PATIENCE)
    with pytest.raises(DeviceError, match="while waiting for a completion"):
        hanging.wait(timeout=0)
    assert drive.read(2, 1) == b"\2" * BLOCK
    assert not hanging.done()
    assert drive.abort(hanging)
    assert hanging.wait(PATIENCE).status.name == "Command Abort Requested"


def test_a_process_ends_that_leaves_everything_open(nvme_drive: DriveFactory, tmp_path: Path) -> None:
    served = nvme_drive()
    served.close()
    script = (
        "import sys, nvmet_vdev as n\n"
        "drive = n.attach(sys.argv[1])\n"
        "pending = drive.submit(n.Command(0x0C, admin=True))\n"
        "print(drive.read(0, 1)[0])\n"
    )
    ended = run("-c", script, served.socket, cwd=tmp_path, program=(sys.executable,))
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "0\n", "")
