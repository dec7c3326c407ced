"""Errors, latency and torn writes, by rule.

May know: commands, the words of a rule. Must not know: what the guest makes of an error.
"""

from __future__ import annotations

import errno
import os
import random
import re
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace

from nvmet_vdev._nvmet import ConfigError
from nvmet_vdev.backend import NvmeError
from nvmet_vdev.backends.filter import COMMANDS, Command, Filter, Readable
from nvmet_vdev.sizes import parse_size

__all__ = ["Fault", "Rule"]


@dataclass(frozen=True, slots=True)
class Rule:
    """What happens to some commands. Everything that is given must hold for a command to be hit.

    `op` is "read", "write", "flush", "discard", "write_zeroes", "compare", or "io" for all of them. `error`
    is an `NvmeError` for an exact status, or an errno (`errno.EIO`), or None for no error. `latency` is in
    seconds, and comes before the error. With `torn` a write carries out that many of its first blocks (-1:
    half of them) before the error.

    `lba` and `bytes` are ranges that the command must touch, as Python's: the end does not belong to it. Of
    the commands that match so far, counted from 1, `nth` hits that one, and `every` each whose number it
    divides. `times` is how often the rule hits at most, and `probability` how likely it does.
    """

    op: str = "io"
    error: NvmeError | int | None = errno.EIO
    latency: float = 0.0
    torn: int | None = None
    lba: range | None = None
    bytes: range | None = None
    nth: int | None = None
    every: int | None = None
    times: int | None = None
    probability: float = 1.0

    def __post_init__(self) -> None:
        if self.op not in (*COMMANDS, "io"):
            raise self.refuse(f"{self.op!r} is none of io, {', '.join(COMMANDS)}")
        if not 0 < self.probability <= 1:
            raise self.refuse(f"the probability {self.probability} is not above 0 and at most 1")
        if self.latency < 0:
            raise self.refuse(f"the latency of {self.latency} s is negative")
        if any(count is not None and count < 1 for count in (self.nth, self.every, self.times)):
            raise self.refuse("nth, every and times count from 1")
        if self.torn is not None and (self.op not in ("write", "io") or self.error is None or self.torn < -1):
            raise self.refuse("torn is for writes, and comes with an error")
        if any(span is not None and not span for span in (self.lba, self.bytes)):
            raise self.refuse("the range is empty: the first comes before the last")
        if isinstance(self.error, int) and self.error not in errno.errorcode:
            raise self.refuse(f"{self.error} is no errno")

    def refuse(self, why: str) -> ConfigError:
        """The error to raise for a rule that makes no sense."""
        return ConfigError(f"fault rule for {self.op}: {why}")

    def touches(self, command: Command, block_size: int) -> bool:
        """Whether operation and ranges fit; a flush touches no range."""
        if self.op not in ("io", command.op):
            return False
        end = command.offset + command.length
        for span, unit in ((self.lba, block_size), (self.bytes, 1)):
            if span is not None and not (command.offset < span.stop * unit and span.start * unit < end):
                return False
        return True

    def exception(self) -> Exception | None:
        """A fresh exception, or None: one that is raised twice would grow its traceback."""
        if isinstance(self.error, NvmeError):
            return NvmeError(
                self.error.sct, self.error.sc, dnr=self.error.dnr, message=f"injected: {self.error}"
            )
        return None if self.error is None else OSError(self.error, f"injected: {os.strerror(self.error)}")


