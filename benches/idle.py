"""What an attached guest that is silent costs: processor time and context switches of the target.

Two guests: our own driver, which has had its load and stays attached without a command, and a real
Linux where the rig of tests/vm is prepared. All drives are measured over the same seconds, each in a
process of its own.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benches.contest import BenchError
from benches.plan import RINGS
from tests.product import PROGRAM, environment, serve
from tests.vm.lab import Lab
from tests.vm.rig.cache import cache_dir
from tests.vm.rig.drive import Target
from tests.vm.rig.errors import GuestError, RigError
from tests.vm.rig.guest import Machine, Rig

LOAD_SECONDS = 0.5
SETTLE_SECONDS = 4.0
"""From the end of the load to the beginning of the measurement."""
SERIAL = "IDLE"


@dataclass(frozen=True)
class Usage:
    """What a process has used since it started."""

    threads: Mapping[str, tuple[int, int]]
    """By thread: nanoseconds on a processor by the scheduler's count, and context switches of any kind."""
    ticks: int
    """utime and stime of /proc/PID/stat, with those of threads that have ended."""

    @classmethod
    def of(cls, pid: int) -> Usage:
        """Reads /proc."""
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        threads = {}
        for task in Path(f"/proc/{pid}/task").iterdir():
            # A thread may end while it is looked at: the kernel's own helpers do.
            with suppress(OSError):
                lines = (task / "status").read_text().splitlines()
                switches = sum(int(line.split()[1]) for line in lines if "ctxt_switches" in line)
                threads[task.name] = (int((task / "schedstat").read_text().split()[0]), switches)
        return cls(threads, int(fields[11]) + int(fields[12]))

    def since(self, then: Usage) -> tuple[int, int]:
        """Nanoseconds and context switches of the threads that are there now, from `then` on."""
        before = (then.threads.get(name, (0, 0)) for name in self.threads)
        spent = [
            (now[0] - old[0], now[1] - old[1]) for now, old in zip(self.threads.values(), before, strict=True)
        ]
        return sum(ns for ns, _ in spent), sum(switches for _, switches in spent)


def measure(pids: Mapping[str, int], seconds: float) -> dict[str, dict[str, float]]:
    """Shares of a core, and context switches a second, of processes by name over the next `seconds`."""
    before = {name: Usage.of(pid) for name, pid in pids.items()}
    started = time.monotonic()
    time.sleep(seconds)
    elapsed = time.monotonic() - started
    hertz = os.sysconf("SC_CLK_TCK")
    found = {}
    for name, pid in pids.items():
        then, now = before[name], Usage.of(pid)
        ns, switches = now.since(then)
        found[name] = {
            "core": ns / 1e9 / elapsed,
            "utime_stime_s": (now.ticks - then.ticks) / hertz,
            "switches": switches,
            "seconds": elapsed,
        }
    return found


def with_our_driver(disks: Mapping[str, str], seconds: float) -> list[dict[str, Any]]:
    """Every backend, rung in both ways, with `nvmet-vdev bench --hold` attached."""
    with contextlib.ExitStack() as stack:
        pids = {}
        for backend, disk in disks.items():
            for ring in ("shadow", "mapped"):
                # An image is one drive's alone.
                copy = stack.enter_context(_own(disk))
                pids[f"{backend} {ring}"] = stack.enter_context(_held(copy, ring, seconds))
        time.sleep(LOAD_SECONDS + SETTLE_SECONDS)
        found = measure(pids, seconds)
    return [_row("our driver", name, figures) for name, figures in found.items()]


def _row(guest: str, name: str, figures: Mapping[str, float]) -> dict[str, Any]:
    backend, ring = name.split()
    return {"guest": guest, "backend": backend, "ring": ring, **figures}


@contextlib.contextmanager
def _own(disk: str) -> Iterator[str]:
    if disk.startswith(("ram:", "null:")):
        yield disk
        return
    with tempfile.NamedTemporaryFile(dir=Path(disk).parent, prefix="idle-") as image:
        image.truncate(64 << 20)
        yield image.name


@contextlib.contextmanager
def _held(disk: str, ring: str, seconds: float) -> Iterator[int]:
    """A drive with a client that falls silent; the target's process id."""
    run, bench = RINGS[ring]
    # The default is what is measured where it is the same.
    options = () if ring == "shadow" else run
    with tempfile.TemporaryDirectory(prefix="nvmet-idle-") as directory:
        place = Path(directory)
        with serve(disk, "--socket", "s", *options, cwd=place) as server:
            hold = str(seconds + 2 * SETTLE_SECONDS + 20)
            client = subprocess.Popen(
                [
                    PROGRAM,
                    "bench",
                    "s",
                    "--rw",
                    "randrw",
                    "--runtime",
                    str(LOAD_SECONDS),
                    "--hold",
                    hold,
                    *bench,
                ],
                cwd=place,
                env=environment(place),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
            )
            try:
                yield server.process.pid
                if client.poll() is not None:
                    _, error = client.communicate()
                    raise BenchError(f"the idle client of {disk} has left: {error.strip()}")
            finally:
                client.kill()
                client.communicate()
            server.stop()


def with_linux(
    disks: Mapping[str, str], seconds: float, say: Callable[[str], None]
) -> list[dict[str, Any]] | None:
    """The same with a Linux guest that has all of these drives; None where no guest is prepared."""
    try:
        rig = Rig.find(cache_dir())
    except RigError as error:
        say(f"no real guest: {error}")
        return None
    try:
        with tempfile.TemporaryDirectory(prefix="nvmet-idle-") as directory, contextlib.ExitStack() as stack:
            lab = Lab(rig, Path(directory), emulated=False)
            targets = {
                f"{backend} {ring}": stack.enter_context(
                    Target(
                        stack.enter_context(_own(disk)),
                        directory=lab.directory,
                        serial=f"{SERIAL}-{backend}-{ring}",
                        options=() if ring == "shadow" else RINGS[ring][0],
                    )
                )
                for ring in ("shadow", "mapped")
                for backend, disk in disks.items()
            }
            guest = stack.enter_context(lab.boot(*targets.values(), machine=Machine()))
            guest.run(f"wait_namespaces {len(targets)}")
            time.sleep(SETTLE_SECONDS)
            found = measure({name: target.pid for name, target in targets.items()}, seconds)
            guest.power_off()
    except (GuestError, RigError) as error:
        say(f"the real guest failed: {error}")
        return None
    return [_row("Linux", name, figures) for name, figures in found.items()]
