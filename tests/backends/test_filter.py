"""What a filter takes over from the backend below it, and what it is not put on."""

from __future__ import annotations

from typing import Any

import pytest

from nvmet_vdev import Backend, ConfigError
from nvmet_vdev.backends import Command, File, Filter, Ram
from nvmet_vdev.backends.filter import COMMANDS, size_of
from tests.backends.models import Plain, read, write


class Everything(Backend):
    """Has all methods, and notes what they are called with."""

    block_size = 4096
    max_inflight = 3
    thread_safe = True
    timeout = 2.5
    size = 1 << 20

    def __init__(self) -> None:
        self.calls: list[tuple[object, ...]] = []

    def read(self, offset: int, buf: memoryview) -> None:
        self.calls.append(("read", offset, len(buf)))
        buf[:] = b"r" * len(buf)

    def write(self, offset: int, buf: memoryview, fua: bool) -> None:
        self.calls.append(("write", offset, bytes(buf[:2]), fua))

    def flush(self) -> None:
        self.calls.append(("flush",))

    def discard(self, offset: int, length: int) -> None:
        self.calls.append(("discard", offset, length))

    def write_zeroes(self, offset: int, length: int, *, may_discard: bool, fua: bool) -> None:
        self.calls.append(("write_zeroes", offset, length, may_discard, fua))

    def compare(self, offset: int, buf: memoryview) -> bool:
        self.calls.append(("compare", offset, len(buf)))
        return False

    def open(self) -> None:
        self.calls.append(("open",))

    def close(self) -> None:
        self.calls.append(("close",))

    def resize(self, size: int) -> None:
        self.size = size
        self.notify_resize()


def test_every_command_reaches_the_backend_below_as_it_is() -> None:
    inner = Everything()
    drive = Filter(inner)
    drive.open()
    assert read(drive, 4096, 8192) == b"r" * 8192
    write(drive, 0, b"wx" * 2048, fua=True)
    drive.flush()
    drive.discard(8192, 4096)
    drive.write_zeroes(0, 4096, may_discard=True, fua=False)
    assert drive.compare(0, memoryview(bytes(4096))) is False
    drive.close()
    assert inner.calls == [
        ("open",),
        ("read", 4096, 8192),
        ("write", 0, b"wx", True),
        ("flush",),
        ("discard", 8192, 4096),
        ("write_zeroes", 0, 4096, True, False),
        ("compare", 0, 4096),
        ("close",),
    ]


def test_a_filter_is_what_the_backend_below_is() -> None:
    drive = Filter(Everything())
    assert (drive.size, drive.block_size, drive.max_inflight) == (1 << 20, 4096, 3)
    assert (drive.thread_safe, drive.timeout, drive.read_only) == (True, 2.5, False)


def test_what_the_backend_below_does_not_have_the_filter_has_not() -> None:
    drive = Filter(Filter(Plain(bytes(1024))))
    assert drive.size == 1024
    for name in (*COMMANDS, "resize"):
        assert (getattr(drive, name) is None) == (name != "read"), name
    drive.open()
    drive.close()


def test_what_the_backend_below_finds_out_when_it_is_opened_counts() -> None:
    class Late(Plain):
        flush: Any = None
        read_only = False

        def open(self) -> None:
            self.flush = lambda: None
            self.read_only = True

    drive: Any = Filter(Late(bytes(512)))
    before = drive.flush
    drive.open()
    assert before is None
    assert drive.flush is not None
    assert drive.read_only


def test_a_resize_of_the_backend_below_is_told_upwards() -> None:
    sizes = []
    drive = Filter(Filter(Everything()))
    drive._on_resize = lambda: sizes.append(drive.size)
    drive.resize(2 << 20)
    assert sizes == [2 << 20]


def test_a_filter_sees_every_command_in_one_place() -> None:
    seen = []

    class Watch(Filter):
        def handle(self, command: Command) -> bool:
            seen.append((command.op, command.offset, command.length))
            return super().handle(command)

    drive = Watch(Ram(1 << 20))
    write(drive, 512, b"x" * 512)
    assert drive.compare(512, memoryview(b"x" * 512)) is True
    drive.discard(0, 4096)
    assert seen == [("write", 512, 512), ("compare", 512, 512), ("discard", 0, 4096)]


def test_what_a_filter_cannot_be_put_on_is_refused_in_one_line() -> None:
    class Batches(Plain):
        def submit(self, batch: object) -> None:
            """Takes a batch."""

    class Async(Plain):
        async def flush(self) -> None:
            """Flushes, later."""

    class Nothing:
        size = 512

    for inner, why in ((Batches(b""), "submit"), (Async(b""), "flush is async"), (Nothing(), "no read")):
        with pytest.raises(ConfigError, match=f"Filter over {type(inner).__name__}.*{why}"):
            Filter(inner)  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [0, -512, 1.5, "1G", None, True])
def test_a_size_that_is_none_is_refused(size: object) -> None:
    class Odd:
        def __init__(self) -> None:
            self.size = size

    with pytest.raises(ConfigError, match="Odd: its size is"):
        size_of(Odd())


def test_a_read_only_file_stays_read_only_below_a_filter(tmp_path: Any) -> None:
    (tmp_path / "disk.img").write_bytes(bytes(4096))
    drive = Filter(File(tmp_path / "disk.img", read_only=True))
    assert drive.read_only
    assert drive.write is None
