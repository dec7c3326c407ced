"""Firmware boots from the drive: loader, kernel and initramfs come through its own NVMe driver."""

from __future__ import annotations

import shutil

import pytest

from tests.vm.kernel_log import complaints
from tests.vm.lab import Lab
from tests.vm.rig.bootdisk import MARK
from tests.vm.rig.guest import Firmware, Machine

pytestmark = pytest.mark.vm


@pytest.mark.parametrize("doorbells", ["trapped", "mapped"])
@pytest.mark.parametrize("firmware", [Firmware.SEABIOS, Firmware.OVMF], ids=["seabios", "ovmf"])
def test_firmware_boots_linux_from_the_drive(lab: Lab, firmware: Firmware, doorbells: str) -> None:
    serial = f"{firmware.name}{doorbells[0].upper()}"
    image = lab.directory / f"{serial}.img"
    shutil.copyfile(lab.rig.boot_disk, image)
    with (
        lab.drive(image, serial, options=["--doorbells", doorbells]) as drive,
        lab.boot(drive, machine=Machine(firmware=firmware)) as guest,
    ):
        assert MARK in guest.run("cat /proc/cmdline").out.split()
        has_efi = guest.run("[ -d /sys/firmware/efi ]", check=False).rc == 0
        assert has_efi == (firmware is Firmware.OVMF)
        # The driver of Linux takes over the controller that the firmware had set up.
        guest.run(f"""
            wait_namespaces 1
            head -c 262144 /dev/urandom >/tmp/data
            dd if=/tmp/data of=$(namespace_of {serial}) bs=64k seek=1000 oflag=direct
            dd if=$(namespace_of {serial}) of=/tmp/read bs=64k skip=1000 count=4 iflag=direct
            cmp /tmp/data /tmp/read
        """)
        assert complaints(guest) == []
        # Firmware rings by message until Linux sets up shadow doorbells: nothing to warn of.
        assert "WARN" not in drive.said()
        guest.power_off()
