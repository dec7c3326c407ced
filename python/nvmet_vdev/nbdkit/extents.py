"""What a plugin's `extents` returns, read by nbdkit's rules (nbdkit-plugin(3), "Extents list")."""

from __future__ import annotations

import operator
from collections.abc import Iterable

Extent = tuple[int, int, int]
"""Offset and length in bytes, and EXTENT_HOLE, EXTENT_ZERO, both or neither."""


def clipped(answer: Iterable[object], start: int, end: int) -> list[Extent]:
    """The extents of `answer` from `start` to `end` at most, neighbours of one type joined.

    They may begin before `start` and reach beyond `end`; they may stop before `end`, and be none if all were
    of other places. TypeError or ValueError where they are no 3-tuples of numbers, leave gaps, begin behind
    `start`, or are not there at all.
    """
    found: list[Extent] = []
    expected: int | None = None
    for extent in answer:
        offset, length, kind = _numbers(extent)
        if expected is not None and offset != expected:
            raise ValueError(f"extents() must be contiguous and ascending: {offset} follows {expected}")
        expected = offset + length
        first, last = max(offset, start), min(expected, end)
        if first >= last:
            continue
        if not found and first > start:
            raise ValueError(f"extents() must begin at {start} or before, not at {offset}")
        if found and found[-1][2] == kind:
            found[-1] = (found[-1][0], last - found[-1][0], kind)
        else:
            found.append((first, last - first, kind))
    if expected is None:
        raise ValueError("extents() must return at least one extent")
    return found


def _numbers(extent: object) -> Extent:
    if not isinstance(extent, tuple) or len(extent) != 3:
        raise TypeError("extents() must return an iterable of 3-tuples")
    offset, length, kind = map(operator.index, extent)
    if min(offset, length, kind) < 0:
        raise ValueError(f"extents() must return numbers that are not negative: {extent}")
    return offset, length, kind
