"""How the tests start the product: as a user does, through the installed `nvmet-vdev`."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

PROGRAM = str(Path(sys.executable).parent / "nvmet-vdev")
PATIENCE = 60.0
"""Seconds before a test gives up; nothing waits this long when it works."""


def environment(runtime_dir: Path, **more: str) -> dict[str, str]:
    """The test's own environment: a private runtime directory and nobody's service manager."""
    unwanted = ("NOTIFY_SOCKET", "NO_COLOR", "XDG_RUNTIME_DIR")
    kept = {name: value for name, value in os.environ.items() if name not in unwanted}
    return {**kept, "XDG_RUNTIME_DIR": str(runtime_dir), "PYTHONUNBUFFERED": "", **more}


def run(
    *args: str | Path, cwd: Path, prefix: Sequence[str] = (), patience: float = PATIENCE * 2, **env: str
) -> subprocess.CompletedProcess[str]:
    """Runs one command to its end."""
    return subprocess.run(
        [*prefix, PROGRAM, *map(str, args)],
        cwd=cwd,
        env=environment(cwd, **env),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=patience,
        check=False,
    )


@dataclass
class Server:
    """A running `nvmet-vdev run`."""

    process: subprocess.Popen[str]
    socket: str
    output: list[str] = field(default_factory=list)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Sends a signal and returns the exit status."""
        self.process.send_signal(number)
        return self.finish()

    def finish(self) -> int:
        """Waits for the end and returns the exit status; `output` then has all of standard output."""
        assert self.process.stdout is not None
        self.process.wait(PATIENCE)
        # Not communicate(): it does not know what readline() has read ahead.
        self.output += self.process.stdout.read().splitlines()
        return self.process.returncode

    def status(self, field_name: str) -> str:
        """A field of /proc/PID/status."""
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            name, _, value = line.partition(":")
            if name == field_name:
                return value.strip()
        raise KeyError(field_name)


@contextlib.contextmanager
def serve(
    *args: str | Path,
    cwd: Path,
    prefix: Sequence[str] = (),
    env: Mapping[str, str] | None = None,
    pass_fds: Sequence[int] = (),
) -> Iterator[Server]:
    """Starts `nvmet-vdev run ARGS`, waits until it listens, and ends it afterwards if it still runs."""
    errors = (cwd / "server.err").open("w+")
    process = subprocess.Popen(
        [*prefix, PROGRAM, "run", *map(str, args)],
        cwd=cwd,
        env=environment(cwd, **(env or {})),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=errors,
        text=True,
        bufsize=1,
        pass_fds=tuple(pass_fds),
    )
    try:
        first = _first_line(process)
        if not first.startswith("listening on "):
            process.wait(PATIENCE)
            errors.seek(0)
            raise AssertionError(f"not listening: {first!r}, exit {process.returncode}: {errors.read()}")
        yield Server(
            process, str(cwd / first.removeprefix("listening on ").rstrip("\n")), [first.rstrip("\n")]
        )
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(PATIENCE)
        assert process.stdout is not None
        process.stdout.close()
        errors.close()


def _first_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        if not selector.select(PATIENCE):
            raise AssertionError("nvmet-vdev run said nothing")
    return process.stdout.readline()


def wait_until(condition: object, what: str) -> None:
    """Polls `condition` until it is true: for what has no event to wait for."""
    assert callable(condition)
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {PATIENCE} s"
        time.sleep(0.01)
