"""Start-up time and memory of `nvmet-vdev run`, and a drive measured end to end.

The goals: listening within 0.5 s of the start; an idle drive of 64 queues under 32 MiB, the
interpreter included.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests.product import run, serve  # noqa: E402

STARTS = 15


def start_up(place: Path) -> list[float]:
    """Seconds from the start of the process to `listening on`."""
    times = []
    for _ in range(STARTS):
        started = time.monotonic()
        with serve("disk.img", "--create", "1G", "--socket", "s", cwd=place) as server:
            times.append(time.monotonic() - started)
            server.stop()
    return times


def memory(place: Path) -> int:
    """Peak KiB of a drive whose client has used 64 queues and left."""
    with serve("null:1G", "--socket", "s", cwd=place) as server:
        done = run("bench", "s", "--numjobs", "64", "--iodepth", "1", "--runtime", "0.5", cwd=place)
        if done.returncode != 0:
            sys.exit(done.stderr)
        return int(server.status("VmHWM").split()[0])


def main() -> None:
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory)
        times = start_up(place)
        print(
            f"start-up: median {statistics.median(times) * 1000:.0f} ms, "
            f"worst of {STARTS} {max(times) * 1000:.0f} ms (goal 500 ms)"
        )
        print(f"memory:   {memory(place) / 1024:.1f} MiB with 64 queues (goal 32 MiB)")
        for disk in ("null:1G", "ram:1G"):
            with serve(disk, "--socket", "s", cwd=place) as server:
                print(f"{disk}:\n{run('bench', 's', '--runtime', '3', cwd=place).stdout}", end="")
                server.stop()


if __name__ == "__main__":
    main()
