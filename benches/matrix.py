"""`make bench`: measures everything in one run, keeps what was measured, and writes the document from it.

BENCH=quick (a minute and a half), default (ten), or full (hours); BENCH_ONLY=disk/ measures a part and
leaves the document as it is.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from benches import criterion, goals, idle, machine, report
from benches.contest import SEED, BenchError, Figures, Floor, Processors
from benches.plan import SIZES, Group, Place, Size, groups
from tests.product import PROGRAM

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / ".cache" / "bench"
FORMAT = 1
IMAGE_BYTES = 256 << 20
OVERHEAD_SECONDS = 0.75
"""What a round takes beyond its time: programs start and end."""
CHUNK = 1 << 20
FAILURES = (AssertionError, BenchError, criterion.CriterionError, subprocess.TimeoutExpired)
"""What can go wrong in a measurement; tests.product asserts that the target starts."""


class Clock:
    """The progress line: what is measured, how far it is, how long it will still take."""

    def __init__(self, total: float) -> None:
        self._total, self._done, self._started = total, 0.0, time.monotonic()
        self._live = sys.stderr.isatty()

    def show(self, text: str) -> None:
        """What is being done now."""
        if self._live:
            sys.stderr.write(f"\r\033[K{text}  {self._left()}")
            sys.stderr.flush()

    def line(self, text: str) -> None:
        """Something that stays."""
        if self._live:
            sys.stderr.write("\r\033[K")
            sys.stderr.flush()
        print(text, flush=True)

    def spend(self, seconds: float) -> None:
        """A part that was planned to take so long is done."""
        self._done += seconds

    def _left(self) -> str:
        if self._done <= 0:
            return ""
        spent = time.monotonic() - self._started
        left = max(self._total - self._done, 0) * spent / self._done
        return f"{int(left // 60)}:{int(left % 60):02d} left"


def planned(group: Group, size: Size) -> float:
    """Seconds that a group is expected to take."""
    rounds = size.rounds * len(group.contestants) * (size.seconds + OVERHEAD_SECONDS)
    return rounds + 0.4 * len(group.contestants)


def measure(group: Group, size: Size, processors: Processors, say: Clock) -> dict[str, Any]:
    """One group: every contestant in turns, the order another one in each round."""
    found: dict[str, list[Figures]] = {one.name: [] for one in group.contestants}
    with contextlib.ExitStack() as stack:
        for one in group.contestants:
            stack.enter_context(one.ready(group.load, processors))
        order = list(group.contestants)
        for number in range(size.rounds):
            for one in order:
                say.show(f"{group.name}: {one.name}, round {number + 1} of {size.rounds}")
                found[one.name].append(one.go(group.load, processors, size.seconds))
            order = order[1:] + order[:1]
    load = group.load
    return {
        "name": group.name,
        "backend": group.backend,
        "about": group.about,
        "rw": load.rw,
        "bs": load.bs,
        "depth": load.depth,
        "jobs": load.jobs,
        "entries": {name: _columns(rounds) for name, rounds in found.items()},
    }


def _columns(rounds: list[Figures]) -> dict[str, list[float]]:
    return {key: [_short(figures[key]) for figures in rounds] for key in rounds[0]}


def _short(value: float) -> float:
    """Five digits are more than were measured."""
    return float(f"{value:.5g}")


@contextlib.contextmanager
def images(say: Clock) -> Iterator[dict[str, Path]]:
    """Image files with data in them: on tmpfs where there is one, and on the disk of this checkout."""
    places = {"tmpfs": Path("/dev/shm"), "disk": CACHE}  # noqa: S108 - the well-known tmpfs
    with contextlib.ExitStack() as stack:
        made = {}
        for backend, place in places.items():
            if backend == "tmpfs" and machine.file_system(place) != "tmpfs":
                say.line("there is no tmpfs at /dev/shm: left out")
                continue
            if shutil.disk_usage(place).free < 2 * IMAGE_BYTES:
                say.line(f"{place} has no room for an image: left out")
                continue
            directory = stack.enter_context(tempfile.TemporaryDirectory(dir=place, prefix="nvmet-bench-"))
            made[backend] = Path(directory) / "image"
            _fill(made[backend])
        yield made


def _fill(path: Path) -> None:
    numbers = random.Random(SEED)  # noqa: S311 - data, no secrets
    with path.open("wb") as file:
        for _ in range(0, IMAGE_BYTES, CHUNK):
            file.write(numbers.randbytes(CHUNK))
        file.flush()
        os.fsync(file.fileno())


def waits() -> tuple[str, ...]:
    """Values of `run --wait`, where it has that option."""
    text = subprocess.run([PROGRAM, "run", "--help"], capture_output=True, text=True, check=False).stdout
    return ("poll", "event") if "--wait" in text else ()


def instructions() -> dict[str, Any] | None:
    """Instructions of a command under callgrind, where valgrind is there."""
    program = ROOT / "benches" / "instructions.py"
    if not program.exists() or shutil.which("valgrind") is None:
        return None
    done = subprocess.run(
        [sys.executable, str(program), "--output", "json"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        return None
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def scale() -> dict[str, Any] | None:
    """64 controllers of 8 queues on 2 workers, idle and active."""
    if not (ROOT / "benches" / "scale.rs").exists():
        return None
    command = [
        "cargo",
        "run",
        "--locked",
        "--quiet",
        "--release",
        "-p",
        criterion.PACKAGE,
        "--example",
        "scale",
    ]
    done = subprocess.run(
        [*command, "--", "--output", "json"], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False
    )
    if done.returncode != 0:
        return None
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Everything that was asked for, in one run."""
    size, only = SIZES[options.size], str(options.only or "")
    processors = Processors.share()
    CACHE.mkdir(parents=True, exist_ok=True)
    result: dict[str, Any] = {
        "format": FORMAT,
        "size": options.size,
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "machine": machine.describe(CACHE),
        "rounds": size.rounds,
        "seconds": size.seconds,
        "groups": [],
        "failed": [],
        "criterion": {},
        "instructions": None,
        "idle": [],
    }
    parts = not (only or options.no_parts or options.list)
    if parts:
        print("== criterion", flush=True)
        home = CACHE / "criterion"
        result["criterion"] = criterion.run_all(
            list(criterion.build().values()), home, size.criterion, size.criterion_only
        )
        if options.size != "quick":
            print("== instructions and scale", flush=True)
            result["instructions"], result["scale"] = instructions(), scale()
    floor = Floor(criterion.Bench("echo", CACHE / "floor"))
    say = Clock(1)
    with images(say) as files:
        place = Place(files, shutil.which("fio") is not None, floor, waits())
        if not place.fio:
            say.line("fio is not installed: nothing is compared with it (apt install fio)")
        todo = [group for group in groups(size, place) if only in group.name]
        if options.list:
            print("\n".join(group.name for group in todo))
            return result
        idle_planned = 0.0 if only else size.idle_seconds + 15
        say = Clock(sum(planned(group, size) for group in todo) + idle_planned)
        for number, group in enumerate(todo, start=1):
            try:
                found = measure(group, size, processors, say)
            except FAILURES as error:
                # The others are still worth measuring; the end says that something is missing.
                say.line(f"{number:3} of {len(todo)}  {group.name} FAILED: {error}")
                result["failed"].append(group.name)
            else:
                result["groups"].append(found)
                say.line(f"{number:3} of {len(todo)}  {report.one_line(found)}")
            say.spend(planned(group, size))
        if not only:
            disks = {backend: place.disk(backend) for backend in ("null", "ram", *files)}
            say.line(f"== idle guests, {size.idle_seconds:.0f} s")
            try:
                result["idle"] = idle.with_our_driver(disks, size.idle_seconds)
            except FAILURES as error:
                say.line(f"idle guests FAILED: {error}")
                result["failed"].append("idle")
            if size.guest:
                say.line(f"== idle Linux guest, {size.idle_seconds:.0f} s (it boots first)")
                result["idle"] += idle.with_linux(disks, size.idle_seconds, say.line) or []
    return result


