"""Backends in every form, and what calls them."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nvmet_vdev import Command, Drive, NvmeStatusError, Status, Target, attach
from nvmet_vdev._nvmet import Request, check_storage
from nvmet_vdev.bridge import Service, carry_out, serve
from tests.product import PATIENCE

SIZE = 1 << 20
BLOCK = 512


class Bare:
    """What a backend has at least."""

    def __init__(self, size: int = SIZE, **attributes: Any) -> None:
        self.size = size
        self.data = bytearray(b"\x5a" * size)
        for name, value in attributes.items():
            setattr(self, name, value)

    def read(self, offset: int, buf: memoryview) -> None:
        buf[:] = memoryview(self.data)[offset : offset + len(buf)]


class Writable(Bare):
    def write(self, offset: int, buf: memoryview, fua: bool) -> None:
        assert isinstance(fua, bool)
        self.data[offset : offset + len(buf)] = buf


class Full(Writable):
    """Every method; `calls` are their arguments."""

    def __init__(self, size: int = SIZE, **attributes: Any) -> None:
        super().__init__(size, **attributes)
        self.calls: list[tuple[Any, ...]] = []
        self.threads: set[int] = set()

    def note(self, *call: Any) -> None:
        self.calls.append(call)
        self.threads.add(threading.get_ident())

    def open(self) -> None:
        self.note("open")

    def close(self) -> None:
        self.note("close")

    def read(self, offset: int, buf: memoryview) -> None:
        self.note("read", offset, len(buf))
        super().read(offset, buf)

    def write(self, offset: int, buf: memoryview, fua: bool) -> None:
        self.note("write", offset, len(buf), fua)
        super().write(offset, buf, fua)

    def flush(self) -> None:
        self.note("flush")

    def discard(self, offset: int, length: int) -> None:
        self.note("discard", offset, length)
        self.data[offset : offset + length] = bytes(length)

    def write_zeroes(self, offset: int, length: int, *, may_discard: bool, fua: bool) -> None:
        self.note("write_zeroes", offset, length, may_discard, fua)
        self.data[offset : offset + length] = bytes(length)

    def compare(self, offset: int, buf: memoryview) -> bool:
        self.note("compare", offset, len(buf))
        return bool(memoryview(self.data)[offset : offset + len(buf)] == buf)


class Async(Bare):
    """Every method, `async`; each of them waits, some longer than others."""

    def __init__(self, size: int = SIZE, **attributes: Any) -> None:
        super().__init__(size, **attributes)
        self.running = 0
        self.most = 0
        self.turn = 0

    async def pause(self) -> None:
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            self.turn += 1
            for _ in range(self.turn % 5):
                await asyncio.sleep(0)
        finally:
            self.running -= 1

    async def open(self) -> None:
        await asyncio.sleep(0)

    async def close(self) -> None:
        await asyncio.sleep(0)

    async def read(self, offset: int, buf: memoryview) -> None:  # type: ignore[override]
        await self.pause()
        super().read(offset, buf)

    async def write(self, offset: int, buf: memoryview, fua: bool) -> None:
        await self.pause()
        self.data[offset : offset + len(buf)] = buf

    async def flush(self) -> None:
        await self.pause()

    async def discard(self, offset: int, length: int) -> None:
        await self.pause()
        self.data[offset : offset + length] = bytes(length)

    async def write_zeroes(self, offset: int, length: int, *, may_discard: bool, fua: bool) -> None:
        await self.pause()
        self.data[offset : offset + length] = bytes(length)

    async def compare(self, offset: int, buf: memoryview) -> bool:
        await self.pause()
        return bool(memoryview(self.data)[offset : offset + len(buf)] == buf)


class Batches(Full):
    """Takes batches, and carries them out with the plain methods."""

    def submit(self, batch: Any) -> None:
        for request in batch:
            carry_out(self, request)


class Later(Full):
    """Takes batches, which another thread completes, the last first."""

    def __init__(self, size: int = SIZE, **attributes: Any) -> None:
        super().__init__(size, **attributes)
        self.lock = threading.Lock()
        self.threads_started: list[threading.Thread] = []

    def submit(self, batch: Any) -> None:
        thread = threading.Thread(target=self.work, args=(list(batch),))
        thread.start()
        self.threads_started = [other for other in self.threads_started if other.is_alive()] + [thread]

    def work(self, requests: list[Request]) -> None:
        for request in reversed(requests):
            with self.lock:
                carry_out(self, request)

    def close(self) -> None:
        for thread in self.threads_started:
            thread.join()
        super().close()


class Hanging(Writable):
    """Hangs in `read` of block 0 until it is let go."""

    def __init__(self, size: int = SIZE, **attributes: Any) -> None:
        super().__init__(size, **attributes)
        self.hangs = threading.Event()
        self.go = threading.Event()

    def read(self, offset: int, buf: memoryview) -> None:
        if offset == 0 and not self.go.is_set():
            self.hangs.set()
            self.go.wait(PATIENCE)
        super().read(offset, buf)


def without(backend: Any, *names: str) -> Any:
    """The backend with methods switched off."""
    for name in names:
        setattr(backend, name, None)
    return backend


def conformance(service: Service, *, depth: int = 32, rounds: int = 30) -> None:
    """Runs the suite on the service, and ends it."""
    report = json.loads(check_storage(service.storage, depth=depth, rounds=rounds))
    failed = [check for check in report["checks"] if check["outcome"] == "failed"]
    assert report["passed"], failed
    assert service.close(PATIENCE)


@dataclass
class Lab:
    """A target in this process with backends as namespaces 1, 2, ..., and a drive on it."""

    target: Target
    services: list[Service]
    drive: Drive
    socket: str

    def status(self, command: Command, timeout: float = PATIENCE) -> Status:
        """Carries a command out, whatever its status."""
        return self.drive.submit(command).wait(timeout).status

    def read_status(self, lba: int = 1, nsid: int = 1) -> Status:
        return self.status(read(lba, nsid=nsid))


@contextlib.contextmanager
def lab(*backends: object, **options: Any) -> Iterator[Lab]:
    """Serves backends until the end of the block, which also checks that everything ends."""
    services = [serve(backend, **options) for backend in backends]
    with contextlib.ExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="nv-"))
        target = Target()
        stack.callback(target.shutdown)
        subsystem = target.add_subsystem(serial="BRIDGE")
        for service in services:
            size = getattr(service.backend, "block_size", BLOCK)
            subsystem.add_namespace(service.storage, block_size=size)
        socket = str(Path(directory) / "s")
        subsystem.listen(socket)
        drive = stack.enter_context(attach(socket, timeout=PATIENCE))
        yield Lab(target, services, drive, socket)
    for service in services:
        if isinstance(go := getattr(service.backend, "go", None), threading.Event):
            # It may hang: the target has ended without it.
            go.set()
        assert service.close(PATIENCE)


def read(lba: int, blocks: int = 1, nsid: int = 1) -> Command:
    return Command(2, nsid, cdw10=lba, cdw12=blocks - 1, length=blocks * BLOCK)


def write(lba: int, data: bytes, nsid: int = 1) -> Command:
    return Command(1, nsid, cdw10=lba, cdw12=len(data) // BLOCK - 1, data=data)


def code(error: NvmeStatusError) -> tuple[int, int]:
    return error.status.code


TRANSIENT = errno.EIO
