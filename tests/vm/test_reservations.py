"""Two guests, two hosts, one namespace: who holds a reservation writes, who does not gets EBADE.

The last case kills the target, and with it both guests; new guests of the same hosts find what persists.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import pytest

from tests.vm.kernel_log import faults
from tests.vm.lab import MIB, Lab
from tests.vm.nvme_cli import status_of
from tests.vm.rig.guest import SMALL, Guest
from tests.vm.rig.served import Port, Served

pytestmark = pytest.mark.vm

NQN = "nqn.2024-01.com.example:reserved"
SERIAL = "RESERVED1"
SIZE = 32 * MIB
# 1: reservations persist; 2: they are only told apart from those of 1.
NAMESPACES = (1, 2)
WRITE_EXCLUSIVE, EXCLUSIVE_ACCESS = 1, 2
# Type, and what another host may do that is not registered and that is: read, write.
TYPES = {
    "write-exclusive": (1, "r-", "r-"),
    "exclusive-access": (2, "--", "--"),
    "write-exclusive-registrants-only": (3, "r-", "rw"),
    "exclusive-access-registrants-only": (4, "--", "rw"),
    "write-exclusive-all-registrants": (5, "r-", "rw"),
    "exclusive-access-all-registrants": (6, "--", "rw"),
}
CONFLICT = (0x0, 0x83)
# strerror()
EBADE = "Invalid exchange"
# Types of notifications.
PREEMPTED, RELEASED = 1, 2
# Dword 0 of an event: I/O Command Set, Reservation Log Page Available, log page 80h.
AEN = "NVME_AEN=0x800006"
WORDS = f"""
c=$(controller_of {SERIAL}); d=$(namespace_of {SERIAL}); e=$(namespace_of {SERIAL} 2)
block="--start-block=64 --block-count=0 --data-size=512"
# What may be done to device $1: r, w, or - for a conflict.
may() {{
    for _way in read write; do
        if nvme $_way $1 $block --data=/tmp/block >/tmp/said 2>&1; then _is=$(printf %.1s $_way)
        else grep -q "Reservation Conflict" /tmp/said || {{ cat /tmp/said; return 1; }}; _is=-; fi
        printf %s $_is
    done
}}
"""


@dataclass(frozen=True)
class Member:
    """A host: a guest with one controller."""

    name: str
    port: int
    key: int
    hostid: uuid.UUID
    guest: Guest

    def sh(self, script: str) -> str:
        return self.guest.run(WORDS + script).out

    def register(self, options: str = "", device: str = "$d") -> None:
        self.sh(f"nvme resv-register {device} --nrkey={self.key} {options}")

    def unregister(self, device: str = "$d") -> None:
        self.sh(f"nvme resv-register {device} --crkey={self.key} --rrega=1")

    def acquire(self, kind: int, options: str = "", device: str = "$d") -> None:
        self.sh(f"nvme resv-acquire {device} --crkey={self.key} --rtype={kind} {options}")

    def release(self, kind: int, options: str = "") -> None:
        self.sh(f"nvme resv-release $d --crkey={self.key} --rtype={kind} {options}")

    def may(self, device: str = "$d") -> str:
        """What the host may do: r or -, and w or -."""
        return self.sh(f"may {device}").strip()

    def report(self, device: str = "$d") -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.sh(f"nvme resv-report {device} -e -o json"))
        return found

    def notification(self) -> dict[str, Any]:
        """The next notification; its `rn_log_type` is 0 for none."""
        found = json.loads(self.sh("nvme resv-notif-log $c -o json"))
        return {name.lower(): value for name, value in found.items()}


@dataclass(frozen=True)
class Pair:
    """The target and its hosts. `hosts` changes when there are new guests."""

    lab: Lab
    target: Served
    ports: dict[str, int]
    stack: ExitStack
    hosts: dict[str, Member]

    @property
    def a(self) -> Member:
        return self.hosts["a"]

    @property
    def b(self) -> Member:
        return self.hosts["b"]

    def boot(self) -> None:
        """New guests."""
        for name, number in self.ports.items():
            port = Port(self.target, self.lab.directory / f"{name}.sock", SERIAL)
            guest = self.stack.enter_context(self.lab.boot(port, machine=SMALL))
            guest.run(f"wait_namespaces {len(NAMESPACES)}; head -c 512 /dev/urandom >/tmp/block")
            self.hosts[name] = Member(name, number, 0x100 + number, hostid(name), guest)


def hostid(name: str) -> uuid.UUID:
    return uuid.uuid5(uuid.NAMESPACE_DNS, f"{name}.example.com")


def nqn(name: str) -> str:
    return f"nqn.2014-08.org.nvmexpress:uuid:{hostid(name)}"


def registrants(report: dict[str, Any]) -> set[tuple[str, int, bool]]:
    """Host, key and whether it holds the reservation."""
    (listed,) = [value for value in report.values() if isinstance(value, list)]
    return {(one["hostid"], one["rkey"], bool(one["rcsts"] & 1)) for one in listed}


@pytest.fixture(scope="module")
def pair(our_lab: Lab) -> Iterator[Pair]:
    directory = our_lab.directory
    ports = {"a": 1, "b": 2}
    config = {
        "target": {"state_dir": str(directory / "state")},
        "host": [{"nqn": nqn(name), "hostid": str(hostid(name))} for name in ports],
        "subsystem": [
            {
                "nqn": NQN,
                "serial": SERIAL,
                "allowed_hosts": [nqn(name) for name in ports],
                "namespace": [
                    {"nsid": nsid, "backend": str(our_lab.image(f"reserved{nsid}.img", SIZE))}
                    for nsid in NAMESPACES
                ],
            }
        ],
        "port": [
            {
                "portid": port,
                "traddr": str(directory / f"{name}.sock"),
                "subsystem": NQN,
                "hostnqn": nqn(name),
            }
            for name, port in ports.items()
        ],
    }
    (directory / "state").mkdir()
    with our_lab.serve(config) as target, ExitStack() as stack:
        pair = Pair(our_lab, target, ports, stack, {})
        pair.boot()
        yield pair
        for member in pair.hosts.values():
            assert faults(member.guest) == []
            member.guest.power_off()


@pytest.fixture(autouse=True)
def cleared(pair: Pair) -> Iterator[None]:
    """Every case begins without registrants and notifications."""
    yield
    for nsid in NAMESPACES:
        pair.target.call("reservation.clear", nqn=NQN, nsid=nsid)
    for member in pair.hosts.values():
        if member.guest.alive:
            while member.notification()["rn_log_type"]:
                pass


def test_hosts_register_with_the_identifiers_that_the_configuration_gives_them(pair: Pair) -> None:
    pair.a.register()
    pair.b.register()
    for member in (pair.a, pair.b):
        report = member.report()
        assert (report["rtype"], report["ptpls"]) == (0, 0)
        assert registrants(report) == {(one.hostid.hex, one.key, False) for one in (pair.a, pair.b)}
    shown = pair.target.call("reservation.show", nqn=NQN, nsid=1)
    assert len(shown["registrants"]) == 2


@pytest.mark.parametrize(("kind", "stranger", "registrant"), TYPES.values(), ids=TYPES)
def test_each_type_lets_others_do_what_it_says(pair: Pair, kind: int, stranger: str, registrant: str) -> None:
    pair.a.register()
    pair.a.acquire(kind)
    assert pair.b.may() == stranger
    pair.b.register()
    assert pair.b.may() == registrant
    assert pair.a.may() == "rw"
    assert pair.b.report()["rtype"] == kind
    # The other namespace is nobody's.
    assert pair.b.may("$e") == "rw"
    pair.a.release(kind)
    assert pair.b.may() == "rw"


def test_a_conflict_is_ebade_to_a_program_and_a_status_to_nvme_cli(pair: Pair) -> None:
    pair.a.register()
    pair.a.acquire(WRITE_EXCLUSIVE)
    written = pair.b.guest.run(f"{WORDS} nvme write $d $block --data=/tmp/block", check=False)
    assert status_of(written.out)[:2] == CONFLICT
    written = pair.b.guest.run(f"{WORDS} dd if=/tmp/block of=$d bs=512 oflag=direct", check=False)
    assert written.rc != 0
    assert EBADE in written.out
    pair.b.sh("dd if=$d of=/dev/null bs=512 count=1 iflag=direct")


FIO = """
    rm -f /tmp/running /tmp/rc
    (
        touch /tmp/running; rc=0
        fio --name=load --filename=$d --allow_file_create=0 --eta=never --direct=1 --ioengine=libaio \\
            --rw=randwrite --bs=4k --size=8m --iodepth=16 --time_based --runtime=3600 \\
            >/tmp/fio 2>&1 || rc=$?
        echo $rc >/tmp/rc
    ) &
    writes() { read -r _1 _2 _3 _4 _5 _6 sectors _rest <"/sys/block/${d##*/}/stat"; echo $sectors; }
    more() { [ $(writes) -gt $1 ]; }
    until_true 60 more $(($(writes) + 1024))
