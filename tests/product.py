"""How the tests start the product: as a user does, through the installed `nvmet-vdev`."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import random
import resource
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
    *args: str | Path,
    cwd: Path,
    prefix: Sequence[str] = (),
    program: Sequence[str] = (PROGRAM,),
    patience: float = PATIENCE * 2,
    **env: str,
) -> subprocess.CompletedProcess[str]:
    """Runs one command to its end."""
    return subprocess.run(
        [*prefix, *program, *map(str, args)],
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
    program: Sequence[str] = (PROGRAM,),
    env: Mapping[str, str] | None = None,
    pass_fds: Sequence[int] = (),
    command: str = "run",
) -> Iterator[Server]:
    """Starts `nvmet-vdev run ARGS`, waits until it listens, and ends it afterwards if it still runs.

    `command` may be `serve` instead.
    """
    errors = (cwd / "server.err").open("w+")
    process = subprocess.Popen(
        [*prefix, *program, command, *map(str, args)],
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


RAN_AS = "ran as"
"""The property of a test that tells who ran the product, where that matters."""
SMALL_MEMLOCK = 64 << 10
"""Bytes a process may lock: the kernel's default until Linux 5.16, and that of many containers."""
SYSTEM_PYTHON = "/usr/bin/python3"


@dataclass(frozen=True)
class OrdinaryUser:
    """Somebody who may do nothing that takes a privilege, with small limits."""

    uid: int
    who: str
    """For the test's output."""
    become: tuple[str, ...]
    """Goes before a command."""
    python: str
    """An interpreter that the user can reach."""
    product: tuple[str, ...]
    """`nvmet-vdev`, once that user."""

    @property
    def program(self) -> tuple[str, ...]:
        """What to run instead of `nvmet-vdev`."""
        return (*self.become, *self.product)

    def give(self, *paths: Path) -> None:
        """Makes the user the owner of files."""
        for path in paths:
            os.chown(path, self.uid, -1)


def ordinary_user(memlock: int = SMALL_MEMLOCK, product: Sequence[str] = (PROGRAM,)) -> OrdinaryUser:
    """Who runs the tests, if that is not root; else somebody who is not.

    The interpreter may stand where only root can go, such as in root's home. Then the system's own
    runs the same package. Where that cannot be either, it is still root, without a single capability.
    """
    ceiling = resource.getrlimit(resource.RLIMIT_MEMLOCK)[1]
    if ceiling != resource.RLIM_INFINITY:
        memlock = min(memlock, ceiling)
    limits = ("prlimit", f"--memlock={memlock}", "--nofile=1024", "setpriv", "--no-new-privs")
    ours = (sys.executable, tuple(product))
    if os.geteuid() != 0:
        return OrdinaryUser(os.geteuid(), "the user of the tests", limits, *ours)
    bare = (*limits, "--inh-caps=-all", "--bounding-set=-all")
    # A user of its own each time: the kernel adds up the locked memory of all that a user runs.
    uid = random.randrange(20_000, 60_000)  # noqa: S311 (no secret)
    # setpriv finds a program with root's eyes still; env does not.
    plain = (*bare, f"--reuid={uid}", "--regid=65534", "--clear-groups", "env")
    ways = [OrdinaryUser(uid, f"user {uid}", plain, *ours)]
    if tuple(product) == (PROGRAM,):
        # The extension is for the stable ABI, click is Python alone, and msgspec is beside it.
        path = ":".join(dict.fromkeys([_place("nvmet_vdev"), _place("click")]))
        module = (f"PYTHONPATH={path}", SYSTEM_PYTHON, "-P", "-m", "nvmet_vdev")
        who = f"user {uid}, with {SYSTEM_PYTHON} (no other user reaches {sys.executable})"
        ways.append(OrdinaryUser(uid, who, plain, SYSTEM_PYTHON, module))
    for way in ways:
        # Help, because that imports all that the command needs.
        if subprocess.run([*way.program, "run", "--help"], capture_output=True, check=False).returncode == 0:
            return way
    who = "ROOT WITHOUT CAPABILITIES: no other user can read the package"
    return OrdinaryUser(0, who, bare, *ours)


def _place(package: str) -> str:
    """The directory that a package is imported from."""
    found = importlib.util.find_spec(package)
    assert found is not None
    assert found.origin is not None
    return str(Path(found.origin).parent.parent)


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
