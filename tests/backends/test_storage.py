"""`File` and `Ram` against a model, and what `File` refuses."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nvmet_vdev import ConfigError
from nvmet_vdev.backends import File, Ram
from nvmet_vdev.backends import _storage as storage
from tests.backends.models import BLOCK, opened, pattern, read, write
from tests.product import serve

SIZE = 128 << 10
BLOCKS = SIZE // BLOCK

spans = st.tuples(st.integers(0, BLOCKS - 1), st.integers(1, 24)).map(
    lambda span: (span[0] * BLOCK, min(span[1], BLOCKS - span[0]) * BLOCK)
)
operations = st.lists(st.tuples(st.sampled_from(["write", "zeroes", "keep", "discard"]), spans), max_size=20)


def check(backend: Any, steps: list[tuple[str, tuple[int, int]]]) -> None:
    model = bytearray(SIZE)
    with opened(backend):
        for number, (name, (offset, length)) in enumerate(steps):
            data = bytes([number + 1]) * length if name == "write" else bytes(length)
            model[offset : offset + length] = data
            match name:
                case "write":
                    write(backend, offset, data, fua=number % 2 == 0)
                case "discard":
                    backend.discard(offset, length)
                case _:
                    backend.write_zeroes(offset, length, may_discard=name == "zeroes", fua=number % 2 == 0)
            assert read(backend, offset, length) == data
        assert read(backend, 0, SIZE) == model


@given(steps=operations)
def test_ram_does_what_a_bytearray_does(steps: list[tuple[str, tuple[int, int]]]) -> None:
    check(Ram(SIZE), steps)


@given(steps=operations)
def test_a_file_does_what_a_bytearray_does(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, tuple[int, int]]]
) -> None:
    place = tmp_path_factory.mktemp("file")
    check(File(place / "disk.img", create=SIZE), steps)
    shutil.rmtree(place)


def test_ram_compares() -> None:
    drive = Ram(SIZE)
    write(drive, 0, b"a" * BLOCK)
    assert drive.compare(0, memoryview(b"a" * BLOCK)) is True
    assert drive.compare(0, memoryview(b"b" * BLOCK)) is False


@pytest.mark.parametrize("size", [0, -512, 513])
def test_ram_of_no_whole_blocks_is_refused(size: int) -> None:
    with pytest.raises(ConfigError, match="multiple of 512"):
        Ram(size)


def test_a_discarded_range_of_a_file_is_a_hole(tmp_path: Path) -> None:
    with opened(File(tmp_path / "disk.img", create=1 << 20)) as drive:
        write(drive, 0, b"x" * (1 << 20))
        before = os.stat(tmp_path / "disk.img").st_blocks  # noqa: PTH116
        drive.discard(0, 1 << 20)
        assert (tmp_path / "disk.img").stat().st_blocks < before
        assert not any(read(drive, 0, 1 << 20))


def test_zeroes_are_written_where_there_are_no_holes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def refuse(*arguments: int) -> int:
        calls.append(arguments)
        ctypes.set_errno(errno.EOPNOTSUPP)
        return -1

    monkeypatch.setattr(storage, "_fallocate", refuse)
    with opened(File(tmp_path / "disk.img", create=4 << 20)) as drive:
        write(drive, 0, b"x" * (4 << 20))
        drive.discard(BLOCK, (3 << 20) - BLOCK)
        assert read(drive, 0, 4 << 20) == b"x" * BLOCK + bytes((3 << 20) - BLOCK) + b"x" * (1 << 20)
        drive.discard(0, BLOCK)
        assert len(calls) == 1, "asked again"


def test_an_error_of_the_medium_is_passed_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: int) -> int:
        ctypes.set_errno(errno.ENOSPC)
        return -1

    monkeypatch.setattr(storage, "_fallocate", refuse)
    with opened(File(tmp_path / "disk.img", create=SIZE)) as drive, pytest.raises(OSError, match="No space"):
        drive.write_zeroes(0, BLOCK, may_discard=False, fua=False)


def test_after_a_failed_flush_none_succeeds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with opened(File(tmp_path / "disk.img", create=SIZE)) as drive:
        with monkeypatch.context() as broken:
            broken.setattr(os, "fdatasync", lambda _: (_ for _ in ()).throw(OSError(errno.EIO, "gone")))
            with pytest.raises(OSError, match="gone"):
                drive.flush()
        with pytest.raises(OSError, match="an earlier flush failed"):
            drive.flush()


def test_transfers_that_the_kernel_cuts_short_are_continued(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole_read, whole_write = os.preadv, os.pwritev
    monkeypatch.setattr(os, "preadv", lambda fd, bufs, at: whole_read(fd, [bufs[0][:700]], at))
    monkeypatch.setattr(
        os, "pwritev", lambda fd, bufs, at, flags: whole_write(fd, [bufs[0][:700]], at, flags)
    )
    with opened(File(tmp_path / "disk.img", create=SIZE)) as drive:
        write(drive, 0, pattern(SIZE))
        assert read(drive, 0, SIZE) == pattern(SIZE)


def test_a_file_that_was_cut_short_is_a_media_error(tmp_path: Path) -> None:
    with opened(File(tmp_path / "disk.img", create=SIZE)) as drive:
        os.truncate(tmp_path / "disk.img", 1000)
        with pytest.raises(OSError, match="ends at byte 1000") as caught:
            read(drive, 512, 1024)
        assert caught.value.errno == errno.EIO


def test_a_file_can_grow_and_shrink(tmp_path: Path) -> None:
    with opened(File(tmp_path / "disk.img", create=SIZE)) as drive:
        drive.resize(2 * SIZE)
        assert drive.size == 2 * SIZE
        assert not any(read(drive, SIZE, SIZE))
        with pytest.raises(OSError, match="no whole blocks"):
            drive.resize(1000)
        drive.resize(SIZE)
    assert (tmp_path / "disk.img").stat().st_size == SIZE


def test_a_read_only_file_has_no_methods_that_write(tmp_path: Path) -> None:
    (tmp_path / "disk.img").write_bytes(bytes(SIZE))
    with opened(File(tmp_path / "disk.img", read_only=True)) as drive:
        assert drive.read_only
        assert drive.write is drive.flush is drive.discard is drive.write_zeroes is drive.resize is None


def test_one_writes_or_many_read(tmp_path: Path) -> None:
    path = tmp_path / "disk.img"
    with opened(File(path, create=SIZE)):
        for read_only in (False, True):
            with pytest.raises(ConfigError, match="somebody else"):
                File(path, read_only=read_only).open()
    with (
        opened(File(path, read_only=True)),
        opened(File(path, read_only=True)),
        pytest.raises(ConfigError, match="somebody else uses it"),
    ):
        File(path).open()
    with opened(File(path)):
        pass


def test_a_file_that_is_served_natively_is_in_use(tmp_path: Path) -> None:
    """The other side of the lock is Rust's."""
    (tmp_path / "disk.img").write_bytes(bytes(SIZE))
    with serve("disk.img", cwd=tmp_path), pytest.raises(ConfigError, match="somebody else"):
        File(tmp_path / "disk.img").open()


