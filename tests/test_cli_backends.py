"""Backends in Python on the command line: what is listed and served, what a check finds, what is refused."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from nvmet_vdev import checking
from nvmet_vdev.checking import Subject
from tests.product import PATIENCE, PROGRAM, environment, run, serve
from tests.test_cli_bad_input import snapshot

DRIVE = """
from nvmet_vdev import Backend
from nvmet_vdev.sizes import Size

class Ram(Backend):
    '''Memory, for tests.'''

    def __init__(self, size: Size = 1 << 20, block_size: int = 512):
        self.size = size
        self.block_size = block_size
        self.data = bytearray(size)

    def read(self, offset, buf):
        buf[:] = self.data[offset : offset + len(buf)]

    def write(self, offset, buf, fua):
        self.data[offset : offset + len(buf)] = buf

class Full(Ram):
    def flush(self): ...

    def discard(self, offset, length): ...

    def write_zeroes(self, offset, length, *, may_discard, fua):
        self.data[offset : offset + length] = bytes(length)

    def compare(self, offset, buf):
        return self.data[offset : offset + len(buf)] == buf

class Async(Full):
    async def open(self):
        import asyncio
        asyncio.get_running_loop()

    async def read(self, offset, buf):
        super().read(offset, buf)

class Late(Ram):
    write = None

    def __init__(self):
        self.size = 0

    def open(self):
        Ram.__init__(self)
        self.write = super().write

class Frozen(Backend):
    size = 65536

    def read(self, offset, buf):
        buf[:] = b"x" * len(buf)
"""


PLUGIN = """
import nbdkit
API_VERSION = 2
disk = bytearray()

def config(key, value):
    global disk
    disk = bytearray(nbdkit.parse_size(value))

def open(readonly):
    return 1

def get_size(h):
    return len(disk)

def pread(h, buf, offset, flags):
    buf[:] = disk[offset : offset + len(buf)]

