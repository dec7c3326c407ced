"""The workbench of a module of cases: images, drives on them, and guests that have the drives."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli_w

from tests.vm.rig.drive import Drive, Emulated, Target
from tests.vm.rig.guest import Guest, Machine, Rig
from tests.vm.rig.served import Served

MIB = 1 << 20


@dataclass(frozen=True)
class Lab:
    """Everything that it makes is in `directory` or ends with its context."""

    rig: Rig
    directory: Path
    emulated: bool

    def image(self, name: str, size: int) -> Path:
        """A new sparse image."""
        path = self.directory / name
        with path.open("wb") as file:
            file.truncate(size)
        return path

    @contextmanager
    def drive(
        self, image: Path, serial: str, block_size: int = 512, options: Sequence[str] = ()
    ) -> Iterator[Drive]:
        """A drive on an image: served by the target, or QEMU's own where that was asked for."""
        if self.emulated:
            yield Emulated(image, serial, block_size)
            return
        more = ["--block-size", str(block_size), *options]
        with Target(image, directory=self.directory, serial=serial, options=more) as target:
            yield target

    def serve(self, config: Mapping[str, Any], name: str = "served") -> Served:
        """A target on a configuration, in the words of its TOML."""
        path = self.directory / f"{name}.toml"
        path.write_text(tomli_w.dumps(dict(config)))
        return Served(path, directory=self.directory, name=name)

    def boot(self, *drives: Drive, machine: Machine | None = None) -> Guest:
        """A guest with these drives."""
        devices = [drive.device() for drive in drives]
        return Guest(self.rig, devices, machine, lambda: "\n".join(drive.said() for drive in drives))
