"""A record of every command, and a way to carry it out again.

A recording is JSON lines. A run begins with a line that has `size` and `block_size` of the drive, and
`version`; the other lines are commands in the order in which they ended:

    time      when it began, in seconds since 1970
    took      seconds
    op        read, write, flush, discard, write_zeroes or compare
    offset    bytes, and `length`, for all but flush
    fua       for write and write_zeroes, and `may_discard` for the latter
    result    "ok"; for compare "equal" or "different"; an errno ("EIO"); a status ("2/81", "2/81/dnr");
              else the name of the exception
    digest    BLAKE2b of what was read, written or compared, 16 bytes in hexadecimal, where asked for
    data      what was written or compared, in base64, where asked for

May know: commands, JSON. Must not know: what the data is.
"""

from __future__ import annotations

import base64
import contextlib
import errno
import hashlib
import json
import logging
import os
import random
import sys
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nvmet_vdev._nvmet import ConfigError
from nvmet_vdev.backend import NvmeError
from nvmet_vdev.backends.filter import COMMANDS, Command, Filter, Readable, size_of

__all__ = ["Difference", "Log", "replay"]

_log = logging.getLogger("nvmet_vdev.backends")

_VERSION = 1


class Log(Filter):
    """Prints or records every command, as JSON lines that can be replayed.

    `replay` carries a recording out again. Lines are appended to `file`, or go to standard error. With
    `digest` each has a digest of its data, with `data` what was written or compared is recorded as well, so
    that a replay writes the same; both cost a copy of the data. What cannot be recorded (a full disk) is
    left out, and a warning says so once.

        >>> drive = Log(Ram(1 << 20), file="commands.jsonl", data=True)
        >>> drive.open()
        >>> drive.write(4096, memoryview(b"x" * 512), False)
        >>> drive.close()
        >>> copy = Ram(1 << 20)
        >>> replay("commands.jsonl", copy)
        []
        >>> copy.compare(4096, memoryview(b"x" * 512))
        True
    """

    def __init__(
        self, inner: Readable, *, file: str | None = None, digest: bool = False, data: bool = False
    ) -> None:
        super().__init__(inner)
        self.file = file
        self._digest = digest
        self._data = data
        self._fd = -1
        self._broken = False
        self._turn = threading.Lock()

    def open(self) -> None:
        """Opens the backend below and the file."""
        super().open()
        try:
            if self.file is None:
                self._fd = os.dup(sys.stderr.fileno())
            else:
                self._fd = os.open(self.file, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        except OSError as error:
            super().close()
            raise ConfigError(f"log {self.file}: cannot be opened: {error.strerror or error}") from None
        self._put({"version": _VERSION, "size": self.size, "block_size": self.block_size})

    def close(self) -> None:
        os.close(self._fd)
        super().close()

    def handle(self, command: Command) -> bool:
        began, start = time.time(), time.perf_counter()
        # What is recorded is what was carried out: the guest's memory may change in between.
        private = bytearray(command.length) if command.buf is not None and self._looks_at(command) else None
        try:
            if private is None or command.buf is None:
                equal = super().handle(command)
            else:
                if command.op != "read":
                    private[:] = command.buf
                equal = super().handle(replace(command, buf=memoryview(private)))
                if command.op == "read":
                    command.buf[:] = private
        except BaseException as error:
            self._record(command, began, start, _result(error), private if command.op != "read" else None)
            raise
        self._record(command, began, start, _success(command, equal), private)
        return equal

    def _looks_at(self, command: Command) -> bool:
        return self._digest or (self._data and command.op != "read")

    def _record(
        self, command: Command, began: float, start: float, result: str, data: bytearray | None
    ) -> None:
        took = time.perf_counter() - start
        line: dict[str, object] = {"time": round(began, 6), "took": round(took, 6), "op": command.op}
        if command.op != "flush":
            line |= {"offset": command.offset, "length": command.length}
        if command.op in ("write", "write_zeroes"):
            line["fua"] = command.fua
        if command.op == "write_zeroes":
            line["may_discard"] = command.may_discard
        line["result"] = result
        if data is not None and self._digest:
            line["digest"] = _digest(data)
        if data is not None and self._data and command.op != "read":
            line["data"] = base64.b64encode(data).decode()
        self._put(line)

    def _put(self, line: dict[str, object]) -> None:
        text = memoryview(json.dumps(line).encode() + b"\n")
        whole = len(text)
        try:
            # Whole lines, also where several commands end at once.
            with self._turn:
                try:
                    while text:
                        text = text[os.write(self._fd, text) :]
                except OSError:
                    if len(text) < whole:
                        self._take_back(whole - len(text))
                    raise
        except OSError as error:
            if not self._broken:
                self._broken = True
                _log.warning(
                    "log %s: %s: commands are missing in it", self.file or "on stderr", error.strerror
                )

    def _take_back(self, length: int) -> None:
        """Cuts off the part of a line that was written: half a line is none for a replay."""
        with contextlib.suppress(OSError):
            os.ftruncate(self._fd, os.fstat(self._fd).st_size - length)


@dataclass(frozen=True, slots=True)
class Difference:
    """A command that did not do what it did when it was recorded: `line` counts from 1."""

    line: int
    op: str
    recorded: str
    now: str


def replay(recording: str | os.PathLike[str] | Iterable[str], backend: Readable) -> list[Difference]:
    """Carries out the commands of a recording on `backend`, one after the other, and says what differed.

    `recording` is a file of `Log`, or its lines. The backend is open, at least as large as the one that was
    recorded, and has the content that that one began with. Compared are results, and the digests of what was
    read, as long as all that was written is in the recording: without data a write writes noise, the same at
    every replay. The times of the recording are not kept to.

    ConfigError where a line is none of a recording, or the backend is too small or lacks the command.
    """
    if isinstance(recording, (str, os.PathLike)):
        try:
            with Path(recording).open(errors="replace") as file:
                return replay(file, backend)
        except OSError as error:
            raise ConfigError(f"{recording}: cannot be read: {error.strerror}") from None
    differences = []
    complete = True
    for number, text in enumerate(recording, start=1):
        entry = _entry(text, number)
        if "op" not in entry:
            if entry["size"] > size_of(backend):
                raise _refuse(number, f"of {entry['size']} bytes, and the backend has {size_of(backend)}")
            continue
        end = entry.get("offset", 0) + entry.get("length", 0)
        if end > size_of(backend):
            raise _refuse(number, f"up to byte {end}, and the backend has {size_of(backend)}")
        complete = complete and (entry["op"] != "write" or "data" in entry)
        difference = _repeat(entry, number, backend, complete=complete)
        if difference is not None:
            differences.append(difference)
    return differences


def _repeat(entry: dict[str, Any], number: int, backend: Any, *, complete: bool) -> Difference | None:
    op, length = entry["op"], entry.get("length", 0)
    if getattr(backend, op, None) is None:
        raise _refuse(number, f"a {op}, which the backend does not have")
    buf = memoryview(bytearray(length)) if op in ("read", "write", "compare") else None
    if buf is not None and op != "read":
        buf[:] = entry["data"] if "data" in entry else random.Random(number).randbytes(length)  # noqa: S311
    command = Command(
        op, entry.get("offset", 0), length, buf, entry.get("fua", False), entry.get("may_discard", False)
    )
    result = _outcome(command, backend)
    if result != entry["result"] and (complete or op != "compare"):
        return Difference(number, op, entry["result"], result)
    if op == "read" and buf is not None and complete:
        digest = _digest(buf)
        if digest != entry.get("digest", digest):
            return Difference(number, op, entry["digest"], digest)
    return None


def _outcome(command: Command, backend: Readable) -> str:
    try:
        return _success(command, command.carry_out(backend))
    except Exception as error:
        return _result(error)


def _entry(text: str, number: int) -> dict[str, Any]:
    """A line, checked, with its data as bytes."""
    try:
        entry = json.loads(text)
        if number == 1 or "version" in entry:
            if entry["version"] != _VERSION:
                raise _refuse(number, f"of version {entry['version']}, and this program knows {_VERSION}")
            fields = ["size"]
        else:
            fields = [] if entry["op"] == "flush" else ["offset", "length"]
            if entry["op"] not in COMMANDS or not isinstance(entry["result"], str):
                raise ValueError
        if any(type(entry[field]) is not int or entry[field] < 0 for field in fields):
            raise ValueError
        if "data" in entry:
            entry["data"] = base64.b64decode(entry["data"])
            if len(entry["data"]) != entry["length"]:
                raise ValueError
    except (ValueError, KeyError, TypeError):
        raise _refuse(number, f"no line of Log: {text.strip()[:60]!r}") from None
    return dict(entry)


def _refuse(number: int, what: str) -> ConfigError:
    return ConfigError(f"recording, line {number}: {what}")


def _digest(data: bytearray | memoryview) -> str:
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def _success(command: Command, equal: bool) -> str:
    if command.op != "compare":
        return "ok"
    return "equal" if equal else "different"


def _result(error: BaseException) -> str:
    """What went wrong, in the words of the rules of `fault`."""
    if isinstance(error, NvmeError):
        return f"{error.sct:x}/{error.sc:02x}{'/dnr' if error.dnr else ''}"
    if isinstance(error, OSError) and error.errno is not None:
        return errno.errorcode.get(error.errno, str(error.errno))
    return type(error).__name__
