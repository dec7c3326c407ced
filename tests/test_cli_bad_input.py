"""What an operator gets wrong: one line that names it and says what to do, exit 2, nothing touched."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from tests.product import run, serve

MIB = 1 << 20


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A directory with things that can go wrong."""
    (tmp_path / "disk.img").write_bytes(b"\xa5" * MIB)
    (tmp_path / "odd.img").write_bytes(b"\x5a" * (MIB + 512))
    (tmp_path / "odder.img").write_bytes(b"\x5a" * 1000)
    (tmp_path / "empty.img").touch()
    (tmp_path / "directory").mkdir()
    (tmp_path / "plain").write_text("precious")
    os.mkfifo(tmp_path / "fifo")
    return tmp_path


def snapshot(directory: Path) -> dict[str, tuple[int, int, bytes]]:
    """Everything below `directory`: kinds, sizes and content."""
    return {
        str(path.relative_to(directory)): (
            path.lstat().st_mode,
            path.lstat().st_size,
            path.read_bytes() if path.is_file() else b"",
        )
        for path in sorted(directory.rglob("*"))
        if path.name not in ("server.err", "nvmet-vdev")
    }


def refused(place: Path, *args: str | Path, says: tuple[str, ...], prefix: tuple[str, ...] = ()) -> None:
    """`nvmet-vdev ARGS` ends with exit 2 and one line that has every word of `says`, and changes nothing."""
    before = snapshot(place)
    # Had it been accepted, it would run for ever.
    result = run(*args, cwd=place, prefix=prefix, patience=20)
    assert result.returncode == 2, (result.stdout, result.stderr)
    assert result.stdout == ""
    assert result.stderr.startswith("nvmet-vdev: error: ")
    assert result.stderr.count("\n") == 1, result.stderr
    for word in says:
        assert word in result.stderr, f"{word!r} is not in {result.stderr!r}"
    assert snapshot(place) == before


LONG = "s" * 108

CASES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "no disk": (("run",), ("DISK", "--help")),
    "unknown size suffix": (("run", "ram:10Q"), ("10Q",)),
    "no size": (("run", "ram:"), ("ram:",)),
    "negative size": (("run", "null:-1G"), ("-1G",)),
    "size zero": (("run", "ram:0"), ("0",)),
    "size beyond 64 bits": (("run", "null:99999999999999999999T"), ("99999999999999999999T",)),
    "ram size of no whole block": (("run", "ram:1000"), ("1000", "512")),
    "empty name": (("run", ""), ()),
    "missing file": (("run", "missing.img"), ("missing.img", "--create")),
    "missing second file": (("run", "disk.img", "missing.img"), ("missing.img",)),
    "directory": (("run", "directory"), ("directory",)),
    "fifo": (("run", "fifo"), ("fifo",)),
    "character device": (("run", "/dev/null"), ("/dev/null",)),
    "empty file": (("run", "empty.img"), ("empty.img",)),
    "file of no whole block": (("run", "odder.img"), ("odder.img", "512")),
    "file of no whole large block": (("run", "odd.img", "--block-size", "4096"), ("odd.img", "4096")),
    "block size": (("run", "disk.img", "--block-size", "1024"), ("--block-size", "1024", "512", "4096")),
    "socket path too long": (("run", "disk.img", "--socket", LONG), (LONG, "107", "--socket")),
    "socket directory missing": (("run", "disk.img", "--socket", "nowhere/s"), ("nowhere", "--socket")),
    "socket path is a file": (("run", "disk.img", "--socket", "plain"), ("plain",)),
    "socket path is a directory": (("run", "disk.img", "--socket", "directory"), ("directory",)),
    "closed descriptor": (("run", "disk.img", "--fd", "77"), ("--fd 77",)),
    "descriptor of no socket": (("run", "disk.img", "--fd", "0"), ("--fd 0", "socket")),
    "socket and descriptor": (("run", "disk.img", "--fd", "0", "--socket", "s"), ("--fd",)),
    "serial too long": (("run", "disk.img", "--serial", "S" * 21), ("serial", "20")),
    "serial not ASCII": (("run", "disk.img", "--serial", "Ünique"), ("serial", "ASCII")),
    "no queues": (("run", "disk.img", "--queues", "0"), ("--queues",)),
    "too many queues": (("run", "disk.img", "--queues", "70000"), ("--queues",)),
    "queue of one": (("run", "disk.img", "--queue-size", "1"), ("--queue-size",)),
    "doorbells": (("run", "disk.img", "--doorbells", "loud"), ("--doorbells", "loud", "trapped")),
    "wait": (("run", "disk.img", "--wait", "long"), ("--wait", "long", "poll", "adaptive", "event")),
    "no workers": (("run", "disk.img", "--workers", "0"), ("--workers", "0", "1024")),
    "too many workers": (("run", "disk.img", "--workers", "1025"), ("--workers", "1025", "1024")),
    "workers in words": (("run", "disk.img", "--workers", "two"), ("--workers", "two")),
    "polling a file": (("run", "disk.img", "--iopoll"), ("disk.img", "--iopoll", "block device")),
    "polling memory": (("run", "ram:1M", "--iopoll"), ("ram:1M", "--iopoll", "block device")),
    "cpus": (("run", "disk.img", "--cpus", "3-1"), ("--cpus", "3-1")),
    "cpus without an end": (("run", "disk.img", "--cpus", "0-"), ("--cpus", "'0-'", "0,2-3")),
    "cpus without a beginning": (("run", "disk.img", "--cpus", "-1"), ("--cpus", "'-1'")),
    "cpus with a hole": (("run", "disk.img", "--cpus", "0,,1"), ("--cpus", "''")),
    "no cpus": (("run", "disk.img", "--cpus", ""), ("--cpus", "0,2-3")),
    "cpu in words": (("run", "disk.img", "--cpus", "zero"), ("--cpus", "zero")),
    "cpu that no kernel has": (("run", "disk.img", "--cpus", "8192"), ("--cpus", "8192")),
    "cpu that this machine has not": (("run", "disk.img", "--cpus", "0,8191"), ("cpus", "CPU 8191", "CPU")),
    "cpus, before an image is made": (("run", "n.img", "--create", "1M", "--cpus", "8191"), ("CPU 8191",)),
    "pidfile directory missing": (("run", "disk.img", "--pidfile", "nowhere/pid"), ("pidfile", "nowhere")),
    "pidfile is a directory": (("run", "disk.img", "--pidfile", "directory"), ("pidfile", "directory")),
    "create for memory": (("run", "ram:1G", "--create", "1G"), ("--create", "ram:1G")),
    "create with unknown suffix": (("run", "new.img", "--create", "10Q"), ("--create", "10Q")),
    "create of no whole block": (("run", "new.img", "--create", "1000"), ("1000", "512")),
    "create in a missing directory": (("run", "nowhere/new.img", "--create", "1M"), ("nowhere/new.img",)),
    "create, then a refused socket": (("run", "new.img", "--create", "1M", "--socket", "plain"), ("plain",)),
    "create two, one impossible": (("run", "new.img", "nowhere/b", "--create", "1M"), ("nowhere/b",)),
    "create, one missing kind": (("run", "new.img", "directory", "--create", "1M"), ("directory",)),
    "unknown command": (("serve",), ("serve", "--help")),
    "unknown option": (("run", "disk.img", "--colour"), ("--colour", "--help")),
    "identify nothing": (("identify", "missing.sock"), ("missing.sock",)),
    "identify a file": (("identify", "plain"), ("plain",)),
    "identify a path too long": (("identify", LONG), (LONG,)),
    "bench nothing": (("bench", "missing.sock"), ("missing.sock",)),
    "bench pattern": (("bench", "s", "--rw", "trim"), ("--rw", "trim", "randread")),
    "bench depth": (("bench", "s", "--iodepth", "0"), ("--iodepth",)),
    "bench runtime": (("bench", "s", "--runtime", "0"), ("--runtime",)),
    "bench size": (("bench", "s", "--size", "4X"), ("--size", "4X")),
}


