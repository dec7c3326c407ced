"""`identify`, `bench` and `demo` from outside."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.product import PROGRAM, Server, environment, run, serve

MIB = 1 << 20


@pytest.fixture(scope="module")
def drive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A RAM drive with two namespaces."""
    place = tmp_path_factory.mktemp("drive")
    with serve("ram:16M", "ram:1M", "--socket", "s", "--serial", "TOOLS1", cwd=place) as server:
        yield server
        assert server.stop() == 0


def test_identify_is_readable(drive: Server, tmp_path: Path) -> None:
    result = run("identify", drive.socket, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "TOOLS1" in result.stdout
    assert "16 MiB" in result.stdout
    assert "\033" not in result.stdout
    assert result.stderr == ""


def test_identify_gives_json(drive: Server, tmp_path: Path) -> None:
    result = run("identify", drive.socket, "--output", "json", cwd=tmp_path)
    found = json.loads(result.stdout)
    assert found["controller"]["serial"] == "TOOLS1"
    assert [one["nsid"] for one in found["namespaces"]] == [1, 2]


@pytest.mark.parametrize("rw", ["randread", "randwrite", "read", "write", "randrw"])
def test_bench_measures_every_pattern(drive: Server, tmp_path: Path, rw: str) -> None:
    job = ("--rw", rw, "--bs", "8k", "--iodepth", "4", "--numjobs", "2", "--runtime", "0.3")
    result = run("bench", drive.socket, *job, "--output", "json", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout)
    assert report["config"]["rw"] == rw
    summary = report["summary"]
    assert (summary["read"]["ios"] > 0) == (rw in ("randread", "read", "randrw"))
    assert (summary["write"]["ios"] > 0) == (rw in ("randwrite", "write", "randrw"))
    total = summary["total"]
    assert total["bytes"] == total["ios"] * 8192
    latency = total["latency"]
    assert 0 < latency["p50_ns"] <= latency["p99_ns"] <= latency["p99_9_ns"] <= latency["max_ns"]


@pytest.mark.parametrize(
    ("served", "rung", "mode"),
    [
        ("trapped", "auto", "shadow"),
        ("trapped", "trapped", "trapped"),
        ("mapped", "auto", "mapped"),
        ("mapped", "mapped", "mapped"),
        ("mapped", "trapped", "trapped"),
    ],
)
def test_bench_rings_as_it_is_told_and_sleeps_until_interrupts(
    tmp_path: Path, served: str, rung: str, mode: str
) -> None:
    with serve("ram:16M", "--socket", "s", "--doorbells", served, cwd=tmp_path) as server:
        for waiting in ((), ("--interrupts",)):
            job = ("--runtime", "0.2", "--numjobs", "2", "--doorbells", rung, *waiting)
            result = run("bench", "s", *job, "--output", "json", cwd=tmp_path)
            assert result.returncode == 0, result.stderr
            report = json.loads(result.stdout)
            assert report["doorbells"] == mode
            assert report["config"]["interrupts"] == bool(waiting)
            assert report["summary"]["total"]["ios"] > 0
        assert server.stop() == 0


def test_bench_refuses_a_page_that_is_not_offered(drive: Server, tmp_path: Path) -> None:
    result = run("bench", drive.socket, "--doorbells", "mapped", "--runtime", "0.1", cwd=tmp_path)
    assert result.returncode != 0
    assert "doorbells: the drive offers no page" in result.stderr
    assert "Traceback" not in result.stderr


def test_bench_holds_on_after_the_load(drive: Server, tmp_path: Path) -> None:
    result = run("bench", drive.socket, "--runtime", "0.1", "--hold", "0.5", "--output", "json", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout)
    assert report["config"]["hold"] == 0.5
    # The time without a command is no part of the measurement.
    assert report["summary"]["elapsed_s"] < 0.5


def test_bench_text_reads_like_fio(drive: Server, tmp_path: Path) -> None:
    result = run("bench", drive.socket, "--runtime", "0.2", "--cpus", "0", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    for word in ("randread:", "bs=4 KiB", "iodepth=32", "IOPS=", "BW=", "mean=", "p50=", "p99=", "p99.9="):
        assert word in result.stdout
    # No terminal, no progress line.
    assert result.stderr == ""


def test_verify_reads_everything_back(drive: Server, tmp_path: Path) -> None:
    result = run("bench", drive.socket, "--verify", "--size", "4M", "--output", "json", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    summary = json.loads(result.stdout)["summary"]
    assert summary["write"]["bytes"] == 4 * MIB
    assert summary["read"]["bytes"] >= 4 * MIB


@contextmanager
def bench_on_a_terminal(
    drive: Server, tmp_path: Path, runtime: str
) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """`bench` with a terminal for its progress line: the process and the other side of the terminal."""
    controller, terminal = pty.openpty()
    process = subprocess.Popen(
        [PROGRAM, "bench", drive.socket, "--runtime", runtime],
        cwd=tmp_path,
        env=environment(tmp_path, TERM="xterm"),
        stdout=subprocess.PIPE,
        stderr=terminal,
        text=True,
        # Whoever runs the tests in the background has it ignored, and so would the program.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    os.close(terminal)
    try:
        yield process, controller
    finally:
        os.close(controller)


def test_the_progress_line_is_live_on_a_terminal(drive: Server, tmp_path: Path) -> None:
    shown = b""
    with bench_on_a_terminal(drive, tmp_path, "1") as (process, controller):
        while select.select([controller], [], [], 60)[0]:
            try:
                shown += os.read(controller, 4096)
            except OSError:
                break
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert b"IOPS" in shown
    assert b"%" in shown
    assert shown.endswith(b"\r\033[K")
    assert "IOPS=" in output


def test_an_interrupted_bench_reports_what_it_measured(drive: Server, tmp_path: Path) -> None:
    with bench_on_a_terminal(drive, tmp_path, "600") as (process, controller):
        assert os.read(controller, 4096)  # The first progress line: it is at work.
        process.send_signal(2)
        output, _ = process.communicate(timeout=60)
    assert "IOPS=" in output
    assert process.returncode == 0


def test_the_demo_shows_everything_and_leaves_nothing(tmp_path: Path) -> None:
    result = run("demo", "--size", "16M", "--runtime", "0.3", cwd=tmp_path, TMPDIR=str(tmp_path))
    assert result.returncode == 0, result.stderr
    for word in ("identify", "verify", "randread", "IOPS=", "qemu-system", "vfio-user-pci"):
        assert word in result.stdout
    assert list(tmp_path.iterdir()) == []
