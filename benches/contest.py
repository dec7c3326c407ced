"""Who takes part in a measurement: our drive, fio, the bare ring echo, one core's memcpy.

Each contestant is prepared once and run in short rounds. It may know how one of them is started and
read; it must not know what is compared with what.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import random
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from benches import criterion
from tests.product import Server, run, serve

SEED = 0x6E766D65
MEMORY = 256 << 20
"""Bytes of a ram drive, and of the memory that is copied: many times a processor's cache."""
NULL = 64 << 30
"""Bytes of a null drive."""


class BenchError(Exception):
    """A contestant did not run; the text is for people."""


@dataclass(frozen=True)
class Load:
    """What is asked of a drive, in fio's words."""

    rw: str
    bs: int
    depth: int
    jobs: int = 1


@dataclass(frozen=True)
class Processors:
    """Who runs where: as many for the target's workers as for the clients, so that nobody shares one."""

    target: tuple[int, ...]
    client: tuple[int, ...]

    @classmethod
    def share(cls) -> Processors:
        """Halves of those that this process may use."""
        allowed = sorted(os.sched_getaffinity(0))
        if len(allowed) < 2:
            raise BenchError("two processors are needed: one for the target, one for its client")
        half = len(allowed) // 2
        return cls(tuple(allowed[:half]), tuple(allowed[half : 2 * half]))


Figures = Mapping[str, float]
"""`iops`; where known `p50_ns`, `p99_ns`, `p99_9_ns`, and `cpu_ns`, the target's time for a command."""


class Contestant(Protocol):
    """One that can be measured; `ready` holds as long as its context."""

    @property
    def name(self) -> str: ...

    def ready(self, load: Load, processors: Processors) -> contextlib.AbstractContextManager[None]: ...

    def go(self, load: Load, processors: Processors, seconds: float) -> Figures: ...


@dataclass
class Ours:
    """`nvmet-vdev run` with `nvmet-vdev bench` as its guest."""

    name: str
    disk: str
    serve: Sequence[str] = ()
    bench: Sequence[str] = ()
    pinned: bool = True
    """Whether worker and client have a processor each."""
    _place: Path | None = None
    _server: Server | None = None

    @contextlib.contextmanager
    def ready(self, load: Load, processors: Processors) -> Iterator[None]:
        """Serves the drive; memory is written once, or its pages would all be the one page of zeroes."""
        workers = min(load.jobs, len(processors.target))
        cpus = ",".join(map(str, processors.target[:workers]))
        with tempfile.TemporaryDirectory(prefix="nvmet-bench-") as directory:
            self._place = Path(directory)
            pin = ("--cpus", cpus) if self.pinned else ()
            options = ("--socket", "s", "--workers", str(workers), *pin, *self.serve)
            with serve(self.disk, *options, cwd=self._place) as server:
                self._server = server
                if self.disk.startswith("ram:"):
                    self._run("--verify", "--bs", "128k")
                # Between its rounds it stands still, whatever its way to wait: others are measured then.
                server.process.send_signal(signal.SIGSTOP)
                yield
                server.process.send_signal(signal.SIGCONT)
                server.stop()

    def go(self, load: Load, processors: Processors, seconds: float) -> Figures:
        """One round."""
        assert self._server is not None
        process = self._server.process
        process.send_signal(signal.SIGCONT)
        before = busy_ns(process.pid)
        pin = ("--cpus", ",".join(map(str, processors.client))) if self.pinned else ()
        report = self._run(
            *("--rw", load.rw, "--bs", str(load.bs), "--iodepth", str(load.depth)),
            *("--numjobs", str(load.jobs), "--runtime", str(seconds)),
            *(*pin, *self.bench),
        )
        spent = busy_ns(process.pid) - before
        process.send_signal(signal.SIGSTOP)
        total = report["summary"]["total"]
        latency = {key: float(total["latency"][key]) for key in ("p50_ns", "p99_ns", "p99_9_ns")}
        return {"iops": total["iops"], "cpu_ns": spent / max(total["ios"], 1), **latency}

    def _run(self, *options: str) -> dict[str, Any]:
        assert self._place is not None
        done = run("bench", "s", *options, "--output", "json", cwd=self._place)
        if done.returncode != 0:
            raise BenchError(f"{self.name} on {self.disk}: {done.stderr.strip()}")
        report: dict[str, Any] = json.loads(done.stdout)
        return report


