"""Linux sees what the operator changes while it runs, by itself: no `nvme ns-rescan` anywhere.

Two guests on one subsystem: what concerns a namespace is seen by both, what concerns a host by one.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.vm.kernel_log import faults
from tests.vm.lab import MIB, Lab
from tests.vm.nvme_cli import status_of
from tests.vm.rig.guest import SMALL, Guest
from tests.vm.rig.served import Port, Served

pytestmark = pytest.mark.vm

NQN = "nqn.2024-01.com.example:hot"
HOSTS = {"a": "nqn.2024-01.com.example:host-a", "b": "nqn.2024-01.com.example:host-b"}
SERIAL = "HOT1"
SIZE = 32 * MIB
# Words about namespaces, by NSID. All wait, but not for a rescan that somebody asks for.
WORDS = f"""
c=$(controller_of {SERIAL})
device() {{ namespace_of {SERIAL} $1; }}
attribute() {{ cat "/sys/block/$(basename $(device $1))/$2"; }}
_is() {{ [ "$(attribute $1 $2)" = "$3" ]; }}
becomes() {{ until_true 60 _is $1 $2 $3; }}
appears() {{ until_true 60 device $1; }}
_gone() {{ ! device $1; }}
goes() {{ until_true 60 _gone $1; }}
write_block() {{ nvme write $(device $1) --start-block=$2 --block-count=0 --data-size=512 --data=/dev/zero; }}
"""
PROTECTED, OUT_OF_RANGE = (0x0, 0x20), (0x0, 0x80)
# Dword 0 of an event: SMART / Health, Spare Below Threshold, log page 02h.
SPARE_BELOW_THRESHOLD = "NVME_AEN=0x020201"


@dataclass(frozen=True)
class Linux:
    """A guest with a controller of the subsystem."""

    guest: Guest

    def sh(self, script: str) -> str:
        return self.guest.run(WORDS + script).out

    def refused(self, script: str) -> tuple[int, int]:
        """Status type and code that a command of nvme-cli's fails with."""
        result = self.guest.run(WORDS + script, check=False)
        assert result.rc != 0, result.out
        return status_of(result.out)[:2]


@dataclass(frozen=True)
class Hot:
    """A target, and two guests of different hosts on it."""

    target: Served
    a: Linux
    b: Linux
    directory: Path

    @property
    def guests(self) -> tuple[Linux, Linux]:
        return self.a, self.b

    def image(self, name: str, size: int = SIZE) -> str:
        path = self.directory / name
        with path.open("wb") as file:
            file.truncate(size)
        return str(path)

    def ns(self, *words: str | int) -> None:
        """`nvmet-vdev ctl ns` with these words."""
        self.target.ctl("ns", *map(str, words))


@pytest.fixture(scope="module")
def hot(our_lab: Lab) -> Iterator[Hot]:
    directory = our_lab.directory
    config = {
        "host": [{"nqn": nqn} for nqn in HOSTS.values()],
        "subsystem": [
            {
                "nqn": NQN,
                "serial": SERIAL,
                "namespace": [{"nsid": 1, "backend": str(our_lab.image("hot1.img", SIZE))}],
            }
        ],
        "port": [
            {"portid": n, "traddr": str(directory / f"{name}.sock"), "subsystem": NQN, "hostnqn": nqn}
            for n, (name, nqn) in enumerate(HOSTS.items(), 1)
        ],
    }
    with our_lab.serve(config) as target:
        ports = [Port(target, directory / f"{name}.sock", SERIAL) for name in HOSTS]
        with our_lab.boot(ports[0], machine=SMALL) as a, our_lab.boot(ports[1], machine=SMALL) as b:
            for guest in (a, b):
                guest.run("wait_namespaces 1")
            yield Hot(target, Linux(a), Linux(b), directory)
            for guest in (a, b):
                assert faults(guest) == []
                guest.power_off()


def test_a_namespace_that_is_added_appears_in_both_guests_and_is_shared(hot: Hot) -> None:
    hot.ns("add", hot.image("hot2.img"), "--nsid", 2)
    written = hot.a.sh("""
        appears 2
        head -c 1048576 /dev/urandom >/tmp/data
        dd if=/tmp/data of=$(device 2) bs=64k oflag=direct 2>/dev/null
        sha256sum </tmp/data
    """)
    read = hot.b.sh("appears 2; dd if=$(device 2) bs=64k count=16 iflag=direct 2>/dev/null | sha256sum")
    assert read == written


