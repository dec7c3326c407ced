"""The criterion benchmarks: built, run with chosen times, their estimates read."""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "nvmet-benches"


class CriterionError(Exception):
    """A benchmark was not built or did not run."""


@dataclass(frozen=True)
class Bench:
    """One benchmark program by name, built when it is first run, and where its estimates go."""

    name: str
    home: Path

    def run(self, only: str, warm_up: float, seconds: float) -> dict[str, dict[str, float]]:
        """Runs what the expression `only` names, and gives what was measured."""
        shutil.rmtree(self.home, ignore_errors=True)
        times = ("--warm-up-time", f"{warm_up:.3f}", "--measurement-time", f"{seconds:.3f}")
        program = build().get(self.name)
        if program is None:
            raise CriterionError(f"there is no benchmark `{self.name}`")
        command = [str(program), "--bench", only, *times, "--sample-size", "10", "--noplot"]
        _run(command, self.home)
        return estimates(self.home)


@functools.cache
def build() -> dict[str, Path]:
    """Builds all benchmarks; their programs by name."""
    command = ["cargo", "bench", "--locked", "-p", PACKAGE, "--no-run", "--message-format=json"]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        raise CriterionError("the benchmarks do not build")
    programs = {}
    for line in done.stdout.splitlines():
        message = json.loads(line) if line.startswith("{") else {}
        if message.get("executable") and "bench" in message["target"]["kind"]:
            programs[message["target"]["name"]] = Path(message["executable"])
    return programs


def run_all(
    programs: Sequence[Path], home: Path, options: Sequence[str], only: str | None
) -> dict[str, dict[str, float]]:
    """Runs the benchmarks one after the other, their words on the terminal."""
    shutil.rmtree(home, ignore_errors=True)
    for program in programs:
        _run([str(program), "--bench", *([only] if only else []), *options, "--noplot"], home, shown=True)
    return estimates(home)


def _run(command: Sequence[str], home: Path, *, shown: bool = False) -> None:
    env = {**os.environ, "CRITERION_HOME": str(home)}
    output = None if shown else subprocess.PIPE
    done = subprocess.run(command, cwd=ROOT, env=env, stdout=output, stderr=output, text=True, check=False)
    if done.returncode != 0:
        raise CriterionError(f"{Path(command[0]).name} failed: {done.stderr or ''}")


def estimates(home: Path) -> dict[str, dict[str, float]]:
    """Of each benchmark under `home` the median time of an iteration in ns, and the elements that it has."""
    found = {}
    for path in sorted(home.glob("**/new/estimates.json")):
        about: dict[str, Any] = json.loads(path.with_name("benchmark.json").read_text())
        throughput = about.get("throughput") or {}
        found[str(about["full_id"])] = {
            "ns": float(json.loads(path.read_text())["median"]["point_estimate"]),
            "elements": float(throughput.get("Elements", 1)),
        }
    return found
