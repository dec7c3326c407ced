"""Drives in Python to be measured: the same memory behind every form of a backend.

`python benches/python_drives.py DIRECTORY KIND` serves two drives of one target there, on the sockets
`ram` and `python`: what a busy backend in Python does to its neighbours.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from nvmet_vdev import Backend, Target, carry_out
from nvmet_vdev._nvmet import Batch

SIZE = 64 << 20
READ = 0


class Plain(Backend):
    """Memory behind plain methods."""

    def __init__(self) -> None:
        self.size = SIZE
        self.data = memoryview(bytearray(SIZE))

    def read(self, offset: int, buf: memoryview) -> None:
        """Copies out."""
        buf[:] = self.data[offset : offset + len(buf)]

    def write(self, offset: int, buf: memoryview, fua: bool) -> None:
        """Copies in."""
        self.data[offset : offset + len(buf)] = buf


class Batches(Plain):
    """Memory that reads whole batches."""

    def submit(self, batch: Batch) -> None:
        """Reads together, everything else one by one."""
        if batch.kind != READ or batch.length is None:
            for request in batch:
                carry_out(self, request)
            return
        memory, data, length = batch.memory, self.data, batch.length
        for at, position in zip(batch.offsets, batch.positions, strict=True):
            memory[position : position + length] = data[at : at + length]
        batch.complete()


class Async(Backend):
    """Memory behind `async def` methods."""

    def __init__(self) -> None:
        self.size = SIZE
        self.data = memoryview(bytearray(SIZE))

    async def read(self, offset: int, buf: memoryview) -> None:
        """Copies out."""
        buf[:] = self.data[offset : offset + len(buf)]


class Waits(Plain):
    """Every read waits a millisecond, without the GIL."""

    def read(self, offset: int, buf: memoryview) -> None:
        """Waits, then copies out."""
        time.sleep(0.001)
        super().read(offset, buf)


class Computes(Plain):
    """Every read computes for a millisecond, with the GIL."""

    def read(self, offset: int, buf: memoryview) -> None:
        """Computes, then copies out."""
        end = time.perf_counter() + 0.001
        while time.perf_counter() < end:
            pass
        super().read(offset, buf)


BUSY: dict[str, type[Backend]] = {"waits": Waits, "computes": Computes}


def main() -> None:
    """Serves until standard input ends."""
    directory, kind = Path(sys.argv[1]), sys.argv[2]
    with Target() as target:
        for name, disk in (("ram", f"ram:{SIZE}"), ("python", BUSY[kind]())):
            subsystem = target.add_subsystem(serial=name)
            subsystem.add_namespace(disk)
            target.listen(directory / name, subsystem=subsystem)
        print("listening", flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
