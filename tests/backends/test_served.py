"""The backends of the package as drives: written on the command line, seen by a driver."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from nvmet_vdev import DeviceError, NvmeStatusError, attach
from nvmet_vdev.backends import Ram, replay
from tests.backends.models import opened, pattern, read
from tests.product import serve

SIZE = 1 << 20


@pytest.fixture
def base(tmp_path: Path) -> Path:
    (tmp_path / "disk.img").write_bytes(pattern(SIZE))
    return tmp_path / "disk.img"


def test_a_fault_is_the_status_that_the_rule_names(base: Path) -> None:
    rules = "read=2/81@lba=8-15,1/80/dnr@lba=16-16&write=torn=1@ENOSPC&flush=0/06"
    with (
        serve(f"fault?{rules}:disk.img", cwd=base.parent) as server,
        attach(server.socket) as drive,
    ):
        assert drive.read(0, 8) == pattern(4096)
        expected: dict[tuple[int, int, bool], Callable[[], object]] = {
            (2, 0x81, False): lambda: drive.read(8, 1),
            (1, 0x80, True): lambda: drive.read(16, 1),
            (0, 0x81, False): lambda: drive.write(100, b"x" * 1024),
            (0, 0x06, False): drive.flush,
        }
        for status, command in expected.items():
            with pytest.raises(NvmeStatusError) as caught:
                command()
            found = caught.value.status
            assert (found.sct, found.sc, found.dnr) == status
        assert drive.read(100, 2) == b"x" * 512 + pattern(SIZE)[101 * 512 : 102 * 512]


def test_an_overlay_keeps_what_was_flushed_when_the_target_is_killed(base: Path) -> None:
    disk = "overlay?file=cow.img&cluster=4K:disk.img"
    with serve(disk, cwd=base.parent) as server:
        drive = attach(server.socket)
        drive.write(3, b"flushed!" * 64)
        drive.flush()
        drive.deallocate([(16, 8)])
        drive.write(5, b"with fua" * 64, fua=True)
        server.process.kill()
        server.finish()
        with contextlib.suppress(DeviceError):
            drive.detach()
    assert base.read_bytes() == pattern(SIZE)
    # Another place, so nothing but the two files can be what it comes from.
    elsewhere = base.parent / "elsewhere"
    elsewhere.mkdir()
    shutil.move(base.parent / "cow.img", elsewhere)
    shutil.move(base, elsewhere)
    with serve(disk, cwd=elsewhere) as server, attach(server.socket) as drive:
        assert drive.read(3, 1) == b"flushed!" * 64
        assert drive.read(5, 1) == b"with fua" * 64
        assert drive.read(4, 1) == pattern(SIZE)[4 * 512 : 5 * 512]
        assert drive.read(16, 8) == bytes(4096)


def test_two_drives_share_one_base(base: Path) -> None:
    with (
        serve("overlay?file=a.img:disk.img", "--socket", "a.sock", cwd=base.parent) as one,
        serve("overlay?file=b.img:disk.img", "--socket", "b.sock", cwd=base.parent) as two,
        attach(one.socket) as first,
        attach(two.socket) as second,
    ):
        first.write(0, b"1" * 512)
        second.write(0, b"2" * 512)
        assert first.read(0, 2) == b"1" * 512 + pattern(1024)[512:]
        assert second.read(0, 2) == b"2" * 512 + pattern(1024)[512:]


def test_a_recording_of_a_drive_is_replayed(tmp_path: Path) -> None:
    with (
        serve("log?file=log.jsonl&digest=true&data=true:ram:1M", cwd=tmp_path) as server,
        attach(server.socket) as drive,
    ):
        drive.write(7, b"recorded" * 64)
        drive.write_zeroes(9, 3)
        assert drive.read(7, 2) == b"recorded" * 64 + bytes(512)
    operations = [json.loads(line).get("op") for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert {"write", "write_zeroes", "read"} <= set(operations)
    with opened(Ram(SIZE)) as copy:
        assert replay(tmp_path / "log.jsonl", copy) == []
        assert read(copy, 7 * 512, 512) == b"recorded" * 64


def test_an_image_by_url_is_a_drive(base: Path) -> None:
    with (
        serve(f"overlay?file=cow.img:fsspec?chunk=64K:file://{base}", cwd=base.parent) as server,
        attach(server.socket) as drive,
    ):
        drive.write(0, b"x" * 512)
        assert drive.read(0, 2048) == b"x" * 512 + pattern(SIZE)[512:]
