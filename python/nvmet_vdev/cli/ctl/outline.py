"""A tree as text, in the manner of nvmetcli's `ls`: names to the left, states in brackets to the right.

May know text; must not know what the tree is of.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field


@dataclass
class Branch:
    """A line and what is below it."""

    name: str
    state: str = ""
    below: list[Branch] = field(default_factory=list)

    def add(self, name: str, state: str = "") -> Branch:
        """A branch below this one."""
        branch = Branch(name, state)
        self.below.append(branch)
        return branch


def draw(root: Branch, width: int | None = None) -> str:
    """The tree, as wide as the terminal."""
    columns = width if width is not None else shutil.get_terminal_size((100, 24)).columns
    return "\n".join(_line(text, state, columns) for text, state in _walk(root, "", last=True, top=True))


def _walk(branch: Branch, indent: str, *, last: bool, top: bool = False) -> Iterator[tuple[str, str]]:
    yield f"{indent}o- {branch.name}", branch.state
    inner = indent + ("  " if last or top else "| ")
    for number, one in enumerate(branch.below, 1):
        yield from _walk(one, inner, last=number == len(branch.below))


def _line(text: str, state: str, width: int) -> str:
    if not state:
        return text
    dots = "." * max(width - len(text) - len(state) - 4, 3)
    return f"{text} {dots} [{state}]"
