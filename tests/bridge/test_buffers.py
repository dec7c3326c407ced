"""What is promised of the buffers that methods get."""

from __future__ import annotations

import ctypes
import gc
import operator
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from nvmet_vdev.bridge import serve
from tests.bridge.backends import BLOCK, Async, Bare, Batches, Writable, conformance, lab, read, write


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "nvmet_vdev.backend"]


def test_a_buffer_is_writable_for_reads_and_read_only_for_writes() -> None:
    seen: dict[str, tuple[Any, ...]] = {}

    class Looks(Writable):
        def read(self, offset: int, buf: memoryview) -> None:
            seen["read"] = (buf.readonly, buf.format, buf.ndim, buf.nbytes, buf.contiguous)
            super().read(offset, buf)

        def write(self, offset: int, buf: memoryview, fua: bool) -> None:
            seen["write"] = (buf.readonly, buf.format, buf.ndim, buf.nbytes, buf.contiguous)
            with pytest.raises(TypeError):
                buf[0] = 1
            with pytest.raises((TypeError, BufferError), match="not writable"):
                ctypes.c_char.from_buffer(buf.obj)
            super().write(offset, buf, fua)

    backend = Looks()
    with lab(backend) as rig:
        rig.drive.write(3, b"w" * 1024)
        assert rig.drive.read(3, 2) == b"w" * 1024
    assert seen == {"read": (False, "B", 1, 1024, True), "write": (True, "B", 1, 1024, True)}


@pytest.mark.parametrize("form", [Writable, Async])
def test_a_buffer_that_was_kept_is_released(form: type[Bare], caplog: pytest.LogCaptureFixture) -> None:
    kept: list[memoryview] = []

    class Plain(Writable):
        def read(self, offset: int, buf: memoryview) -> None:
            kept.append(buf)
            super().read(offset, buf)

    class Coroutine(Async):
        async def read(self, offset: int, buf: memoryview) -> None:  # type: ignore[override]
            kept.append(buf)
            await super().read(offset, buf)

    with lab(Plain() if form is Writable else Coroutine()) as rig:
        rig.drive.read(0, 1)
    for use in (lambda view: view[0], len, bytes, memoryview, lambda view: view.obj):
        with pytest.raises(ValueError, match="released"):
            use(kept[0])
    # It does no harm, so nothing is said.
    assert not said(caplog)


@pytest.mark.parametrize("how", ["slice", "obj", "numpy", "cast"])
def test_what_was_kept_of_a_buffer_has_no_part_in_other_requests(
    how: str, caplog: pytest.LogCaptureFixture
) -> None:
    numpy = pytest.importorskip("numpy")
    kept: list[Any] = []
    ways: dict[str, Callable[[memoryview], Any]] = {
        "slice": lambda buf: buf[:100],
        "obj": lambda buf: memoryview(buf.obj),
        "numpy": lambda buf: numpy.frombuffer(buf, numpy.uint8),
        "cast": lambda buf: buf.cast("Q"),
    }
    keep = ways[how]

    class Keeps(Writable):
        def read(self, offset: int, buf: memoryview) -> None:
            super().read(offset, buf)
            if len(kept) < 20:
                kept.append(keep(buf))

        def write(self, offset: int, buf: memoryview, fua: bool) -> None:
            super().write(offset, buf, fua)
            if len(kept) < 40:
                kept.append(keep(buf))

    backend = Keeps()
    with lab(backend) as rig:
        for lba in range(20):
            rig.drive.read(lba, 2)
        for lba in range(20):
            rig.drive.write(lba * 2, bytes([lba]) * 1024)
        before = [bytes(view) for view in kept]
        assert len(before) == 40
        # Whatever is done with what was kept, others do not see it.
        for view in kept[:20]:
            flat = memoryview(view).cast("B")
            flat[:] = bytes(len(flat))
        for lba in range(200):
            rig.drive.write(100, bytes([lba]) * 1024)
            assert rig.drive.read(100, 2) == bytes([lba]) * 1024
        assert all(not any(bytes(view)) for view in kept[:20])
        assert [bytes(view) for view in kept[20:]] == before[20:]
    messages = said(caplog)
    assert len(messages) == 2
    for method, message in zip(("read", "write"), messages, strict=True):
        assert __file__ in message
        assert f"Keeps.{method} kept buf" in message
    kept.clear()


