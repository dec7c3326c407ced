"""Backends that do what they must not: one clear message that names the place, and the target lives."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from nvmet_vdev import Command
from nvmet_vdev._nvmet import ConfigError
from nvmet_vdev.bridge import serve
from tests.bridge.backends import BLOCK, Async, Bare, Batches, Full, Writable, lab, read, without, write
from tests.product import wait_until


def refused(backend: Any) -> str:
    """The one line that `serve` refuses a backend with."""
    with pytest.raises(ConfigError) as caught:
        serve(backend)
    text = str(caught.value)
    assert "\n" not in text
    return text


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "nvmet_vdev.backend"]


# Before it is in service


def test_what_is_no_backend_is_refused() -> None:
    class NoRead:
        size = 512

    class NoSize:
        def read(self, offset: int, buf: memoryview) -> None: ...

    class NotCallable(Bare):
        flush = 7

    assert "NoRead has no read(offset, buf)" in refused(NoRead())
    assert "NoSize has no size" in refused(NoSize())
    assert "a backend is an object of it: Bare(...)" in refused(Bare)
    assert "flush is a int; make it a method" in refused(NotCallable())
    for other in (None, 1, "ram:1M", object(), [], lambda: None):
        assert "has no read" in refused(other)


@pytest.mark.parametrize(
    ("size", "words"),
    [
        (0, "size is 0; give a number of bytes"),
        (-512, "size is -512; give"),
        (511, "not a multiple of the block size 512"),
        (1 << 63, "give a number of bytes"),
        (1 << 80, "give a number of bytes"),
        (512.0, "size is 512.0, a float"),
        ("1M", "size is '1M', a str"),
        (None, "size is None, a NoneType"),
        (True, "size is True, a bool"),
        (b"512", "a bytes"),
    ],
)
def test_a_size_that_is_none_is_refused(size: Any, words: str) -> None:
    backend = Bare()
    backend.size = size
    assert words in refused(backend)


def test_a_size_that_raises_is_refused_with_its_words() -> None:
    class Property(Bare):
        def __init__(self) -> None: ...

        @property
        def size(self) -> int:  # type: ignore[override]
            raise ValueError("the disk\nis gone")

    class Method(Property):
        def size(self) -> int:  # type: ignore[override]
            raise SystemExit(3)

    assert "the disk is gone" in refused(Property())
    assert "SystemExit: 3" in refused(Method())


@pytest.mark.parametrize(
    ("attribute", "value", "words"),
    [
        ("block_size", 1024, "block_size is 1024; use 512 or 4096"),
        ("block_size", "512", "block_size is '512'"),
        ("max_inflight", 0, "max_inflight is 0"),
        ("max_inflight", "many", "max_inflight is 'many'"),
        ("max_inflight", True, "max_inflight is True"),
        ("timeout", -1, "timeout is -1"),
        ("timeout", float("nan"), "timeout is nan"),
        ("timeout", float("inf"), "timeout is inf"),
        ("timeout", "1s", "timeout is '1s'"),
    ],
)
def test_attributes_that_are_none_are_refused(attribute: str, value: Any, words: str) -> None:
    assert words in refused(Bare(**{attribute: value}))


def test_more_threads_than_a_process_should_have_are_refused() -> None:
    assert "max_inflight is 100000, with a thread for each" in refused(
        Bare(thread_safe=True, max_inflight=100_000)
    )


def test_attributes_that_raise_are_refused() -> None:
    class Broken(Bare):
        @property
        def max_inflight(self) -> int:
            raise RuntimeError("not yet")

    text = refused(Broken())
    assert "RuntimeError: not yet" in text
    assert __file__ in text or "Broken" in text


def test_methods_that_cannot_be_async_are_refused() -> None:
    class Size(Bare):
        def __init__(self) -> None: ...

        async def size(self) -> int:  # type: ignore[override]
            return 512

    class Resize(Bare):
        async def resize(self, size: int) -> None: ...

    class Submit(Bare):
        async def submit(self, batch: Any) -> None: ...

    class Open(Batches):
        async def open(self) -> None: ...  # type: ignore[override]

    for form, name in ((Size, "size"), (Resize, "resize"), (Submit, "submit"), (Open, "open")):
        text = refused(form())
        assert f"{form.__qualname__}.{name} is async; make it a plain method" in text
        assert __file__ in text


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(2, "No such file"), "[Errno 2] No such file"),
        (RuntimeError("two\nlines"), "RuntimeError: two lines"),
        (SystemExit(1), "SystemExit: 1"),
        (KeyboardInterrupt(), "KeyboardInterrupt"),
        (GeneratorExit(), "GeneratorExit"),
        (MemoryError(), "MemoryError"),
        (ConfigError("say it so"), "say it so"),
    ],
)
@pytest.mark.parametrize("form", [Full, Batches, Async])
def test_an_open_that_raises_refuses_the_namespace(
    form: type[Bare], error: BaseException, words: str
) -> None:
    closed: list[bool] = []

    class Fails(form):  # type: ignore[valid-type, misc]
        def open(self) -> None:
            raise error

        def close(self) -> None:
            closed.append(True)

    before = threading.active_count()
    text = refused(Fails())
    assert words in text
    if not isinstance(error, ConfigError):
        assert f"{__file__}" in text
        assert "Fails.open" in text
    # What did not open is not closed.
    assert not closed
    wait_until(lambda: threading.active_count() == before, "the thread ends")


def test_a_size_that_is_refused_after_open_closes_the_backend() -> None:
    backend = Full()
    backend.size = 7
    refused(backend)
    wait_until(lambda: [call[0] for call in backend.calls] == ["open", "close"], "a close")


@pytest.mark.parametrize("form", [Full, Batches, Async])
def test_a_close_that_raises_is_told(form: type[Bare], caplog: pytest.LogCaptureFixture) -> None:
    class Fails(form):  # type: ignore[valid-type, misc]
        def close(self) -> None:
            raise SystemExit("at the end")

    with lab(Fails()) as rig:
        rig.drive.read(0, 1)
    (message,) = said(caplog)
    assert __file__ in message
    assert "Fails.close raised SystemExit: at the end" in message


# In service


def recurse(depth: int = 0) -> int:
    return recurse(depth + 1) + 1


def raiser(error: BaseException) -> Any:
    def act(offset: int, buf: memoryview) -> None:
        raise error

    return act


class UnprintableError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


WRONG_READS: dict[str, tuple[Any, str]] = {
    "bytes": (lambda offset, buf: bytes(len(buf)), r"returned 512 bytes; fill buf"),
    "short": (lambda offset, buf: 100, r"moved 100 of 512 bytes"),
    "true": (lambda offset, buf: True, r"moved True of 512 bytes"),
    "text": (lambda offset, buf: "x" * 100, r"returned a str; fill buf"),
    "itself": (lambda offset, buf: buf, r"returned 512 memoryview"),
    "key": (raiser(KeyError("k")), r"raised KeyError at "),
    "exit": (raiser(SystemExit(0)), r"raised SystemExit at "),
    "interrupt": (raiser(KeyboardInterrupt()), r"raised KeyboardInterrupt at "),
    "generator": (raiser(GeneratorExit()), r"raised GeneratorExit at "),
    "memory": (raiser(MemoryError()), r"raised MemoryError at "),
    "stop": (raiser(StopIteration()), r"raised (StopIteration|RuntimeError) at "),
    "group": (raiser(BaseExceptionGroup("g", [SystemExit(1), OSError(5)])), r"raised BaseExceptionGroup at "),
    "cancel": (raiser(asyncio.CancelledError()), r""),
    "unprintable": (raiser(UnprintableError()), r"raised UnprintableError at "),
    "sys.exit": (lambda offset, buf: sys.exit("bye"), r"raised SystemExit at "),
    "recursion": (lambda offset, buf: recurse(), r"raised RecursionError at "),
    "assert": (lambda offset, buf: pytest.fail("no"), r"raised Failed at "),
}


@pytest.mark.parametrize("form", [Writable, Async, Batches])
@pytest.mark.parametrize("what", WRONG_READS)
def test_a_read_that_goes_wrong_fails_and_others_go_on(
    form: type[Bare], what: str, caplog: pytest.LogCaptureFixture
) -> None:
    wrong, words = WRONG_READS[what]

    class Plain(form):  # type: ignore[valid-type, misc]
        def read(self, offset: int, buf: memoryview) -> Any:
            return wrong(offset, buf) if offset == 0 else super().read(offset, buf)

    class Coroutine(Async):
        async def read(self, offset: int, buf: memoryview) -> Any:  # type: ignore[override]
            await asyncio.sleep(0)
            return wrong(offset, buf) if offset == 0 else await super().read(offset, buf)

    with lab(Coroutine() if form is Async else Plain(), Writable()) as rig:
        for _ in range(3):
            expected = (0, 7) if what == "cancel" else (0, 6)
            assert rig.read_status(0).code == expected
            assert rig.drive.read(1, 1) == b"\x5a" * BLOCK
        assert rig.drive.read(0, 1, nsid=2) == b"\x5a" * BLOCK
    messages = list(said(caplog))
    if what == "cancel" and form is not Writable and form is not Batches:
        assert not messages
        return
    # A batch that raised is told of as well.
    assert 1 <= len(messages) <= 2, messages
    assert __file__ in messages[0]
    method = "submit" if "Plain.submit" in messages[0] or "Batches.submit" in messages[0] else "read"
    assert f".{method} " in messages[0]
    import re

    assert re.search(words, messages[0]), messages[0]


def test_other_methods_may_not_return_anything_either(caplog: pytest.LogCaptureFixture) -> None:
    class Returns(Full):
        def write(self, offset: int, buf: memoryview, fua: bool) -> Any:
            return 0

        value: Any = True

        def flush(self) -> Any:
            return self.value

        def discard(self, offset: int, length: int) -> Any:
            return length

        def compare(self, offset: int, buf: memoryview) -> Any:
            return 1

        def write_zeroes(self, offset: int, length: int, *, may_discard: bool, fua: bool) -> Any:
            return "done"

    backend = Returns()
    with lab(backend) as rig:
        assert rig.status(write(0, bytes(512))).code == (0, 6)
        assert rig.status(Command(0, 1)).code == (0, 6)
        assert rig.status(Command(8, 1)).code == (0, 6)
        assert rig.status(Command(5, 1, data=bytes(512))).code == (0, 6)
        # The end flushes.
        backend.value = None
    text = "\n".join(said(caplog))
    for words in (
        "Returns.write moved 0 of 512 bytes",
        "Returns.flush returned True; it has to return None",
        "Returns.write_zeroes returned 'done'; it has to return None",
        "Returns.compare returned 1; it has to return True or False",
    ):
        assert words in text


def test_a_count_of_all_bytes_is_taken_for_none() -> None:
    class Counts(Writable):
        def read(self, offset: int, buf: memoryview) -> Any:
            super().read(offset, buf)
            return len(buf)

        def write(self, offset: int, buf: memoryview, fua: bool) -> Any:
            super().write(offset, buf, fua)
            return len(buf)

    with lab(Counts()) as rig:
        rig.drive.write(0, b"y" * 512)
        assert rig.drive.read(0, 1) == b"y" * 512


def test_a_plain_backend_whose_read_gives_a_coroutine_is_told_what_to_do(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Hidden(Bare):
        def read(self, offset: int, buf: memoryview) -> Any:
            return self.later()

        def later(self) -> Any:
            class Awaitable:
                def __await__(self) -> Any: ...

            return Awaitable()

    with lab(Hidden()) as rig:
        assert rig.read_status().code == (0, 6)
    (message,) = said(caplog)
    assert "Hidden.read returned a Awaitable; fill buf" in message


def test_a_size_that_changes_its_type_later_is_refused_and_the_old_one_stays() -> None:
    backend = Bare()
    service = serve(backend)
    for size, words in ((None, "is None"), (-1, "is -1"), (513, "not a multiple"), ("x", "is 'x'")):
        backend.size = size  # type: ignore[assignment]
        with pytest.raises(ConfigError, match=words):
            service.refresh_size()
        assert service.storage.size == len(backend.data)
    del backend.size
    with pytest.raises(ConfigError, match="AttributeError"):
        service.refresh_size()
    assert service.close(60)


def test_a_backend_that_became_smaller_fails_where_it_ends(caplog: pytest.LogCaptureFixture) -> None:
    backend = Bare()
    with lab(backend) as rig:
        del backend.data[4096:]
        assert rig.read_status(1).success
        assert rig.read_status(100).code == (0, 6)
    assert "Bare.read raised ValueError" in said(caplog)[0]


@pytest.mark.parametrize("form", [Writable, Async, Batches])
@pytest.mark.parametrize("where", ["returns", "raises", "exits", "_exit"])
def test_a_fork_ends_itself_and_nothing_else(
    form: type[Bare], where: str, capfd: pytest.CaptureFixture[str]
) -> None:
    children: list[int] = []

    def fork() -> None:
        if (child := os.fork()) == 0:
            if where == "_exit":
                os._exit(3)
            if where == "exits":
                sys.exit(4)
            if where == "raises":
                raise RuntimeError("in the child")
        else:
            children.append(child)

    class Plain(form):  # type: ignore[valid-type, misc]
        def read(self, offset: int, buf: memoryview) -> None:
            if offset == 0:
                fork()
            super().read(offset, buf)

    class Coroutine(Async):
        async def read(self, offset: int, buf: memoryview) -> None:  # type: ignore[override]
            if offset == 0:
                fork()
            await super().read(offset, buf)

    with lab(Coroutine() if form is Async else Plain()) as rig:
        assert rig.drive.read(0, 1) == b"\x5a" * BLOCK
        assert rig.drive.read(1, 1) == b"\x5a" * BLOCK
        (child,) = children
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == (3 if where == "_exit" else 70)
        assert rig.drive.read(2, 1) == b"\x5a" * BLOCK
    errors = capfd.readouterr().err
    if where != "_exit":
        assert "has forked, and the child came back from it" in errors
        # The method, or the `submit` that called it.
        assert str(Path(__file__).parent) in errors


@pytest.mark.parametrize("method", ["open", "size", "close", "resize"])
def test_a_fork_elsewhere_ends_itself_too(method: str, capfd: pytest.CaptureFixture[str]) -> None:
    children: list[int] = []

    def fork(name: str) -> None:
        if name == method and not children and (child := os.fork()):
            children.append(child)

    class Forks(Bare):
        def __init__(self) -> None: ...

        def open(self) -> None:
            fork("open")

        def size(self) -> int:  # type: ignore[override]
            fork("size")
            return 512

        def resize(self, size: int) -> None:
            fork("resize")

        def close(self) -> None:
            fork("close")

    service = serve(Forks())
    service.resize(512)
    assert service.close(60)
    _, status = os.waitpid(children[0], 0)
    assert os.waitstatus_to_exitcode(status) == 70
    assert f"Forks.{method} has forked" in capfd.readouterr().err


# Batches


def test_a_batch_that_is_dropped_fails() -> None:
    class Drops(Batches):
        def submit(self, batch: Any) -> None:
            if batch[0].offset != 0:
                super().submit(batch)

    with lab(without(Drops(), "flush")) as rig:
        assert rig.read_status(0).code == (0, 6)
        assert rig.drive.read(1, 1) == b"\x5a" * BLOCK


def test_a_submit_that_raises_fails_what_it_has_not_completed(caplog: pytest.LogCaptureFixture) -> None:
    class Half(Batches):
        def submit(self, batch: Any) -> None:
            for request in batch:
                if request.offset == 512 * 7:
                    raise OSError(28, "full")
                super().submit([request])

    with lab(Half()) as rig:
        pending = rig.drive.submit_many([read(n) for n in range(7)] + [read(7)])
        codes = [one.wait().status.code for one in pending]
        assert codes[-1] == (0, 0x81)
        assert set(codes) <= {(0, 0), (0, 0x81)}
    assert not said(caplog)


def test_requests_are_completed_once_whatever_a_backend_does() -> None:
    errors: list[str] = []

    class Twice(Batches):
        def submit(self, batch: Any) -> None:
            for index, request in enumerate(batch):
                if request.kind == 0:
                    request.buffer[:] = b"1" * request.length
                request.complete()
                request.complete(OSError(5))
                batch.complete(index, OSError(5))
            batch.complete()
            batch.complete(error=ValueError())
            for wrong in (len(batch), -1, 10**30, "x", None):
                for act in (batch.__getitem__, partial(batch.complete, error=OSError(5))):
                    try:
                        act(wrong)
                    except (IndexError, OverflowError, TypeError) as error:
                        errors.append(type(error).__name__)

    with lab(Twice()) as rig:
        assert rig.drive.read(0, 1) == b"1" * 512
    assert errors


def test_a_submit_that_returns_something_is_told(caplog: pytest.LogCaptureFixture) -> None:
    class Returns(Batches):
        def submit(self, batch: Any) -> Any:
            super().submit(batch)
            return len(batch)

    with lab(Returns()) as rig:
        assert rig.drive.read(0, 1) == b"\x5a" * BLOCK
    assert "Returns.submit returned 1; it has to return None" in said(caplog)[0]


# The loop


@pytest.mark.parametrize("error", [SystemExit(1), KeyboardInterrupt(), ValueError("x")])
def test_a_task_of_the_backends_own_that_goes_wrong_ends_nothing(
    error: BaseException,
) -> None:
    class Starts(Async):
        async def read(self, offset: int, buf: memoryview) -> None:  # type: ignore[override]
            if offset == 0:
                self.task = asyncio.create_task(self.fail())
            await asyncio.sleep(0)
            await super().read(offset, buf)

        async def fail(self) -> None:
            raise error

        async def close(self) -> None:
            # Its outcome is looked at, as it should be.
            assert self.task.exception() is error

    with lab(Starts()) as rig:
        for lba in range(20):
            assert rig.drive.read(lba, 1) == b"\x5a" * BLOCK


def test_a_coroutine_that_blocks_the_loop_makes_others_of_the_backend_wait_only() -> None:
    blocked = threading.Event()
    go = threading.Event()

    class Blocks(Async):
        async def read(self, offset: int, buf: memoryview) -> None:  # type: ignore[override]
            if offset == 0:
                blocked.set()
                go.wait(60)
            await super().read(offset, buf)

    with lab(Blocks(), Writable()) as rig:
        first = rig.drive.submit(read(0))
        assert blocked.wait(60)
        second = rig.drive.submit(read(1))
        assert rig.drive.read(0, 1, nsid=2) == b"\x5a" * BLOCK
        assert not second.done()
        go.set()
        assert first.wait().status.success
        assert second.wait().status.success


def test_logging_that_fails_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    import logging

    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("no log")

    monkeypatch.setattr(logging.getLogger("nvmet_vdev.backend"), "error", broken)

    class Wrong(Writable):
        def read(self, offset: int, buf: memoryview) -> Any:
            if offset == 0:
                raise KeyError("x")
            return "x" if offset == 512 else super().read(offset, buf)

    with lab(Wrong()) as rig:
        assert rig.read_status(0).code == (0, 6)
        assert rig.read_status(1).code == (0, 6)
        assert rig.drive.read(2, 1) == b"\x5a" * BLOCK
