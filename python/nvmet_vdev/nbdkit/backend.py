"""A plugin as a drive's backend: nbdkit's server, as far as a plugin notices it.

The order of callbacks, what a missing one means, how FUA and zeroing are made up, and what an error becomes
are nbdkit's (1.32; its server/plugins.c and plugins/python/plugin.c), so that a plugin behaves here as it
does there.

Reads always reach `pread`, of holes too, as in nbdkit: extents say how a range reads, at the moment and for
whoever copies, and asking first would cost a call for each read. They are there for others with `extents`.
"""

from __future__ import annotations

import errno
import logging
import operator
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from nvmet_vdev.backend import Backend
from nvmet_vdev.nbdkit import constants
from nvmet_vdev.nbdkit.calls import Calls, CallsV1
from nvmet_vdev.nbdkit.extents import Extent, clipped
from nvmet_vdev.nbdkit.module import errors
from nvmet_vdev.nbdkit.plugin import Plugin

_log = logging.getLogger(__name__)

#: Bytes that one read or write may have in nbdkit; a plugin's `block_size` may lower it.
_MAX_PAYLOAD: Final = 64 << 20
#: Bytes that one trim, zero or cache may have; NBD's lengths are 32 bits wide.
_MAX_RANGE: Final = 1 << 31
#: What `block_size` returns for a maximum that is none.
_NO_MAXIMUM: Final = (1 << 32) - 1
#: Requests at once of a parallel plugin: what nbdkit has without --threads.
_THREADS: Final = 16
_ZEROES: Final = memoryview(bytes(1 << 20))
_UNSUPPORTED: Final = (errno.EOPNOTSUPP, errno.ENOTSUP)


@dataclass(frozen=True)
class Capabilities:
    """What a plugin said it can, with nbdkit's defaults for what it did not say.

    `can_fua` and `can_cache` are nbdkit's FUA and CACHE constants. On a drive that is read-only, by the
    plugin or by the operator, all that changes data is False.
    """

    can_write: bool
    can_zero: bool
    can_fast_zero: bool
    can_trim: bool
    can_fua: int
    can_flush: bool
    is_rotational: bool
    can_multi_conn: bool
    can_cache: int
    can_extents: bool


def open_plugin(path: str, options: Sequence[tuple[str, str]], *, read_only: bool = False) -> PluginBackend:
    """The backend of the plugin at `path` (or of that module's name), configured with `options`.

    Everything up to `config_complete` and `thread_model` runs here, the rest in `open`. Raises ConfigError.
    """
    plugin = Plugin(path)
    return PluginBackend(plugin, plugin.configure(options), read_only=read_only)


