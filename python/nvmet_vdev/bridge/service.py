"""A backend in service: from `open` to `close`, and everything between on threads of its own."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from typing import Any, Protocol

from nvmet_vdev import _nvmet, lifetime
from nvmet_vdev.backend import NvmeError
from nvmet_vdev.bridge import batches, loop, threads
from nvmet_vdev.bridge.calls import Calls, serving
from nvmet_vdev.bridge.complaints import Complaints, leave_fork
from nvmet_vdev.bridge.traits import Traits, check_size, examine, where

log = logging.getLogger("nvmet_vdev.backend")

#: Seconds that a call of the operator waits for a backend that is busy.
PATIENCE = 30.0
#: Seconds that the end of the process waits for backends to close.
LAST_PATIENCE = 2.0


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
        self.pid = os.getpid()
        self.complaints = Complaints(backend)
        self._examine()
        self.jobs: deque[tuple[Future[Any], Callable[[], Any]]] = deque()
        #: No more jobs are done.
        self.over = False
        self.opened: Future[None] = Future()
        #: For `serve`, which takes it away.
        self.storage: _nvmet.Storage | None = None
        self.channel: _nvmet.Channel
        self.thread = threading.Thread(target=self._main, name=f"backend-{name}"[:15], daemon=True)

    def _examine(self) -> None:
        """What the backend has and wants; `open` may change it, for what it has found out."""
        self.traits: Traits = examine(self.backend)
        self.read_only = self._asked_read_only or self.traits.read_only
        self.calls = Calls(self.backend, self.complaints)

    def begin(self) -> None:
        """Starts the backend's thread. Raises ConfigError for an object that is in service already."""
        if serving.setdefault(id(self.backend), self.calls) is not self.calls:
            raise _nvmet.ConfigError(
                f"{self.name}: {where(self.backend)}: this object is in service already; "
                "make another one, or use its storage again"
            )
        try:
            self.thread.start()
        except BaseException:
            del serving[id(self.backend)]
            raise
        _running.add(self)

    def _main(self) -> None:
        try:
            _RUNNERS[self.traits.form](self)
        except BaseException as error:
            # What methods raise is caught where they are called.
            log.exception("%s: %s: the backend's thread has ended", self.name, where(self.backend))
            self.end()
            if not self.opened.done():
                self._refuse(self._refusal(error))
        finally:
            serving.pop(id(self.backend), None)

    def end(self) -> None:
        """Has the storage answer that it is gone, and the thread end."""
        if (channel := getattr(self, "channel", None)) is not None:
            channel.close()

    def open(self) -> bool:
        """Calls a plain `open`, if there is one. False if it raised; `opened` has the reason."""
        try:
            if (opening := getattr(self.backend, "open", None)) is not None:
                opening()
        except BaseException as error:
            self.leave_fork("open")
            self.refused("open", error)
            return False
        self.leave_fork("open")
        return True

    def close(self) -> None:
        """Calls a plain `close`, if there is one."""
        failure = None
        try:
            if (closing := getattr(self.backend, "close", None)) is not None:
                closing()
        except BaseException as error:
            failure = error
        self.closed(failure)

    def leave_fork(self, method: str) -> None:
        """Does not return in a process that `method` has forked."""
        if os.getpid() != self.pid:
            leave_fork(self.backend, method)

    def size(self) -> int:
        """The backend's size now, in bytes; ConfigError if it is none."""
        size = self.backend.size
        if callable(size):
            size = size()
        return check_size(self.backend, size, self.traits.block_size)

    def start(self) -> bool:
        """Takes the backend, which is open, into service. False if it cannot be; `opened` has the reason."""
        try:
            return self._announce()
        except BaseException as error:
            self.leave_fork("size")
            self._refuse(error if isinstance(error, _nvmet.ConfigError) else self._refusal(error))
            return False

    def _announce(self) -> bool:
        self._examine()
        serving[id(self.backend)] = self.calls
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
        self.leave_fork("size")
        self.channel = channel
        if not self.opened.set_running_or_notify_cancel():
            # Nobody waits for it any more.
            return False
        self.storage = storage
        self.opened.set_result(None)
        return True

    def abandon(self) -> None:
        """Whoever waited for the backend to open does not any more."""
        if not self.opened.cancel():
            # At most a moment: a result is about to be set.
            self.opened.exception()
        self.storage = None

    def _refuse(self, error: _nvmet.ConfigError) -> None:
        if self.opened.set_running_or_notify_cancel():
            self.opened.set_exception(error)

    def _refusal(self, error: BaseException) -> _nvmet.ConfigError:
        return _nvmet.ConfigError(f"{self.name}: {where(self.backend)}: {_words(error)}")

    def refused(self, method: str, error: BaseException) -> None:
        """`method` has raised before the backend was in service, which refuses the namespace."""
        self._refuse(
            error
            if isinstance(error, _nvmet.ConfigError)
            else _nvmet.ConfigError(f"{self.name}: {where(self.backend, method)}: {_words(error)}")
        )

    def closed(self, error: BaseException | None) -> None:
        """`close` has been called, if there is one."""
        self.leave_fork("close")
        with contextlib.suppress(AttributeError):
            self.backend._on_resize = None
        self.over = True
        while self.jobs:
            with contextlib.suppress(IndexError):
                self.jobs.popleft()[0].cancel()
        if error is not None:
            log.error("%s raised %s", where(self.backend, "close"), _words(error))

    def do_jobs(self) -> None:
        """Does what operators ask for, on the backend's own thread."""
        while self.jobs:
            try:
                future, job = self.jobs.popleft()
            except IndexError:
                # Another thread was faster.
                return
            if future.set_running_or_notify_cancel():
                try:
                    result = job()
                except BaseException as error:
                    self.leave_fork("resize")
                    future.set_exception(error)
                else:
                    self.leave_fork("resize")
                    future.set_result(result)


