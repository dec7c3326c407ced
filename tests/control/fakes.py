"""A manager that only notes what it is asked, and a client that says exactly what it is told."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from nvmet_vdev.control.methods import METHODS
from nvmet_vdev.control.server import ControlServer
from tests.product import PATIENCE

NQN = "nqn.2026-01.org.example:one"


class FakeManager:
    """Has every method; `results` says what they return, or raise, or what else they do."""

    def __init__(self, **results: Any) -> None:
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.results = results

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name not in {method.call for method in METHODS.values()}:
            raise AttributeError(name)

        def call(**arguments: Any) -> Any:
            self.calls.append((name, arguments))
            result = self.results.get(name)
            if isinstance(result, BaseException):
                raise result
            return result(**arguments) if callable(result) else result

        return call


class Hold:
    """A call that begins and does not end until it is told to."""

    def __init__(self, result: Any = None) -> None:
        self.begun = threading.Semaphore(0)
        self.may_end = threading.Semaphore(0)
        self.result = result

    def __call__(self, **_: Any) -> Any:
        self.begun.release()
        assert self.may_end.acquire(timeout=PATIENCE)
        return self.result

    def wait(self) -> None:
        """Returns when a call has begun."""
        assert self.begun.acquire(timeout=PATIENCE)

    def end(self) -> None:
        """Lets one call end."""
        self.may_end.release()


class Wire:
    """A connection to the server, byte by byte."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.settimeout(PATIENCE)
        self.socket.connect(str(path))
        self._input = self.socket.makefile("rb")

    def send(self, data: bytes) -> None:
        """Sends bytes."""
        self.socket.sendall(data)

    def request(self, method: str, number: Any = 1, **params: Any) -> None:
        """Sends a request."""
        message = {"jsonrpc": "2.0", "method": method, "params": params, "id": number}
        self.send(json.dumps(message).encode() + b"\n")

    def notify(self, method: str, **params: Any) -> None:
        """Sends a notification."""
        self.send(json.dumps({"jsonrpc": "2.0", "method": method, "params": params}).encode() + b"\n")

    def answer(self) -> Any:
        """The next answer; None at the end."""
        with contextlib.suppress(ConnectionResetError):
            if line := self._input.readline():
                assert line.endswith(b"\n")
                return json.loads(line)
        return None

    def ask(self, method: str, **params: Any) -> Any:
        """Sends a request and returns its result, or its error."""
        self.request(method, **params)
        answer = self.answer()
        return answer["result"] if "result" in answer else answer["error"]

    def kind(self) -> str:
        """The kind of the next answer, which is an error."""
        kind = self.answer()["error"]["data"]["kind"]
        assert isinstance(kind, str)
        return kind

    def half_close(self) -> None:
        """Says that nothing more comes."""
        self.socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Vanishes."""
        self._input.close()
        self.socket.close()

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@contextlib.contextmanager
def serving(tmp_path: Path, manager: object | None = None, **options: Any) -> Iterator[ControlServer]:
    """A server, on a fake unless it is given something else."""
    server = ControlServer(
        manager if manager is not None else FakeManager(), tmp_path / "control.sock", **options
    )
    try:
        yield server
    finally:
        server.close()


def descriptors() -> int:
    """How many this process has."""
    return len(list(Path("/proc/self/fd").iterdir()))
