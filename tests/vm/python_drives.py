"""Drives in Python for guests: `nvmet-vdev run python:FILE:NAME?key=value` loads this file."""

from __future__ import annotations

import asyncio
import fcntl
from pathlib import Path
from typing import Any

from nvmet_vdev import Backend
from nvmet_vdev.bridge import carry_out
from nvmet_vdev.sizes import Size

READ = 0


class Plain(Backend):
    """Memory, one call a request, with every command."""

    def __init__(self, size: Size) -> None:
        self.size = size
        self.data = memoryview(bytearray(size))

    def read(self, offset: int, buf: memoryview) -> None:
        buf[:] = self.data[offset : offset + len(buf)]

    def write(self, offset: int, buf: memoryview, fua: bool) -> None:  # noqa: ARG002
        self.data[offset : offset + len(buf)] = buf

    def flush(self) -> None:
        """Nothing is lost that the process keeps."""

    def discard(self, offset: int, length: int) -> None:
        self.data[offset : offset + length] = bytes(length)

    def write_zeroes(self, offset: int, length: int) -> None:
        self.data[offset : offset + length] = bytes(length)


class Batched(Plain):
    """The same, in batches; reads are completed together."""

    def submit(self, batch: Any) -> None:
        if batch.kind != READ or batch.length is None:
            for request in batch:
                carry_out(self, request)
            return
        memory, length = batch.memory, batch.length
        for offset, position in zip(batch.offsets, batch.positions, strict=True):
            memory[position : position + length] = self.data[offset : offset + length]
        batch.complete()


class Async(Backend):
    """The same as coroutines, which let each other go first."""

    def __init__(self, size: Size) -> None:
        self.size = size
        self.data = memoryview(bytearray(size))

    async def read(self, offset: int, buf: memoryview) -> None:
        await asyncio.sleep(0)
        buf[:] = self.data[offset : offset + len(buf)]

    async def write(self, offset: int, buf: memoryview, fua: bool) -> None:  # noqa: ARG002
        await asyncio.sleep(0)
        self.data[offset : offset + len(buf)] = buf

    async def flush(self) -> None:
        await asyncio.sleep(0)


class Hanging(Plain):
    """Memory whose reads hang while another has the file `gate` locked; `GATE.hanging` is there then."""

    def __init__(self, size: Size, gate: str, timeout: float = 0) -> None:
        super().__init__(size)
        self.gate = Path(gate)
        self.timeout = timeout or None

    def read(self, offset: int, buf: memoryview) -> None:
        with self.gate.open("rb") as gate:
            try:
                fcntl.flock(gate, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                hanging = self.gate.with_suffix(".hanging")
                hanging.touch()
                fcntl.flock(gate, fcntl.LOCK_EX)
                hanging.unlink()
        super().read(offset, buf)
