"""`nvmet-vdev serve` as a process: it serves a configuration, is killed, started again, changed meanwhile."""

from __future__ import annotations

import json
import os
import shlex
import signal
import socket
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.vm.rig.drive import START_LIMIT, STOP_LIMIT, command, vfio_user
from tests.vm.rig.errors import GuestError

CALL_LIMIT = 60.0


class Served:
    """A target that serves a configuration file; leaving the context stops it and demands exit status 0."""

    def __init__(self, config: Path, *, directory: Path, name: str = "served") -> None:
        self._config = config
        self._control = directory / f"{name}.ctl"
        self._stdout, self._stderr = directory / f"{name}.out", directory / f"{name}.err"
        self._process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        # `make modes` has other workers than the defaults.
        wanted = shlex.split(os.environ.get("NVMET_TEST_RUN", ""))
        arguments = ["serve", "-c", str(self._config), "--control", str(self._control), *wanted]
        with self._stdout.open("wb") as stdout, self._stderr.open("wb") as stderr:
            process = subprocess.Popen(
                [*command(), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                start_new_session=True,
            )
        deadline = time.monotonic() + START_LIMIT
        while not self._answers():
            if process.poll() is not None or time.monotonic() > deadline:
                state = "hangs" if process.poll() is None else f"exited with {process.returncode}"
                process.kill()
                process.wait()
                raise GuestError(f"the target {state} before it took calls\n{self.said()}")
            time.sleep(0.02)
        return process

    def _answers(self) -> bool:
        # Who takes calls has made its ports: it is the last thing that a target does before it is ready.
        try:
            self.call("version")
        except OSError:
            return False
        return True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._stop(check=kind is None)
        finally:
            self.kill()

    def _stop(self, *, check: bool) -> None:
        self._process.send_signal(signal.SIGTERM)
        try:
            status = self._process.wait(STOP_LIMIT)
        except subprocess.TimeoutExpired:
            raise GuestError(f"the target does not stop on SIGTERM\n{self.said()}") from None
        if check and status != 0:
            raise GuestError(f"the target exited with {status}\n{self.said()}")

    def kill(self) -> None:
        """SIGKILL, which leaves no time for anything."""
        self._process.kill()
        self._process.wait()

    def start_again(self) -> None:
        """A new target on the same configuration, after a kill."""
        self._process = self._start()

    def said(self) -> str:
        return f"--- target {self._stdout.stem}\n{self._stdout.read_text()}{self._stderr.read_text()}"

    def call(self, method: str, **params: Any) -> Any:
        """A call on the control socket (JSON-RPC 2.0, a message a line), as any program would make it."""
        request = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(CALL_LIMIT)
            connection.connect(str(self._control))
            connection.sendall(json.dumps(request).encode() + b"\n")
            with connection.makefile("rb") as answers:
                line = answers.readline()
        if not line:
            raise ConnectionError(f"{method}: the target closed the connection")
        answer: Mapping[str, Any] = json.loads(line)
        if "error" in answer:
            raise GuestError(f"{method} {params}: {answer['error']}\n{self.said()}")
        return answer["result"]

    def ctl(self, *words: str) -> str:
        """`nvmet-vdev ctl`, as an operator types it."""
        arguments = [*command(), "ctl", "--control", str(self._control), *words]
        done = subprocess.run(arguments, capture_output=True, text=True, check=False, timeout=CALL_LIMIT)
        if done.returncode != 0:
            raise GuestError(f"{shlex.join(words)} exited with {done.returncode}: {done.stderr}{self.said()}")
        return done.stdout


@dataclass(frozen=True)
class Port:
    """A controller of a target, for one guest."""

    target: Served
    socket: Path
    serial: str

    def device(self) -> list[str]:
        return vfio_user(self.socket)

    def said(self) -> str:
        return self.target.said()