#: Those whose backends have not been closed yet, maybe.
_running: weakref.WeakSet[Run] = weakref.WeakSet()


@lifetime.afterwards
def _close_all() -> None:
    """The end of the process: backends are closed, those that answer."""
    runs = [run for run in _running if run.pid == os.getpid() and run.thread.is_alive()]
    for run in runs:
        run.end()
    deadline = time.monotonic() + LAST_PATIENCE
    for run in runs:
        run.thread.join(max(0.0, deadline - time.monotonic()))


class Service:
    """A backend in Python that serves requests.

    It ends when `storage` is not used any more, by a namespace or by Python, or with `close`.
    """

    def __init__(self, run: Run, storage: _nvmet.Storage) -> None:
        self._run = run
        self.storage = storage
        #: Called, from any thread, when the backend says that its size has changed.
        self.on_resize: Callable[[], None] | None = None
        # An object without `__dict__` cannot tell; Namespace.resize() asks it.
        # The backend outlives the service until its storage is gone, and must not keep that.
        service = weakref.ref(self)
        with contextlib.suppress(AttributeError):
            run.backend._on_resize = lambda: _resized(service())

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
        before = self.storage.size
        # First of all: what has not come to the backend yet is not to come to one that is smaller.
        self._run.channel.set_size(min(size, before))
        try:
            self._call(lambda: resize(size), "resize")
        except BaseException:
            self._run.channel.set_size(before)
            raise
        return self.refresh_size()

    def close(self, timeout: float = 10.0) -> bool:
        """Ends the service and waits up to `timeout` seconds for the backend's `close`: False if in vain."""
        if os.getpid() != self._run.pid:
            return True
        self._run.channel.close()
        if threading.current_thread() is not self._run.thread:
            self._run.thread.join(timeout)
        return not self._run.thread.is_alive()

    def _call(self, job: Callable[[], Any], method: str) -> Any:
        """Runs `job` on the backend's thread."""
        run = self._run
        place = f"{run.name}: {where(run.backend, method)}"
        future: Future[Any] = Future()
        try:
            if threading.current_thread() is run.thread:
                return job()
            run.jobs.append((future, job))
            if run.over:
                future.cancel()
            run.channel.poke()
            return future.result(PATIENCE)
        except _nvmet.ConfigError:
            raise
        except CancelledError as error:
            raise _nvmet.ConfigError(f"{place}: the backend is closed") from error
        except Exception as error:
            # That of `result`, or one that the method has raised.
            if future.cancel() or (isinstance(error, TimeoutError) and future.running()):
                raise _nvmet.ConfigError(f"{place}: the backend was busy for {PATIENCE:g} s") from error
            raise _nvmet.ConfigError(f"{place}: {_words(error)}") from error
        finally:
            # Who was interrupted wants it no more.
            future.cancel()


def _resized(service: Service | None) -> None:
    if service is not None and (tell := service.on_resize) is not None:
        tell()


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
    name = name if name is not None else type(backend).__qualname__
    try:
        run = Run(backend, name, read_only)
    except _nvmet.ConfigError:
        raise
    except Exception as error:
        # Attributes may be properties.
        raise _nvmet.ConfigError(f"{name}: {where(backend)}: {_words(error)}") from error
    run.begin()
    try:
        # Interruptible: `open` may take its time.
        run.opened.result()
        storage, run.storage = run.storage, None
        assert storage is not None  # noqa: S101 - for the type checker
        return Service(run, storage)
    except BaseException:
        run.abandon()
        raise


def open_storage(backend: object, *, name: str | None = None, read_only: bool = False) -> _nvmet.Storage:
    """As `serve`, for those who need the storage alone: the service ends with it."""
    return serve(backend, name=name, read_only=read_only).storage
