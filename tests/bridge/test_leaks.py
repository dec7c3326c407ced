"""Nothing grows with the number of requests, whatever becomes of them, and nothing is left when they end."""

from __future__ import annotations

import gc
import os
import sys
import threading
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from nvmet_vdev import Drive, NvmeError
from nvmet_vdev.bridge import serve
from tests.bridge.backends import Async, Bare, Batches, Full, Later, Writable, lab, read, write
from tests.product import wait_until

REQUESTS = 5000


def resident() -> int:
    """Bytes of memory of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def load(drive: Drive, count: int = REQUESTS) -> None:
    """Reads and writes, as many as fit at once."""
    for start in range(0, count, 100):
        commands = [
            write(lba, b"z" * 1024) if lba % 3 == 0 else read(lba, 2)
            for lba in range(start % 1900, start % 1900 + 100)
        ]
        for pending in drive.submit_many(commands):
            pending.wait()


class Failing(Writable):
    def read(self, offset: int, buf: memoryview) -> Any:
        part = buf[:10]
        match offset // 512 % 5:
            case 0:
                raise OSError(5, "medium", str(len(part)))
            case 1:
                raise NvmeError(2, 0x81)
            case 2:
                raise KeyError(offset)
            case 3:
                return b"wrong"
            case _:
                return super().read(offset, buf)


class FailingAsync(Async):
    async def read(self, offset: int, buf: memoryview) -> Any:  # type: ignore[override]
        await self.pause()
        return Failing.read(self, offset, buf)  # type: ignore[arg-type]


class FailingBatches(Failing, Batches):
    pass


@pytest.mark.parametrize(
    "form",
    [Writable, Async, Batches, Later, Failing, FailingAsync, FailingBatches],
)
@pytest.mark.parametrize("timeout", [None, 600.0])
def test_requests_leave_nothing_behind(form: type[Bare], timeout: float | None) -> None:
    backend = form(timeout=timeout)
    if isinstance(backend, Full):
        # It would remember every call.
        backend.note = lambda *call: None  # type: ignore[method-assign]
    with lab(backend) as rig:
        load(rig.drive, 1000)
        gc.collect()
        tracemalloc.start()
        try:
            load(rig.drive, 500)
            gc.collect()
            allocated, memory = tracemalloc.get_traced_memory()[0], resident()
            objects, references = len(gc.get_objects()), sys.getrefcount(backend)
            load(rig.drive)
            gc.collect()
            # A few objects come and go with the state of threads; requests would be thousands.
            assert tracemalloc.get_traced_memory()[0] - allocated < 60 * REQUESTS // 10
            assert len(gc.get_objects()) - objects < REQUESTS // 10
            assert abs(sys.getrefcount(backend) - references) < 20
            assert resident() - memory < 8 << 20
        finally:
            tracemalloc.stop()


def test_requests_that_are_given_up_leave_nothing_behind() -> None:
    go = threading.Event()

    class Waits(Writable):
        def read(self, offset: int, buf: memoryview) -> None:
            go.wait(0.001)
            super().read(offset, buf)

    with lab(Waits(timeout=0.002)) as rig:
        load(rig.drive, 500)
        gc.collect()
        before = len(gc.get_objects())
        load(rig.drive, 2000)
        gc.collect()
        assert len(gc.get_objects()) - before < 300


@pytest.mark.parametrize("form", [Full, Async, Batches])
def test_services_leave_no_threads_descriptors_and_objects(form: type[Bare]) -> None:
    def once() -> None:
        service = serve(form(timeout=60.0))
        assert service.close(60)

    def threads() -> int:
        return len(list(Path("/proc/self/task").iterdir()))

    for _ in range(3):
        once()
    gc.collect()
    wait_until(lambda: threads() <= before, "threads end") if (before := threads()) > 50 else None
    opened, running, objects = descriptors(), threads(), len(gc.get_objects())
    for _ in range(30):
        once()
    gc.collect()
    # The one that looks after the timeout ends by itself.
    wait_until(lambda: threads() <= running, "threads end")
    wait_until(lambda: descriptors() <= opened, "descriptors are closed")
    assert len(gc.get_objects()) - objects < 100


def test_backends_that_are_refused_leave_nothing() -> None:
    class Refuses(Full):
        def open(self) -> None:
            raise OSError(2, "no")

    running, opened = threading.active_count(), descriptors()
    for _ in range(30):
        with pytest.raises(Exception, match="no"):
            serve(Refuses())
    wait_until(lambda: threading.active_count() <= running, "threads end")
    assert descriptors() <= opened
