"""Which QEMU to use: the system's if it has vfio-user-pci (10.1.1 and later), else one in the cache."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

from tests.vm.rig.apt import Apt, unpack
from tests.vm.rig.cache import Stage, digest
from tests.vm.rig.program import Program, unpacked

BINARY = "qemu-system-x86_64"
OLDEST = (10, 1, 1)
BACKPORTS = "trixie-backports"
PACKAGES = tuple(
    f"{name}/{BACKPORTS}" for name in ("qemu-system-x86", "qemu-system-common", "qemu-system-data", "seabios")
)


def stage(cache: Path) -> Stage:
    """The unpacked QEMU."""
    return Stage(cache / "qemu", digest(*PACKAGES, Path(__file__)))


def make(apt: Apt, debs: Path, into: Path) -> None:
    """Unpacks QEMU and its libraries."""
    unpack(apt.fetch(debs, PACKAGES, closure=True), into)


def find(cache: Path) -> Program | None:
    """The QEMU to use, if there is one."""
    return system() or cached(cache)


def cached(cache: Path) -> Program | None:
    built = stage(cache)
    if not built.ready:
        return None
    root = built.path
    modules = {"QEMU_MODULE_DIR": str(root / "usr/lib/x86_64-linux-gnu/qemu")}
    program = unpacked(root, f"usr/bin/{BINARY}", modules)
    data = [part for name in ("seabios", "qemu") for part in ("-L", str(root / "usr/share" / name))]
    return Program((*program.argv, *data), program.env)


def system() -> Program | None:
    """The machine's own QEMU, if it is new enough and has the device."""
    path = shutil.which(BINARY)
    if path is None:
        return None
    program = Program((path,))
    probe = subprocess.run([path, "-device", "vfio-user-pci,help"], capture_output=True, check=False)
    return program if probe.returncode == 0 and version(program) >= OLDEST else None


def version(program: Program) -> tuple[int, ...]:
    """The version of a QEMU, as numbers."""
    found = re.search(rb"version (\d+)\.(\d+)\.(\d+)", program.run("-version"))
    return tuple(int(part) for part in found.groups()) if found else (0,)
