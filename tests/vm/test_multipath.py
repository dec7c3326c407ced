"""One guest with two ways to one subsystem: Linux' own multipath takes them for one drive, and follows ANA.

fio writes and verifies in rounds meanwhile, and must not see a single error.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import pytest

from tests.vm.kernel_log import complaints, faults
from tests.vm.lab import MIB, Lab
from tests.vm.nvme_cli import status_of
from tests.vm.rig.guest import SMALL, Guest
from tests.vm.rig.served import Port, Served

pytestmark = pytest.mark.vm

NQN = "nqn.2024-01.com.example:paths"
HOST = "nqn.2024-01.com.example:one-host"
SERIAL = "PATHS1"
SIZE = 32 * MIB
# What fio writes before it verifies it and begins again.
ROUND = MIB
# Controller identifiers, by which a path is known: a port and its controller have the same number.
A, B = 1, 2
# Those of a host that knows no multipath.
PLAIN = (3, 4)
PLAIN_HOST = "nqn.2024-01.com.example:plain-host"
WORDS = f"""
d=$(namespace_of {SERIAL}); n=${{d##*/}}
# path CNTLID: the block device of the path below the drive that the controller is.
path() {{
    for _p in /sys/block/nvme*c*n1; do
        [ "$(cat $_p/device/cntlid)" = "$1" ] && {{ echo $_p; return 0; }}
    done
    return 1
}}
written() {{ read -r _a _b _c _d _e _f _w _rest <"$(path $1)/stat"; echo $_w; }}
state_is() {{ [ "$(cat "$(path $1)/ana_state")" = "$2" ]; }}
total() {{ echo $(($(written {A}) + $(written {B}))); }}
_more() {{ _than=$1; shift; [ "$("$@")" -gt $_than ]; }}
# a_round COMMAND...: waits until fio has written a round and verified it, by sectors that COMMAND tells.
a_round() {{ until_true 60 _more $(($("$@") + 2 * {ROUND} / 512)) "$@"; }}
# is_used CNTLID: waits until that was over this path.
is_used() {{ a_round written $1; }}
"""
FIO = f"""
    fio --name=verify --filename=$d --allow_file_create=0 --eta=never --direct=1 --ioengine=libaio \\
        --rw=randwrite --bsrange=4k-32k --size={ROUND} --iodepth=8 --loops=1000000 \\
        --verify=crc32c --verify_fatal=1 --do_verify=1 >/tmp/fio 2>&1 &
    echo $! >/tmp/fio.pid
    wait $! || true
    touch /tmp/ended
"""
STOP = """
    kill -INT $(cat /tmp/fio.pid) 2>/dev/null || true
    until_true 60 test -e /tmp/ended
"""


@dataclass(frozen=True)
class Paths:
    """A guest that reaches a namespace over two controllers."""

    target: Served
    guest: Guest

    def sh(self, script: str) -> str:
        return self.guest.run(WORDS + script).out

    def ana(self, port: int, state: str, group: int = 1) -> None:
        """Changes a state and waits until Linux has heard of it."""
        self.target.call("ana.set", portid=port, grpid=group, state=state)
        self.sh(f"until_true 60 state_is {port} {state}")

    @contextmanager
    def under_fio(self) -> Iterator[None]:
        """fio writes and verifies meanwhile, round after round, and has no error."""
        self.sh("rm -f /tmp/ended")
        self.guest.start(WORDS + FIO)
        self.sh("a_round total")
        yield
        self.sh(f"{STOP} grep -q 'err= 0:' /tmp/fio || {{ cat /tmp/fio; exit 1; }}")

    def as_it_was(self) -> None:
        """Both paths are optimized, and nobody writes."""
        self.target.call("namespace.ana_group", nqn=NQN, nsid=1, grpid=1)
        for port in (A, B):
            self.ana(port, "optimized")
        self.sh(f"[ -e /tmp/ended ] || {{ {STOP} }}")


@pytest.fixture(scope="module")
def paths(our_lab: Lab) -> Iterator[Paths]:
    directory = our_lab.directory
    config = {
        "host": [{"nqn": HOST}, {"nqn": PLAIN_HOST}],
        "subsystem": [
            {
                "nqn": NQN,
                "serial": SERIAL,
                "namespace": [{"nsid": 1, "backend": str(our_lab.image("paths.img", SIZE))}],
            }
        ],
        "port": [
            {
                "portid": port,
                "traddr": str(directory / f"{port}.sock"),
                "subsystem": NQN,
                "hostnqn": PLAIN_HOST if port in PLAIN else HOST,
                "cntlid": port,
            }
            for port in (A, B, *PLAIN)
        ],
    }
    with our_lab.serve(config) as target:
        ports = [Port(target, directory / f"{port}.sock", SERIAL) for port in (A, B)]
        with our_lab.boot(*ports, machine=SMALL) as guest:
            guest.run("wait_namespaces 1")
            paths = Paths(target, guest)
            paths.sh("touch /tmp/ended")
            for port in (A, B):
                paths.sh(f"until_true 60 state_is {port} optimized")
            yield paths
            assert faults(guest) == []
            guest.power_off()


@pytest.fixture(autouse=True)
def as_it_was(paths: Paths) -> Iterator[None]:
    yield
    paths.as_it_was()


def test_linux_sees_one_subsystem_with_two_paths_and_one_drive(paths: Paths) -> None:
    (host,) = json.loads(paths.sh("nvme list-subsys $d -o json"))
    (subsystem,) = host["Subsystems"]
    assert subsystem["NQN"] == NQN
    assert [(path["State"], path["ANAState"]) for path in subsystem["Paths"]] == [("live", "optimized")] * 2
    assert paths.sh("namespaces").splitlines() == [paths.sh("echo $d").strip()]
    assert complaints(paths.guest) == []


def test_the_ana_log_tells_groups_states_and_namespaces(paths: Paths) -> None:
    paths.ana(B, "non-optimized")
    for port, state in ((A, "optimized"), (B, "non-optimized")):
        log = json.loads(
            paths.sh(f"nvme ana-log /dev/$(basename $(readlink -f $(path {port})/device)) -o json")
        )
        groups = {group["grpid"]: group for group in _groups(log)}
        assert groups[1]["state"].lower() == state
        assert [nsid["nsid"] for nsid in groups[1]["NSIDS"]] == [1]


def _groups(log: dict[str, Any]) -> list[dict[str, Any]]:
    return next(value for value in log.values() if isinstance(value, list))


@pytest.mark.parametrize("worse", ["non-optimized", "inaccessible", "persistent-loss"])
def test_fio_fails_over_and_back_without_an_error(paths: Paths, worse: str) -> None:
    with paths.under_fio():
        for bad, good in ((A, B), (B, A)):
            paths.ana(bad, worse)
            # What was on its way has arrived by then; nothing more goes over the other one.
            paths.sh(
                f"is_used {good}; before=$(written {bad}); is_used {good}; [ $(written {bad}) = $before ]"
            )
            paths.ana(bad, "optimized")


def test_what_cannot_go_anywhere_waits_until_a_path_is_back(paths: Paths) -> None:
    with paths.under_fio():
        for port in (A, B):
            paths.ana(port, "inaccessible")
        paths.sh("""
            requeuing() { dmesg | grep -q 'no usable path - requeuing I/O'; }
            idle() { [ "$(cat $(path 1)/inflight $(path 2)/inflight | tr -d ' 0\\n')" = "" ]; }
            until_true 60 requeuing
            until_true 60 idle
        """)
        before = paths.sh("total")
        paths.sh("nvme ana-log /dev/nvme0; nvme ana-log /dev/nvme1")
        assert paths.sh("total") == before
        paths.ana(B, "optimized")
        paths.sh("is_used 2")


def test_a_group_in_transition_is_used_again_when_it_is_over(paths: Paths) -> None:
    with paths.under_fio():
        for port in (A, B):
            paths.ana(port, "change")
        for port in (A, B):
            paths.ana(port, "optimized")
        paths.sh("a_round total")


def test_a_namespace_moves_to_a_group_with_other_states(paths: Paths) -> None:
    for port, state in ((A, "inaccessible"), (B, "non-optimized")):
        paths.target.call("ana.set", portid=port, grpid=2, state=state)
    with paths.under_fio():
        paths.target.call("namespace.ana_group", nqn=NQN, nsid=1, grpid=2)
        paths.sh("until_true 60 state_is 1 inaccessible; until_true 60 state_is 2 non-optimized; is_used 2")
        paths.target.call("namespace.ana_group", nqn=NQN, nsid=1, grpid=1)
        paths.sh("until_true 60 state_is 1 optimized")


def test_a_path_that_is_pulled_leaves_the_other_one(paths: Paths) -> None:
    with paths.under_fio():
        paths.sh("""
            pci=$(basename $(readlink -f $(path 1)/device/device))
            echo $pci >/sys/bus/pci/drivers/nvme/unbind
            is_used 2
            echo $pci >/sys/bus/pci/drivers/nvme/bind
            until_true 60 state_is 1 optimized
        """)


def test_both_paths_are_one_host_to_reservations(paths: Paths) -> None:
    paths.sh("nvme resv-register $d --nrkey=0x11; nvme resv-acquire $d --crkey=0x11 --rtype=1")
    report = json.loads(paths.sh("nvme resv-report $d -e -o json"))
    assert report["rtype"] == 1
    registered = next(value for value in report.values() if isinstance(value, list))
    assert [one["cntlid"] for one in registered] == [A, B]
    assert len({one["hostid"] for one in registered}) == 1
    # Linux may use either path; each of them is made to be the only one.
    with paths.under_fio():
        for bad, good in ((A, B), (B, A)):
            paths.ana(bad, "inaccessible")
            paths.sh(f"is_used {good}")
            paths.ana(bad, "optimized")
    paths.sh("nvme resv-release $d --crkey=0x11 --rtype=1; nvme resv-register $d --crkey=0x11 --rrega=1")


def test_without_multipath_each_way_is_a_drive_and_both_are_the_same(paths: Paths, our_lab: Lab) -> None:
    ports = [Port(paths.target, our_lab.directory / f"{port}.sock", SERIAL) for port in PLAIN]
    machine = replace(SMALL, fio=False, kernel="nvme_core.multipath=N")
    with our_lab.boot(*ports, machine=machine) as guest:
        guest.run("""
            wait_namespaces 2
            set -- $(namespaces)
            head -c 1048576 /dev/urandom >/tmp/data
            dd if=/tmp/data of=$1 bs=64k seek=128 oflag=direct
            dd if=$2 of=/tmp/read bs=64k skip=128 count=16 iflag=direct
            cmp /tmp/data /tmp/read
            [ "$(cat /sys/block/${1##*/}/uuid)" = "$(cat /sys/block/${2##*/}/uuid)" ]
        """)
        # A path that is not to be used says so to a guest that has no other one.
        paths.target.call("ana.set", portid=PLAIN[0], grpid=1, state="inaccessible")
        refused = guest.run(
            f"""
                for c in /sys/class/nvme/nvme*; do
                    [ "$(cat $c/cntlid)" = {PLAIN[0]} ] || continue
                    d=/dev/$(basename $c/nvme*n*)
                    nvme read $d --start-block=0 --block-count=0 --data-size=512 --data=/tmp/read
                done
            """,
            check=False,
        )
        # Asymmetric Access Inaccessible, without Do Not Retry.
        assert status_of(refused.out) == (0x3, 0x02, False)
        guest.power_off()
