"""`make soak`: hours of load, clients that are killed, and a server that must not grow.

Each round serves the same drive to a client that verifies what it writes and to one that is killed
in the middle. After the first rounds the server's memory and descriptors must stay where they are.
"""

from __future__ import annotations

import argparse
import itertools
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests.product import PROGRAM, Server, environment, run, serve  # noqa: E402

WARM_UP_ROUNDS = 5
GROWTH_KIB = 2048


def descriptors(server: Server) -> int:
    return len(list(Path(f"/proc/{server.process.pid}/fd").iterdir()))


def killed_client(server: Server, place: Path) -> None:
    """A client at full load that ends without a word."""
    client = subprocess.Popen(
        [PROGRAM, "bench", server.socket, "--rw", "randrw", "--numjobs", "4", "--runtime", "60"],
        cwd=place,
        env=environment(place),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        client.wait(2)
    except subprocess.TimeoutExpired:
        client.kill()
        client.wait()


def soak(server: Server, place: Path, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    settled: tuple[int, int] | None = None
    for number in itertools.count(1):
        killed_client(server, place)
        result = run("bench", "s", "--verify", "--size", "64M", "--numjobs", "4", cwd=place)
        if result.returncode != 0:
            sys.exit(f"round {number}: {result.stderr}")
        now = int(server.status("VmRSS").split()[0]), descriptors(server)
        if number == WARM_UP_ROUNDS:
            settled = now
        print(f"round {number}: {now[0]} KiB, {now[1]} descriptors", flush=True)
        if settled and (now[0] > settled[0] + GROWTH_KIB or now[1] > settled[1]):
            sys.exit(f"the server grew from {settled} to {now} (KiB, descriptors)")
        if time.monotonic() > deadline:
            return


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=600.0)
    seconds = parser.parse_args().seconds
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory)
        with serve("disk.img", "--create", "256M", "--socket", "s", "--workers", "2", cwd=place) as server:
            soak(server, place, seconds)
            if (status := server.stop()) != 0:
                sys.exit(f"the server ended with status {status}")


if __name__ == "__main__":
    main()
