"""The guest's userland as initramfs archives: a small one, what the cases use, and fio on top."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tests.vm.rig.cpio import Cpio
from tests.vm.rig.elf import LOADER, libraries
from tests.vm.rig.program import Program

PACKAGES = ("busybox-static", "nvme-cli", "e2fsprogs", "util-linux", "pciutils", "fio")
GUEST_FILES = Path(__file__).resolve().parent / "guest-files"

# Where a program of the guest is in its package; busybox has a weaker one of some of them.
BASE = {
    "nvme": "usr/sbin/nvme",
    "mkfs.ext4": "usr/sbin/mke2fs",
    "e2fsck": "usr/sbin/e2fsck",
    "blkdiscard": "usr/sbin/blkdiscard",
    "lspci": "usr/bin/lspci",
    "setpci": "usr/bin/setpci",
}
FIO = {"fio": "usr/bin/fio"}
BUSYBOX = "usr/bin/busybox"


@dataclass(frozen=True)
class Archives:
    """The archives; each continues the ones before it."""

    small: bytes
    base: bytes
    fio: bytes


def build(root: Path) -> Archives:
    """Makes the archives from a tree of unpacked packages."""
    small = Cpio()
    for name in ("proc", "sys", "dev", "tmp", "mnt", "root", "etc", "bin", "lib", "lib64"):
        small.directory(name)
    small.character("dev/console", 5, 1)
    small.character("dev/null", 1, 3)
    small.file("etc/passwd", b"root:x:0:0:root:/root:/bin/sh\n", 0o644)
    small.file("init", (GUEST_FILES / "init").read_bytes())
    small.file("lib/guest.sh", (GUEST_FILES / "guest.sh").read_bytes(), 0o644)
    small.file("bin/busybox", (root / BUSYBOX).read_bytes())
    for applet in Program((str(root / BUSYBOX),)).run("--list").decode().split():
        if applet not in BASE and applet not in FIO:
            small.link(f"bin/{applet}", "busybox")

    base = Cpio(small.names)
    for name, path in BASE.items():
        _program(base, root, name, path)
    base.file("etc/mke2fs.conf", (root / "etc/mke2fs.conf").read_bytes(), 0o644)

    fio = Cpio(base.names)
    for name, path in FIO.items():
        _program(fio, root, name, path)
    return Archives(small.finish(), base.finish(), fio.finish())


def _program(archive: Cpio, root: Path, name: str, path: str) -> None:
    archive.file(f"bin/{name}", (root / path).read_bytes())
    archive.file("lib64/ld-linux-x86-64.so.2", (root / LOADER).read_bytes())
    for library, where in libraries(root, root / path).items():
        archive.file(f"lib/{library}", where.read_bytes())
