"""Sizes, durations and rates as people write and read them.

Sizes are read by the same rules as ``ram:SIZE`` (binary units: ``10G`` is 10 x 2^30 bytes).
"""

from __future__ import annotations

from typing import Annotated

from nvmet_vdev._nvmet import parse_size

__all__ = ["Size", "format_count", "format_latency", "format_size", "parse_size"]

Size = Annotated[int, "size"]
"""An `int` of bytes. As text, where an option is given on the command line, it may have a unit: ``10G``."""

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")


def format_size(size: float) -> str:
    """`size` bytes in the largest binary unit that leaves a figure of at least one."""
    index = 0
    while size >= 1024 and index < len(_UNITS) - 1:
        size /= 1024
        index += 1
    return f"{_figure(size)} {_UNITS[index]}"


def format_count(count: float) -> str:
    """A count in decimal units: ``518k``, ``2.38M``."""
    for limit, suffix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if count >= limit:
            return f"{_figure(count / limit)}{suffix}"
    return _figure(count)


def format_latency(microseconds: float) -> str:
    """A latency with the unit that fits: ``8.4 us``, ``1.2 ms``, ``2.5 s``."""
    if microseconds >= 1e6:
        return f"{_figure(microseconds / 1e6)} s"
    if microseconds >= 1e3:
        return f"{_figure(microseconds / 1e3)} ms"
    return f"{_figure(microseconds)} us"


def _figure(value: float) -> str:
    """Three figures, without a tail of zeroes."""
    if value >= 100 or value == int(value):
        return f"{value:.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"