def test_variables_of_a_method_that_raised_are_not_kept_buffers(caplog: pytest.LogCaptureFixture) -> None:
    class Fails(Bare):
        def read(self, offset: int, buf: memoryview) -> None:
            part = buf[:100]
            raise OSError(5, "no", str(len(part)))

    with lab(Fails()) as rig:
        assert rig.read_status().code == (2, 0x81)
    assert not said(caplog)


def test_a_window_gives_no_buffer_after_the_end() -> None:
    windows: list[Any] = []

    class Keeps(Bare):
        def read(self, offset: int, buf: memoryview) -> None:
            super().read(offset, buf)
            windows.append(buf.obj)

    with lab(Keeps()) as rig:
        rig.drive.read(0, 1)
    assert len(windows[0]) == BLOCK
    for use in (memoryview, bytes, bytearray):
        with pytest.raises((ValueError, BufferError), match="operation has ended"):
            use(windows[0])
    with pytest.raises(TypeError):
        type(windows[0])()


def test_a_buffer_cannot_be_resized_or_replaced() -> None:
    seen: list[str] = []

    class Tries(Bare):
        def read(self, offset: int, buf: memoryview) -> None:
            for attempt in (
                lambda: buf.__setitem__(slice(None), bytes(len(buf) + 1)),
                lambda: buf.__setitem__(slice(0, 10), b""),
                lambda: operator.delitem(buf, 0),  # type: ignore[call-overload]
                lambda: buf.obj.__setattr__("len", 1),
                lambda: buf.extend(b"x"),  # type: ignore[attr-defined]
            ):
                try:
                    attempt()
                except (ValueError, TypeError, AttributeError) as error:
                    seen.append(type(error).__name__)
            super().read(offset, buf)

    with lab(Tries()) as rig:
        assert rig.drive.read(0, 1) == b"\x5a" * BLOCK
    assert len(seen) == 5


def test_a_read_that_tries_to_resize_fails_and_others_go_on(caplog: pytest.LogCaptureFixture) -> None:
    class Resizes(Bare):
        def read(self, offset: int, buf: memoryview) -> None:
            if offset:
                super().read(offset, buf)
            else:
                buf[:] = b"too short"

    with lab(Resizes()) as rig:
        assert rig.read_status(0).code == (0, 6)
        assert rig.drive.read(1, 1) == b"\x5a" * BLOCK
    (message,) = said(caplog)
    assert __file__ in message
    assert "Resizes.read raised ValueError" in message


def test_buffers_of_a_batch_end_with_their_request() -> None:
    kept: list[Any] = []

    class Keeps(Batches):
        def submit(self, batch: Any) -> None:
            for request in batch:
                assert (request.buffer is None) == (request.kind in (2, 3, 4))
                if request.buffer is not None:
                    assert request.buffer is request.buffer
                    kept.append((request, request.buffer))
            super().submit(batch)

    with lab(Keeps()) as rig:
        rig.drive.write(0, bytes(1024))
        rig.drive.read(0, 2)
        rig.drive.flush()
    assert len(kept) == 2
    for request, view in kept:
        assert request.ended
        assert request.buffer is None
        with pytest.raises(ValueError, match="released"):
            view[0]
    kept.clear()


def test_requests_that_keep_their_memory_make_others_wait_and_fail_but_nothing_breaks() -> None:
    kept: list[memoryview] = []

    class Hoards(Writable):
        def read(self, offset: int, buf: memoryview) -> None:
            kept.append(buf[:1])
            super().read(offset, buf)

    with lab(Hoards()) as rig:
        statuses = {rig.status(read(0, 1024)).code for _ in range(200)}
        # Internal Error without DNR, once 64 MiB are kept.
        assert statuses == {(0, 0), (0, 6)}
        assert not rig.status(read(0, 1024)).dnr
        kept.clear()
        assert rig.status(read(0, 1024)).success
        assert rig.status(write(0, bytes(1024))).success


def test_what_a_backend_leaves_of_a_buffer_is_collected_with_it() -> None:
    backend = Writable()
    gone = weakref.ref(backend)
    conformance(serve(backend), rounds=2)
    del backend
    gc.collect()
    assert gone() is None
