"""What filters share: a backend that hands its commands to the one below it.

May know: the methods of a backend. Must not know: what any of them does.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from nvmet_vdev._nvmet import ConfigError
from nvmet_vdev.backend import Backend

__all__ = ["COMMANDS", "Command", "Filter", "Readable", "call_if_there", "size_of"]

COMMANDS = ("read", "write", "flush", "discard", "write_zeroes", "compare")
"""The methods that carry commands of the guest."""


class Readable(Protocol):
    """What every backend has, besides a `size`; see `nvmet_vdev.Backend` for the rest."""

    def read(self, offset: int, buf: memoryview, /) -> None: ...


def size_of(backend: object) -> int:
    """The size of any backend in bytes, be it an attribute, a property or a method."""
    size: Any = getattr(backend, "size", None)
    if callable(size):
        size = size()
    if isinstance(size, bool) or not isinstance(size, int) or size <= 0:
        raise ConfigError(f"{_name(backend)}: its size is {size!r}: it must be a positive number of bytes")
    return size


def call_if_there(backend: object, name: str) -> None:
    """Calls `open` or `close` of a backend that has it."""
    if (method := getattr(backend, name, None)) is not None:
        method()


@dataclass(frozen=True, slots=True)
class Command:
    """One call of a backend's method, as a value: `op` is the method's name, offsets and lengths are bytes.

    `buf` is what the data goes to (read) or comes from (write, compare). It is the guest's and lives as long
    as the call: what has to stay is copied.
    """

    op: str
    offset: int = 0
    length: int = 0
    buf: memoryview | None = None
    fua: bool = False
    may_discard: bool = False

    def carry_out(self, backend: Any) -> bool:
        """Calls that method of `backend`. What `compare` says, and True for everything else."""
        match self.op:
            case "read":
                backend.read(self.offset, self.buf)
            case "write":
                backend.write(self.offset, self.buf, self.fua)
            case "flush":
                backend.flush()
            case "discard":
                backend.discard(self.offset, self.length)
            case "write_zeroes":
                backend.write_zeroes(self.offset, self.length, may_discard=self.may_discard, fua=self.fua)
            case "compare":
                return bool(backend.compare(self.offset, self.buf))
        return True


class Filter(Backend):
    """A backend on top of another one; this one passes everything on.

    A subclass overrides `handle`, which all commands come through, or single methods. What the backend below
    does not have the filter does not have either.

        >>> class Counter(Filter):
        ...     commands = 0
        ...
        ...     def handle(self, command):
        ...         self.commands += 1
        ...         return super().handle(command)
        >>> from nvmet_vdev.backends import Ram
        >>> drive = Counter(Ram(1 << 20))
        >>> drive.write(4096, memoryview(b"x" * 512), False)
        >>> drive.commands
        1
        >>> drive.flush is None  # as for Ram
        True

    So it is with `thread_safe`: over a backend that is, `handle` is called from several threads at once. The
    backend below has plain methods; one with `submit` or with `async def` methods is refused (ConfigError).
    """

    wraps: ClassVar[bool] = True
    """The first argument is another backend: on the command line what stands after the colon."""

    opens_read_only: ClassVar[bool] = False
    """The backend below is never written, so it may be opened read-only, and be shared."""

    passes: ClassVar[tuple[str, ...]] = (*COMMANDS, "resize")
    """The methods that are there only if the backend below has them."""

    inherits: ClassVar[tuple[str, ...]] = (
        "block_size",
        "max_inflight",
        "read_only",
        "thread_safe",
        "timeout",
    )
    """The attributes that are those of the backend below."""

    read_only: bool = False

    def __init__(self, inner: Readable) -> None:
        _check(self, inner)
        self.inner: Any = inner
        self._adopt()
        if isinstance(inner, Backend):
            inner._on_resize = self.notify_resize

    def open(self) -> None:
        """Opens the backend below, which may know only then what it can do."""
        call_if_there(self.inner, "open")
        try:
            self._adopt()
        except BaseException:
            call_if_there(self.inner, "close")
            raise

    def close(self) -> None:
        """Closes the backend below."""
        call_if_there(self.inner, "close")

    @property
    def size(self) -> int:
        """That of the backend below, in bytes."""
        return size_of(self.inner)

    def handle(self, command: Command) -> bool:
        """Every command comes through here; the return value matters for compare only (True: equal)."""
        return command.carry_out(self.inner)

    def read(self, offset: int, buf: memoryview) -> None:
        self.handle(Command("read", offset, len(buf), buf))

    def write(self, offset: int, buf: memoryview, fua: bool) -> None:
        self.handle(Command("write", offset, len(buf), buf, fua))

    def flush(self) -> None:
        self.handle(Command("flush"))

    def discard(self, offset: int, length: int) -> None:
        self.handle(Command("discard", offset, length))

    def write_zeroes(self, offset: int, length: int, *, may_discard: bool, fua: bool) -> None:
        self.handle(Command("write_zeroes", offset, length, fua=fua, may_discard=may_discard))

    def compare(self, offset: int, buf: memoryview) -> bool:
        return self.handle(Command("compare", offset, len(buf), buf))

    def resize(self, size: int) -> None:
        self.inner.resize(size)

    def _adopt(self) -> None:
        """Takes over what the backend below says of itself."""
        for name in self.inherits:
            setattr(self, name, getattr(self.inner, name, getattr(type(self), name)))
        for name in self.passes:
            if getattr(self.inner, name, None) is None:
                setattr(self, name, None)
            else:
                self.__dict__.pop(name, None)


def _check(outer: Filter, inner: object) -> None:
    """Refuses what a filter cannot be put on."""

    def refuse(why: str) -> ConfigError:
        return ConfigError(f"{_name(outer)} over {_name(inner)}: {why}")

    if getattr(inner, "submit", None) is not None:
        raise refuse("it takes batches (submit): a filter needs plain methods below it")
    if getattr(inner, "read", None) is None:
        raise refuse("it has no read, so it is no backend; wrap a path as File(path)")
    for name in COMMANDS:
        if _is_async(getattr(inner, name, None)):
            raise refuse(f"its {name} is async: a filter needs plain methods below it")


def _is_async(method: Callable[..., object] | None) -> bool:
    return inspect.iscoroutinefunction(method)


def _name(backend: object) -> str:
    return repr(backend) if isinstance(backend, str) else type(backend).__name__