@pytest.mark.parametrize("case", CASES)
def test_a_request_that_cannot_be_done_is_refused_in_one_line(place: Path, case: str) -> None:
    args, says = CASES[case]
    refused(place, *args, says=says)


def test_a_cpu_that_the_process_may_not_use_is_refused_and_those_that_it_may_are_named(place: Path) -> None:
    ours, *others = sorted(os.sched_getaffinity(0))
    if not others:
        pytest.skip("this machine has one CPU for us")
    prefix = ("taskset", "-c", str(ours))
    refused(
        place,
        *("run", "disk.img", "--workers", "2", "--cpus", f"{ours},{others[0]}"),
        says=(f"cpus: CPU {others[0]};", f"may run on CPU {ours} ", "taskset"),
        prefix=prefix,
    )
    with serve("disk.img", "--cpus", str(ours), cwd=place, prefix=prefix) as server:
        assert server.stop() == 0


def warned(place: Path, *args: str, says: tuple[str, ...]) -> None:
    """`nvmet-vdev run ram:1M ARGS` serves, and has one line to say that has every word of `says`, or none."""
    with serve("ram:1M", "--socket", "s", *args, cwd=place) as server:
        assert run("identify", "s", cwd=place).returncode == 0
        assert server.stop() == 0
    text = (place / "server.err").read_text()
    assert text.count("\n") == bool(says), text
    for word in says:
        assert word in text, f"{word!r} is not in {text!r}"


def test_cpus_and_workers_that_do_not_fit_together_are_told_and_served(place: Path) -> None:
    cpus = sorted(os.sched_getaffinity(0))
    first, every = str(cpus[0]), ",".join(map(str, cpus))
    warned(place, "--workers", "3", "--cpus", first, "--wait", "event", says=())
    warned(place, "--workers", str(len(cpus)), "--cpus", every, says=())
    warned(
        place,
        *("--workers", "2", "--cpus", first, "--wait", "poll"),
        says=("WARN", "2 that never sleep", f"CPU {first} "),
    )
    crowd = str(len(cpus) + 1)
    warned(place, "--workers", crowd, says=())
    warned(place, "--workers", crowd, "--wait", "poll", says=("WARN", f"workers: {crowd}", "adaptive"))
    if len(cpus) > 1:
        warned(place, "--cpus", every, says=("WARN", "not used", f"workers to {len(cpus)}"))


