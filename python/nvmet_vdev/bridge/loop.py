"""`async def` methods: an event loop of the backend's own, with a task for each request."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import importlib
import inspect
import sys
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from nvmet_vdev.bridge.calls import (
    COMPARE,
    DISCARD,
    FLUSH,
    FUA,
    MAY_DISCARD,
    METHOD_OF,
    READ,
    WRITE,
    Calls,
    MistakeError,
    zero_pieces,
)
from nvmet_vdev.bridge.complaints import leave_fork
from nvmet_vdev.bridge.threads import KEPT

if TYPE_CHECKING:
    from nvmet_vdev.bridge.service import Run


def new_loop() -> asyncio.AbstractEventLoop:
    """uvloop's where it is installed, else asyncio's own."""
    factory: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop
    with contextlib.suppress(ImportError):
        factory = importlib.import_module("uvloop").new_event_loop
    return factory()


def _start(loop: asyncio.AbstractEventLoop, serve: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    if sys.version_info >= (3, 12):
        # What does not wait is done without a turn of the loop. A task factory would do that to the tasks of
        # the backend as well, which would differ then from one version of Python to another.
        return asyncio.Task(serve, loop=loop, eager_start=True)
    return loop.create_task(serve)


def main(run: Run) -> None:
    """Opens the backend, carries requests out until there are no more, and closes it."""
    with asyncio.Runner(loop_factory=new_loop) as runner:
        loop = runner.get_loop()
        serving = loop.create_task(_Serving(run).main())
        while not serving.done():
            try:
                loop.run_until_complete(serving)
            except BaseException as error:
                # A task of the backend's own ends the loop with SystemExit or KeyboardInterrupt; it goes on.
                if serving.done():
                    raise
                run.complaints.raised("read", error)


async def _maybe(value: Any) -> Any:
    return await value if inspect.isawaitable(value) else value


class _Serving:
    def __init__(self, run: Run) -> None:
        self._run = run
        self._calls: AsyncCalls
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._limit = 0
        self._closed = asyncio.Event()

    async def main(self) -> None:
        run = self._run
        try:
            if (opening := getattr(run.backend, "open", None)) is not None:
                await _maybe(opening())
        except BaseException as error:
            run.leave_fork("open")
            run.refused("open", error)
            return
        run.leave_fork("open")
        if run.start():
            self._calls, self._limit = AsyncCalls(run.calls), run.traits.max_inflight
            loop = asyncio.get_running_loop()
            ready = run.channel.fileno()
            loop.add_reader(ready, self._come)
            self._come()
            await self._closed.wait()
            # `close` is called when nothing runs any more. Until then what is given up is cancelled.
            while self._tasks:
                await asyncio.wait(set(self._tasks.values()))
            loop.remove_reader(ready)
        failure = None
        try:
            if (closing := getattr(run.backend, "close", None)) is not None:
                await _maybe(closing())
        except BaseException as error:
            failure = error
        run.closed(failure)

    def _come(self) -> None:
        """Starts what has come, as far as there may be more at once."""
        channel = self._run.channel
        channel.drain()
        # Without room nothing is taken, but what was given up makes some.
        requests = channel.take(max(0, self._limit - len(self._tasks)), 0.0)
        for token in channel.given_up():
            if (given_up := self._tasks.get(token)) is not None:
                given_up.cancel()
                given_up.add_done_callback(functools.partial(self._cancelled, token))
        if requests is None:
            self._closed.set()
        else:
            loop = asyncio.get_running_loop()
            for token, kind, offset, what, flags in requests:
                task = _start(loop, self._serve(token, kind, offset, what, flags))
                # One that needed no wait has ended already.
                if not task.done():
                    self._tasks[token] = task
        self._run.do_jobs()

    def _cancelled(self, token: int, task: asyncio.Task[None]) -> None:
        # One that was cancelled before its first step has ended nothing.
        if self._tasks.get(token) is task:
            del self._tasks[token]
            self._run.channel.fail(token, asyncio.CancelledError())
            self._come()

    async def _serve(self, token: int, kind: int, offset: int, what: Any, flags: int) -> None:
        channel, complaints = self._run.channel, self._run.complaints
        method = METHOD_OF[kind]
        try:
            equal = await self._calls.one(kind, offset, what, flags)
        except BaseException as error:
            if not channel.is_own_process():
                leave_fork(self._run.backend, method)
            if not isinstance(error, MistakeError | asyncio.CancelledError):
                complaints.raised(method, error)
            self._tasks.pop(token, None)
            # Whether the buffer was kept nobody knows: the exception has the method's variables.
            channel.fail(token, error)
        else:
            if not channel.is_own_process():
                leave_fork(self._run.backend, method)
            # Before the token is free for another request.
            self._tasks.pop(token, None)
            if channel.done(token) if equal else channel.differs(token):
                complaints.misbehaved(method, KEPT)
        if channel.waiting():
            asyncio.get_running_loop().call_soon(self._come)


class AsyncCalls:
    """As `Calls`, for methods of which some are `async def`."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._methods = calls.methods

    async def one(self, kind: int, offset: int, what: Any, flags: int) -> bool:
        """Carries a request out; False for a comparison that found a difference."""
        fua = bool(flags & FUA)
        if kind == READ:
            await self._call("read", what, offset, what)
        elif kind == WRITE:
            await self._write(offset, what, fua)
        elif kind == FLUSH:
            await self._call("flush", None)
        elif kind == DISCARD:
            await self._call("discard", None, offset, what)
        elif kind == COMPARE:
            return await self._compare(offset, what)
        else:
            await self._write_zeroes(offset, what, bool(flags & MAY_DISCARD), fua)
        return True

    async def _write(self, offset: int, buf: Any, fua: bool) -> None:
        if self._calls.write_takes_fua:
            await self._call("write", buf, offset, buf, fua)
            return
        await self._call("write", buf, offset, buf)
        if fua and self._methods["flush"] is not None:
            await self._call("flush", None)

    async def _write_zeroes(self, offset: int, length: int, may_discard: bool, fua: bool) -> None:
        options = self._calls.zero_options(may_discard, fua)
        if self._methods["write_zeroes"] is None:
            for at, view in zero_pieces(offset, length):
                await self._write(at, view, fua)
            return
        await self._call("write_zeroes", None, offset, length, **options)
        if fua and "fua" not in options and self._methods["flush"] is not None:
            await self._call("flush", None)

    async def _compare(self, offset: int, buf: Any) -> bool:
        if (compare := self._methods["compare"]) is not None:
            return self._calls.verdict(await _maybe(compare(offset, buf)))
        stored = bytearray(len(buf))
        with memoryview(stored) as view:
            await self._call("read", view, offset, view)
        return bool(stored == buf)

    async def _call(self, name: str, buf: memoryview | None, *args: Any, **options: bool) -> None:
        method = self._methods[name]
        if method is None:
            raise NotImplementedError(name)
        value = method(*args, **options)
        if inspect.isawaitable(value):
            value = await value
        if value is not None:
            self._calls.returned(name, value, buf)
