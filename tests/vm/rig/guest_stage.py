"""The guest's stage of the cache: a kernel and initramfs archives, ready to boot."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.vm.rig import kernel, userland
from tests.vm.rig.apt import Apt, unpack
from tests.vm.rig.cache import Stage, digest
from tests.vm.rig.program import unpacked

_HERE = Path(__file__).resolve().parent
VMLINUZ, VMLINUX = "vmlinuz", "vmlinux"
SMALL, BASE, FIO = "small.cpio", "base.cpio", "fio.cpio"


def stage(cache: Path) -> Stage:
    """The guest; made anew when any file that shapes it changes."""
    recipe = [_HERE / name for name in ("guest_stage.py", "kernel.py", "userland.py", "cpio.py")]
    return Stage(cache / "guest", digest(*recipe, *sorted(userland.GUEST_FILES.iterdir())))


def make(apt: Apt, debs: Path, tools: Path, into: Path) -> None:
    """Makes the kernel and the archives; the unpacked packages are not kept."""
    root = into / "root"
    packages = apt.fetch(debs / "userland", userland.PACKAGES, closure=True)
    images = apt.resolve(kernel.PACKAGE, kernel.PATTERN)
    packages += apt.fetch(debs / "kernel", images, closure=False)
    unpack(packages, root)

    image = kernel.vmlinuz(root)
    (into / VMLINUZ).write_bytes(image)
    (into / VMLINUX).write_bytes(kernel.vmlinux(image, unpacked(tools, "usr/bin/zstd")))
    archives = userland.build(root)
    (into / SMALL).write_bytes(archives.small)
    (into / BASE).write_bytes(archives.base)
    (into / FIO).write_bytes(archives.fio)
    shutil.rmtree(root)
