"""JSON text to values, by the letter of RFC 8259: what two readers could take for two things is refused.

May know JSON; must not know requests. The standard library's reader is used for its hooks: duplicate names
cannot be seen any more in what msgspec returns.
"""

from __future__ import annotations

import collections
import json
from typing import Any

from nvmet_vdev.errors import one_line

LARGEST = (1 << 64) - 1
SMALLEST = -(1 << 63)


class NotJsonError(ValueError):
    """The text is no JSON, or JSON that means nothing here; `str()` says why, on one line."""


def loads(line: bytes) -> Any:
    """The value that `line` stands for."""
    try:
        value = _DECODER.decode(line.decode("utf-8"))
        # UTF-8 has no surrogates, an escape can still make half a pair.
        if b"\\u" in line:
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except NotJsonError:
        raise
    except UnicodeDecodeError as error:
        raise NotJsonError(f"invalid UTF-8 at byte {error.start}") from None
    except UnicodeEncodeError:
        raise NotJsonError("half of a surrogate pair") from None
    except RecursionError:
        raise NotJsonError("nested too deeply") from None
    except json.JSONDecodeError as error:
        raise NotJsonError(f"{one_line(error.msg).lower()} at character {error.pos}") from None
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        counts = collections.Counter(name for name, _ in pairs)
        twice = next(name for name, count in counts.items() if count > 1)
        raise NotJsonError(f"the name {one_line(twice[:40])!r} stands twice in one object")
    return found


def _integer(digits: str) -> int:
    # Checked first: reading a number of a million digits takes long.
    if len(digits) > 20 or not SMALLEST <= (value := int(digits)) <= LARGEST:
        raise NotJsonError(f"the number {digits[:20]}{'…' if len(digits) > 20 else ''} is out of range")
    return value


def _real(digits: str) -> float:
    value = float(digits)
    if value in (float("inf"), float("-inf")):
        raise NotJsonError(f"the number {digits[:20]} is out of range")
    return value


def _constant(name: str) -> Any:
    raise NotJsonError(f"{name} is no JSON")


_DECODER = json.JSONDecoder(
    object_pairs_hook=_object, parse_int=_integer, parse_float=_real, parse_constant=_constant
)
