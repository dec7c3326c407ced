"""A disk that SeaBIOS and OVMF both boot from: the firmware's own NVMe driver reads all of it.

    LBA 0      GRUB's boot.img for a BIOS, with a partition table
    LBA 1      GRUB's core.img for a BIOS, which ends before the partition
    LBA 2048   one FAT partition of the EFI type: /EFI/BOOT/BOOTX64.EFI, /vmlinuz, /initrd

No root, no loop device: mtools writes the FAT file system into the file.
"""

from __future__ import annotations

import struct
from pathlib import Path

from tests.vm.rig import guest_stage
from tests.vm.rig.cache import Stage, digest
from tests.vm.rig.errors import RigError
from tests.vm.rig.guestline import CONSOLE
from tests.vm.rig.program import unpacked

IMAGE = "disk.img"
SECTOR = 512
FIRST = 2048
SIZE = 64 << 20
EFI_SYSTEM = 0xEF
# A word on the kernel's command line that only this disk's loader gives.
MARK = "booted-from-drive"

_CONFIG = f"""\
search --file --set=root /{MARK}
linux /vmlinuz {CONSOLE} {MARK}
initrd /initrd
boot
"""
_MODULES = ("part_msdos", "fat", "search", "search_fs_file", "linux")


def stage(cache: Path) -> Stage:
    """The boot disk, made anew with the guest."""
    return Stage(cache / "boot", digest(_CONFIG, guest_stage.stage(cache).stamp, Path(__file__)))


def make(tools: Path, guest: Path, into: Path) -> None:
    """Writes the disk image."""
    config = into / "grub.cfg"
    config.write_text(_CONFIG)
    bios, efi, mark = into / "core.img", into / "boot.efi", into / "mark"
    _mkimage(tools, "i386-pc", config, bios, "biosdisk")
    _mkimage(tools, "x86_64-efi", config, efi)
    mark.write_text(MARK)

    image = into / IMAGE
    _write_boot_area(tools, bios.read_bytes(), image)
    partition = f"{image}@@{FIRST * SECTOR}"
    mtools = unpacked(tools, "usr/bin/mtools", {"MTOOLS_SKIP_CHECK": "1", "MTOOLSRC": "/dev/null"})

    mtools.run(
        "-c", "mformat", "-i", partition, "-T", str(SIZE // SECTOR - FIRST), "-h", "64", "-s", "32", "::"
    )
    mtools.run("-c", "mmd", "-i", partition, "::/EFI", "::/EFI/BOOT")
    for source, name in (
        (efi, "EFI/BOOT/BOOTX64.EFI"),
        (guest / guest_stage.VMLINUZ, "vmlinuz"),
        (guest / guest_stage.SMALL, "initrd"),
        (mark, MARK),
    ):
        mtools.run("-c", "mcopy", "-i", partition, source, f"::/{name}")
    for scrap in (config, bios, efi, mark):
        scrap.unlink()


def _mkimage(tools: Path, platform: str, config: Path, output: Path, *more: str) -> None:
    grub = unpacked(tools, "usr/bin/grub-mkimage")
    directory = tools / "usr/lib/grub" / platform
    grub.run(
        *("-O", platform, "-d", directory, "-c", config, "-p", "/grub", "-o", output),
        *_MODULES,
        *more,
    )


def _write_boot_area(tools: Path, core: bytes, image: Path) -> None:
    """boot.img loads core.img from LBA 1, where both of them expect it when nothing says otherwise."""
    if len(core) > (FIRST - 1) * SECTOR:
        raise RigError("GRUB's core.img does not fit before the partition")
    record = bytearray((tools / "usr/lib/grub/i386-pc/boot.img").read_bytes())
    count = SIZE // SECTOR - FIRST
    # Status active, no CHS addresses, the type, first sector, count.
    entry = struct.pack("<B3xB3xII", 0x80, EFI_SYSTEM, FIRST, count)
    record[446:510] = entry.ljust(64, b"\0")
    record[510:512] = b"\x55\xaa"
    with image.open("wb") as disk:
        disk.truncate(SIZE)
        disk.write(record + core)
