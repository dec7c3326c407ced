"""A guest, or the QEMU around it, ends and comes back: the drive and its data are there."""

from __future__ import annotations

import pytest

from tests.vm.kernel_log import complaints
from tests.vm.lab import MIB, Lab
from tests.vm.rig.guest import Guest

pytestmark = pytest.mark.vm

SIZE = 64 * MIB
# Keeps commands in flight until the guest is gone.
LOAD = "while :; do dd if=/dev/zero of=$(namespace_of {serial}) bs=64k seek=256 oflag=direct; done"


def _write_mark(guest: Guest, serial: str, mark: str) -> None:
    guest.run(f"""
        wait_namespaces 1
        yes {mark} | head -c 65536 >/tmp/mark
        dd if=/tmp/mark of=$(namespace_of {serial}) bs=64k conv=fsync
    """)


def _check_mark(guest: Guest, serial: str, mark: str) -> None:
    guest.run(f"""
        wait_namespaces 1
        yes {mark} | head -c 65536 >/tmp/mark
        dd if=$(namespace_of {serial}) of=/tmp/read bs=64k count=1 iflag=direct
        cmp /tmp/mark /tmp/read
    """)


def test_a_reboot_inside_one_qemu_finds_the_drive_again(lab: Lab) -> None:
    with lab.drive(lab.image("reboot.img", SIZE), "REBOOT1") as drive, lab.boot(drive) as guest:
        for turn in range(2):
            _write_mark(guest, "REBOOT1", f"turn-{turn}")
            guest.reboot()
            _check_mark(guest, "REBOOT1", f"turn-{turn}")
            assert complaints(guest) == []


def test_a_machine_reset_under_load_finds_the_drive_again(lab: Lab) -> None:
    with lab.drive(lab.image("reset.img", SIZE), "RESET1") as drive, lab.boot(drive) as guest:
        _write_mark(guest, "RESET1", "before-reset")
        guest.start(LOAD.format(serial="RESET1"))
        guest.reset()
        _check_mark(guest, "RESET1", "before-reset")
        assert complaints(guest) == []


def test_a_new_qemu_on_the_socket_of_a_killed_one_finds_the_data(our_lab: Lab) -> None:
    lab = our_lab
    with lab.drive(lab.image("kill.img", SIZE), "KILL1") as drive:
        with lab.boot(drive) as guest:
            _write_mark(guest, "KILL1", "before-kill")
            guest.start(LOAD.format(serial="KILL1"))
            guest.kill()
        with lab.boot(drive) as guest:
            _check_mark(guest, "KILL1", "before-kill")
            assert complaints(guest) == []
            guest.power_off()
