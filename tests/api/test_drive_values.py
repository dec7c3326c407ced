"""Commands and data structures of the driver for Python, byte by byte as the specification has them.

A recorder stands for the controller: what is sent is looked at, and any answer is given.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator

import pytest

from nvmet_vdev import Command, Completion, ConfigError, Drive, NvmeStatusError, Status
from nvmet_vdev.logs import (
    AnaGroup,
    AnaLog,
    ErrorEntry,
    ReservationNotification,
    SmartLog,
    changed_namespaces,
)
from nvmet_vdev.nvme import AsyncEvent, IdentifyController, IdentifyNamespace
from nvmet_vdev.reservations import RegisteredController, ReservationReport, ReservationType

KEY, OTHER = 0x0123_4567_89AB_CDEF, 0x42
KEY_BYTES, OTHER_BYTES = bytes.fromhex("efcdab8967452301"), bytes.fromhex("4200000000000000")
HOST = bytes(range(16))
SUCCESS = Status(0, 0)


class Answered:
    """A command that has ended."""

    def __init__(self, command: Command, completion: Completion) -> None:
        self.command = command
        self.completion = completion

    def check(self) -> Completion:
        if not self.completion.status.success:
            raise NvmeStatusError(self.command, self.completion)
        return self.completion


class Recorder(Drive):
    """A drive without a controller."""

    def __init__(self) -> None:
        self.sent: list[Command] = []
        self.answers: Iterator[bytes | int] = iter(())
        self.max_transfer = 1 << 20

    def submit(self, command: Command) -> Answered:  # type: ignore[override]
        command.entry()
        self.sent.append(command)
        answer = next(self.answers, 0)
        if isinstance(answer, int):
            return Answered(command, Completion(answer, SUCCESS, bytes(command.length)))
        return Answered(command, Completion(0, SUCCESS, answer.ljust(command.length, b"\0")))


@pytest.fixture
def drive() -> Recorder:
    return Recorder()


def fields(command: Command) -> tuple[object, ...]:
    return command.admin, command.opcode, command.nsid, command.cdw10, command.cdw11


# Reservation commands (7.2 to 7.4)


@pytest.mark.parametrize(
    ("options", "cdw10", "data"),
    [
        ({"key": KEY}, 0x0, bytes(8) + KEY_BYTES),
        ({"key": KEY, "persist": True}, 0xC000_0000, bytes(8) + KEY_BYTES),
        ({"key": KEY, "persist": False}, 0x8000_0000, bytes(8) + KEY_BYTES),
        ({"current_key": KEY, "action": "unregister"}, 0x1, KEY_BYTES + bytes(8)),
        ({"current_key": OTHER, "key": KEY, "action": "replace"}, 0x2, OTHER_BYTES + KEY_BYTES),
        ({"key": KEY, "action": "replace", "ignore_key": True}, 0xA, bytes(8) + KEY_BYTES),
    ],
)
def test_reservation_register_is_encoded(
    drive: Recorder, options: dict[str, object], cdw10: int, data: bytes
) -> None:
    drive.reservation_register(7, **options)  # type: ignore[arg-type]
    (command,) = drive.sent
    assert fields(command) == (False, 0x0D, 7, cdw10, 0)
    assert command.data == data


@pytest.mark.parametrize("kind", [kind for kind in ReservationType if kind])
@pytest.mark.parametrize(("action", "bits"), [("acquire", 0), ("preempt", 1), ("preempt-and-abort", 2)])
def test_reservation_acquire_is_encoded(
    drive: Recorder, kind: ReservationType, action: str, bits: int
) -> None:
    drive.reservation_acquire(3, key=KEY, type=kind, action=action, preempt_key=OTHER)
    (command,) = drive.sent
    assert fields(command) == (False, 0x11, 3, int(kind) << 8 | bits, 0)
    assert command.data == KEY_BYTES + OTHER_BYTES


@pytest.mark.parametrize(("action", "bits"), [("release", 0), ("clear", 1)])
def test_reservation_release_is_encoded(drive: Recorder, action: str, bits: int) -> None:
    drive.reservation_release(3, key=KEY, type=6, action=action)
    (command,) = drive.sent
    assert fields(command) == (False, 0x15, 3, 0x0600 | bits, 0)
    assert command.data == KEY_BYTES


def test_reservation_types_have_the_numbers_of_the_specification() -> None:
    assert [kind.name for kind in ReservationType] == [
        "NONE",
        "WRITE_EXCLUSIVE",
        "EXCLUSIVE_ACCESS",
        "WRITE_EXCLUSIVE_REGISTRANTS_ONLY",
        "EXCLUSIVE_ACCESS_REGISTRANTS_ONLY",
        "WRITE_EXCLUSIVE_ALL_REGISTRANTS",
        "EXCLUSIVE_ACCESS_ALL_REGISTRANTS",
    ]
    assert [int(kind) for kind in ReservationType] == list(range(7))


# Reservation Report (7.5)


def reported(registrants: list[tuple[int, int, bytes, int]], *, extended: bool, kind: int = 1) -> bytes:
    """A Reservation Status data structure of (CNTLID, RCSTS, HOSTID, RKEY)."""
    data = bytearray(struct.pack("<IBH", 0x01020304, kind, len(registrants)))
    data += bytes(2) + b"\x01" + bytes(14)
    assert len(data) == 24
    data += bytes(40) if extended else b""
    for controller, status, host, key in registrants:
        data += struct.pack("<HB", controller, status) + bytes(5)
        if extended:
            data += key.to_bytes(8, "little") + host + bytes(32)
        else:
            data += host + key.to_bytes(8, "little")
    return bytes(data)


@pytest.mark.parametrize("extended", [True, False], ids=["extended", "basic"])
def test_a_reservation_report_is_decoded(drive: Recorder, extended: bool) -> None:
    host = HOST if extended else HOST[:8]
    other = bytes(16 if extended else 8)
    drive.answers = iter([reported([(1, 1, host, KEY), (0xFFFF, 0, other, OTHER)], extended=extended)])
    report = drive.reservation_report(9, extended=extended)
    assert report == ReservationReport(
        generation=0x01020304,
        type=ReservationType.WRITE_EXCLUSIVE,
        ptpl=True,
        registrants=(
            RegisteredController(1, host, KEY, True),
            RegisteredController(0xFFFF, other, OTHER, False),
        ),
    )
    (command,) = drive.sent
    assert fields(command) == (False, 0x0E, 9, 1023, int(extended))
    assert command.length == 4096


@pytest.mark.parametrize(("extended", "size"), [(True, 64 + 64 * 1025), (False, 24 + 24 * 1025)])
def test_a_report_of_many_registrants_is_asked_for_whole(drive: Recorder, extended: bool, size: int) -> None:
    host = HOST if extended else HOST[:8]
    whole = reported([(n, 0, host, n) for n in range(1025)], extended=extended)
    # While it was asked for again one more came; a controller cuts what does not fit.
    fewer = reported([(n, 0, host, n) for n in range(1024)], extended=extended)
    short = len(fewer)
    drive.answers = iter([fewer[:4096], whole[:short], whole])
    report = drive.reservation_report(extended=extended)
    assert [one.key for one in report.registrants] == list(range(1025))
    assert [command.length for command in drive.sent] == [4096, short, size]
    assert drive.sent[-1].cdw10 == size // 4 - 1


def test_a_report_without_registrants_is_empty(drive: Recorder) -> None:
    assert drive.reservation_report() == ReservationReport(0, 0, False, ())


# Logs (5.16.1)


def test_smart_is_decoded(drive: Recorder) -> None:
    page = bytearray(512)
    page[:7] = bytes([0x05]) + (310).to_bytes(2, "little") + bytes([90, 10, 3, 1])
    for number in range(10):
        page[32 + 16 * number : 48 + 16 * number] = (number << 64 | 100 + number).to_bytes(16, "little")
    page[192:216] = struct.pack("<II8H", 11, 12, *range(300, 308))
    drive.answers = iter([bytes(page), bytes(page)])
    log = drive.smart()
    assert log == drive.smart(3)
    assert [fields(command)[:4] for command in drive.sent] == [
        (True, 0x02, nsid, 0x007F_0002) for nsid in (0xFFFF_FFFF, 3)
    ]
    assert (log.critical_warning, log.temperature, log.spare, log.spare_threshold) == (5, 310, 90, 10)
    assert (log.percentage_used, log.endurance_group_warning) == (3, 1)
    assert (log.data_units_read, log.data_units_written) == (100, 1 << 64 | 101)
    assert (log.host_read_commands, log.host_write_commands) == (2 << 64 | 102, 3 << 64 | 103)
    assert (log.controller_busy_time, log.power_cycles) == (4 << 64 | 104, 5 << 64 | 105)
    assert (log.power_on_hours, log.unsafe_shutdowns) == (6 << 64 | 106, 7 << 64 | 107)
    assert (log.media_errors, log.error_log_entries) == (8 << 64 | 108, 9 << 64 | 109)
    assert (log.warning_temperature_time, log.critical_temperature_time) == (11, 12)
    assert log.temperature_sensors == tuple(range(300, 308))


def test_an_error_entry_is_decoded() -> None:
    entry = struct.pack("<QHHHHQIBBHQH", 5, 1, 0x33, 0x8501, 0x0328, 0x1122334455, 2, 0xC0, 0, 0, 77, 0)
    entry += bytes(22)
    # The status field has the Phase Tag in bit 0: DNR, SCT 2h, SC 80h.
    entry = entry[:12] + (0x4280 << 1 | 1).to_bytes(2, "little") + entry[14:]
    assert ErrorEntry.all_from_bytes(entry + bytes(128)) == [
        ErrorEntry(
            count=5,
            sqid=1,
            cid=0x33,
            status=Status(2, 0x80, dnr=True),
            location=0x0328,
            lba=0x1122334455,
            nsid=2,
            vendor_log=0xC0,
            command_specific=77,
        )
    ]


def test_the_changed_namespace_list_ends_with_a_zero() -> None:
    assert changed_namespaces(bytes(4096)) == []
    assert changed_namespaces(struct.pack("<4I", 1, 9, 1000, 0) + bytes(4080)) == [1, 9, 1000]
    assert changed_namespaces(struct.pack("<I", 0xFFFF_FFFF) + bytes(4092)) == [0xFFFF_FFFF]
    assert changed_namespaces(struct.pack("<1024I", *range(1, 1025))) == list(range(1, 1025))


def controller_data(**at: bytes) -> bytes:
    """Identify Controller with bytes at the offsets that the names end in."""
    data = bytearray(4096)
    for name, value in at.items():
        offset = int(name.rpartition("_")[2])
        data[offset : offset + len(value)] = value
    return bytes(data)


ANA_CONTROLLER = controller_data(
    cmic_76=b"\x0a",
    oaes_92=(1 << 8 | 1 << 11).to_bytes(4, "little"),
    anatt_342=b"\x0a",
    anacap_343=b"\x1f",
    anagrpmax_344=(128).to_bytes(4, "little"),
    nanagrpid_348=(128).to_bytes(4, "little"),
    nn_516=(1024).to_bytes(4, "little"),
    nwpc_531=b"\x01",
    mnan_540=(64).to_bytes(4, "little"),
)


def test_the_ana_log_is_asked_for_whole_and_decoded(drive: Recorder) -> None:
    page = struct.pack("<QH6x", 7, 3)
    page += struct.pack("<IIQB15x", 1, 2, 5, 0x1) + struct.pack("<2I", 1, 4)
    page += struct.pack("<IIQB15x", 2, 0, 7, 0xF)
    page += struct.pack("<IIQB15x", 9, 1, 0, 0x8) + struct.pack("<I", 5)
    drive.answers = iter([ANA_CONTROLLER, page])
    log = drive.ana_log()
    assert log == AnaLog(
        7,
        (
            AnaGroup(1, "optimized", (1, 4), 5),
            AnaGroup(2, "change", (), 7),
            AnaGroup(9, "8", (5,), 0),
        ),
    )
    assert [log.state(nsid) for nsid in (4, 5, 6)] == ["optimized", "8", None]
    size = 16 + 32 * 128 + 4 * 64
    assert drive.sent[1].length == size
    assert drive.sent[1].cdw10 == (size // 4 - 1) << 16 | 0x0C


def test_the_ana_log_without_namespaces_sets_rgo(drive: Recorder) -> None:
    page = struct.pack("<QH6x", 1, 1) + struct.pack("<IIQB15x", 1, 0, 1, 0x3)
    drive.answers = iter([ANA_CONTROLLER, page])
    assert drive.ana_log(groups_only=True, retain_event=True).groups == (AnaGroup(1, "inaccessible", (), 1),)
    size = 16 + 32 * 128
    assert drive.sent[1].length == size
    assert drive.sent[1].cdw10 == (size // 4 - 1) << 16 | 1 << 15 | 1 << 8 | 0x0C


def test_a_reservation_notification_is_decoded_and_none_is_none(drive: Recorder) -> None:
    page = struct.pack("<QBB2xI48x", 12, 3, 4, 1)
    assert len(page) == 64
    drive.answers = iter([page, bytes(64)])
    assert drive.reservation_notification() == ReservationNotification(12, "reservation-preempted", 4, 1)
    assert drive.reservation_notification(retain_event=True) is None
    assert [command.cdw10 for command in drive.sent] == [15 << 16 | 0x80, 15 << 16 | 1 << 15 | 0x80]


@pytest.mark.parametrize(
    "decode",
    [
        SmartLog.from_bytes,
        ErrorEntry.from_bytes,
        AnaLog.from_bytes,
        ReservationNotification.from_bytes,
        ReservationReport.from_bytes,
    ],
)
@pytest.mark.parametrize("size", [0, 8])
def test_a_page_that_is_cut_is_refused_in_one_line(decode: Callable[[bytes], object], size: int) -> None:
    with pytest.raises(ConfigError, match=r"^[^\n]*\d+ bytes, and \d+ are needed$"):
        decode(bytes(size))


def test_a_page_that_counts_more_than_it_has_is_refused() -> None:
    for page in (struct.pack("<QH6x", 1, 2), struct.pack("<QH6xIIQB15x", 1, 1, 1, 9, 1, 1)):
        with pytest.raises(ConfigError, match="Asymmetric Namespace Access"):
            AnaLog.from_bytes(page)
    with pytest.raises(ConfigError, match="Reservation Status"):
        ReservationReport.from_bytes(struct.pack("<IBHxxB14x", 1, 1, 1, 0))


# Features (5.27.1)


def test_the_host_identifier_has_two_sizes(drive: Recorder) -> None:
    drive.answers = iter([HOST, HOST[:8]])
    assert drive.host_identifier() == HOST
    assert drive.host_identifier(extended=False) == HOST[:8]
    drive.set_host_identifier(HOST)
    drive.set_host_identifier(HOST[:8])
    assert [(*fields(one), one.length, one.data) for one in drive.sent] == [
        (True, 0x0A, 0, 0x81, 1, 16, None),
        (True, 0x0A, 0, 0x81, 0, 8, None),
        (True, 0x09, 0, 0x81, 1, 0, HOST),
        (True, 0x09, 0, 0x81, 0, 0, HOST[:8]),
    ]
    with pytest.raises(ConfigError, match="7 bytes; use 8 or 16"):
        drive.set_host_identifier(bytes(7))


def test_write_protection_has_four_states(drive: Recorder) -> None:
    states = ["none", "write-protect", "until-power-cycle", "permanent"]
    drive.answers = iter([0, 1, 2, 3, 7])
    assert [drive.write_protection(5) for _ in range(5)] == [*states, "7"]
    for state in states:
        drive.set_write_protection(state, 5)
    assert [fields(one) for one in drive.sent[5:]] == [(True, 0x09, 5, 0x84, n) for n in range(4)]
    with pytest.raises(ConfigError, match=r"'off'; use one of none, write-protect"):
        drive.set_write_protection("off")


def test_the_notification_mask_has_the_bits_of_the_types(drive: Recorder) -> None:
    drive.answers = iter([0b1010])
    kinds = frozenset({"registration-preempted", "reservation-preempted"})
    assert drive.reservation_notification_mask(2) == kinds
    drive.set_reservation_notification_mask(["reservation-released"], 2)
    drive.set_reservation_notification_mask([], 2)
    assert [fields(one) for one in drive.sent] == [
        (True, 0x0A, 2, 0x82, 0),
        (True, 0x09, 2, 0x82, 0b0100),
        (True, 0x09, 2, 0x82, 0),
    ]
    with pytest.raises(ConfigError, match="'all'; use one of registration-preempted"):
        drive.set_reservation_notification_mask(["all"])


def test_reservation_persistence_is_one_bit(drive: Recorder) -> None:
    drive.answers = iter([1])
    assert drive.reservation_persistence(2) is True
    drive.set_reservation_persistence(True, 2)
    drive.set_reservation_persistence(False, 2)
    assert [fields(one)[1:] for one in drive.sent] == [
        (0x0A, 2, 0x83, 0),
        (0x09, 2, 0x83, 1),
        (0x09, 2, 0x83, 0),
    ]


# Identify (5.17.2)


def test_controllers_are_listed_over_several_pages(drive: Recorder) -> None:
    def page(ids: list[int]) -> bytes:
        return struct.pack(f"<{len(ids) + 1}H", len(ids), *ids)

    drive.answers = iter([page(list(range(1, 2048))), page([2048, 9000]), page([4]), page([])])
    assert drive.controllers() == [*range(1, 2049), 9000]
    assert drive.attached_controllers(3) == [4]
    assert drive.attached_controllers(9) == []
    assert [(one.nsid, one.cdw10) for one in drive.sent] == [
        (0, 0x13),
        (0, 2048 << 16 | 0x13),
        (3, 0x12),
        (9, 0x12),
    ]


def test_identify_tells_what_is_shared_and_reserved() -> None:
    controller = IdentifyController.from_bytes(ANA_CONTROLLER)
    assert (controller.cmic, controller.oaes, controller.nwpc, controller.mnan) == (0x0A, 0x900, 1, 64)
    assert (controller.anatt, controller.anacap) == (10, 0x1F)
    assert (controller.anagrpmax, controller.nanagrpid, controller.namespaces) == (128, 128, 1024)
    data = bytearray(4096)
    data[0], data[128 + 2] = 8, 9  # NSZE; LBADS of format 0
    data[30], data[31], data[99] = 1, 0xFF, 1
    data[92:96] = (7).to_bytes(4, "little")
    namespace = IdentifyNamespace.from_bytes(1, bytes(data))
    assert (namespace.nmic, namespace.rescap, namespace.ana_group) == (1, 0xFF, 7)
    assert namespace.write_protected


# Events (5.2.1)


def test_events_have_the_names_of_the_specification() -> None:
    names = {
        (1, 0, 2): "NVM Subsystem Reliability",
        (1, 1, 2): "Temperature Threshold",
        (1, 2, 2): "Spare Below Threshold",
        (2, 0, 4): "Namespace Attribute Changed",
        (2, 3, 0x0C): "Asymmetric Namespace Access Change",
        (6, 0, 0x80): "Reservation Log Page Available",
        (7, 9, 0xC0): "Vendor Specific",
        (2, 0x77, 0): "event 2h/77h",
    }
    for event, name in names.items():
        assert AsyncEvent(*event).name == name


def test_what_does_not_fit_is_refused_before_it_is_sent(drive: Recorder) -> None:
    mistakes: dict[str, Callable[[], object]] = {
        "action: 'seize'; use one of acquire, preempt, preempt-and-abort": lambda: drive.reservation_acquire(
            key=1, type=1, action="seize"
        ),
        "action: 'acquire'; use one of register": lambda: drive.reservation_register(action="acquire"),
        "action: 'drop'; use one of release, clear": lambda: drive.reservation_release(key=1, action="drop"),
        "key: -1; use a number of 64 bits": lambda: drive.reservation_register(key=-1),
        "preempt_key: 18446744073709551616": lambda: drive.reservation_acquire(
            key=1, type=1, preempt_key=1 << 64
        ),
        "type: 256; use a number of 8 bits": lambda: drive.reservation_acquire(key=1, type=256),
    }
    for text, mistake in mistakes.items():
        with pytest.raises(ConfigError) as caught:
            mistake()
        assert text in str(caught.value)
    assert drive.sent == []
