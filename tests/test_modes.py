"""Every byte comes back in every mode: doorbells, how workers wait, how many there are, ram and file."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest

from tests.product import run, serve

DOORBELLS = ("trapped", "mapped")
WAITS = ("poll", "adaptive", "event")
WORKERS = (1, 2, 4)
# Four jobs of 128 commands in flight, with a queue pair each: several queues for every worker.
JOB = ("--verify", "--iodepth", "128", "--numjobs", "4")
SIZE = "4M"


@pytest.mark.parametrize("workers", WORKERS)
@pytest.mark.parametrize("wait", WAITS)
@pytest.mark.parametrize("doorbells", DOORBELLS)
def test_every_byte_comes_back_at_depth(tmp_path: Path, doorbells: str, wait: str, workers: int) -> None:
    """Where doorbells are trapped, the bench is a guest that sets up shadow doorbells."""
    mode = ("--doorbells", doorbells, "--wait", wait, "--workers", str(workers))
    for disk, more in ((f"ram:{SIZE}", ()), ("disk.img", ("--create", SIZE))):
        with serve(disk, *more, *mode, "--socket", "s", cwd=tmp_path) as server:
            result = run("bench", "s", *JOB, "--output", "json", cwd=tmp_path)
            assert result.returncode == 0, (disk, result.stderr)
            verify = json.loads(result.stdout)["verify"]
            assert verify["mismatched"] == 0
            assert verify["blocks"] == (4 << 20) // 512
            seen = json.loads(run("identify", "s", "--output", "json", cwd=tmp_path).stdout)["doorbells"]
            assert seen == ("shadow" if doorbells == "trapped" else "mapped")
            assert server.stop() == 0, disk


@pytest.mark.parametrize(("doorbells", "wait"), list(itertools.product(DOORBELLS, WAITS)))
def test_one_command_at_a_time_finds_every_worker_awake_or_wakes_it(
    tmp_path: Path, doorbells: str, wait: str
) -> None:
    """A lost wake-up is a command that takes for ever, and the bench would not end."""
    mode = ("--doorbells", doorbells, "--wait", wait, "--workers", "2")
    with serve("ram:128k", *mode, "--socket", "s", cwd=tmp_path) as server:
        job = ("--verify", "--iodepth", "1", "--numjobs", "2", "--bs", "512")
        result = run("bench", "s", *job, cwd=tmp_path)
        assert result.returncode == 0, result.stderr
        assert server.stop() == 0