class Fault(Filter):
    """Errors, latency and torn writes by rule: for tests of what lies above.

    A rule is words joined by `@`; several rules are separated by commas. The option's name is the command
    that they are for; `io` is for all of them. The first rule that hits decides.

    =====================  ===========================================================================
    `EIO`, `ENOSPC`, …     fails with that errno; EIO if a rule names neither error nor latency
    `2/81`, `2/81/dnr`     fails with that status: type and code, both hexadecimal, and Do Not Retry
    `10ms`, `200us`, `2s`  takes that much longer, and fails only if an error is named as well
    `torn`, `torn=1`       writes half of the blocks, or that many, then fails (EIO if need be)
    `lba=100-200`          touches one of these blocks; both belong to it
    `bytes=1M-2M`          touches one of these bytes; the last does not belong to it
    `0.01`                 hits with that probability
    `nth=7`, `every=7`     hits the seventh such command, or every seventh
    `times=3`              hits three times at most
    =====================  ===========================================================================

        >>> drive = Fault(Ram(1 << 20), read="2/81@lba=100-200", write="torn@nth=2,10ms@0.5")
        >>> drive.read(100 * 512, memoryview(bytearray(512)))
        Traceback (most recent call last):
        nvmet_vdev.backend.NvmeError: injected: status 2/81h

    The same in Python, with `Rule`, whose ranges are Python's:

        >>> rule = Rule("read", NvmeError(2, 0x81), lba=range(100, 201))
        >>> drive = Fault(Ram(1 << 20), [rule])

    On the command line: `fault?read=2/81@lba=100-200&seed=7:disk.img`. `seed` makes a run repeat itself. A
    `flush` or `discard` rule gives the drive that command where the backend below does not have it.
    """

    def __init__(
        self,
        inner: Readable,
        rules: Iterable[Rule] = (),
        /,
        *,
        read: str = "",
        write: str = "",
        flush: str = "",
        discard: str = "",
        write_zeroes: str = "",
        compare: str = "",
        io: str = "",
        seed: int = 0,
    ) -> None:
        texts = {
            "read": read,
            "write": write,
            "flush": flush,
            "discard": discard,
            "write_zeroes": write_zeroes,
            "compare": compare,
            "io": io,
        }
        self.rules = [
            *rules,
            *(_parse(op, rule) for op, text in texts.items() if text for rule in text.split(",")),
        ]
        self._seen = [0] * len(self.rules)
        self._hits = [0] * len(self.rules)
        self._random = random.Random(seed)  # noqa: S311
        self._turn = threading.Lock()
        super().__init__(inner)

    def handle(self, command: Command) -> bool:
        if (rule := self._hit(command)) is None:
            return self._pass(command)
        if rule.latency:
            time.sleep(rule.latency)
        if (error := rule.exception()) is None:
            return self._pass(command)
        if rule.torn is not None and command.op == "write" and command.buf is not None:
            blocks = command.length // self.block_size
            length = (blocks // 2 if rule.torn < 0 else min(rule.torn, blocks)) * self.block_size
            if length:
                with command.buf[:length] as part:
                    self._pass(replace(command, length=length, buf=part))
        raise error

    def _pass(self, command: Command) -> bool:
        if getattr(self.inner, command.op, None) is None:
            return True
        return super().handle(command)

    def _hit(self, command: Command) -> Rule | None:
        with self._turn:
            for number, rule in enumerate(self.rules):
                if rule.touches(command, self.block_size) and self._is_due(number, rule):
                    self._hits[number] += 1
                    return rule
        return None

    def _is_due(self, number: int, rule: Rule) -> bool:
        """Counts a command that the rule is about, and says whether it is one that the rule hits."""
        self._seen[number] += 1
        if rule.nth is not None and self._seen[number] != rule.nth:
            return False
        if rule.every is not None and self._seen[number] % rule.every:
            return False
        if rule.times is not None and self._hits[number] >= rule.times:
            return False
        return rule.probability >= 1 or self._random.random() < rule.probability

    def _adopt(self) -> None:
        super()._adopt()
        for rule in self.rules:
            if rule.op == "io" or getattr(self, rule.op) is not None:
                continue
            if rule.op not in ("flush", "discard"):
                raise rule.refuse(f"{type(self.inner).__name__} has no {rule.op}: leave the rule out")
            # To leave these out is right as well: nothing is lost without a cache, and discarding is advice.
            self.__dict__.pop(rule.op)


_STATUS = re.compile(r"([0-7])/([0-9a-f]{1,2})(/dnr)?", re.IGNORECASE)
_LATENCY = re.compile(r"(\d+(?:\.\d+)?)(us|ms|s)")
_UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0}
_PROBABILITY = re.compile(r"[01]?\.\d+|[01]")


def _parse(op: str, text: str) -> Rule:
    """The rule that `text` is, as the docstring of `Fault` has it."""
    words: dict[str, object] = {}
    for word in text.split("@"):
        name, value = _word(word, f"fault rule {op}={text}")
        if name in words:
            raise ConfigError(f"fault rule {op}={text}: {word!r} is a second {name}")
        words[name] = value
    if "latency" in words and "torn" not in words:
        words.setdefault("error", None)
    return Rule(op, **words)  # type: ignore[arg-type]


def _word(word: str, where: str) -> tuple[str, object]:
    """The field of `Rule` that a word sets, and to what."""
    if match := _STATUS.fullmatch(word):
        try:
            return "error", NvmeError(int(match[1], 16), int(match[2], 16), dnr=match[3] is not None)
        except ValueError:
            raise ConfigError(f"{where}: the status {word} is success") from None
    if match := _LATENCY.fullmatch(word):
        return "latency", float(match[1]) * _UNITS[match[2]]
    if _PROBABILITY.fullmatch(word):
        return "probability", float(word)
    if word == "torn":
        return "torn", -1
    if word[:1] == "E" and isinstance(code := getattr(errno, word, None), int):
        return "error", code
    name, _, value = word.partition("=")
    first, dash, last = value.partition("-")
    if name in ("torn", "nth", "every", "times") and value.isascii() and value.isdigit():
        return name, int(value)
    if name == "lba" and dash and value.isascii() and first.isdigit() and last.isdigit():
        return name, range(int(first), int(last) + 1)
    if name == "bytes" and dash:
        return name, range(parse_size(first), parse_size(last))
    raise ConfigError(
        f"{where}: {word!r} is no status (2/81), errno (EIO), latency (10ms), probability (0.01), torn, "
        "lba=FIRST-LAST, bytes=START-END, nth=N, every=N or times=N"
    )
