"""Who takes part where drives are scripts: nbdkit with a client of its own, and neighbours in one target."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benches.contest import SEED, BenchError, Figures, Load, Ours, Processors
from tests.product import PATIENCE, PROGRAM, environment, run

HERE = Path(__file__).resolve().parent
PLUGIN = HERE / "nbdkit_ram.py"
DRIVES = HERE / "python_drives.py"
NBDKIT = "nbdkit"


def drive(name: str, disk: str, *bench: str) -> Ours:
    """Our drive on `disk`, with nothing pinned: threads of Python run where there is room."""
    return Ours(name, disk, ("--doorbells", "trapped"), ("--doorbells", "shadow", *bench), pinned=False)


@dataclass
class Nbdkit:
    """nbdkit's Python plugin with fio's NBD engine as its client."""

    name: str = NBDKIT
    _socket: Path | None = None

    @staticmethod
    def is_there() -> bool:
        """Whether nbdkit, its Python plugin and a fio that knows NBD are installed."""
        if shutil.which("nbdkit") is None or shutil.which("fio") is None:
            return False
        knows = ["nbdkit", "--dump-plugin", "python"], ["fio", "--enghelp=nbd"]
        return all(
            subprocess.run(command, capture_output=True, check=False).returncode == 0 for command in knows
        )

    @contextlib.contextmanager
    def ready(self, load: Load, processors: Processors) -> Iterator[None]:
        """Serves the plugin on a socket."""
        with tempfile.TemporaryDirectory(prefix="nvmet-bench-") as directory:
            self._socket = Path(directory) / "nbd"
            command = ["nbdkit", "--foreground", "--unix", str(self._socket), "python", str(PLUGIN)]
            with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
                try:
                    deadline = time.monotonic() + PATIENCE
                    while not self._socket.exists():
                        if server.poll() is not None or time.monotonic() > deadline:
                            raise BenchError(f"nbdkit does not listen: {(server.stderr or sys.stdin).read()}")
                        time.sleep(0.01)
                    yield
                finally:
                    server.terminate()

    def go(self, load: Load, processors: Processors, seconds: float) -> Figures:
        """One round."""
        assert self._socket is not None
        command = [
            *("fio", "--name=bench", "--ioengine=nbd", f"--uri=nbd+unix:///?socket={self._socket}"),
            *(f"--rw={load.rw}", f"--bs={load.bs}", f"--iodepth={load.depth}", f"--runtime={seconds}"),
            *("--time_based", f"--randseed={SEED}", "--norandommap", "--output-format=json"),
        ]
        done = subprocess.run(
            command,
            cwd=self._socket.parent,
            capture_output=True,
            text=True,
            check=False,
            timeout=seconds + 120,
        )
        if done.returncode != 0:
            raise BenchError(f"fio on nbdkit: {(done.stderr or done.stdout).strip()}")
        job = json.loads(done.stdout[done.stdout.index("{") :])["jobs"][0]
        return {"iops": job["write" if "write" in load.rw else "read"]["iops"]}


@dataclass
class Beside:
    """A ram drive of a target that also serves a drive in Python, which is idle or under load."""

    name: str
    kind: str
    busy: bool
    _place: Path | None = None
    _server: subprocess.Popen[str] | None = None

    @contextlib.contextmanager
    def ready(self, load: Load, processors: Processors) -> Iterator[None]:
        """Serves both."""
        with tempfile.TemporaryDirectory(prefix="nvmet-bench-") as directory:
            self._place = Path(directory)
            with subprocess.Popen(
                [sys.executable, str(DRIVES), directory, self.kind],
                env={**environment(self._place), "PYTHONPATH": str(HERE.parent)},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            ) as self._server:
                assert self._server.stdout is not None
                if self._server.stdout.readline() != "listening\n":
                    raise BenchError(f"{DRIVES.name} {self.kind} does not listen")
                self._bench("ram", "--verify", "--bs", "128k")
                os.kill(self._server.pid, signal.SIGSTOP)
                yield
                os.kill(self._server.pid, signal.SIGCONT)
                # The end of its standard input is the end of it.
                self._server.communicate(timeout=PATIENCE)

    def go(self, load: Load, processors: Processors, seconds: float) -> Figures:
        """One round, on the ram drive."""
        assert self._server is not None
        assert self._place is not None
        os.kill(self._server.pid, signal.SIGCONT)
        with contextlib.ExitStack() as stack:
            if self.busy:
                command = [PROGRAM, "bench", "python", "--interrupts", "--iodepth", "32", "--runtime", "3600"]
                other = subprocess.Popen(command, cwd=self._place, stdout=subprocess.DEVNULL)
                stack.callback(other.wait)
                stack.callback(other.terminate)
                # It has begun when it has attached: a little more than a start of Python.
                time.sleep(1)
            report = self._bench(
                *("ram", "--rw", load.rw, "--bs", str(load.bs), "--iodepth", str(load.depth)),
                *("--runtime", str(seconds), "--doorbells", "shadow"),
            )
        os.kill(self._server.pid, signal.SIGSTOP)
        figures: Figures = {"iops": float(report["iops"])}
        return figures

    def _bench(self, *options: str) -> dict[str, float]:
        assert self._place is not None
        done = run("bench", *options, "--output", "json", cwd=self._place)
        if done.returncode != 0:
            raise BenchError(f"{self.name}: {done.stderr.strip()}")
        total: dict[str, float] = json.loads(done.stdout)["summary"]["total"]
        return total