class PluginBackend(Backend):
    """A plugin that is configured; `open` asks it what it can, and sets the optional methods accordingly.

    `thread_safe` where the plugin's thread model is PARALLEL; there is one handle, so all other models are
    one request at a time. `on_shutdown` is called when the plugin calls `nbdkit.shutdown()`.
    """

    size: int = 0
    write: Callable[[int, memoryview, bool], None] | None = None
    flush: Callable[[], None] | None = None
    discard: Callable[[int, int], None] | None = None
    write_zeroes: Callable[..., None] | None = None
    capabilities: Capabilities

    def __init__(self, plugin: Plugin, thread_model: int, *, read_only: bool = False) -> None:
        self.plugin = plugin
        self.read_only = read_only
        self.thread_safe = thread_model == constants.THREAD_MODEL_PARALLEL
        self.max_inflight = _THREADS if self.thread_safe else None
        self._max_payload = _MAX_PAYLOAD

    @property
    def on_shutdown(self) -> Callable[[], None] | None:
        """Called in the thread in which the plugin asked, perhaps one of its own; must return soon."""
        return self.plugin.server.on_shutdown

    @on_shutdown.setter
    def on_shutdown(self, hook: Callable[[], None] | None) -> None:
        self.plugin.server.on_shutdown = hook

    def open(self) -> None:
        """`get_ready` to `open`, then size and capabilities. ConfigError with file and callback."""
        plugin = self.plugin
        plugin.ask("get_ready")
        try:
            plugin.ask("after_fork")
            plugin.ask("preconnect", self.read_only)
            export = plugin.ask("default_export", self.read_only, False, default="")
            if not isinstance(export, (str, bytes)):
                raise plugin.refusal("default_export", f"returned {export!r}; use a string")
            plugin.server.export = export if isinstance(export, str) else export.decode(errors="replace")
            handle = plugin.ask("open", self.read_only)
        except BaseException:
            self._cleanup()
            raise
        self._handle = handle
        try:
            self._learn(handle)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """`close` and `cleanup`; what they raise is logged."""
        self._quietly("close", self._handle)
        self._cleanup()

    def _cleanup(self) -> None:
        self._quietly("cleanup")
        self.plugin.server.export = None

    def _quietly(self, name: str, *arguments: object) -> None:
        try:
            self.plugin.ask(name, *arguments)
        except Exception as error:
            _log.error("%s", error)

    def _learn(self, handle: Any) -> None:
        """Asks for size, block size and capabilities, in nbdkit's order."""
        plugin = self.plugin
        self._io = (CallsV1 if plugin.api_version == 1 else Calls)(plugin, handle)
        size = _number(plugin, "get_size", plugin.ask("get_size", handle))
        self.block_size, self._max_payload = _block_size(plugin, plugin.ask("block_size", handle))
        if size <= 0 or size % self.block_size:
            raise plugin.refusal(
                "get_size", f"returned {size}; a drive needs a multiple of {self.block_size}, and more than 0"
            )
        self.size = size
        self.capabilities = can = _capabilities(plugin, handle, read_only=self.read_only)
        self.read_only = not can.can_write
        # Without flags FUA cannot be handed on, whatever the plugin says.
        self._fua = can.can_fua if self._io.has_flags else min(can.can_fua, constants.FUA_EMULATE)
        self.write = self._write if can.can_write else None
        self.flush = self._flush if can.can_flush and can.can_write else None
        self.discard = self._discard if can.can_trim else None
        self.write_zeroes = self._write_zeroes if can.can_zero else None

    def read(self, offset: int, buf: memoryview) -> None:
        """Fills `buf`: `pread`."""
        for at, part in self._parts(offset, buf):
            self._request("pread", self._io.pread, part, at)

    def _write(self, offset: int, buf: memoryview, fua: bool) -> None:
        """`pwrite`, with FUA as flag or with a `flush` after it."""
        flags, make_durable = self._durability(fua)
        for at, part in self._parts(offset, buf):
            self._request("pwrite", self._io.pwrite, part, at, flags)
        if make_durable:
            self._flush()

    def _flush(self) -> None:
        self._request("flush", self._io.flush)

    def _discard(self, offset: int, length: int) -> None:
        """`trim`."""
        for at, count in _ranges(offset, length):
            self._request("trim", self._io.trim, count, at, 0)

    def _write_zeroes(self, offset: int, length: int, *, may_discard: bool, fua: bool) -> None:
        """`zero`; where it says that it cannot, `pwrite` of zeroes."""
        fua_flag, make_durable = self._durability(fua)
        flags = fua_flag | (constants.FLAG_MAY_TRIM if may_discard else 0)
        for at, count in _ranges(offset, length):
            if not self._zeroed(at, count, flags):
                step = min(self._max_payload, len(_ZEROES))
                for begin in range(at, at + count, step):
                    part = _ZEROES[: min(step, at + count - begin)]
                    self._request("pwrite", self._io.pwrite, part, begin, fua_flag)
        if make_durable:
            self._flush()

    def _zeroed(self, offset: int, count: int, flags: int) -> bool:
        """Whether `zero` did it; not if it says EOPNOTSUPP, be it with an exception or without."""
        errors.value = 0
        try:
            self._io.zero(count, offset, flags)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            if errors.value in _UNSUPPORTED or not self.plugin.has("zero"):
                return False
            failure = self.plugin.failed("zero", error)
        else:
            return errors.value not in _UNSUPPORTED
        raise failure

    def cache(self, offset: int, length: int) -> None:
        """Fetches a range ahead of its use, where the plugin can: `cache`, or `pread` where it wants that."""
        if self.capabilities.can_cache == constants.CACHE_NATIVE:
            for at, count in _ranges(offset, length):
                self._request("cache", self._io.cache, count, at)
        elif self.capabilities.can_cache == constants.CACHE_EMULATE:
            with memoryview(bytearray(min(length, self._max_payload, len(_ZEROES)))) as sink:
                for at in range(offset, offset + length, len(sink)):
                    self.read(at, sink[: offset + length - at])

    def extents(self, offset: int, length: int) -> list[Extent]:
        """How `length` bytes from `offset` are stored: (offset, length, type) in order and without gaps.

        `type` has nbdkit's EXTENT_HOLE (1), EXTENT_ZERO (2: reads as zeroes), both or, for data, neither; all
        is data where the plugin does not tell. OSError as from a read.
        """
        if not (self.capabilities.can_extents and self.plugin.has("extents")):
            return [(offset, length, 0)]
        found: list[Extent] = []
        at, end = offset, offset + length
        while at < end:
            found += self._request("extents", self._extents, at, min(end, at + _MAX_RANGE))
            at = found[-1][0] + found[-1][1]
        return clipped(found, offset, end) if found else []

    def _extents(self, start: int, end: int) -> list[Extent]:
        found = clipped(self._io.extents(end - start, start, 0), start, end)
        if not found:
            errors.value = errno.EINVAL
            raise ValueError(f"extents() must say something of offset {start}")
        return found

    def _request(self, name: str, call: Callable[..., Any], *arguments: Any) -> Any:
        """One request of nbdkit's: any exception is OSError with the errno that `set_error` gave, or EIO."""
        errors.value = 0
        try:
            return call(*arguments)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            failure = self.plugin.failed(name, error)
        # Not from within: frames of the plugin would keep their views of the buffer.
        raise failure

    def _durability(self, fua: bool) -> tuple[int, bool]:
        """The flags for a write, and whether a `flush` must follow it.

        A plugin without any FUA is flushed if it can be: guests may always ask for FUA. Without that too, it
        has no cache to speak of.
        """
        if fua and self._fua == constants.FUA_NATIVE:
            return constants.FLAG_FUA, False
        return 0, fua and (self._fua == constants.FUA_EMULATE or self.capabilities.can_flush)

    def _parts(self, offset: int, buf: memoryview) -> Iterable[tuple[int, memoryview]]:
        """`buf` in parts that the plugin takes, with their offsets; itself where that is all of it."""
        return ((offset, buf),) if len(buf) <= self._max_payload else self._split(offset, buf)

    def _split(self, offset: int, buf: memoryview) -> Iterator[tuple[int, memoryview]]:
        for begin in range(0, len(buf), self._max_payload):
            with buf[begin : begin + self._max_payload] as part:
                yield offset + begin, part