@pytest.mark.skipif(shutil.which("qemu-io") is None, reason="qemu-io is not installed")
def test_qemu_keeps_off_a_file_that_we_use(tmp_path: Path) -> None:
    with opened(File(tmp_path / "disk.img", create=SIZE)):
        result = subprocess.run(
            ["qemu-io", "-f", "raw", "-c", "read 0 512", str(tmp_path / "disk.img")],
            capture_output=True,
            text=True,
        )
    assert "lock" in result.stderr


def test_without_locks_there_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> bytes:
        raise OSError(errno.ENOLCK, "no locks available")

    monkeypatch.setattr(fcntl, "fcntl", refuse)
    with opened(File(tmp_path / "disk.img", create=SIZE)):
        assert "a second writer is not noticed" in caplog.text


def refusals(tmp_path: Path) -> dict[str, dict[str, Any]]:
    (tmp_path / "empty.img").touch()
    (tmp_path / "odd.img").write_bytes(bytes(1000))
    (tmp_path / "there.img").write_bytes(bytes(SIZE))
    os.mkfifo(tmp_path / "pipe")
    return {
        "no such file": {"path": "none.img"},
        "is neither a regular file nor a block device": {"path": "."},
        "neither a regular file": {"path": "pipe"},
        "is empty": {"path": "empty.img"},
        "whole blocks of 512": {"path": "odd.img"},
        "exists already": {"path": "there.img", "create": SIZE},
        "cannot be created: No such file": {"path": "none/disk.img", "create": SIZE},
        "check the path": {"path": "there.img/disk.img"},
        "its 1000 bytes": {"path": "new.img", "create": 1000},
        "read-only": {"path": "new.img", "create": SIZE, "read_only": True},
    }


def test_what_cannot_be_opened_is_one_line(tmp_path: Path) -> None:
    for why, arguments in refusals(tmp_path).items():
        arguments["path"] = tmp_path / arguments["path"]
        with pytest.raises(ConfigError, match=why) as caught:
            File(**arguments).open()
        assert str(arguments["path"]) in str(caught.value)
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "new.img").exists()


def test_a_file_without_permission_is_refused_with_a_hint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> int:
        raise PermissionError(errno.EACCES, "Permission denied")

    (tmp_path / "disk.img").write_bytes(bytes(SIZE))
    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(ConfigError, match=r"Permission denied.*read_only"):
        File(tmp_path / "disk.img").open()
