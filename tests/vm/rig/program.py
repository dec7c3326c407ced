"""Programs of an unpacked tree, run by the tree's own dynamic loader whatever the machine's C library."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from tests.vm.rig.elf import LIBRARY_DIRS, LOADER
from tests.vm.rig.errors import RigError


@dataclass(frozen=True)
class Program:
    """How to start a program: the first words of its command line, and variables to add."""

    argv: tuple[str, ...]
    env: dict[str, str] = field(default_factory=dict)

    def environment(self) -> dict[str, str]:
        return {**os.environ, **self.env}

    def run(self, *args: str | Path, stdin: bytes | None = None) -> bytes:
        """Runs it to its end and gives its output; a failure is an error with its first line of complaint."""
        done = subprocess.run(
            [*self.argv, *args],
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            env=self.environment(),
            check=False,
        )
        if done.returncode != 0:
            complaint = done.stderr.decode(errors="replace").strip() or f"exit {done.returncode}"
            raise RigError(f"{Path(self.argv[-1]).name}: {complaint.splitlines()[0]}")
        return done.stdout


def unpacked(root: Path, path: str, env: dict[str, str] | None = None) -> Program:
    """The program at `path` (such as usr/bin/mcopy) of the tree at `root`."""
    library_path = ":".join(str(root / directory) for directory in (*LIBRARY_DIRS, PULSE))
    program = root / path
    loader = (str(root / LOADER), "--library-path", library_path, "--argv0", program.name)
    return Program((*loader, str(program)), env or {})


# libpulse keeps a library out of the usual path; QEMU's audio needs it even when silent.
PULSE = "usr/lib/x86_64-linux-gnu/pulseaudio"