def pwrite(h, buf, offset, flags):
    disk[offset : offset + len(buf)] = buf
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A directory with a module, an image, and a package that brings backends."""
    (tmp_path / "drive.py").write_text(DRIVE)
    (tmp_path / "plugin.py").write_text(PLUGIN)
    (tmp_path / "disk.img").write_bytes(b"\xa5" * (1 << 20))
    (tmp_path / "pack.py").write_text(
        "class Leaf:\n  'A leaf.'\n  size = 512\n  def read(self, offset, buf): ...\n"
    )
    info = tmp_path / "pack-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: pack\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[nvmet_vdev.backends]\npackleaf = pack:Leaf\npackless = pack_away:Leaf\n"
    )
    return tmp_path


def product(place: Path, *args: str) -> Any:
    """Runs `nvmet-vdev ARGS`, with the package installed."""
    return run(*args, cwd=place, PYTHONPATH=str(place), PYTHONDONTWRITEBYTECODE="1")


def refused(place: Path, *args: str, says: tuple[str, ...]) -> None:
    before = snapshot(place)
    result = product(place, *args)
    assert result.returncode == 2, (result.stdout, result.stderr)
    assert result.stdout == ""
    assert result.stderr.startswith("nvmet-vdev: error: ")
    assert result.stderr.count("\n") == 1, result.stderr
    assert "Traceback" not in result.stderr
    for word in says:
        assert word in result.stderr, f"{word!r} is not in {result.stderr!r}"
    assert snapshot(place) == before


# --- backends ---


def test_backends_are_listed_with_what_they_are_and_a_broken_one_with_its_reason(place: Path) -> None:
    result = product(place, "backends")
    assert result.returncode == 0, result.stderr
    lines = {line.split()[0]: line for line in result.stdout.splitlines()}
    for form in (
        "PATH",
        "ram:SIZE",
        "null:SIZE",
        "python:MODULE:NAME",
        "python:./FILE.py:NAME",
        "nbdkit:PLUGIN.py",
    ):
        assert form in lines
    assert "A leaf." in lines["packleaf:…"]
    assert "broken" in lines["packless:"]
    assert "pack_away" in lines["packless:"]


def test_the_list_is_there_for_programs_too(place: Path) -> None:
    result = product(place, "backends", "--output", "json")
    found = {one["form"]: one for one in json.loads(result.stdout)}
    assert found["ram:SIZE"]["kind"] == "native"
    assert found["packleaf:…"] == {
        "form": "packleaf:…",
        "kind": "leaf",
        "description": "A leaf.",
        "package": "pack 1.0",
        "problem": None,
    }
    assert "pack_away" in found["packless:"]["problem"]


# --- run ---


BAD_CODE = {
    "broken.py": "import os\nimport nowhere_at_all\n",
    "syntax.py": "def f(:\n",
    "exits.py": "import sys\n\nsys.exit('bye')\n",
    "interrupts.py": "raise KeyboardInterrupt\n",
    "plain.py": dedent(
        """
        class NoRead:
            size = 4096

        class Raises:
            def __init__(self):
                raise ValueError("no such luck")

        class Opens(Raises):
            size = 4096
            def __init__(self): ...
            def read(self, offset, buf): ...
            def open(self):
                raise OSError(2, "nothing there")

        class Odd(Opens):
            open = None
            size = 1000

        class Minus(Odd):
            size = -512

        class Float(Odd):
            size = 4096.0

        class NoSize(Odd):
            size = None
        """
    ),
}

CASES: dict[str, tuple[str, tuple[str, ...]]] = {
    "no name": ("python:drive", ("python:drive", "python:MODULE:NAME")),
    "no module": ("python:nowhere:Ram", ("python:nowhere:Ram", "no module 'nowhere'")),
    "no file": ("python:./nowhere.py:Ram", ("nowhere.py", "no such file")),
    "no class": ("python:./drive.py:Rom", ("drive.py", "'Rom'", "'Ram'?")),
    "broken import": ("python:./broken.py:Ram", ("broken.py:2", "nowhere_at_all")),
    "broken import of a module": ("python:broken:Ram", ("broken.py:2", "nowhere_at_all")),
    "syntax": ("python:./syntax.py:Ram", ("syntax.py:1", "SyntaxError")),
    "exits": ("python:./exits.py:Ram", ("exits.py:3", "SystemExit: bye")),
    "interrupts": ("python:./interrupts.py:Ram", ("interrupts.py:1", "KeyboardInterrupt")),
    "no read": ("python:./plain.py:NoRead", ("NoRead", "read(offset, buf)")),
    "raises": ("python:./plain.py:Raises", ("Raises()", "plain.py:7", "no such luck")),
    "open raises": ("python:./plain.py:Opens", ("plain.py", "nothing there")),
    "odd size": ("python:./plain.py:Odd", ("plain.py", "size", "1000", "512")),
    "negative size": ("python:./plain.py:Minus", ("plain.py", "size", "-512")),
    "size of a wrong type": ("python:./plain.py:Float", ("plain.py", "size", "4096.0")),
    "no size": ("python:./plain.py:NoSize", ("plain.py", "size")),
    "unknown option": ("python:./drive.py:Ram?sise=1M", ("'sise'", "'size'?")),
    "option of a wrong form": ("python:./drive.py:Ram?size=big", ("size=big", "64M")),
    "option without a value": ("python:./drive.py:Ram?size", ("'size'", "name=value")),
    "entry point that is broken": ("packless:x", ("packless", "pack 1.0", "pack_away")),
    "entry point of a wrong option": ("packleaf:x?a=1", ("packleaf", "first argument")),
    "no plugin": ("nbdkit:", ("nbdkit:PLUGIN.py",)),
}


@pytest.mark.parametrize("case", CASES)
def test_a_backend_that_cannot_be_had_is_refused_in_one_line(place: Path, case: str) -> None:
    for name, code in BAD_CODE.items():
        (place / name).write_text(code)
    text, says = CASES[case]
    refused(place, "run", text, "--socket", "s", says=says)


def test_an_image_behind_filters_is_made_served_and_keeps_its_names(place: Path) -> None:
    names = []
    for disk, *more in (("fault:new.img", "--create", "1M"), ("new.img",)):
        with serve(disk, *more, cwd=place) as server:
            assert server.socket == str(place / "nvmet-vdev" / "new.sock")
            shown = json.loads(run("identify", server.socket, "--output", "json", cwd=place).stdout)
            names.append((shown["controller"]["serial"], shown["namespaces"][0]["uuid"]))
            assert server.stop() == 0
    assert names[0] == names[1]


def test_options_behind_a_filters_disk_are_told_where_to_stand(place: Path) -> None:
    says = ("disk.img?read=0.1", "fault?read=0.1:disk.img")
    refused(place, "run", "fault:disk.img?read=0.1", "--socket", "s", says=says)


def test_create_and_iopoll_are_not_for_backends_in_python(place: Path) -> None:
    refused(place, "run", "python:drive:Ram", "--create", "1M", says=("--create", "python:drive:Ram"))
    refused(place, "run", "python:drive:Ram", "--iopoll", says=("--iopoll", "python:drive:Ram"))


def test_a_class_is_served_with_its_size_and_its_blocks(place: Path) -> None:
    disks = ("python:./drive.py:Ram?size=2M&block_size=4096", "python:drive:Frozen", "disk.img")
    with serve(*disks, cwd=place, env={"PYTHONDONTWRITEBYTECODE": "1"}) as server:
        assert server.socket == str(place / "nvmet-vdev" / "Ram.sock")
        shown = json.loads(run("identify", server.socket, "--output", "json", cwd=place).stdout)
        assert [(one["size"], one["block_size"]) for one in shown["namespaces"]] == [
            (2 << 20, 4096),
            (65536, 512),
            (1 << 20, 512),
        ]
        first = shown["namespaces"][0]["uuid"]
        verified = run("bench", server.socket, "--verify", "--runtime", "0.2", cwd=place)
        assert verified.returncode == 0, verified.stderr
        assert server.stop() == 0
    with serve(*disks, cwd=place) as server:
        shown = json.loads(run("identify", server.socket, "--output", "json", cwd=place).stdout)
        assert shown["namespaces"][0]["uuid"] == first
        assert server.stop() == 0


@pytest.mark.parametrize(
    "code", ["{hang}", "class C:\n  size = 512\n  def read(self, o, b): ...\n  def open(self): {hang}"]
)
def test_ctrl_c_ends_a_backend_that_does_not_come_up(place: Path, code: str) -> None:
    os.mkfifo(place / "fifo")
    (place / "hangs.py").write_text(code.format(hang="open('fifo', 'w').close(), open('fifo').read()"))
    with subprocess.Popen(
        [PROGRAM, "run", "python:./hangs.py:C"],
        cwd=place,
        env=environment(place),
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        # That the fifo can be opened tells that the backend is there; then it waits for what never comes.
        with (place / "fifo").open():
            pass
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130, error
    assert "Traceback" not in error


# --- check-backend ---


def check(place: Path, *args: str) -> tuple[int, dict[str, Any]]:
    result = product(place, "check-backend", *args, "--output", "json", "--rounds", "5")
    assert result.returncode in (0, 1), result.stderr
    report: dict[str, Any] = json.loads(result.stdout)
    assert report["passed"] == (result.returncode == 0)
    return result.returncode, report


def outcomes(report: dict[str, Any]) -> dict[str, str]:
    return {one["name"]: one["outcome"] for one in report["checks"]}


@pytest.mark.parametrize("name", ["Ram", "Full", "Async"])
def test_a_good_backend_passes_every_check(place: Path, name: str) -> None:
    status, report = check(place, f"python:./drive.py:{name}", "--overwrite")
    assert status == 0, [one for one in report["checks"] if one["outcome"] == "failed"]
    found = outcomes(report)
    assert found["read fills all of the buffer, and keeps none of it"] == "passed"
    assert found["compare tells equal from different"] == ("skipped" if name == "Ram" else "passed")
    assert found["random operations at depth match a model"] == "passed"


def test_a_backend_that_cannot_be_written_needs_no_leave(place: Path) -> None:
    status, report = check(place, "python:./drive.py:Frozen")
    assert status == 0, report
    assert outcomes(report)["write leaves the neighbours alone"] == "skipped"


def test_methods_that_open_makes_are_checked_and_need_leave(place: Path) -> None:
    _, report = check(place, "python:./drive.py:Late", "--overwrite")
    assert outcomes(report)["write leaves the neighbours alone"] == "passed"
    refused(place, "check-backend", "python:./drive.py:Late", says=("--overwrite",))


def test_memory_and_reading_need_no_leave(place: Path) -> None:
    assert check(place, "ram:1M")[0] == 0
    before = snapshot(place)
    assert check(place, "disk.img", "--read-only")[0] == 0
    assert check(place, "python:./drive.py:Ram", "--read-only")[0] == 0
    assert snapshot(place) == before


@pytest.mark.parametrize("disk", ["disk.img", "python:./drive.py:Ram", "python:drive:Async"])
def test_what_may_hold_data_is_not_touched_without_leave(place: Path, disk: str) -> None:
    refused(place, "check-backend", disk, says=(disk, "--overwrite", "--read-only"))


@pytest.mark.parametrize(
    "disk",
    [
        "fault:ram:1M",
        "fault:rate?iops=1000000:ram:1M",
        "overlay?file=cow.img:fault:disk.img",
        "log?file=log.jsonl:python:./drive.py:Full?size=64K",
        "nbdkit:plugin.py?size=1M",
    ],
)
def test_what_the_package_brings_passes_every_check(place: Path, disk: str) -> None:
    before = (place / "disk.img").read_bytes()
    status, report = check(place, disk, "--overwrite")
    assert status == 0, [one for one in report["checks"] if one["outcome"] == "failed"]
    assert outcomes(report)["random operations at depth match a model"] == "passed"
    assert (place / "disk.img").read_bytes() == before


def test_filters_that_keep_nothing_over_memory_need_no_leave(place: Path) -> None:
    assert check(place, "fault:rate?iops=1000000:ram:64K")[0] == 0
    refused(place, "check-backend", "overlay?file=cow.img:ram:1M", says=("--overwrite",))
    refused(place, "check-backend", "nbdkit:plugin.py?size=1M", says=("--overwrite",))


def test_an_image_is_checked_with_leave(place: Path) -> None:
    assert check(place, "disk.img", "--overwrite")[0] == 0


def test_the_report_for_people_has_a_line_for_each_check(place: Path) -> None:
    result = product(place, "check-backend", "python:./drive.py:Full", "--overwrite", "--rounds", "1")
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    lines = result.stdout.splitlines()
    assert lines[0].startswith("python:./drive.py:Full")
    assert lines[-1].endswith(" 0 failed")
    assert sum(line.startswith(("ok ", "skip ", "FAIL ")) for line in lines) > 25


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (("check-backend",), ("DISK", "--help")),
        (("check-backend", "python:drive:Rom", "--overwrite"), ("'Rom'", "'Ram'?")),
        (("check-backend", "missing.img", "--overwrite"), ("missing.img",)),
        (("check-backend", "ram:1X"), ("1X",)),
        (("check-backend", "ram:1M", "--depth", "0"), ("--depth", "0")),
        (("check-backend", "ram:1M", "--seed", "-1"), ("--seed", "-1")),
        (("check-backend", "ram:1M", "--rounds", "many"), ("--rounds", "many")),
        (("backends", "all"), ("all", "--help")),
    ],
)
def test_a_check_that_cannot_be_done_is_refused_in_one_line(
    place: Path, args: tuple[str, ...], says: tuple[str, ...]
) -> None:
    refused(place, *args, says=says)


WRONG: dict[str, tuple[str, tuple[str, ...]]] = {
    "short read": (
        "def read(self, offset, buf): buf[:-1] = self.data[offset : offset + len(buf) - 1]",
        ("read(0, buf of 512 bytes)", "left 1 of them", "at 511", "fill all of buf"),
    ),
    "read that returns": (
        "def read(self, offset, buf): return bytes(self.data[offset : offset + len(buf)])",
        ("returned bytes", "buf[:] = data"),
    ),
    "read that keeps": (
        "def read(self, offset, buf):\n  buf[:] = bytes(len(buf))\n  self.kept = buf",
        ("read kept buf", "bytes(buf)"),
    ),
    "read that keeps a part": (
        "def read(self, offset, buf):\n  buf[:] = bytes(len(buf))\n  self.kept = buf[4:8]",
        ("read kept buf, or a part",),
    ),
    "read that exits": (
        "def read(self, offset, buf): raise SystemExit(3)",
        ("SystemExit: 3", "must not end"),
    ),
    "read of one argument": ("def read(self, offset): ...", ("read(0, buf of 512 bytes)", "TypeError")),
    "read that fails": ("def read(self, offset, buf): 1 / 0", ("ZeroDivisionError", "drive.py:")),
    "write into its buffer": (
        "def write(self, offset, buf, fua):\n  buf[0] = buf[0]",
        ("write(0, buf of 512 bytes, False)", "TypeError", "read-only"),
    ),
    "write that keeps": ("def write(self, offset, buf, fua): self.kept = buf", ("write kept buf",)),
    "write that is lost": ("def write(self, offset, buf, fua): ...", ("after write, byte 0 reads as 0x00",)),
    "write beside": (
        "def write(self, offset, buf, fua):\n"
        "  Ram.write(self, offset, buf, fua)\n"
        "  if offset: self.data[offset - 1] = 0",
        ("after write, byte 511 reads as 0x00",),
    ),
    "flush that fails": ("def flush(self): raise OSError(5, 'no')", ("flush()", "OSError: [Errno 5] no")),
    "flush that forgets": ("def flush(self): self.data[:] = bytes(self.size)", ("after flush, byte 0",)),
    "discard of too much": (
        "def discard(self, offset, length): self.data[offset - 1 : offset + length] = bytes(length + 1)",
        ("after discard, byte 511",),
    ),
    "zeroes that are none": (
        "def write_zeroes(self, offset, length, *, may_discard, fua): ...",
        ("after write_zeroes, byte 512", "should be 0x00"),
    ),
    "compare that returns": (
        "def compare(self, offset, buf): return 1",
        ("compare returned 1", "return True"),
    ),
    "compare that agrees": (
        "def compare(self, offset, buf): return True",
        ("for different data", "return False"),
    ),
    "odd size": ("size = property(lambda self: 1000, lambda *_: None)", ("size is 1000", "512")),
    "no number": ("size = property(lambda self: 'x', lambda *_: None)", ("size is str 'x'", "int")),
    "size that grows": (
        "size = property(lambda self: len(self.data), lambda *_: None)\n"
        " def read(self, offset, buf):\n"
        "  Ram.read(self, offset, buf)\n"
        "  self.data += bytes(512)",
        ("size was", "notify_resize"),
    ),
    "block size": ("def open(self): self.block_size = 1000", ("block_size is 1000", "4096")),
    "open that fails": ("def open(self): raise RuntimeError('not now')", ("open()", "RuntimeError: not now")),
    "close that fails": ("def close(self): raise RuntimeError('stuck')", ("close()", "RuntimeError: stuck")),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_a_backend_does_wrong_is_said_in_its_authors_words(place: Path, case: str) -> None:
    code, says = WRONG[case]
    (place / "drive.py").write_text(f"{DRIVE}\nclass Wrong(Full):\n {code}\n")
    status, report = check(place, "python:./drive.py:Wrong", "--overwrite")
    assert status == 1
    failed = [one["why"] for one in report["checks"] if one["outcome"] == "failed"]
    assert any(all(word in why for word in says) for why in failed), failed
    assert report["checks"][-1]["outcome"] == "skipped"


def test_a_method_that_hangs_is_named_and_nothing_waits_for_it() -> None:
    import threading

    class Hangs:
        size = 4096
        gate = threading.Event()

        def read(self, offset: int, buf: memoryview) -> None:  # noqa: ARG002
            self.gate.wait()

    subject = Subject(Hangs(), patience=0.05)
    found = [subject.check(name, function) for name, function in checking.CHECKS]
    assert [one.outcome for one in found[:3]] == ["passed", "failed", "skipped"]
    assert found[1].why is not None
    assert "did not return" in found[1].why
    Hangs.gate.set()
    subject.finish()
