"""Drives for a guest: one that `nvmet-vdev run` serves, and QEMU's own emulation to check the rig with."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from tests.vm.rig.errors import GuestError

COMMAND_ENV = "NVMET_VDEV"
# Seconds after which something hangs, however busy the machine is.
START_LIMIT = 120.0
STOP_LIMIT = 120.0


class Drive(Protocol):
    """What a guest can be given."""

    @property
    def serial(self) -> str: ...

    def device(self) -> list[str]:
        """QEMU's arguments for it."""

    def said(self) -> str:
        """What its server printed, for an error message."""


def command() -> list[str]:
    """The product: `NVMET_VDEV`, else the console script beside this interpreter, else the module."""
    if override := os.environ.get(COMMAND_ENV):
        return shlex.split(override)
    script = Path(sys.executable).with_name("nvmet-vdev")
    return [str(script)] if script.exists() else [sys.executable, "-m", "nvmet_vdev"]


def vfio_user(path: Path) -> list[str]:
    """QEMU's arguments for the device behind a socket."""
    return ["-device", json.dumps({"driver": "vfio-user-pci", "socket": {"type": "unix", "path": str(path)}})]


class Target:
    """`nvmet-vdev run` as a process; leaving the context stops it and demands exit status 0."""

    def __init__(
        self,
        *disks: str | Path,
        directory: Path,
        serial: str,
        options: Sequence[str] = (),
        program: Sequence[str] | None = None,
    ) -> None:
        self.serial = serial
        self.socket = directory / f"{serial}.sock"
        self._stdout, self._stderr = directory / f"{serial}.out", directory / f"{serial}.err"
        # `make modes` has other workers than the defaults; what a case asks for itself comes last and counts.
        wanted = shlex.split(os.environ.get("NVMET_TEST_RUN", ""))
        arguments = [*wanted, *map(str, disks), "--socket", str(self.socket), "--serial", serial, *options]
        with self._stdout.open("wb") as stdout, self._stderr.open("wb") as stderr:
            self._process = subprocess.Popen(
                [*(program or command()), "run", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                start_new_session=True,
            )
        self._wait_listening()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.stop(check=kind is None)
        finally:
            self._process.kill()
            self._process.wait()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether the target still runs."""
        return self._process.poll() is None

    def device(self) -> list[str]:
        return vfio_user(self.socket)

    def said(self) -> str:
        return f"--- target {self.serial}\n{self._stdout.read_text()}{self._stderr.read_text()}"

    def stop(self, *, check: bool = True) -> None:
        """SIGTERM, as a service manager would; the target must flush and exit with 0."""
        self._process.send_signal(signal.SIGTERM)
        try:
            status = self._process.wait(STOP_LIMIT)
        except subprocess.TimeoutExpired:
            raise GuestError(f"the target does not stop on SIGTERM\n{self.said()}") from None
        if check and status != 0:
            raise GuestError(f"the target exited with {status}\n{self.said()}")

    def _wait_listening(self) -> None:
        deadline = time.monotonic() + START_LIMIT
        wanted = f"listening on {self.socket}"
        while wanted not in self._stdout.read_text().splitlines():
            if not self.alive or time.monotonic() > deadline:
                state = "hangs" if self.alive else f"exited with {self._process.returncode}"
                self._process.kill()
                self._process.wait()
                raise GuestError(f"the target {state} before it was listening\n{self.said()}")
            time.sleep(0.02)


@dataclass(frozen=True)
class Emulated:
    """QEMU's own emulated NVMe drive on an image."""

    image: Path
    serial: str
    block_size: int = 512

    def device(self) -> list[str]:
        node = f"disk-{self.serial}"
        backend = f"driver=file,filename={self.image},node-name={node},discard=unmap"
        blocks = f"logical_block_size={self.block_size},physical_block_size={self.block_size}"
        return ["-blockdev", backend, "-device", f"nvme,serial={self.serial},drive={node},{blocks}"]

    def said(self) -> str:
        return ""
