"""Debian's kernel for clouds, which has the NVMe driver, ext4 and serial ports built in."""

from __future__ import annotations

import lzma
import struct
import zlib
from pathlib import Path

from tests.vm.rig.errors import RigError
from tests.vm.rig.program import Program

PACKAGE = "linux-image-cloud-amd64"
# The package that the one above stands for, and its modules where they are apart.
PATTERN = r"linux-(?:image|modules)-\d\S*"
BUILT_IN = ("drivers/nvme/host/nvme.ko", "fs/ext4/ext4.ko", "drivers/tty/serial/8250/8250.ko")


def vmlinuz(root: Path) -> bytes:
    """The kernel image of an unpacked tree."""
    image = next(root.glob("boot/vmlinuz-*"), None)
    built_in = next(root.glob("usr/lib/modules/*/modules.builtin"), None)
    if image is None or built_in is None:
        raise RigError("the kernel package holds no kernel: has the archive changed?")
    present = built_in.read_text()
    for module in BUILT_IN:
        if module not in present:
            raise RigError(f"{image.name} has no built-in {module}: the guest needs a kernel that does")
    return image.read_bytes()


def vmlinux(image: bytes, zstd: Program) -> bytes:
    """The ELF kernel inside a bzImage, which starts seconds faster than one that unpacks itself under TCG.

    Offsets as in the x86 boot protocol: setup_sects, payload_offset, payload_length.
    """
    setup_sectors = image[0x1F1] or 4
    offset, length = struct.unpack_from("<II", image, 0x248)
    start = (setup_sectors + 1) * 512 + offset
    payload = image[start : start + length]
    if payload.startswith(b"\x28\xb5\x2f\xfd"):
        # The four bytes of the unpacked size that follow the frame are not zstd's.
        elf = zstd.run("-dcq", stdin=payload[:-4])
    elif payload.startswith(b"\xfd7zXZ"):
        elf = lzma.LZMADecompressor().decompress(payload)
    elif payload.startswith(b"\x1f\x8b"):
        elf = zlib.decompressobj(wbits=31).decompress(payload)
    else:
        raise RigError(f"the kernel is compressed in an unknown way ({payload[:4].hex()})")
    if not elf.startswith(b"\x7fELF"):
        raise RigError("the kernel's payload is not an ELF file")
    return elf