def test_an_unreadable_file_is_named(place: Path) -> None:
    image = place / "disk.img"
    image.chmod(0)
    prefix = () if os.geteuid() else ("setpriv", "--bounding-set=-all", "--inh-caps=-all")
    # Root reads everything, so root is asked without its capabilities, and the owner's bits count.
    result = run("run", "disk.img", cwd=place, prefix=prefix)
    image.chmod(0o600)
    assert result.returncode == 2
    assert "disk.img" in result.stderr
    assert "ermission" in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_file_that_may_only_be_read_is_refused_for_writing_and_served_read_only(place: Path) -> None:
    image = place / "disk.img"
    image.chmod(0o400)
    prefix = () if os.geteuid() else ("setpriv", "--bounding-set=-all", "--inh-caps=-all")
    refused(place, "run", "disk.img", says=("disk.img", "--read-only"), prefix=prefix)
    with serve("disk.img", "--read-only", cwd=place, prefix=prefix) as server:
        assert server.stop() == 0


def test_a_socket_in_use_is_left_to_its_server(place: Path) -> None:
    with serve("ram:1M", "--socket", "live.sock", cwd=place) as server:
        refused(place, "run", "disk.img", "--socket", "live.sock", says=("live.sock", "another server"))
        refused(place, "run", "new.img", "--create", "1M", "--socket", "live.sock", says=("live.sock",))
        assert run("identify", "live.sock", cwd=place).returncode == 0
        assert server.stop() == 0


def test_a_second_writer_of_an_image_is_refused(place: Path) -> None:
    with serve("disk.img", "--socket", "one.sock", cwd=place) as server:
        refused(place, "run", "disk.img", "--socket", "two.sock", says=("disk.img",))
        assert server.stop() == 0


def test_one_image_twice_in_one_drive_is_refused(place: Path) -> None:
    refused(place, "run", "disk.img", "disk.img", says=("disk.img",))


def test_a_bench_that_the_drive_cannot_take_is_refused(place: Path) -> None:
    with serve("ram:1M", "--socket", "s", cwd=place) as server:
        refused(place, "bench", "s", "--bs", "100", says=("bs", "100", "512"))
        refused(place, "bench", "s", "--size", "2M", says=("size",))
        refused(place, "bench", "s", "--bs", "32M", "--iodepth", "1", says=("bs",))
        assert server.stop() == 0


def test_a_socket_that_nobody_serves_is_named(place: Path) -> None:
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(str(place / "dead.sock"))
    dead.close()
    refused(place, "identify", "dead.sock", says=("dead.sock",))


def test_the_busy_drive_says_so(place: Path) -> None:
    with serve("ram:1M", "--socket", "s", cwd=place) as server:
        first = socket.socket(socket.AF_UNIX)
        first.connect(str(place / "s"))
        with first:
            # VERSION 0.1 without capabilities is enough to be the client; its reply tells that we are.
            first.sendall(bytes.fromhex("0000 0100 14000000 00000000 00000000 0000 0100"))
            assert first.recv(16)
            result = run("identify", "s", cwd=place)
            assert result.returncode == 2, result.stderr
            assert "another client" in result.stderr
            assert result.stderr.count("\n") == 1
        assert server.stop() == 0


def test_a_bug_is_one_line_with_a_hint_and_a_traceback_only_when_asked(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from nvmet_vdev import _nvmet, cli

    def broken(_socket: str) -> str:
        raise KeyError("oops")

    monkeypatch.setattr(_nvmet, "identify", broken)
    assert cli.main(["identify", "s"]) == 70
    error = capsys.readouterr().err
    assert error.startswith("nvmet-vdev: error: internal error: KeyError")
    assert error.count("\n") == 1
    assert "-v" in error
    assert "Traceback" not in error


def test_output_to_a_closed_pipe_is_no_bug(place: Path) -> None:
    import subprocess

    from tests.product import PROGRAM

    done = subprocess.run(
        ["bash", "-c", f"{PROGRAM} --help | true; exit ${{PIPESTATUS[0]}}"],
        cwd=place,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Traceback" not in done.stderr
    assert done.returncode in (0, 1)


def test_output_that_finds_no_room_is_no_bug(place: Path) -> None:
    import subprocess

    from tests.product import PROGRAM, environment

    for args in (["backends"], ["run", "ram:1M", "--socket", "s"]):
        with open("/dev/full", "w") as full:  # noqa: PTH123 - a device
            done = subprocess.run(
                [PROGRAM, *args],
                cwd=place,
                env=environment(place),
                stdout=full,
                stderr=subprocess.PIPE,
                text=True,
                check=False,
                timeout=60,
            )
        assert done.returncode == 1
        line = "the output cannot be written: No space left on device; send it somewhere else"
        assert done.stderr == f"nvmet-vdev: error: {line}\n"
    assert not (place / "s").exists()
