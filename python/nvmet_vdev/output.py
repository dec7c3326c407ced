"""What people see: tables, a progress line, and when to use colour.

Standard output carries results, standard error everything else. Colour is used only on a
terminal, and never when ``NO_COLOR`` is set (no-color.org).
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from typing import TextIO

_FIGURE = re.compile(r"[0-9.]+( \w+)?")
"""A number, with a unit or without."""


def wants_colour(stream: TextIO) -> bool:
    """Whether `stream` is a terminal whose user did not ask for plain text."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def bold(text: str, stream: TextIO) -> str:
    """`text` in bold where `stream` can show it."""
    return f"\033[1m{text}\033[0m" if wants_colour(stream) else text


def say(text: str = "") -> None:
    """One result on standard output, there at once for whoever reads a pipe."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def complain(text: str) -> None:
    """One line of error on standard error."""
    sys.stderr.write(f"nvmet-vdev: error: {text}\n")
    sys.stderr.flush()


def warn(text: str) -> None:
    """One line on standard error about what works, but not as well as it could."""
    sys.stderr.write(f"nvmet-vdev: warning: {text}\n")
    sys.stderr.flush()


def fields(rows: Sequence[tuple[str, str]], indent: str = "") -> str:
    """Names and values in two columns."""
    width = max((len(name) for name, _ in rows), default=0)
    return "\n".join(f"{indent}{name:<{width}}  {value}".rstrip() for name, value in rows)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns under a heading: text to the left, figures to the right."""
    columns = list(zip(head, *rows, strict=True))
    widths = [max(len(cell) for cell in column) for column in columns]
    figures = [bool(rows) and all(_FIGURE.fullmatch(cell) for cell in column[1:]) for column in columns]

    def line(cells: Sequence[str]) -> str:
        placed = (
            cell.rjust(width) if figure else cell.ljust(width)
            for cell, width, figure in zip(cells, widths, figures, strict=True)
        )
        return "  ".join(placed).rstrip()

    return "\n".join([bold(line(head), sys.stdout), *(line(row) for row in rows)])


class Progress:
    """A line on a terminal's standard error that is written over; nothing elsewhere."""

    def __init__(self) -> None:
        self._live = sys.stderr.isatty()
        self._shown = False

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        if self._shown:
            sys.stderr.write("\r\033[K")
            sys.stderr.flush()

    def show(self, text: str) -> None:
        """Replaces the line by `text`."""
        if self._live:
            sys.stderr.write(f"\r\033[K{text}")
            sys.stderr.flush()
            self._shown = True
