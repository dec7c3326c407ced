"""Tools that the rig itself uses, unpacked into the cache: GRUB and mtools for boot disks, zstd, OVMF."""

from __future__ import annotations

from pathlib import Path

from tests.vm.rig.apt import Apt, unpack
from tests.vm.rig.cache import Stage, digest

PACKAGES = ("grub-common", "grub-pc-bin", "grub-efi-amd64-bin", "mtools", "zstd", "ovmf")
OVMF_CODE = "usr/share/OVMF/OVMF_CODE_4M.fd"
OVMF_VARS = "usr/share/OVMF/OVMF_VARS_4M.fd"


def stage(cache: Path) -> Stage:
    """The unpacked tools."""
    return Stage(cache / "tools", digest(*PACKAGES, Path(__file__)))


def make(apt: Apt, debs: Path, into: Path) -> None:
    """Unpacks the tools and their libraries."""
    unpack(apt.fetch(debs, PACKAGES, closure=True), into)
