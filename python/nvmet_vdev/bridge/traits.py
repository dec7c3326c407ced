"""What a backend has and wants, read from the object once, and what is wrong with it."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from types import CodeType
from typing import Any, TypeAlias

from nvmet_vdev import _nvmet

#: "plain", "async" or "batch".
Form: TypeAlias = str

#: The methods that carry requests out, by what they are called in a backend.
METHODS = ("read", "write", "flush", "discard", "write_zeroes", "compare")

#: The methods of its life, which an async backend may have `async` as well.
_LIFE = ("open", "close")

#: The most threads of one backend.
_THREADS = 1024

_INFLIGHT: dict[Form, int] = {"plain": 8, "async": 128, "batch": 1024}


def where(backend: object, method: str | None = None) -> str:
    """`file.py:12: Class.method`, for messages."""
    kind = type(backend)
    found = getattr(kind, method, None) if method is not None else kind
    name = kind.__qualname__ if method is None else f"{kind.__qualname__}.{method}"
    # A property hides its function, a partial or a built-in has no place at all.
    found = getattr(found, "fget", None) or found
    code = getattr(inspect.unwrap(found) if callable(found) else found, "__code__", None)
    # A class may have a descriptor of that name.
    if isinstance(code, CodeType):
        return f"{code.co_filename}:{code.co_firstlineno}: {name}"
    try:
        return f"{inspect.getfile(kind)}: {name}"
    except (TypeError, OSError):
        return name


def defined(backend: object, name: str) -> Callable[..., Any] | None:
    """The method called `name`; None if it is not there, or is None."""
    method = getattr(backend, name, None)
    if method is not None and not callable(method):
        raise _nvmet.ConfigError(f"{where(backend)}: {name} is a {type(method).__name__}; make it a method")
    return method


@dataclass(frozen=True)
class Traits:
    """A backend as the bridge sees it."""

    form: Form
    block_size: int
    read_only: bool
    #: Calls at once.
    max_inflight: int
    thread_safe: bool
    timeout: float | None
    flush: bool
    discard: bool


def _number(backend: object, name: str, default: float | None) -> float | None:
    value = getattr(backend, name, None)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e9:
        raise _nvmet.ConfigError(f"{where(backend)}: {name} is {value!r}; use a number above 0 and below 1e9")
    return value


def examine(backend: object) -> Traits:
    """What `backend` is; ConfigError with one line where it cannot be one."""
    if isinstance(backend, type):
        raise _nvmet.ConfigError(
            f"{backend.__qualname__} is a class; a backend is an object of it: {backend.__qualname__}(...)"
        )
    methods = {name: defined(backend, name) for name in METHODS}
    submit = defined(backend, "submit")
    if methods["read"] is None and submit is None:
        raise _nvmet.ConfigError(
            f"{where(backend)} has no read(offset, buf); a backend has at least size and read"
        )
    # Without calling it: a property may need what `open` makes.
    kind = type(backend)
    somewhere = hasattr(kind, "size") or hasattr(kind, "__getattr__")
    if not somewhere and "size" not in getattr(backend, "__dict__", {"size": None}):
        raise _nvmet.ConfigError(f"{where(backend)} has no size; give it one, in bytes")
    form: Form = "plain"
    if submit is not None:
        form = "batch"
        if inspect.iscoroutinefunction(submit):
            raise _nvmet.ConfigError(
                f"{where(backend, 'submit')} is async; make it a plain method that starts tasks"
            )
    elif any(inspect.iscoroutinefunction(getattr(backend, name, None)) for name in (*METHODS, *_LIFE)):
        form = "async"
    for name in ("size", "resize", *(_LIFE if form == "batch" else ())):
        # Of the class, so that a property is not called.
        if inspect.iscoroutinefunction(getattr(kind, name, None)):
            raise _nvmet.ConfigError(f"{where(backend, name)} is async; make it a plain method")
    block_size = getattr(backend, "block_size", None)
    block_size = 512 if block_size is None else block_size
    if block_size not in (512, 4096):
        raise _nvmet.ConfigError(f"{where(backend)}: block_size is {block_size!r}; use 512 or 4096")
    read_only = getattr(backend, "read_only", None)
    if read_only is None:
        read_only = methods["write"] is None and form != "batch"
    inflight = _number(backend, "max_inflight", _INFLIGHT[form])
    assert inflight is not None  # noqa: S101 - for the type checker
    thread_safe = bool(getattr(backend, "thread_safe", False))
    if form == "plain" and thread_safe and inflight > _THREADS:
        raise _nvmet.ConfigError(
            f"{where(backend)}: max_inflight is {inflight!r}, with a thread for each; use 1 to {_THREADS}"
        )
    return Traits(
        form=form,
        block_size=block_size,
        read_only=bool(read_only) or (methods["write"] is None and form != "batch"),
        max_inflight=max(1, int(inflight)),
        thread_safe=thread_safe,
        timeout=_number(backend, "timeout", None),
        flush=methods["flush"] is not None,
        discard=methods["discard"] is not None,
    )


def check_size(backend: object, size: object, block_size: int) -> int:
    """`size` as the backend gave it, if it can be one."""
    place = where(backend, "size")
    if isinstance(size, bool) or not isinstance(size, int):
        raise _nvmet.ConfigError(f"{place} is {size!r}, a {type(size).__name__}; give an int, in bytes")
    if size <= 0 or size >= 1 << 63:
        raise _nvmet.ConfigError(f"{place} is {size}; give a number of bytes from {block_size} to 2^63 - 1")
    if size % block_size:
        raise _nvmet.ConfigError(f"{place} is {size}, not a multiple of the block size {block_size}")
    return size
