"""What SMART counts, kept from one target to the next: a file in the state directory.

Counters of controllers by subsystem and port, of namespaces by UUID. A controller that was in use when the
file was last written has had an unsafe shutdown: its target has ended under it.

Several targets may have one directory: each writes what is its own, and leaves what is the others'.

May know counters and the file. Must not know targets, or when to save.
"""

from __future__ import annotations

import base64
import binascii
import threading
from pathlib import Path
from uuid import UUID

import msgspec

from nvmet_vdev import atomic, seen
from nvmet_vdev._nvmet import ConfigError
from nvmet_vdev.model import Lifetime

__all__ = ["Ledger"]

NAME = "counters.json"
VERSION = 1
MAX_BYTES = 64 << 20

_Counters = dict[str, int]


class _Controller(msgspec.Struct, forbid_unknown_fields=True):
    counters: _Counters
    error_log: str = ""


class _File(msgspec.Struct, forbid_unknown_fields=True):
    version: int
    controllers: dict[str, _Controller]
    namespaces: dict[str, _Counters]


class Ledger:
    """The file in `directory`. With `discard` one that cannot be read is thrown away instead of refused.

    Raises ConfigError for a file that is damaged or of a later version.
    """

    def __init__(self, directory: Path, *, discard: bool = False) -> None:
        self.path = directory / NAME
        """Where the file is, or will be."""
        self.lock = threading.RLock()
        """Held while something is taken down: what is asked for and noted under it is never older."""
        self._saving = threading.Lock()
        self._written = b""
        self._ours = _File(VERSION, {}, {})
        self._content = _File(VERSION, {}, {})
        try:
            self._content = self._read()
        except FileNotFoundError:
            pass
        except OSError as error:
            raise ConfigError(f"{self.path}: {error.strerror}; make it readable, or move it") from error
        except _UNUSABLE as error:
            if not discard:
                raise ConfigError(
                    f"{self.path}: is damaged or of a later version ({error}); start with "
                    "--discard-state to throw it away, or move it"
                ) from error

    def _read(self) -> _File:
        with self.path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
        if len(raw) > MAX_BYTES:
            raise _UnusableError("it is too large")
        content = msgspec.json.decode(raw, type=_File)
        if content.version != VERSION:
            raise _UnusableError(f"version {content.version}")
        everything = [*content.namespaces.values(), *(one.counters for one in content.controllers.values())]
        if any(not 0 <= value < 1 << 64 for counters in everything for value in counters.values()):
            raise _UnusableError("a counter is out of range")
        for one in content.controllers.values():
            try:
                base64.b64decode(one.error_log, validate=True)
            except binascii.Error:
                raise _UnusableError("an error log is no base64") from None
        return content

    def controller(self, subsystem: str, portid: int) -> Lifetime | None:
        """What a controller had counted when its target ended; None if there was none."""
        with self.lock:
            found = self._content.controllers.get(_key(subsystem, portid))
        if found is None:
            return None
        counters = dict(found.counters)
        # Its guest had it enabled, and nobody can have shut it down.
        counters["unsafe_shutdowns"] = counters.get("unsafe_shutdowns", 0) + (counters.pop("in_use", 0) != 0)
        return Lifetime.of(counters, base64.b64decode(found.error_log))

    def namespace(self, uuid: UUID) -> dict[str, int] | None:
        """What had been counted on a namespace; None if there was none."""
        with self.lock:
            return self._content.namespaces.get(str(uuid))

    def note_controller(self, subsystem: str, portid: int, life: Lifetime) -> None:
        """Takes down what a controller has counted."""
        counters = life.counters | {"in_use": int(life.in_use)}
        noted = _Controller(counters, base64.b64encode(life.error_log).decode("ascii"))
        with self.lock:
            for content in (self._ours, self._content):
                content.controllers[_key(subsystem, portid)] = noted

    def note_namespace(self, uuid: UUID, counters: dict[str, int]) -> None:
        """Takes down what was counted on a namespace."""
        with self.lock:
            for content in (self._ours, self._content):
                content.namespaces[str(uuid)] = counters

    def save(self) -> None:
        """Writes what was taken down since the last time, beside what others have written. Raises OSError."""
        with self._saving:
            with self.lock:
                ours = _encode(self._ours)
            if ours == self._written:
                return
            with atomic.alone_in(self.path.parent):
                atomic.write(self.path, self._merged())
            self._written = ours

    def forget(self) -> None:
        """Removes the file that this ledger has made."""
        if self._written:
            seen.forget(self.path)

    def _merged(self) -> bytes:
        try:
            there = self._read()
        except (OSError, *_UNUSABLE):
            there = _File(VERSION, {}, {})
        with self.lock:
            # What the file has lost meanwhile is still known.
            for content in (self._content, there, self._ours):
                self._content.controllers = self._content.controllers | content.controllers
                self._content.namespaces = self._content.namespaces | content.namespaces
            return _encode(self._content)


def _encode(content: _File) -> bytes:
    return msgspec.json.encode(content, order="sorted") + b"\n"


class _UnusableError(Exception):
    """Why the file cannot be used."""


_UNUSABLE = (msgspec.DecodeError, UnicodeDecodeError, _UnusableError)


def _key(subsystem: str, portid: int) -> str:
    return f"{subsystem} {portid}"
