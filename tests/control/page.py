"""The part of docs/control.md that lists the methods, made of their declarations.

``python -m tests.control.page`` writes it.
"""

from __future__ import annotations

import json
from pathlib import Path

import msgspec

from nvmet_vdev.control.method import Method, Param
from nvmet_vdev.control.methods import METHODS

PAGE = Path(__file__).resolve().parents[2] / "docs" / "control.md"
BEGIN = "<!-- methods: made by `python -m tests.control.page` -->\n"
END = "<!-- end -->\n"


def section(method: Method) -> str:
    """What the page has about a method."""
    text = f"#### `{method.name}`\n\n{method.doc}\n"
    if not method.params:
        return text
    rows = "".join(map(row, method.params))
    return f"{text}\n| parameter | default | may be | meaning |\n|---|---|---|---|\n{rows}"


def row(param: Param) -> str:
    """A line of a table."""
    default = "required" if param.required else ""
    if param.default is not msgspec.NODEFAULT:
        default = f"`{json.dumps(msgspec.json.decode(msgspec.json.encode(param.default)))}`"
    cells = (f"`{param.name}`", default, param.words.replace("|", "\\|"), param.doc.replace("|", "\\|"))
    return f"| {' | '.join(cells)} |\n"


def made() -> str:
    """All of it."""
    return "\n" + "\n".join(section(method) for method in METHODS.values()) + "\n"


def parts() -> tuple[str, str, str]:
    """The page: what is before, what is made, what is behind."""
    before, begin, rest = PAGE.read_text().partition(BEGIN)
    inside, end, behind = rest.partition(END)
    assert begin, f"{PAGE} has lost {BEGIN!r}"
    assert end, f"{PAGE} has lost {END!r}"
    return before, inside, behind


if __name__ == "__main__":
    head, _, tail = parts()
    PAGE.write_text(f"{head}{BEGIN}{made()}{END}{tail}")
