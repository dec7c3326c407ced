"""Linux uses a drive: its driver, nvme-cli, a file system, fio; on both block sizes and doorbell modes.

One guest is booted for each kind of drive and the cases run in it, in the order of this file.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.vm.kernel_log import complaints
from tests.vm.lab import MIB, Lab
from tests.vm.rig.guest import Guest, Machine

pytestmark = pytest.mark.vm

SERIAL = "LINUX0001"
SIZE = 256 * MIB
CPUS = 2
# Words that most scripts begin with.
NAMES = f"d=$(namespace_of {SERIAL}); c=$(controller_of {SERIAL}); n=${{d##*/}};"


@dataclass(frozen=True)
class Running:
    """A guest and the one drive that it has."""

    guest: Guest
    image: Path
    block_size: int
    emulated: bool

    def sh(self, script: str) -> str:
        return self.guest.run(f"{NAMES}\n{script}").out

    def fails(self, script: str) -> str:
        """Runs a script that must fail, and gives what it printed."""
        result = self.guest.run(f"{NAMES}\n{script}", check=False)
        assert result.rc != 0, result.out
        return result.out

    def json(self, script: str) -> Any:
        return json.loads(self.sh(script))


@pytest.fixture(
    scope="module", params=[(512, "trapped"), (4096, "mapped")], ids=["512-trapped", "4096-mapped"]
)
def linux(request: pytest.FixtureRequest, lab: Lab) -> Iterator[Running]:
    block_size, doorbells = request.param
    image = lab.image(f"{block_size}.img", SIZE)
    with (
        lab.drive(image, SERIAL, block_size, ["--doorbells", doorbells]) as drive,
        lab.boot(drive, machine=Machine(cpus=CPUS, fio=True)) as guest,
    ):
        guest.run("wait_namespaces 1")
        yield Running(guest, image, block_size, lab.emulated)
        guest.power_off()


def test_the_driver_probes_without_a_complaint(linux: Running) -> None:
    assert complaints(linux.guest) == []
    assert linux.sh('cat "/sys/class/nvme/${c##*/}/state"').strip() == "live"


def test_the_driver_gets_a_queue_for_each_cpu(linux: Running) -> None:
    assert f"{CPUS}/0/0 default/read/poll queues" in linux.sh("dmesg")


def test_the_function_is_an_nvme_controller_with_msi_x(linux: Running) -> None:
    text = linux.sh('lspci -vv -nn -s "$(basename $(readlink /sys/class/nvme/${c##*/}/device))"')
    assert "[0108]" in text
    assert re.search(r"MSI-X: Enable\+", text)


def test_id_ctrl_tells_who_the_controller_is(linux: Running) -> None:
    controller = linux.json("nvme id-ctrl $c -o json")
    assert controller["sn"].strip() == SERIAL
    assert controller["mn"].strip()
    assert controller["ver"] >= 0x10400
    if not linux.emulated:
        assert controller["ver"] >= 0x20000
        # At least 512 KiB in a command, in units of 4 KiB.
        assert controller["mdts"] == 0 or controller["mdts"] >= 7


def test_id_ns_tells_size_and_format(linux: Running) -> None:
    namespace = linux.json("nvme id-ns $d -o json")
    assert namespace["nsze"] * linux.block_size == SIZE
    formatted = namespace["lbafs"][namespace["flbas"] & 0xF]
    assert 1 << formatted["ds"] == linux.block_size
    assert linux.sh("cat /sys/block/$n/queue/logical_block_size").strip() == str(linux.block_size)


def test_list_shows_the_drive(linux: Running) -> None:
    text = linux.sh("nvme list -o json")
    assert SERIAL in text
    assert str(SIZE) in text


def test_smart_log_counts_what_was_done(linux: Running) -> None:
    before = linux.json("nvme smart-log $c -o json")
    linux.sh(
        "dd if=$d of=/dev/null bs=1M count=4 iflag=direct; dd if=/dev/zero of=$d bs=1M count=4 oflag=direct"
    )
    after = linux.json("nvme smart-log $c -o json")
    assert after["critical_warning"] == 0
    for counter in ("host_read_commands", "host_write_commands", "data_units_read", "data_units_written"):
        assert int(after[counter]) > int(before[counter])


def test_error_log_has_an_entry_for_a_refused_command(linux: Running) -> None:
    # Opcode 7Fh of the NVM command set is nobody's.
    said = linux.fails("nvme io-passthru $d --opcode=0x7f --namespace-id=1")
    assert "INVALID COMMAND OPCODE" in said.upper()
    entries = linux.json("nvme error-log $c -e 4 -o json")["errors"]
    assert len(entries) >= 1
    if not linux.emulated:
        # Status code 01h, Invalid Command Opcode, with the phase bit beside it.
        newest = max(entries, key=lambda entry: int(entry["error_count"]))
        assert int(newest["error_count"]) >= 1
        assert int(newest["sqid"]) >= 1


def test_fw_log_names_the_running_firmware(linux: Running) -> None:
    revision = linux.json("nvme id-ctrl $c -o json")["fr"].strip()
    assert revision
    log = linux.sh("nvme fw-log $c")
    assert re.search(r"afi\s*:\s*0x1\b", log)
    if not linux.emulated:
        assert revision in log


def test_a_controller_reset_keeps_the_data(linux: Running) -> None:
    linux.sh("""
        head -c 1048576 /dev/urandom >/tmp/before
        dd if=/tmp/before of=$d bs=64k seek=16 oflag=direct
        nvme reset $c
        live() { [ "$(cat /sys/class/nvme/${c##*/}/state)" = live ]; }
        until_true 60 live
        wait_namespaces 1
        dd if=$d of=/tmp/after bs=64k skip=16 count=16 iflag=direct
        cmp /tmp/before /tmp/after
    """)


def test_ext4_keeps_its_files_and_stays_clean(linux: Running) -> None:
    linux.sh("""
        mkfs.ext4 -q -F $d
        mount -t ext4 $d /mnt
        for i in $(seq 60); do head -c $((i * 3001)) /dev/urandom >/mnt/file$i; done
        mkdir /mnt/deep; head -c 20000000 /dev/urandom >/mnt/deep/big
        (cd /mnt && find . -type f | sort | xargs sha256sum) >/tmp/sums
        umount /mnt
        echo 3 >/proc/sys/vm/drop_caches
        mount -t ext4 $d /mnt
        (cd /mnt && sha256sum -c /tmp/sums >/tmp/checked) || { grep -v OK /tmp/checked; exit 1; }
        umount /mnt
        e2fsck -fn $d
    """)


def test_fio_verifies_random_writes_on_every_queue(linux: Running) -> None:
    interrupts = "grep -E 'nvme[0-9]+q[1-9]' /proc/interrupts"
    before = linux.sh(interrupts).splitlines()
    linux.sh(f"""
        fio --name=verify --filename=$d --allow_file_create=0 --eta=never --direct=1 --ioengine=libaio \
            --rw=randwrite --bsrange=4k-64k --size=24m --offset_increment=24m --iodepth=16 \
            --numjobs={CPUS} --cpus_allowed=0-{CPUS - 1} --cpus_allowed_policy=split \
            --verify=crc32c --verify_fatal=1 --do_verify=1 --randseed=7
    """)
    after = linux.sh(interrupts).splitlines()
    assert len(after) == CPUS
    for was, is_now in zip(before, after, strict=True):
        assert _interrupts(is_now) > _interrupts(was), f"a queue was not used:\n{is_now}"


def _interrupts(line: str) -> int:
    return sum(int(word) for word in line.split()[1 : 1 + CPUS])


def test_blkdiscard_frees_the_blocks_which_then_read_as_zeroes(linux: Running) -> None:
    linux.sh("head -c 8388608 /dev/urandom | dd of=$d bs=1M iflag=fullblock oflag=direct; sync")
    before = linux.image.stat().st_blocks
    linux.sh("""
        blkdiscard -o 1048576 -l 6291456 $d
        dd if=$d of=/tmp/read bs=1M skip=1 count=6 iflag=direct
        head -c 6291456 /dev/zero | cmp - /tmp/read
        dd if=$d of=/tmp/read bs=1M count=1 iflag=direct
        ! head -c 1048576 /dev/zero | cmp -s - /tmp/read
    """)
    assert linux.image.stat().st_blocks <= before - 6 * MIB // 512


def test_write_zeroes_writes_zeroes_and_nothing_beside(linux: Running) -> None:
    linux.sh(f"""
        head -c {64 * linux.block_size} /dev/urandom >/tmp/data
        dd if=/tmp/data of=$d bs={linux.block_size} seek=64 oflag=direct
        nvme write-zeroes $d --namespace-id=1 --start-block=72 --block-count=15
        dd if=/dev/zero of=/tmp/data bs={linux.block_size} seek=8 count=16 conv=notrunc
        dd if=$d of=/tmp/read bs={linux.block_size} skip=64 count=64 iflag=direct
        cmp /tmp/data /tmp/read
    """)


def test_blkdiscard_z_zeroes_a_range(linux: Running) -> None:
    linux.sh("""
        head -c 4194304 /dev/urandom | dd of=$d bs=1M iflag=fullblock oflag=direct
        blkdiscard -z -o 1048576 -l 2097152 $d
        dd if=$d of=/tmp/read bs=1M skip=1 count=2 iflag=direct
        head -c 2097152 /dev/zero | cmp - /tmp/read
    """)


def test_compare_tells_same_from_different(linux: Running) -> None:
    command = f"--namespace-id=1 --start-block=8 --block-count=7 --data-size={8 * linux.block_size}"
    linux.sh(f"""
        head -c {8 * linux.block_size} /dev/urandom >/tmp/same
        nvme write $d {command} --data=/tmp/same
        nvme compare $d {command} --data=/tmp/same
    """)
    said = linux.fails(f"""
        cp /tmp/same /tmp/other
        printf x | dd of=/tmp/other bs=1 seek=$(({8 * linux.block_size} - 1)) conv=notrunc
        cmp -s /tmp/same /tmp/other && printf y | dd of=/tmp/other bs=1 seek=0 conv=notrunc
        nvme compare $d {command} --data=/tmp/other
    """)
    assert "COMPARE" in said.upper()


def test_a_write_with_fua_is_in_the_image_when_it_completes(linux: Running) -> None:
    linux.sh(f"""
        q=/sys/block/$n/queue
        [ "$(cat $q/write_cache)" = "write through" ] || [ "$(cat $q/fua)" = 1 ]
        yes fua-{linux.block_size} | head -c {8 * linux.block_size} >/tmp/data
        nvme write $d --namespace-id=1 --start-block=1000 --block-count=7 --force-unit-access \
            --data-size={8 * linux.block_size} --data=/tmp/data
    """)
    with linux.image.open("rb") as image:
        image.seek(1000 * linux.block_size)
        data = image.read(8 * linux.block_size)
    assert data.startswith(f"fua-{linux.block_size}\n".encode() * 100)


def test_o_sync_writes_are_verified(linux: Running) -> None:
    linux.sh("""
        fio --name=osync --filename=$d --allow_file_create=0 --eta=never --ioengine=psync --sync=1 \
            --rw=randwrite --bs=4k --size=2m --verify=crc32c --verify_fatal=1 --do_verify=1
    """)


def test_a_file_on_a_mounted_drive_survives_fsync_and_fstrim(linux: Running) -> None:
    linux.sh("""
        mkfs.ext4 -q -F $d
        mount -t ext4 -o discard $d /mnt
        head -c 3000000 /dev/urandom >/tmp/data
        dd if=/tmp/data of=/mnt/kept conv=fsync
        head -c 9000000 /dev/urandom >/mnt/gone; sync; rm /mnt/gone; sync
        fstrim /mnt
        umount /mnt; echo 3 >/proc/sys/vm/drop_caches
        mount -t ext4 $d /mnt
        cmp /tmp/data /mnt/kept
        umount /mnt
        e2fsck -fn $d
    """)


def test_nothing_of_all_this_made_the_kernel_complain(linux: Running) -> None:
    assert complaints(linux.guest) == []
