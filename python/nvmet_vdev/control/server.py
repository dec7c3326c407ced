"""The control socket's server: one thread for all clients, which never waits for one of them.

It reads lines, has them carried out (by itself if that takes no time, else by the threads of `runner`) and
sends the answers. A client has one message carried out at a time, in the order in which it sent them; changes
of all clients come one after the other. What a client does wrong costs that client.

May know connections, runners and the dispatcher; must not know methods or the manager.
"""

from __future__ import annotations

import collections
import contextlib
import functools
import logging
import os
import selectors
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from nvmet_vdev.control import listener, paths, protocol
from nvmet_vdev.control.connection import Connection
from nvmet_vdev.control.dispatch import Answer, Dispatcher
from nvmet_vdev.control.limits import Limits
from nvmet_vdev.control.listener import Listener, Peer
from nvmet_vdev.control.method import Lane
from nvmet_vdev.control.protocol import Fault
from nvmet_vdev.control.runner import Bell, Runner

log = logging.getLogger("nvmet_vdev.control")

_ACCEPT_PAUSE = 1.0
"""Seconds until the next try when the process has no descriptors left."""


class ControlServer:
    """Serves `manager` at `path`, from now until `close`; a context manager.

    `shutdown` is called, in the server's thread, when a client asks for the end and has its answer; it only
    has to tell somebody. `config_path` is the file that `config.save` writes by default.

    Raises ConfigError, one line, if the socket cannot be had.
    """

    def __init__(
        self,
        manager: object,
        path: str | os.PathLike[str] | None = None,
        *,
        shutdown: Callable[[], None] = lambda: None,
        config_path: Path | None = None,
        limits: Limits | None = None,
        peer: Callable[[socket.socket], Peer] = listener.peer,
    ) -> None:
        self.limits = limits if limits is not None else Limits()
        self._dispatcher = Dispatcher(manager, config_path=config_path, largest=self.limits.answer)
        self._shutdown = shutdown
        self._peer = peer
        self._runners = {Lane.QUERY: Runner("nvmet-rpc-get"), Lane.CHANGE: Runner("nvmet-rpc-set")}
        self._answers: collections.deque[tuple[Connection, Answer]] = collections.deque()
        self._connections: set[Connection] = set()
        self._stopping = False
        self._stop_at = 0.0
        self._accept_again: float | None = None
        self._bell = Bell()
        try:
            self._listener = Listener(path if path is not None else paths.default_path(make=True))
        except BaseException:
            self._bell.close()
            raise
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._bell, selectors.EVENT_READ)
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._run, name="nvmet-rpc", daemon=True)
        self._thread.start()

    @property
    def path(self) -> Path:
        """Where it listens."""
        return self._listener.path

    def close(self) -> None:
        """Ends it: the socket goes, what runs may end and be answered within a limit, nothing else begins.

        A second call does nothing. Returns in any case: what hangs is left behind.
        """
        self._stopping = True
        self._bell.ring()
        if threading.current_thread() is not self._thread:
            self._thread.join(2 * self.limits.stopping)
        for runner in self._runners.values():
            runner.close(0)

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

    # What follows runs in the server's thread.

    def _run(self) -> None:
        try:
            while not self._finished():
                for key, events in self._selector.select(self._timeout()):
                    if key.fileobj is self._bell:
                        self._bell.clear()
                    elif key.fileobj is self._listener:
                        self._accept()
                    elif not key.data.closed:
                        self._guarded(key.data, events)
                while self._answers:
                    connection, answer = self._answers.popleft()
                    connection.busy = False
                    self._guarded(connection, 0, answer)
                self._expire()
        finally:
            for connection in list(self._connections):
                self._drop(connection)
            self._listener.close()
            self._selector.close()
            self._bell.close()

    def _finished(self) -> bool:
        """Whether this is the end; begins it when it was asked for."""
        if not self._stopping:
            return False
        if not self._stop_at:
            self._stop_at = time.monotonic() + self.limits.stopping
            self._watch_listener(False)
            self._listener.close()
            for connection in list(self._connections):
                connection.forget()
                connection.ending = True
                self._guarded(connection, 0)
        return not self._connections or time.monotonic() >= self._stop_at

    def _timeout(self) -> float | None:
        times = [one.deadline for one in self._connections if one.waits is not None]
        times += [self._accept_again] if self._accept_again is not None else []
        times += [self._stop_at] if self._stop_at else []
        return max(min(times) - time.monotonic(), 0.0) if times else None

    def _accept(self) -> None:
        try:
            accepted = self._listener.accept()
        except OSError as error:
            # The connection stays where it is, so the socket stays readable.
            log.warning("control socket %s: cannot accept: %s", self.path, error.strerror)
            self._watch_listener(False)
            self._accept_again = time.monotonic() + _ACCEPT_PAUSE
            return
        if accepted is None:
            return
        if (fault := self._refusal(accepted)) is not None:
            with contextlib.suppress(OSError):
                accepted.send(protocol.refusal(None, fault) + b"\n")
            accepted.close()
            return
        connection = Connection(accepted, self.limits)
        self._connections.add(connection)
        self._selector.register(accepted, selectors.EVENT_READ, connection)

    def _refusal(self, accepted: socket.socket) -> Fault | None:
        try:
            peer = self._peer(accepted)
        except OSError as error:
            return Fault("access", f"who has connected cannot be told: {error.strerror}")
        if not peer.welcome:
            log.warning("control socket %s: refused user %d, process %d", self.path, peer.uid, peer.pid)
            return Fault("access", f"user {peer.uid} may not control this target; its own user and root may")
        if len(self._connections) >= self.limits.clients:
            return Fault(
                "limit", f"{self.limits.clients} clients are connected, no more are served; try again"
            )
        return None

    def _watch_listener(self, on: bool) -> None:
        watched = self._listener in self._selector.get_map()
        if on and not watched:
            self._selector.register(self._listener, selectors.EVENT_READ)
        elif watched and not on:
            self._selector.unregister(self._listener)

    def _guarded(self, connection: Connection, events: int, answer: Answer | None = None) -> None:
        """Serves one client; a mistake of ours costs no other."""
        try:
            if answer is not None:
                self._deliver(connection, answer)
            if not connection.closed:
                self._serve(connection, events)
        except Exception as error:
            log.error("a bug of nvmet-vdev: control client: %s: %s", type(error).__name__, error)
            self._drop(connection)

    def _serve(self, connection: Connection, events: int) -> None:
        if events & selectors.EVENT_READ:
            connection.receive()
        connection.flush()
        self._advance(connection)
        if connection.done:
            self._drop(connection)
            return
        connection.watch_time(time.monotonic())
        self._watch(connection)

    def _advance(self, connection: Connection) -> None:
        """Begins what may begin."""
        limits = self.limits
        while not connection.busy and not connection.ending and connection.unread < limits.unread:
            line = connection.take()
            if line is None:
                if connection.oversized:
                    self._end(connection, f"a message has more than {limits.message} bytes")
                return
            if len(line) > limits.message:
                self._end(connection, f"a message has more than {limits.message} bytes")
                return
            message = protocol.parse(line)
            lane = Dispatcher.lane(message)
            if lane is Lane.HERE:
                self._deliver(connection, self._dispatcher.run(message))
                continue
            connection.busy = True
            self._runners[lane].submit(functools.partial(self._carry_out, connection, message))

    def _carry_out(self, connection: Connection, message: protocol.Message) -> None:
        """In the thread of a runner."""
        self._answers.append((connection, self._dispatcher.run(message)))
        self._bell.ring()

    def _deliver(self, connection: Connection, answer: Answer) -> None:
        if answer.data is not None and not connection.closed:
            connection.answer(answer.data)
        if answer.shutdown:
            self._shutdown()

    def _end(self, connection: Connection, why: str) -> None:
        """Says why, and closes when that is said."""
        connection.answer(protocol.refusal(None, Fault("limit", f"{why}; the connection ends")) + b"\n")
        connection.forget()
        connection.ending = True

    def _watch(self, connection: Connection) -> None:
        wanted = connection.interest()
        key = self._selector.get_map().get(connection.socket)
        if key is None:
            if wanted:
                self._selector.register(connection.socket, wanted, connection)
        elif not wanted:
            self._selector.unregister(connection.socket)
        elif key.events != wanted:
            self._selector.modify(connection.socket, wanted, connection)

    def _expire(self) -> None:
        now = time.monotonic()
        if self._accept_again is not None and now >= self._accept_again and not self._stopping:
            self._accept_again = None
            self._watch_listener(True)
        for connection in list(self._connections):
            if connection.waits is None or now < connection.deadline:
                continue
            if connection.waits == "rest of message":
                self._end(connection, f"the rest of a message has not come within {self.limits.patience:g} s")
                self._guarded(connection, 0)
            else:
                log.info("control socket %s: a client does not take its answers", self.path)
                self._drop(connection)

    def _drop(self, connection: Connection) -> None:
        self._connections.discard(connection)
        if connection.closed:
            return
        if connection.socket in self._selector.get_map():
            self._selector.unregister(connection.socket)
        connection.close()
