"""Linux verifies what it wrote, however the workers wait and with more of them than the guest has queues."""

from __future__ import annotations

import pytest

from tests.vm.kernel_log import complaints
from tests.vm.lab import MIB, Lab
from tests.vm.rig.guest import Machine

pytestmark = pytest.mark.vm

SERIAL = "MODES1"
CPUS = 2
MODES = {
    "event": ("--wait", "event", "--workers", "2"),
    "poll": ("--wait", "poll", "--workers", "4", "--doorbells", "mapped"),
}


@pytest.mark.parametrize("mode", MODES)
def test_fio_verifies_random_writes_however_the_workers_wait(lab: Lab, mode: str) -> None:
    common = (
        f"--filename=$(namespace_of {SERIAL}) --allow_file_create=0 --eta=never --direct=1 "
        "--verify=crc32c --verify_fatal=1 --do_verify=1 --randseed=11"
    )
    image = lab.image(f"{mode}.img", 64 * MIB)
    with (
        lab.drive(image, SERIAL, options=MODES[mode]) as drive,
        lab.boot(drive, machine=Machine(cpus=CPUS, fio=True)) as guest,
    ):
        guest.run(f"""
            wait_namespaces 1
            fio --name=verify {common} --ioengine=libaio --rw=randwrite --bsrange=4k-64k --iodepth=32 \\
                --size=4m --offset_increment=4m \\
                --numjobs={CPUS} --cpus_allowed=0-{CPUS - 1} --cpus_allowed_policy=split
        """)
        # Alone, one command at a time: each finds the workers asleep, or nearly.
        guest.run(
            f"fio --name=alone {common} --ioengine=psync --rw=randwrite --bs=4k --size=512k --thinktime=2000"
        )
        assert complaints(guest) == []
        # Linux has shadow doorbells, and is not called slow.
        assert "rings its doorbells by message" not in drive.said()
        guest.power_off()
