"""`Log` and `replay`: what a recording has, and that it does the same again."""

from __future__ import annotations

import errno
import hashlib
import json
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nvmet_vdev import ConfigError, NvmeError
from nvmet_vdev.backends import Fault, File, Log, Ram, Rule, replay
from nvmet_vdev.backends.log import Difference
from tests.backends.models import BLOCK, Plain, opened, pattern, read, write

SIZE = 64 << 10
BLOCKS = SIZE // BLOCK


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_every_command_is_a_line(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    with opened(Log(File(tmp_path / "disk.img", create=SIZE), file=str(path))) as drive:
        write(drive, 512, b"x" * 1024, fua=True)
        read(drive, 512, 512)
        drive.flush()
        drive.discard(0, 4096)
        drive.write_zeroes(0, 512, may_discard=True, fua=False)
    first, *commands = lines(path)
    assert first == {"version": 1, "size": SIZE, "block_size": 512}
    for command in commands:
        assert command.pop("time") > 1e9
        assert command.pop("took") >= 0
    assert commands == [
        {"op": "write", "offset": 512, "length": 1024, "fua": True, "result": "ok"},
        {"op": "read", "offset": 512, "length": 512, "result": "ok"},
        {"op": "flush", "result": "ok"},
        {"op": "discard", "offset": 0, "length": 4096, "result": "ok"},
        {
            "op": "write_zeroes",
            "offset": 0,
            "length": 512,
            "fua": False,
            "may_discard": True,
            "result": "ok",
        },
    ]


@pytest.mark.parametrize(
    ("error", "result"),
    [
        (NvmeError(2, 0x81, dnr=True), "2/81/dnr"),
        (NvmeError(0, 6), "0/06"),
        (OSError(errno.ENOSPC, "full"), "ENOSPC"),
        (OSError("no number"), "OSError"),
        (ZeroDivisionError(), "ZeroDivisionError"),
        (KeyboardInterrupt(), "KeyboardInterrupt"),
    ],
)
def test_an_error_is_recorded_and_passed_on(tmp_path: Path, error: BaseException, result: str) -> None:
    class Broken(Plain):
        def read(self, _offset: int, _buf: memoryview) -> None:
            raise error

    with opened(Log(Broken(bytes(SIZE)), file=str(tmp_path / "log"), digest=True)) as drive:
        with pytest.raises(type(error)) as caught:
            read(drive, 0, BLOCK)
        assert caught.value is error
    assert lines(tmp_path / "log")[1]["result"] == result
    assert "digest" not in lines(tmp_path / "log")[1]


def test_a_comparison_says_what_it_found(tmp_path: Path) -> None:
    with opened(Log(Ram(SIZE), file=str(tmp_path / "log"))) as drive:
        assert drive.compare(0, memoryview(bytes(512))) is True
        assert drive.compare(0, memoryview(b"x" * 512)) is False
    assert [line["result"] for line in lines(tmp_path / "log")[1:]] == ["equal", "different"]


def test_digests_are_of_what_was_carried_out(tmp_path: Path) -> None:
    class Restless(Plain):
        """Somebody changes the buffer while the command is carried out, as a guest may."""

        def __init__(self) -> None:
            super().__init__(pattern(SIZE))
            self.got = b""

        def write(self, _offset: int, buf: memoryview, _fua: bool) -> None:
            data[:] = b"!" * 512
            self.got = bytes(buf)

    inner = Restless()
    data = bytearray(b"x" * 512)
    with opened(Log(inner, file=str(tmp_path / "log"), digest=True)) as drive:
        assert read(drive, 0, 1024) == pattern(1024)
        drive.write(0, memoryview(data), False)
    seen = [line["digest"] for line in lines(tmp_path / "log")[1:]]
    assert seen == [hashlib.blake2b(d, digest_size=16).hexdigest() for d in (pattern(1024), inner.got)]


def test_without_a_file_it_goes_to_standard_error(capfd: pytest.CaptureFixture[str]) -> None:
    with opened(Log(Ram(SIZE))) as drive:
        read(drive, 0, BLOCK)
    assert '"op": "read"' in capfd.readouterr().err


def test_a_file_that_cannot_be_opened_is_refused_and_the_backend_closed(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none/log: cannot be opened: No such file"):
        Log(File(tmp_path / "disk.img", create=SIZE), file=str(tmp_path / "none/log")).open()
    with opened(File(tmp_path / "disk.img")):
        pass


def test_a_full_disk_costs_lines_and_no_commands(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with opened(Log(Ram(SIZE), file="/dev/full")) as drive:
        for _ in range(3):
            read(drive, 0, BLOCK)
    assert [record.message for record in caplog.records] == [
        "log /dev/full: No space left on device: commands are missing in it"
    ]


commands = st.lists(
    st.tuples(
        st.sampled_from(["write", "read", "discard", "write_zeroes", "compare"]),
        st.integers(0, BLOCKS - 1),
        st.integers(1, 16),
    ),
    min_size=1,
    max_size=20,
)


@given(steps=commands, seed=st.integers(0, 1000))
def test_a_recording_with_data_gives_the_same_drive(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int, int]], seed: int
) -> None:
    path = tmp_path_factory.mktemp("log") / "log.jsonl"
    inner, again = Ram(SIZE), Ram(SIZE)
    source = random.Random(seed)  # noqa: S311
    with opened(Log(inner, file=str(path), digest=True, data=True)) as drive:
        for op, first, count in steps:
            offset, length = first * BLOCK, min(count, BLOCKS - first) * BLOCK
            match op:
                case "write":
                    write(drive, offset, source.randbytes(length))
                case "read":
                    read(drive, offset, length)
                case "discard":
                    drive.discard(offset, length)
                case "write_zeroes":
                    drive.write_zeroes(offset, length, may_discard=False, fua=True)
                case "compare":
                    drive.compare(offset, memoryview(bytes(length)))
        assert replay(path, again) == []
        assert read(again, 0, SIZE) == read(inner, 0, SIZE)
    again.close()


def test_a_recording_without_data_writes_the_same_noise_each_time() -> None:
    recording = [
        '{"version": 1, "size": 65536, "block_size": 512}',
        '{"op": "write", "offset": 512, "length": 1024, "fua": false, "result": "ok"}',
        '{"op": "read", "offset": 0, "length": 512, "result": "ok", "digest": "not compared then"}',
        '{"op": "compare", "offset": 0, "length": 512, "result": "equal"}',
    ]
    drives = Ram(SIZE), Ram(SIZE)
    for drive in drives:
        assert replay(recording, drive) == []
    assert read(drives[0], 0, SIZE) == read(drives[1], 0, SIZE)
    assert any(read(drives[0], 512, 1024))


def test_a_replay_says_what_differs(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with opened(Log(Fault(Ram(SIZE), read="2/81@nth=2"), file=str(path), digest=True, data=True)) as drive:
        write(drive, 0, b"a" * 512)
        read(drive, 0, 512)
        with pytest.raises(NvmeError):
            read(drive, 0, 512)
        drive.compare(0, memoryview(b"a" * 512))
        read(drive, 4096, 512)
    other = Ram(SIZE)
    write(other, 4096, b"b" * 512)
    digests = [hashlib.blake2b(data, digest_size=16).hexdigest() for data in (bytes(512), b"b" * 512)]
    assert replay(path, other) == [
        Difference(4, "read", "2/81", "ok"),
        Difference(6, "read", *digests),
    ]
    broken = Fault(Ram(SIZE), [Rule("compare", errno.EIO)])
    assert Difference(5, "compare", "equal", "EIO") in replay(path, broken)


def test_two_runs_in_one_file_are_replayed_one_after_the_other(tmp_path: Path) -> None:
    for number in range(2):
        with opened(Log(Ram(SIZE), file=str(tmp_path / "log"), data=True)) as drive:
            write(drive, number * 512, bytes([number + 1]) * 512)
    again = Ram(SIZE)
    assert replay(tmp_path / "log", again) == []
    assert read(again, 0, 1024) == b"\1" * 512 + b"\2" * 512


HEAD = '{"version": 1, "size": 65536, "block_size": 512}'


@pytest.mark.parametrize(
    ("recording", "why"),
    [
        (["hello"], "line 1: no line of Log"),
        (["[]"], "line 1: no line of Log"),
        (["1"], "line 1: no line of Log"),
        (['{"op": "flush", "result": "ok"}'], "line 1: no line of Log"),
        (['{"version": 2, "size": 512}'], "of version 2"),
        (['{"version": 1, "size": "big"}'], "line 1: no line of Log"),
        (['{"version": 1, "size": 1048576}'], "line 1: of 1048576 bytes, and the backend has 65536"),
        ([HEAD, '{"op": "flush", "result": "ok"}'], "line 2: a flush, which the backend does not have"),
        ([HEAD, '{"op": "close", "result": "ok"}'], "line 2: no line of Log"),
        ([HEAD, '{"op": "read", "offset": -1, "length": 512, "result": "ok"}'], "line 2"),
        ([HEAD, '{"op": "read", "offset": 0, "length": true, "result": "ok"}'], "line 2"),
        ([HEAD, '{"op": "read", "offset": 0, "length": 512}'], "line 2"),
        ([HEAD, '{"op": "write", "offset": 0, "length": 512, "result": "ok", "data": "?"}'], "line 2"),
        ([HEAD, '{"op": "write", "offset": 0, "length": 512, "result": "ok", "data": "QQ=="}'], "line 2"),
        ([HEAD, '{"op": "write", "offset": 0, "length": 512, "result": "ok", "data": 1}'], "line 2"),
        ([HEAD, '{"op": "read", "off'], "line 2: no line of Log"),
    ],
)
def test_what_is_no_recording_is_one_line(recording: list[str], why: str) -> None:
    with pytest.raises(ConfigError, match=why) as caught:
        replay(recording, Ram(SIZE))
    assert "\n" not in str(caught.value)


def test_a_recording_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.jsonl: cannot be read: No such file"):
        replay(tmp_path / "none.jsonl", Ram(SIZE))
    (tmp_path / "binary").write_bytes(bytes(range(256)))
    with pytest.raises(ConfigError, match="line 1: no line of Log"):
        replay(tmp_path / "binary", Ram(SIZE))
