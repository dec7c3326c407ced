"""What is wrong in a configuration: where, which value, what would be right; one line for the operator.

May know key paths and text. Must not know formats or the model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from nvmet_vdev._nvmet import ConfigError
from nvmet_vdev.errors import one_line

__all__ = ["Path", "Problem", "Where", "nearest", "shown", "written"]

Path = tuple[str | int, ...]
"""A place in the tree, in the words of TOML: ``("subsystem", 0, "namespace", 1, "ana_grpid")``."""
Where = Callable[[Path], str]
"""How a format writes a place."""

LONGEST = 60
"""Characters of a value that a message shows."""


class Problem(ConfigError):  # noqa: N818 - one sees it in `raise Problem(place, what)`
    """Something that cannot be: `what` at `path`. The reader of a file knows how the file has that place, and
    other places that `what` names.
    """

    def __init__(self, path: Path, what: str | Callable[[Where], str]) -> None:
        self.path = path
        self._what = what
        super().__init__(self._line(written, ""))

    @property
    def what(self) -> str:
        """What is wrong, without the place."""
        return self._text(written)

    def at(self, where: Where, file: str = "") -> ConfigError:
        """The same for the operator: in the words of the format, with the name of the file."""
        return ConfigError(self._line(where, file))

    def _text(self, where: Where) -> str:
        return self._what if isinstance(self._what, str) else self._what(where)

    def _line(self, where: Where, file: str) -> str:
        return one_line(": ".join(part for part in (file, where(self.path), self._text(where)) if part))


def written(path: Path) -> str:
    """A place as TOML has it: ``subsystem[0].namespace[1].ana_grpid``."""
    text = ""
    for step in path:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else step
    return text


def shown(value: Any) -> str:
    """A value, short, as the operator has written it."""
    if isinstance(value, bool):
        text = str(value).lower()
    elif isinstance(value, str):
        # Quoted where its end or its being there could be missed.
        text = value if value and value.isprintable() and value.strip() == value else repr(value)
    elif isinstance(value, dict):
        text = "a table"
    elif isinstance(value, list | tuple):
        text = f"a list of {len(value)}"
    else:
        try:
            text = str(value)
        except ValueError:
            # More digits than Python converts.
            text = "a number of thousands of digits"
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"


def nearest(name: str, known: Iterable[str]) -> str:
    """What to write instead of `name`: the key that looks like it, else all that there are."""
    # Only when something is wrong.
    import difflib

    names: Sequence[str] = list(known)
    close = difflib.get_close_matches(name, names, n=1)
    return f"did you mean {close[0]}?" if close else f"there are {', '.join(names)}"