@dataclass
class Fio:
    """fio on a file, without a device in between."""

    name: str
    file: Path
    engine: str = "io_uring"
    direct: bool = True

    @contextlib.contextmanager
    def ready(self, load: Load, processors: Processors) -> Iterator[None]:
        """Asks whether the file can be read past the page cache: on tmpfs since Linux 6.6."""
        if self.direct:
            try:
                os.close(os.open(self.file, os.O_RDONLY | os.O_DIRECT))
            except OSError:
                self.direct = False
        yield

    def go(self, load: Load, processors: Processors, seconds: float) -> Figures:
        """One round. A single job runs where the target's worker does; several have all processors."""
        cpus = processors.target[:1] if load.jobs == 1 else (*processors.target, *processors.client)
        command = [
            *("fio", "--name=bench", f"--filename={self.file}", f"--ioengine={self.engine}"),
            *(f"--direct={int(self.direct)}", f"--rw={load.rw}", f"--bs={load.bs}"),
            *(f"--iodepth={load.depth}", f"--numjobs={load.jobs}", f"--runtime={seconds}", "--time_based"),
            *(f"--size={self.file.stat().st_size}", f"--randseed={SEED}", "--norandommap", "--thread"),
            *("--group_reporting", "--allow_file_create=0", f"--cpus_allowed={','.join(map(str, cpus))}"),
            "--output-format=json",
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=seconds + 120)
        if done.returncode != 0:
            raise BenchError(f"fio on {self.file}: {(done.stderr or done.stdout).strip()}")
        # fio says what it worries about before the report.
        job = json.loads(done.stdout[done.stdout.index("{") :])["jobs"][0]
        side = job["write" if "write" in load.rw else "read"]
        percentile = side["clat_ns"]["percentile"]
        keys = {"p50_ns": "50.000000", "p99_ns": "99.000000", "p99_9_ns": "99.900000"}
        return {"iops": side["iops"], **{ours: float(percentile[theirs]) for ours, theirs in keys.items()}}


@dataclass
class Floor:
    """The bare ring echo between two threads: what the machine can do at all."""

    bench: criterion.Bench
    name: str = "floor"

    @contextlib.contextmanager
    def ready(self, load: Load, processors: Processors) -> Iterator[None]:
        """Builds it, if that was not done yet."""
        criterion.build()
        yield

    def go(self, load: Load, processors: Processors, seconds: float) -> Figures:
        """One round."""
        found = self.bench.run(f"^echo_floor/qd{load.depth}$", seconds / 4, seconds)
        figure = found.get(f"echo_floor/qd{load.depth}")
        if figure is None:
            raise BenchError(f"the benchmarks have no echo_floor/qd{load.depth}")
        return {"iops": 1e9 * figure["elements"] / figure["ns"]}


@dataclass
class Memcpy:
    """One core that copies blocks between two mappings, from places that its cache does not hold."""

    name: str = "memcpy"

    @contextlib.contextmanager
    def ready(self, load: Load, processors: Processors) -> Iterator[None]:
        """Touches all of the memory."""
        numbers = random.Random(SEED)  # noqa: S311 - offsets, no secrets
        with mmap.mmap(-1, MEMORY) as source, mmap.mmap(-1, load.depth * load.bs) as target:
            chunk = numbers.randbytes(1 << 20)
            for at in range(0, MEMORY, len(chunk)):
                source[at : at + len(chunk)] = chunk
            target[:] = bytes(len(target))
            with memoryview(source) as all_of_it, memoryview(target) as buffers:
                order = list(range(MEMORY // load.bs))
                numbers.shuffle(order)
                self._from = [all_of_it[i * load.bs : (i + 1) * load.bs] for i in order]
                self._to = [buffers[i * load.bs : (i + 1) * load.bs] for i in range(load.depth)]
                yield
                for view in (*self._from, *self._to):
                    view.release()

    def go(self, load: Load, processors: Processors, seconds: float) -> Figures:
        """One round."""
        allowed = os.sched_getaffinity(0)
        os.sched_setaffinity(0, processors.target[:1])
        try:
            done, slots = 0, len(self._to)
            started = time.perf_counter()
            while (spent := time.perf_counter() - started) < seconds:
                for source in self._from:
                    self._to[done % slots][:] = source
                    done += 1
        finally:
            os.sched_setaffinity(0, allowed)
        return {"iops": done / spent}


def busy_ns(pid: int) -> int:
    """Processor time of all threads that a process has, in nanoseconds, as the scheduler counts it."""
    return sum(int(path.read_text().split()[0]) for path in Path(f"/proc/{pid}/task").glob("*/schedstat"))