def save(result: Mapping[str, Any]) -> Path:
    """Keeps the raw results beside those of other runs."""
    name = str(result["date"]).replace(" UTC", "").replace(" ", "-").replace(":", "")
    path = CACHE / f"{name}-{result['size']}.json"
    path.write_text(json.dumps(result, indent=1) + "\n")
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", choices=sorted(SIZES), default="default")
    parser.add_argument("--only", metavar="TEXT", help="measure the groups whose name has TEXT in it")
    parser.add_argument("--no-parts", action="store_true", help="leave the criterion benchmarks out")
    parser.add_argument("--list", action="store_true", help="print the groups instead of measuring")
    options = parser.parse_args()
    try:
        result = run(options)
    except FAILURES as error:
        sys.exit(f"bench: {error}")
    if options.list:
        return
    path = save(result)
    print(f"\n{goals.text(result)}\n\nraw results: {path.relative_to(ROOT)}")
    if result["failed"]:
        sys.exit(f"bench: failed: {', '.join(result['failed'])}; the document stays as it is")
    if options.only or options.size == "quick" or options.no_parts:
        print(f"the document stays as it is; python -m benches.report {path.relative_to(ROOT)} writes it")
        return
    report.write(path)
    print("written: docs/performance.md and its plots")


if __name__ == "__main__":
    main()
