"""One request as one call of a backend's method, and what stands in for methods that are not there."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from nvmet_vdev import _nvmet
from nvmet_vdev.bridge.complaints import Complaints
from nvmet_vdev.bridge.traits import METHODS, defined

READ, WRITE, FLUSH, DISCARD, WRITE_ZEROES, COMPARE = range(6)

#: The method of each kind of request.
METHOD_OF = ("read", "write", "flush", "discard", "write_zeroes", "compare")

FUA = 1
MAY_DISCARD = 2

#: What is written in one piece where there is no `write_zeroes`.
_ZEROES = bytes(1 << 20)


def _takes(method: Callable[..., Any], name: str) -> bool:
    """Whether `method` takes an argument by the name of `name`."""
    try:
        parameters = list(inspect.signature(method).parameters.values())
    except (TypeError, ValueError):
        # A built-in that does not say: it is called as documented.
        return True
    kinds = inspect.Parameter
    by_name = (kinds.KEYWORD_ONLY, kinds.POSITIONAL_OR_KEYWORD)
    return any((p.name == name and p.kind in by_name) or p.kind == p.VAR_KEYWORD for p in parameters)


def _takes_more(method: Callable[..., Any], count: int) -> bool:
    """Whether `method` takes more than `count` arguments by position."""
    try:
        parameters = list(inspect.signature(method).parameters.values())
    except (TypeError, ValueError):
        return True
    places = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    return len(places) > count or any(p.kind == p.VAR_POSITIONAL for p in parameters)


#: The calls of backends in service, by `id` of the backend.
serving: dict[int, Calls] = {}


class MistakeError(Exception):
    """A method has returned what it must not."""


class Calls:
    """The methods of a backend, each with the arguments that it takes.

    Each of these returns what the method does: None, or a coroutine for an `async def`.
    """

    def __init__(self, backend: object, complaints: Complaints) -> None:
        self.complaints = complaints
        self.methods = {name: defined(backend, name) for name in METHODS}
        self.read = self.methods["read"]
        write, zeroes = self.methods["write"], self.methods["write_zeroes"]
        self.write_takes_fua = write is not None and _takes_more(write, 2)
        if write is not None and not self.write_takes_fua and _takes(write, "fua"):
            # A parameter that has to be named.
            self.write_takes_fua = True
            self.methods["write"] = lambda offset, buf, fua: write(offset, buf, fua=fua)
        self.zeroes_take = {
            name: zeroes is not None and _takes(zeroes, name) for name in ("may_discard", "fua")
        }

    def returned(self, method: str, value: object, buf: memoryview | None) -> None:
        """Refuses what a method may not return: anything but None, and for data the number of its bytes."""
        if value is None or (buf is not None and not isinstance(value, bool) and value == len(buf)):
            return
        if isinstance(value, int) and buf is not None:
            what = f"moved {value} of {len(buf)} bytes; all of buf has to be filled or taken"
        elif method == "read":
            what = f"returned {_shape(value)}; fill buf, as in buf[:] = data, and return None"
        else:
            what = f"returned {_shape(value)}; it has to return None"
        self.complaints.misbehaved(method, what)
        raise MistakeError(what)

    def plain(self, kind: int, offset: int, what: Any, flags: int) -> bool:
        """Carries a request out; False for a comparison that found a difference."""
        fua = bool(flags & FUA)
        if kind == READ:
            self._call("read", what, offset, what)
        elif kind == WRITE:
            self.write(offset, what, fua)
        elif kind == FLUSH:
            self._call("flush", None)
        elif kind == DISCARD:
            self._call("discard", None, offset, what)
        elif kind == WRITE_ZEROES:
            self.write_zeroes(offset, what, bool(flags & MAY_DISCARD), fua)
        else:
            return self.compare(offset, what)
        return True

    def write(self, offset: int, buf: Any, fua: bool) -> None:
        """Writes; where `write` knows no FUA a flush follows."""
        if self.write_takes_fua:
            self._call("write", buf, offset, buf, fua)
            return
        self._call("write", buf, offset, buf)
        if fua and self.methods["flush"] is not None:
            self._call("flush", None)

    def write_zeroes(self, offset: int, length: int, may_discard: bool, fua: bool) -> None:
        """Zeroes a range, by writing zeroes if need be."""
        options = self.zero_options(may_discard, fua)
        if self.methods["write_zeroes"] is not None:
            self._call("write_zeroes", None, offset, length, **options)
            if fua and "fua" not in options and self.methods["flush"] is not None:
                self._call("flush", None)
            return
        for at, view in zero_pieces(offset, length):
            self.write(at, view, fua)

    def zero_options(self, may_discard: bool, fua: bool) -> dict[str, bool]:
        """Of the keyword arguments of `write_zeroes`, those that the backend's takes."""
        options = {"may_discard": may_discard, "fua": fua}
        return {name: value for name, value in options.items() if self.zeroes_take[name]}

    def compare(self, offset: int, buf: Any) -> bool:
        """Compares, by reading if need be."""
        if (compare := self.methods["compare"]) is not None:
            return self.verdict(compare(offset, buf))
        stored = bytearray(len(buf))
        with memoryview(stored) as view:
            self._call("read", view, offset, view)
        return bool(stored == buf)

    def verdict(self, value: object) -> bool:
        """What `compare` returned, if it is an answer."""
        if isinstance(value, bool):
            return value
        what = f"returned {_shape(value)}; it has to return True or False"
        self.complaints.misbehaved("compare", what)
        raise MistakeError(what)

    def _call(self, name: str, buf: memoryview | None, *args: Any, **options: bool) -> None:
        method = self.methods[name]
        if method is None:
            raise NotImplementedError(name)
        if (value := method(*args, **options)) is not None:
            self.returned(name, value, buf)


def zero_pieces(offset: int, length: int) -> list[tuple[int, memoryview]]:
    """A range as pieces of zeroes to write: where, and what."""
    size = len(_ZEROES)
    return [
        (at, memoryview(_ZEROES)[: min(size, offset + length - at)])
        for at in range(offset, offset + length, size)
    ]


def carry_out(backend: object, request: _nvmet.Request) -> None:
    """Carries a request of a batch out with the plain methods of `backend`, and completes it.

    For backends with a `submit` that take only some requests together. Whatever goes wrong completes
    the request with the status for it.
    """
    calls = serving.get(id(backend)) or Calls(backend, Complaints(backend))
    what: Any = request.buffer if request.kind in (READ, WRITE, COMPARE) else request.length
    if what is None:
        # Given up meanwhile.
        return
    flags = (FUA if request.fua else 0) | (MAY_DISCARD if request.may_discard else 0)
    try:
        equal = calls.plain(request.kind, request.offset, what, flags)
    except Exception as error:
        calls.complaints.raised(METHOD_OF[request.kind], error)
        request.complete(error)
    else:
        if equal:
            request.complete()
        else:
            request.differs()


def _shape(value: object) -> str:
    if isinstance(value, bytes | bytearray | memoryview):
        return f"{len(value)} {type(value).__name__}"
    text = repr(value)
    return text if len(text) <= 40 else f"a {type(value).__name__}"
