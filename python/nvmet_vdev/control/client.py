"""The client of the control socket.

::

    from nvmet_vdev import ControlClient

    with ControlClient() as control:
        nsid = control.namespace_add("nqn.2026-01.org.example:vm", path="/images/data.img")
        control.namespace_disable("nqn.2026-01.org.example:vm", nsid)

May know the protocol and one socket; must not know the target. It needs neither msgspec nor the target's
modules: shells start it at every Tab.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
from types import TracebackType
from typing import Any, Self

from nvmet_vdev._nvmet import ConfigError, DeviceError
from nvmet_vdev.control import paths
from nvmet_vdev.control.calls import Calls
from nvmet_vdev.errors import one_line

__all__ = ["Client", "ControlClient", "NoTargetError"]

_LARGEST = 64 << 20
"""Bytes of an answer that are taken; a target sends less."""
_FAILED = frozenset({"device", "internal", "limit"})
"""Kinds of errors that no other request would have avoided."""


class NoTargetError(ConfigError):
    """Nothing listens at the path."""


class Client(Calls):
    """A connection to the control socket at `path`, by default that of this user's target.

    A context manager. May be used from any thread; calls come one after the other. `timeout` is the time in
    seconds that a call may take, None for any: when it is over the call raises DeviceError and the connection
    ends, while the target may still do what it was asked.

    Raises `NoTargetError`, a ConfigError, if nothing listens there. Methods raise ConfigError for what cannot
    be done as it was asked, DeviceError for what went wrong with it; both are one line.
    """

    def __init__(self, path: str | os.PathLike[str] | None = None, *, timeout: float | None = 60.0) -> None:
        self.path = paths.check(path) if path is not None else paths.default_path()
        self.timeout = timeout
        self._lock = threading.Lock()
        self._number = 0
        self._input = bytearray()
        self._socket: socket.socket | None = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._socket.settimeout(timeout)
            self._socket.connect(os.fspath(self.path))
        except (FileNotFoundError, ConnectionRefusedError):
            self.close()
            raise NoTargetError(f"no target at {self.path}") from None
        except OSError as error:
            self.close()
            raise ConfigError(f"control socket {self.path}: {error.strerror or error}") from None

    def call(self, method: str, /, **params: Any) -> Any:
        """Calls any method by its name on the socket; returns its result."""
        with self._lock:
            connected = self._socket
            if connected is None:
                raise ConfigError(f"the connection to {self.path} is closed; make another client")
            self._number += 1
            request = {"jsonrpc": "2.0", "id": self._number, "method": method, "params": params}
            try:
                line = json.dumps(request, default=str, ensure_ascii=False).encode() + b"\n"
            except UnicodeEncodeError:
                raise ConfigError(f"{method}: a name is no UTF-8 text, which JSON needs; rename it") from None
            try:
                answer = self._exchange(connected, line)
            except BaseException:
                # Half a message was sent, or an answer is still to come: nobody could tell it from the next.
                self.close()
                raise
        return self._result(method, answer)

    def _exchange(self, connected: socket.socket, line: bytes) -> Any:
        deadline = None if self.timeout is None else time.monotonic() + self.timeout
        try:
            # A target that refuses says why before it closes.
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                _allow(connected, deadline)
                connected.sendall(line)
            return self._answer(connected, deadline)
        except TimeoutError:
            raise DeviceError(
                f"no answer from the target at {self.path} within {self.timeout:g} s; "
                "it may still do what it was asked"
            ) from None
        except OSError as error:
            raise DeviceError(f"control socket {self.path}: {error.strerror or error}") from None

    def _answer(self, connected: socket.socket, deadline: float | None) -> Any:
        while b"\n" not in self._input:
            _allow(connected, deadline)
            try:
                data = connected.recv(1 << 16)
            except ConnectionResetError:
                data = b""
            if not data:
                raise DeviceError(f"the target at {self.path} has closed the connection")
            self._input += data
            if len(self._input) > _LARGEST:
                raise DeviceError(f"the answer of the target at {self.path} is too long")
        line, _, self._input = self._input.partition(b"\n")
        try:
            return json.loads(line)
        except (ValueError, RecursionError):
            raise self._stranger() from None

    def _result(self, method: str, answer: Any) -> Any:
        if not isinstance(answer, dict) or ("result" in answer) == ("error" in answer):
            raise self._stranger()
        if answer.get("id") != self._number and answer.get("id") is not None:
            raise self._stranger()
        if "result" in answer:
            return answer["result"]
        error = answer["error"]
        if not isinstance(error, dict) or not isinstance(error.get("message"), str):
            raise self._stranger()
        data = error.get("data")
        kind = data.get("kind") if isinstance(data, dict) else None
        text = one_line(error["message"])
        if kind == "method":
            text = (
                f"the target at {self.path} has no method {method!r}; 'nvmet-vdev ctl methods' lists its own"
            )
        raise (DeviceError if kind in _FAILED else ConfigError)(text)

    def _stranger(self) -> ConfigError:
        self.close()
        return ConfigError(
            f"what listens at {self.path} is no control socket of nvmet-vdev; use another path"
        )

    def close(self) -> None:
        """Ends the connection. A second call does nothing."""
        connected, self._socket = self._socket, None
        if connected is not None:
            connected.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> None:
        self.close()


ControlClient = Client
"""What it is called as `nvmet_vdev.ControlClient`, beside the other things of the package."""


def _allow(connected: socket.socket, deadline: float | None) -> None:
    """Gives the next step what is left of the time."""
    if deadline is not None:
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        connected.settimeout(left)
