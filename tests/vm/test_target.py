"""The target's own side: a VM without shared memory, and a target that nothing privileges."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.product import RAN_AS, ordinary_user
from tests.vm.kernel_log import complaints
from tests.vm.lab import MIB, Lab
from tests.vm.rig.drive import Target, command
from tests.vm.rig.guest import Machine

pytestmark = pytest.mark.vm

SIZE = 64 * MIB
USE_IT = """
    wait_namespaces 1
    d=$(namespace_of {serial})
    mkfs.ext4 -q -F $d
    mount -t ext4 $d /mnt
    head -c 5000000 /dev/urandom >/tmp/data
    cp /tmp/data /mnt/data
    umount /mnt; echo 3 >/proc/sys/vm/drop_caches
    mount -t ext4 $d /mnt
    cmp /tmp/data /mnt/data
    umount /mnt
"""
# Each namespace has a ring of its own.
USE_ALL = """
    wait_namespaces 3
    for nsid in 1 2 3; do
        d=$(namespace_of {serial} $nsid)
        head -c 1048576 /dev/urandom >/tmp/data$nsid
        dd if=/tmp/data$nsid of=$d bs=64k oflag=direct 2>/dev/null
    done
    for nsid in 1 2 3; do
        dd if=$(namespace_of {serial} $nsid) bs=64k count=16 iflag=direct 2>/dev/null | cmp - /tmp/data$nsid
    done
"""


def test_without_shared_memory_the_driver_fails_and_the_target_lives(our_lab: Lab) -> None:
    serial = "FDLESS1"
    target = Target(our_lab.image("fdless.img", SIZE), directory=our_lab.directory, serial=serial)
    with target:
        with our_lab.boot(target, machine=Machine(shared_memory=False)) as guest:
            # The driver lets the controller go once it knows; until then it waits for answers.
            guest.run("""
                gone() { ! grep -q . /sys/bus/pci/drivers/nvme/0000:*/class 2>/dev/null; }
                until_true 240 gone
            """)
            assert guest.run("namespaces").out == ""
            assert "nvme" in "".join(complaints(guest))
            assert guest.alive
        assert target.alive
        with our_lab.boot(target) as guest:
            guest.run(USE_IT.format(serial=serial))
            assert complaints(guest) == []


def test_a_target_without_privileges_serves_a_guest(
    our_lab: Lab, record_property: Callable[[str, object], None]
) -> None:
    serial = "PLAIN1"
    images = [our_lab.image(f"plain{number}.img", SIZE) for number in (1, 2, 3)]
    user = ordinary_user(product=command())
    record_property(RAN_AS, user.who)
    user.give(our_lab.directory, *images)
    with (
        Target(*images, directory=our_lab.directory, serial=serial, program=user.program) as target,
        our_lab.boot(target) as guest,
    ):
        status = _status(target.pid)
        assert status["Uid"].split() == [str(user.uid)] * 4
        assert int(status["CapEff"], 16) == 0
        assert int(status["CapPrm"], 16) == 0
        assert status["NoNewPrivs"] == "1"
        guest.run(USE_ALL.format(serial=serial))
        guest.run(USE_IT.format(serial=serial))
        assert complaints(guest) == []
        guest.power_off()


def _status(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}
