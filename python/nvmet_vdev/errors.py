"""The operator's errors: one line that says what is wrong, where, and what to do."""

from __future__ import annotations


class UsageError(Exception):
    """Something that the operator asked for cannot be done; `str()` of it is the whole line."""


def one_line(text: str) -> str:
    """`text` on a single line, with no control characters that a terminal would act on."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())