def test_a_namespace_that_grows_and_shrinks_has_its_new_size_in_both_guests(hot: Hot) -> None:
    for size in (2 * SIZE, SIZE // 2, SIZE):
        hot.ns("resize", 2, size)
        for linux in hot.guests:
            linux.sh(
                f"becomes 2 size {size // 512}; dd if=/dev/zero of=$(device 2) bs=64k count=1 oflag=direct"
            )
            linux.sh(f"write_block 2 {size // 512 - 1}")
            assert linux.refused(f"write_block 2 {size // 512}") == OUT_OF_RANGE


def test_a_namespace_that_the_operator_protects_is_read_only_until_he_lets_go(hot: Hot) -> None:
    hot.ns("protect", 1)
    for linux in hot.guests:
        linux.sh("becomes 1 ro 1; dd if=$(device 1) of=/dev/null bs=4k count=1 iflag=direct")
        assert linux.refused("write_block 1 8") == PROTECTED
    # No guest can take it back.
    assert hot.a.guest.run(f"{WORDS} nvme set-feature $c -f 0x84 -n 1 -V 0", check=False).rc != 0
    assert hot.a.refused("write_block 1 8") == PROTECTED
    hot.ns("protect", 1, "off")
    for linux in hot.guests:
        linux.sh("becomes 1 ro 0; write_block 1 8")


def test_a_guest_that_protects_a_namespace_protects_it_from_all(hot: Hot) -> None:
    hot.a.sh("nvme set-feature $c -f 0x84 -n 1 -V 1")
    hot.b.sh("becomes 1 ro 1")
    for linux in hot.guests:
        assert linux.refused("write_block 1 8") == PROTECTED
    hot.b.sh("nvme set-feature $c -f 0x84 -n 1 -V 0")
    for linux in hot.guests:
        linux.sh("becomes 1 ro 0; write_block 1 8")


# Writes until it fails, and marks the beginning and the end of that.
LOAD = """
    rm -f /tmp/round /tmp/ended
    d=$(device 2)
    (
        while dd if=/dev/zero of=$d bs=16k count=64 seek=64 oflag=direct; do touch /tmp/round; done
        touch /tmp/ended
    ) >/dev/null 2>&1 &
    until_true 60 test -e /tmp/round
"""
HAS_ENDED = "until_true 60 test -e /tmp/ended"


def test_a_namespace_disabled_under_load_goes_and_comes_back_with_its_data(hot: Hot) -> None:
    mark = "yes before | head -c 65536"
    hot.a.sh(f"{mark} >/tmp/mark; dd if=/tmp/mark of=$(device 2) bs=64k oflag=direct; {LOAD}")
    hot.ns("disable", 2)
    # What was in flight has ended, one way or the other.
    hot.a.sh(f"{HAS_ENDED}; goes 2")
    hot.b.sh("goes 2")
    hot.ns("enable", 2)
    for linux in hot.guests:
        linux.sh(
            f"appears 2; dd if=$(device 2) of=/tmp/read bs=64k count=1 iflag=direct; {mark} | cmp - /tmp/read"
        )


def test_a_namespace_removed_under_load_goes_and_its_number_may_be_that_of_another(hot: Hot) -> None:
    before = hot.a.sh(f"attribute 2 wwid; {LOAD}")
    hot.ns("rm", 2)
    hot.a.sh(f"{HAS_ENDED}; goes 2")
    hot.b.sh("goes 2")
    hot.ns("add", hot.image("other.img", 2 * SIZE), "--nsid", 2)
    for linux in hot.guests:
        after = linux.sh(f"appears 2; becomes 2 size {2 * SIZE // 512}; attribute 2 wwid")
        assert after != before
        linux.sh("""
            dd if=$(device 2) of=/tmp/read bs=64k count=1 iflag=direct
            head -c 65536 /dev/zero | cmp - /tmp/read
        """)


def test_a_namespace_is_seen_by_the_hosts_that_it_is_attached_to(hot: Hot) -> None:
    hot.ns("attach", 2, HOSTS["a"])
    hot.b.sh("goes 2")
    assert hot.b.sh("nvme list-ns $c").count("[") == 1
    hot.a.sh("dd if=$(device 2) of=/dev/null bs=4k count=1 iflag=direct")
    hot.ns("attach", 2, "--all")
    hot.b.sh("appears 2")


def test_what_the_operator_says_of_the_health_is_told_and_in_the_smart_log(hot: Hot) -> None:
    def log(linux: Linux) -> Any:
        return json.loads(linux.sh("nvme smart-log $c -o json"))

    # Linux leaves SMART events off; user space turns them on beside those that Linux has, and is handed them.
    hot.a.sh("""
        nvme set-feature $c -f 0x0b -V $((0x1f | 0x100 | 0x800))
        uevent env >/tmp/uevents 2>&1 & echo $! >/tmp/uevent
        listens() { ls -l /proc/$(cat /tmp/uevent)/fd | grep -q socket; }
        until_true 60 listens
    """)
    hot.target.call("subsystem.health", nqn=NQN, spare=5, spare_threshold=10, temperature=320)
    hot.a.sh(f"until_true 60 grep -q {SPARE_BELOW_THRESHOLD} /tmp/uevents; kill $(cat /tmp/uevent)")
    for linux in hot.guests:
        found = log(linux)
        assert (found["avail_spare"], found["spare_thresh"], found["temperature"]) == (5, 10, 320)
        assert found["critical_warning"] == 0b1
    hot.target.call("subsystem.health", nqn=NQN, spare=100)
    assert log(hot.a)["critical_warning"] == 0


def test_a_guest_that_is_told_nothing_stays_safe(hot: Hot) -> None:
    hot.ns("add", hot.image("deaf.img", 2 * SIZE), "--nsid", 3)
    # Asynchronous Event Configuration: no notices any more.
    hot.a.sh("appears 3; nvme set-feature $c -f 0x0b -V 0")
    hot.ns("resize", 3, SIZE)
    assert hot.a.refused(f"write_block 3 {SIZE // 512}") == OUT_OF_RANGE
    # To Linux it has its old size still, and what is there can be used.
    hot.a.sh(f"becomes 3 size {2 * SIZE // 512}; dd if=/dev/zero of=$(device 3) bs=64k count=1 oflag=direct")
    hot.ns("protect", 3)
    assert hot.a.refused("write_block 3 0") == PROTECTED
    hot.ns("rm", 3)
    hot.a.sh("! dd if=/dev/zero of=$(device 3) bs=64k count=1 oflag=direct")
    hot.a.sh("write_block 1 0; nvme ns-rescan $c; goes 3")
    hot.b.sh("goes 3")