"""


def test_preempt_and_abort_takes_the_drive_from_a_host_in_the_middle_of_fio(pair: Pair) -> None:
    pair.b.register()
    pair.b.acquire(EXCLUSIVE_ACCESS)
    pair.b.guest.run(f"{WORDS}{FIO}")
    pair.a.register()
    pair.a.acquire(EXCLUSIVE_ACCESS, f"--prkey={pair.b.key} --racqa=2")
    # From here on nothing of the other host's reaches the namespace.
    pair.a.sh("dd if=/dev/zero of=$d bs=1M count=8 oflag=direct")
    said = pair.b.sh("until_true 60 test -s /tmp/rc; cat /tmp/rc /tmp/fio")
    assert said.splitlines()[0] != "0"
    # What was aborted Linux has sent again, to learn why.
    assert EBADE in said
    pair.a.sh("dd if=$d of=/tmp/read bs=1M count=8 iflag=direct; head -c 8388608 /dev/zero | cmp - /tmp/read")
    assert registrants(pair.a.report()) == {(pair.a.hostid.hex, pair.a.key, True)}
    assert pair.b.may() == "--"
    told = pair.b.notification()
    assert (told["rn_log_type"], told["nsid"]) == (PREEMPTED, 1)


def test_a_registrant_is_told_that_a_reservation_was_released_unless_it_masks_that(pair: Pair) -> None:
    pair.b.sh("""
        uevent env >/tmp/uevents 2>&1 & echo $! >/tmp/uevent
        listens() { ls -l /proc/$(cat /tmp/uevent)/fd | grep -q socket; }
        until_true 60 listens
    """)
    pair.a.register()
    pair.b.register()
    pair.a.acquire(3)
    pair.a.release(3)
    # Linux hands the event on to user space, which is to read the log.
    pair.b.sh(f"until_true 60 grep -q '{AEN}' /tmp/uevents; kill $(cat /tmp/uevent)")
    told = pair.b.notification()
    assert (told["rn_log_type"], told["nsid"]) == (RELEASED, 1)
    # Reservation Notification Mask, RESREL.
    pair.b.sh("nvme set-feature $c -f 0x82 -n 1 -V 4")
    pair.a.acquire(3)
    pair.a.release(3)
    assert pair.b.notification()["rn_log_type"] == 0
    pair.b.sh("nvme set-feature $c -f 0x82 -n 1 -V 0")


def test_what_persists_outlives_a_target_that_is_killed_and_what_does_not_is_gone(pair: Pair) -> None:
    for device, persists in (("$d", "--cptpl=3"), ("$e", "")):
        pair.a.register(persists, device)
        pair.b.register(device=device)
        pair.a.acquire(WRITE_EXCLUSIVE, device=device)
    before = pair.a.report()
    pair.target.kill()
    for member in pair.hosts.values():
        member.guest.kill()
    pair.target.start_again()
    pair.boot()
    after = pair.b.report()
    assert (after["rtype"], after["ptpls"]) == (WRITE_EXCLUSIVE, 1)
    assert registrants(after) == registrants(before)
    assert pair.b.may() == "r-"
    assert pair.a.may() == "rw"
    assert registrants(pair.a.report("$e")) == set()
    assert pair.b.may("$e") == "rw"
    # The holder is still who it was: it can give the reservation back.
    pair.a.release(WRITE_EXCLUSIVE)
    assert pair.b.may() == "rw"