def _ranges(offset: int, length: int) -> Iterator[tuple[int, int]]:
    """A range in offsets and lengths that NBD has room for."""
    for at in range(offset, offset + length, _MAX_RANGE):
        yield at, min(_MAX_RANGE, offset + length - at)


def _number(plugin: Plugin, name: str, value: Any) -> int:
    try:
        return operator.index(value)
    except TypeError:
        raise plugin.refusal(name, f"returned {value!r}; use a whole number") from None


def _block_size(plugin: Plugin, answer: object) -> tuple[int, int]:
    """The logical block size, and the most bytes of one read or write, for what `block_size` returned."""
    if answer is None and not plugin.has("block_size"):
        return 512, _MAX_PAYLOAD
    if not isinstance(answer, tuple) or len(answer) != 3:
        raise plugin.refusal("block_size", f"returned {answer!r}; use (minimum, preferred, maximum)")
    minimum, _, maximum = (_number(plugin, "block_size", number) for number in answer)
    if minimum > 4096:
        raise plugin.refusal(
            "block_size", f"the minimum is {minimum}; a drive's blocks have at most 4096 bytes"
        )
    if minimum < 0 or minimum & (minimum - 1):
        raise plugin.refusal("block_size", f"the minimum is {minimum}; use a power of 2")
    block_size = 512 if minimum <= 512 else 4096
    if minimum == 0 or maximum >= _NO_MAXIMUM:
        return block_size, _MAX_PAYLOAD
    if maximum < block_size:
        raise plugin.refusal("block_size", f"the maximum is {maximum}; a drive needs at least {block_size}")
    return block_size, min(maximum - maximum % block_size, _MAX_PAYLOAD)


def _capabilities(plugin: Plugin, handle: object, *, read_only: bool) -> Capabilities:
    """Asks in nbdkit's order, and what nbdkit does not ask of a read-only drive not."""

    def can(name: str, instead: str | None = None) -> bool:
        # Only True is true: nbdkit compares with Py_True.
        default = instead is not None and plugin.has(instead)
        return plugin.ask(name, handle, default=default) is True

    def level(name: str, default: int) -> int:
        value = _number(plugin, name, plugin.ask(name, handle, default=default))
        if not 0 <= value <= 2:
            raise plugin.refusal(name, f"returned {value}; use a constant nbdkit.{name[4:].upper()}_*")
        return value

    writes = not read_only and can("can_write", "pwrite")
    zeroes = writes and can("can_zero", "zero")
    return Capabilities(
        can_write=writes,
        can_zero=zeroes,
        can_fast_zero=writes and (can("can_fast_zero") if plugin.has("can_fast_zero") else not zeroes),
        can_trim=writes and can("can_trim", "trim"),
        can_fua=level("can_fua", int(plugin.has("flush"))) if writes else constants.FUA_NONE,
        can_flush=can("can_flush", "flush"),
        is_rotational=can("is_rotational"),
        can_multi_conn=can("can_multi_conn"),
        can_cache=level("can_cache", 2 * plugin.has("cache")),
        can_extents=can("can_extents", "extents"),
    )
