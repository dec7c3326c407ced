"""nbdkit's ways of reading what people write: the `parse_` functions of its module.

They take what nbdkit's take and nothing else, so that a plugin accepts here what it accepts there. What is
wrong is a ValueError; what is no string, a TypeError.
"""

from __future__ import annotations

import math
import re
from decimal import Decimal
from typing import Final

_INT64_MAX: Final = (1 << 63) - 1
_UINT_MAX: Final = (1 << 32) - 1

_SIZE: Final = re.compile(r"[ \t\n\v\f\r]*(?P<number>[+-]?[0-9]+)(?P<suffix>.*)", re.DOTALL)
_POWERS: Final = {name: 1 << (10 * power) for power, name in enumerate("bkmgtpe")} | {"s": 512}
_SCALES: Final = {"": 1, **_POWERS, **{name.upper(): scale for name, scale in _POWERS.items()}}

_NUMBER: Final = r"(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?"
_PROBABILITY: Final = re.compile(rf"(?P<part>{_NUMBER})(?:(?P<percent>%)|[:/](?P<whole>{_NUMBER}))?")
_DELAY: Final = re.compile(rf"(?P<number>{_NUMBER})(?P<unit>|s|ms|us|μs|µs|ns)")
_NANOSECONDS: Final = {"": 10**9, "s": 10**9, "ms": 10**6, "us": 10**3, "μs": 10**3, "µs": 10**3, "ns": 1}

_TRUE: Final = frozenset({"1", "true", "t", "yes", "y", "on"})
_FALSE: Final = frozenset({"0", "false", "f", "no", "n", "off"})


def text(value: object, function: str) -> str:
    """`value` if it is a string."""
    if not isinstance(value, str):
        raise TypeError(f"nbdkit.{function}: expected a string, not {type(value).__name__}")
    return value


def parse_size(string: str, /) -> int:
    """A size in bytes: a whole number, and nothing, b, k, m, g, t, p or e (powers of 1024), or s (512)."""
    match = _SIZE.fullmatch(text(string, "parse_size"))
    if match is None:
        raise ValueError(f"could not parse size string ({string})")
    number, suffix = int(match["number"]), match["suffix"]
    if number < 0:
        raise ValueError(f"size cannot be negative ({string})")
    if suffix not in _SCALES:
        raise ValueError(f"could not parse size: unknown suffix {suffix!r}")
    if (size := number * _SCALES[suffix]) > _INT64_MAX:
        raise ValueError(f"size ({string}) exceeds maximum value")
    return size


def parse_bool(string: str, /) -> bool:
    """1, true, t, yes, y, on, or their opposites; capitals do not matter."""
    word = text(string, "parse_bool").lower()
    if word not in _TRUE | _FALSE:
        raise ValueError(f"could not decipher boolean ({string})")
    return word in _TRUE


def parse_probability(what: str, string: str, /) -> float:
    """A probability, 0 or more (200% is 2.0): ``0.1``, ``1e-1``, ``10%``, ``1:10``, ``1/10``.

    `what` is the parameter's name, for the error.
    """
    name = text(what, "parse_probability")
    match = _PROBABILITY.fullmatch(text(string, "parse_probability"))
    if match is None:
        raise ValueError(f"{name}: could not parse {string!r} as a probability")
    part, whole = float(match["part"]), 100.0 if match["percent"] else float(match["whole"] or 1)
    if not (math.isfinite(part) and 0 < whole < math.inf and math.isfinite(part / whole)):
        raise ValueError(f"{name}: {string!r} is no finite probability")
    return part / whole


def parse_delay(what: str, string: str, /) -> tuple[int, int]:
    """A time as seconds and nanoseconds: a number, and nothing, s, ms, us, μs or ns.

    `what` is the parameter's name, for the error.
    """
    name = text(what, "parse_delay")
    match = _DELAY.fullmatch(text(string, "parse_delay"))
    if match is None:
        raise ValueError(f"{name}: could not parse {string!r} as a delay: use a number and s, ms, us or ns")
    try:
        exact = Decimal(match["number"]) * _NANOSECONDS[match["unit"]]
    except ArithmeticError:
        exact = Decimal("Infinity")
    if exact > _UINT_MAX * 10**9:
        raise ValueError(f"{name}: {string!r} is too long")
    return divmod(round(exact), 10**9)
