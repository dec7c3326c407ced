"""Whether a backend in Python keeps its side of the contract, said in the words of the one who wrote it.

The conformance suite of the target sees a backend from the side of the guest; what it finds wrong is a wrong
byte. These checks call the methods themselves, before the suite, and name the method and the argument.

May know: the methods of a backend. Must not know: the target.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import inspect
import queue
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from nvmet_vdev.bridge.calls import Calls
from nvmet_vdev.bridge.complaints import Complaints
from nvmet_vdev.errors import one_line
from nvmet_vdev.loading import explain

__all__ = ["CHECKS", "ESSENTIAL", "PATIENCE_SECONDS", "Check", "Subject", "closes", "opens"]

PATIENCE_SECONDS = 60.0
"""How long one check may take; then the method that it calls hangs."""
_POISON = (0xA5, 0x5A)
_LONG = 64 << 10


@dataclass(frozen=True)
class Check:
    """One check, as in the report of the conformance suite."""

    name: str
    """What holds if it passes."""
    outcome: Literal["passed", "skipped", "failed"]
    why: str | None = None


class Fault(Exception):  # noqa: N818 - what was found, no error of ours
    """What a backend does wrong."""


class Skip(Exception):  # noqa: N818
    """Why a check does not apply."""


class Subject:
    """A backend under test. It is called in one thread, which may hang without hanging the one who asks."""

    def __init__(self, backend: Any, *, read_only: bool = False, patience: float = PATIENCE_SECONDS) -> None:
        self.backend = backend
        self.hangs = False
        self._forced = read_only
        self._patience = patience
        self._work: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._run, daemon=True, name="nvmet-check").start()

    @property
    def read_only(self) -> bool:
        """Whether nothing is written: the operator said so, or the backend does, or it has no way to."""
        writes = self.has("write") or self.has("submit")
        return self._forced or bool(getattr(self.backend, "read_only", False)) or not writes

    @property
    def block(self) -> int:
        """Its block size in bytes."""
        return int(getattr(self.backend, "block_size", 512))

    def has(self, name: str) -> bool:
        """Whether an optional method is there: one that is None is not."""
        return getattr(self.backend, name, None) is not None

    @property
    def calls(self) -> Calls:
        """What its methods take; some are there only when `open` has been called."""
        return Calls(self.backend, Complaints(self.backend))

    def size(self) -> Any:
        """What it says of its size, be it an attribute or a method."""
        size = getattr(self.backend, "size", None)
        return size() if callable(size) else size

    def call(self, name: str, *arguments: Any, **keywords: Any) -> Any:
        """Calls a method; Fault says how it was called and what it raised."""
        method = getattr(self.backend, name)
        try:
            if any(inspect.iscoroutinefunction(one) for one in self.calls.methods.values()):
                return self._loop.run_until_complete(_awaited(method, arguments, keywords))
            return method(*arguments, **keywords)
        except BaseException as error:
            raise Fault(f"{_shown(name, arguments, keywords)}: {explain(error)}") from error

    def check(self, name: str, function: Callable[[Subject], None]) -> Check:
        """Carries out one check."""
        if self.hangs:
            return Check(name, "skipped", "a method has not returned")
        done: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()

        def work() -> None:
            try:
                function(self)
            except BaseException as error:
                done.put(error)
            else:
                done.put(None)

        self._work.put(work)
        try:
            error = done.get(timeout=self._patience)
        except queue.Empty:
            self.hangs = True
            return Check(name, "failed", f"it did not return within {self._patience:g} s")
        if error is None:
            return Check(name, "passed")
        if isinstance(error, Fault | Skip):
            return Check(name, "failed" if isinstance(error, Fault) else "skipped", one_line(str(error)))
        return Check(name, "failed", one_line(explain(error)))

    def finish(self) -> None:
        """Lets the thread go, if it comes back."""
        self._work.put(None)

    def _run(self) -> None:
        while (work := self._work.get()) is not None:
            work()
        self._loop.close()

    def ranges(self) -> list[tuple[int, int]]:
        """Offsets and lengths worth a look: the first block, several, the last."""
        size, block = self.size(), self.block
        several = min(size, max(_LONG, 2 * block))
        return list(
            dict.fromkeys([(0, block), (0, several), (size - several, several), (size - block, block)])
        )

    def read(self, offset: int, length: int, fill: int = 0) -> bytes:
        """What a read of the range finds, in a buffer that was full of `fill`."""
        data = bytearray([fill]) * length
        returned = _lend("read", data, lambda view: self.call("read", offset, view))
        if returned is not None and returned != length:
            hint = "fill buf instead: buf[:] = data" if isinstance(returned, bytes) else "return nothing"
            call = f"read({offset}, buf of {length} bytes)"
            raise Fault(f"{call} returned {type(returned).__name__}; {hint}")
        return bytes(data)

    def write(self, offset: int, content: bytes, fua: bool = False) -> None:
        """Writes `content` from a buffer that may only be read, as the target does."""
        options = [fua] if self.calls.write_takes_fua else []
        _lend("write", bytearray(content), lambda view: self.call("write", offset, view, *options))

    def zero(self, offset: int, length: int, *, may_discard: bool, fua: bool) -> None:
        """Calls `write_zeroes` with those options that it takes."""
        self.call("write_zeroes", offset, length, **self.calls.zero_options(may_discard, fua))


async def _awaited(method: Callable[..., Any], arguments: Sequence[Any], keywords: Mapping[str, Any]) -> Any:
    """Called where an event loop runs, as the target does with a backend that has `async def` methods."""
    found = method(*arguments, **keywords)
    return await found if inspect.isawaitable(found) else found


def _lend(name: str, data: bytearray, use: Callable[[memoryview], Any]) -> Any:
    """Calls `use` with a view of `data`, writable for read alone; fails if somebody still has it then."""
    view = memoryview(data) if name == "read" else memoryview(data).toreadonly()
    kept, parts = weakref.ref(view), True
    returned = use(view)
    gc.collect()
    with contextlib.suppress(BufferError):
        view.release()
        # Slices keep the memory, not the view; memory that is in use cannot grow.
        data.append(0)
        data.pop()
        parts = False
    del view
    if parts or kept() is not None:
        raise Fault(f"{name} kept buf, or a part of it, beyond its return; copy what must stay: bytes(buf)")
    return returned


def opens(subject: Subject) -> None:
    if subject.has("open"):
        subject.call("open")


def has_blocks(subject: Subject) -> None:
    if subject.block not in (512, 4096):
        raise Fault(f"block_size is {subject.block}; use 512 or 4096")
    size = subject.size()
    if isinstance(size, bool) or not isinstance(size, int):
        raise Fault(f"size is {type(size).__name__} {size!r:.40}; it must be an int")
    if size <= 0 or size % subject.block:
        raise Fault(f"size is {size}; it must be a positive multiple of block_size, which is {subject.block}")


def fills_buffers(subject: Subject) -> None:
    _needs_methods(subject)
    for offset, length in subject.ranges():
        first, second = (subject.read(offset, length, fill) for fill in _POISON)
        if first == second:
            continue
        # What differs otherwise is data that changes, which is the backend's own affair.
        left = [at for at, pair in enumerate(zip(first, second, strict=True)) if pair == _POISON]
        if left:
            raise Fault(
                f"read({offset}, buf of {length} bytes) left {len(left)} of them as they were, "
                f"the first at {left[0]}; fill all of buf"
            )


def reads_what_it_wrote(subject: Subject) -> None:
    _needs_write(subject)
    for number, (offset, length) in enumerate(subject.ranges()):
        content = _pattern(length, number + 1)
        subject.write(offset, content, fua=bool(number % 2))
        _same(subject, "write", offset, content)


def keeps_neighbours(subject: Subject) -> None:
    _needs_write(subject)
    before, middle, after = _three(subject)
    subject.write(subject.block, middle)
    _same(subject, "write", 0, before + middle + after)


def keeps_data_through_flush(subject: Subject) -> None:
    _needs(subject, "flush")
    _needs_write(subject)
    content = _pattern(subject.block, 7)
    subject.write(0, content)
    subject.call("flush")
    _same(subject, "flush", 0, content)


def discards(subject: Subject) -> None:
    _needs(subject, "discard")
    before, _, after = _three(subject)
    block = subject.block
    subject.call("discard", block, block)
    _same(subject, "discard", 0, before)
    _same(subject, "discard", 2 * block, after)


def zeroes(subject: Subject) -> None:
    _needs(subject, "write_zeroes")
    block = subject.block
    for may_discard in (False, True):
        before, _, after = _three(subject)
        subject.zero(block, block, may_discard=may_discard, fua=may_discard)
        _same(subject, "write_zeroes", 0, before + bytes(block) + after)


def compares(subject: Subject) -> None:
    _needs(subject, "compare")
    _needs_methods(subject)
    content = subject.read(0, subject.block)
    for what, wanted in ((content, True), (bytes([content[0] ^ 0xFF]) + content[1:], False)):
        found = _lend("compare", bytearray(what), lambda view: subject.call("compare", 0, view))
        if found is not wanted:
            kind = "equal" if wanted else "different"
            raise Fault(f"compare returned {found!r:.40} for {kind} data; return {wanted}")


def keeps_its_size(subject: Subject) -> None:
    first = subject.size()
    if not subject.has("submit"):
        subject.read(0, subject.block)
    if (second := subject.size()) != first or type(second) is not type(first):
        raise Fault(f"size was {first!r:.40} and then {second!r:.40}; call notify_resize when it changes")


def closes(subject: Subject) -> None:
    if subject.has("close"):
        subject.call("close")


def _needs_methods(subject: Subject) -> None:
    if subject.has("submit"):
        raise Skip("it takes batches (submit)")


def _needs(subject: Subject, name: str) -> None:
    if name not in ("flush", "compare"):
        _needs_write(subject)
    _needs_methods(subject)
    if not subject.has(name):
        raise Skip(f"it has no {name}")


def _needs_write(subject: Subject) -> None:
    if subject.read_only:
        raise Skip("it is read-only")
    _needs_methods(subject)


def _three(subject: Subject) -> tuple[bytes, bytes, bytes]:
    """The content of the first three blocks, written; and another one for the second."""
    block = subject.block
    if subject.size() < 3 * block:
        raise Skip("it has less than three blocks")
    before, middle, after = (_pattern(block, seed) for seed in (3, 4, 5))
    subject.write(0, before + _pattern(block, 6) + after)
    return before, middle, after


def _pattern(length: int, seed: int) -> bytes:
    """Bytes without a zero among them, other ones for each seed, that do not repeat with a block."""
    one = bytes(1 + (at * 7 + seed * 31) % 251 for at in range(1021))
    return (one * (length // len(one) + 1))[:length]


def _same(subject: Subject, name: str, offset: int, wanted: bytes) -> None:
    found = subject.read(offset, len(wanted))
    for at, (have, want) in enumerate(zip(found, wanted, strict=True)):
        if have != want:
            raise Fault(f"after {name}, byte {offset + at} reads as {have:#04x}; it should be {want:#04x}")


def _shown(name: str, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> str:
    """A call as its author would write it, with a word for the buffer."""
    parts = [f"buf of {len(one)} bytes" if isinstance(one, memoryview) else repr(one) for one in arguments]
    return f"{name}({', '.join([*parts, *(f'{key}={value!r}' for key, value in keywords.items())])})"


CHECKS: tuple[tuple[str, Callable[[Subject], None]], ...] = (
    ("its size is whole blocks", has_blocks),
    ("read fills all of the buffer, and keeps none of it", fills_buffers),
    ("its size stays", keeps_its_size),
    ("what was written is read back, from buffers that may only be read", reads_what_it_wrote),
    ("write leaves the neighbours alone", keeps_neighbours),
    ("flush returns, and keeps the data", keeps_data_through_flush),
    ("discard leaves the neighbours alone", discards),
    ("write_zeroes leaves zeroes, and nothing else", zeroes),
    ("compare tells equal from different", compares),
)
"""What is checked between `opens` and `closes`."""
ESSENTIAL = (has_blocks, fills_buffers)
"""Without these nothing else can be told."""
