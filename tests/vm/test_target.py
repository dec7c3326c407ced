"""The target's own side: a VM without shared memory, and a target that nothing privileges."""

from __future__ import annotations

import os
import pwd
import resource
import subprocess
from pathlib import Path

import pytest

from tests.vm.kernel_log import complaints
from tests.vm.lab import MIB, Lab
from tests.vm.rig.drive import Target, command
from tests.vm.rig.guest import Machine

pytestmark = pytest.mark.vm

SIZE = 64 * MIB
# The kernel's own default since Linux 5.16. RLIM_INFINITY is -1 in Python.
USUAL_MEMLOCK = 8 * MIB
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


def test_a_target_without_privileges_serves_a_guest(our_lab: Lab) -> None:
    serial = "PLAIN1"
    image = our_lab.image("plain.img", SIZE)
    prefix = _without_privileges([our_lab.directory, image])
    with (
        Target(image, directory=our_lab.directory, serial=serial, prefix=prefix) as target,
        our_lab.boot(target) as guest,
    ):
        status = _status(target.pid)
        assert int(status["CapEff"], 16) == 0
        assert int(status["CapPrm"], 16) == 0
        assert status["NoNewPrivs"] == "1"
        guest.run(USE_IT.format(serial=serial))
        assert complaints(guest) == []
        guest.power_off()


def _status(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def _without_privileges(belongings: list[Path]) -> list[str]:
    """What to put before a command so that it has no capabilities and the usual limits.

    Root becomes nobody, to whom `belongings` go over. Where nobody cannot reach the interpreter
    (it is in root's home), it stays user 0 and only loses its capabilities, which make root root.
    """
    memlock = min(resource.getrlimit(resource.RLIMIT_MEMLOCK)[1] % (1 << 64), USUAL_MEMLOCK)
    limits = ["prlimit", f"--memlock={memlock}", "--nofile=1024"]
    if os.geteuid() != 0:
        return [*limits, "setpriv", "--no-new-privs"]
    bare = [*limits, "setpriv", "--no-new-privs", "--inh-caps=-all", "--bounding-set=-all"]
    nobody = pwd.getpwnam("nobody")
    plain = [*bare, f"--reuid={nobody.pw_uid}", f"--regid={nobody.pw_gid}", "--clear-groups"]
    probe = [*plain, *command(), "run", "--help"]
    try:
        reachable = subprocess.run(probe, capture_output=True, check=False).returncode == 0
    except OSError:
        reachable = False
    if not reachable:
        return bare
    for path in belongings:
        os.chown(path, nobody.pw_uid, nobody.pw_gid)
    return plain
