"""A backend in service: from `open` to `close`, and everything between on threads of its own."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Protocol

from nvmet_vdev import _nvmet
from nvmet_vdev.backend import NvmeError
from nvmet_vdev.bridge import batches, loop, threads
from nvmet_vdev.bridge.calls import Calls, serving
from nvmet_vdev.bridge.complaints import Complaints
from nvmet_vdev.bridge.traits import Traits, check_size, examine, where

log = logging.getLogger("nvmet_vdev.backend")

#: Seconds that a call of the operator waits for a backend that is busy.
PATIENCE = 30.0


class Runner(Protocol):
    """Who makes the calls, on the backend's own thread, until the channel has closed."""

    def __call__(self, run: Run) -> None: ...


_RUNNERS: dict[str, Runner] = {"plain": threads.main, "async": loop.main, "batch": batches.main}


class Run:
    """What the backend's threads share. It does not know the storage, whose end is their end."""

    def __init__(self, backend: Any, name: str, read_only: bool) -> None:
        self.backend = backend
        self.name = name
        self._asked_read_only = read_only
        self.complaints = Complaints(backend)
        self._examine()
        self.jobs: deque[Callable[[], None]] = deque()
        self.opened: Future[tuple[_nvmet.Channel, _nvmet.Storage]] = Future()
        self.channel: _nvmet.Channel
        self.thread = threading.Thread(target=self._main, name=f"backend-{name}"[:15], daemon=True)

    def _examine(self) -> None:
        """What the backend has and wants; `open` may change it, for what it has found out."""
        self.traits: Traits = examine(self.backend)
        self.read_only = self._asked_read_only or self.traits.read_only
        self.calls = Calls(self.backend, self.complaints)

    def _main(self) -> None:
        _RUNNERS[self.traits.form](self)

    def size(self) -> int:
        """The backend's size now, in bytes; ConfigError if it is none."""
        size = self.backend.size
        if callable(size):
            size = size()
        return check_size(self.backend, size, self.traits.block_size)

    def start(self) -> bool:
        """Takes the backend, which is open, into service. False if it cannot be; `opened` has the reason."""
        try:
            self._announce()
        except BaseException as error:
            self.opened.set_exception(
                error if isinstance(error, _nvmet.ConfigError) else self._refusal(error)
            )
            return False
        return True

    def _announce(self) -> None:
        self._examine()
        size = self.size()
        traits = self.traits
        channel, storage = _nvmet.Channel.open(
            self.name,
            size=size,
            block_size=traits.block_size,
            read_only=self.read_only,
            flush=traits.flush,
            discard=traits.discard,
            timeout=traits.timeout,
        )
        self.channel = channel
        serving[id(self.backend)] = self.calls
        self.opened.set_result((channel, storage))

    def _refusal(self, error: BaseException) -> _nvmet.ConfigError:
        return _nvmet.ConfigError(f"{self.name}: {where(self.backend)}: {_words(error)}")

    def refused(self, method: str, error: BaseException) -> None:
        """`method` has raised before the backend was in service, which refuses the namespace."""
        self.opened.set_exception(
            error
            if isinstance(error, _nvmet.ConfigError)
            else _nvmet.ConfigError(f"{self.name}: {where(self.backend, method)}: {_words(error)}")
        )

    def closed(self, error: BaseException | None) -> None:
        """`close` has been called, if there is one."""
        serving.pop(id(self.backend), None)
        if error is not None:
            log.error("%s raised %s", where(self.backend, "close"), _words(error))

    def do_jobs(self) -> None:
        """Does what operators ask for, on the backend's own thread."""
        while self.jobs:
            with contextlib.suppress(IndexError):
                self.jobs.popleft()()


class Service:
    """A backend in Python that serves requests.

    It ends when `storage` is not used any more, by a namespace or by Python, or with `close`.
    """

    def __init__(self, run: Run, storage: _nvmet.Storage) -> None:
        self._run = run
        self.storage = storage
        self._pid = os.getpid()
        #: Called, from any thread, when the backend says that its size has changed.
        self.on_resize: Callable[[], None] | None = None
        # An object without `__dict__` cannot tell; Namespace.resize() asks it.
        with contextlib.suppress(AttributeError):
            run.backend._on_resize = self._resized

    @property
    def backend(self) -> object:
        """The object that the service calls."""
        return self._run.backend

    @property
    def failures(self) -> dict[str, int]:
        """What went wrong so far, and how often; other errors than OSError and NvmeError by place."""
        return dict(self._run.complaints.counts)

    def refresh_size(self) -> int:
        """Asks the backend for its size, in bytes, and takes it over for queues that are opened from now on.

        Raises ConfigError for a size that is none; the old one stays then.
        """
        size: int = self._call(self._run.size, "size")
        self._run.channel.set_size(size)
        return size

    def resize(self, size: int) -> int:
        """Asks the backend for another size, in bytes; returns the one that it has then.

        Raises ConfigError if it has no `resize`, or refuses.
        """
        resize = getattr(self._run.backend, "resize", None)
        if resize is None:
            raise _nvmet.ConfigError(
                f"{self._run.name}: {where(self._run.backend)} has no resize(size): its size is fixed"
            )
        check_size(self._run.backend, size, self._run.traits.block_size)
        self._call(lambda: resize(size), "resize")
        return self.refresh_size()

    def close(self, timeout: float = 10.0) -> bool:
        """Ends the service and waits up to `timeout` seconds for the backend's `close`: False if in vain."""
        if os.getpid() != self._pid:
            return True
        self._run.channel.close()
        if threading.current_thread() is not self._run.thread:
            self._run.thread.join(timeout)
        return not self._run.thread.is_alive()

    def _resized(self) -> None:
        if (tell := self.on_resize) is not None:
            tell()

    def _call(self, job: Callable[[], Any], method: str) -> Any:
        """Runs `job` on the backend's thread."""
        run = self._run
        try:
            if threading.current_thread() is run.thread:
                return job()
            future: Future[Any] = Future()
            run.jobs.append(lambda: _settle(future, job))
            run.channel.poke()
            return future.result(PATIENCE)
        except _nvmet.ConfigError:
            raise
        except TimeoutError as error:
            raise _nvmet.ConfigError(
                f"{run.name}: {where(run.backend, method)}: the backend was busy for {PATIENCE:g} s"
            ) from error
        except Exception as error:
            raise _nvmet.ConfigError(f"{run.name}: {where(run.backend, method)}: {_words(error)}") from error


def _settle(future: Future[Any], job: Callable[[], Any]) -> None:
    try:
        future.set_result(job())
    except BaseException as error:
        future.set_exception(error)


def _words(error: BaseException) -> str:
    """An exception in one line."""
    text = " ".join(str(error).split())
    if isinstance(error, OSError | NvmeError | ValueError) and text:
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def serve(backend: object, *, name: str | None = None, read_only: bool = False) -> Service:
    """Opens `backend` and serves it, on threads of its own; `name` is what it is called in messages.

    Raises ConfigError, one line, if it lacks a method, if `open` raises, or if the size is none.
    """
    run = Run(backend, name if name is not None else type(backend).__qualname__, read_only)
    run.thread.start()
    # Interruptible: `open` may take its time.
    _, storage = run.opened.result()
    return Service(run, storage)


def open_storage(backend: object, *, name: str | None = None, read_only: bool = False) -> _nvmet.Storage:
    """As `serve`, for those who need the storage alone: the service ends with it."""
    return serve(backend, name=name, read_only=read_only).storage
