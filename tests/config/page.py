"""The parts of docs/configuration.md that list keys and what is skipped, made of their declarations.

``python -m tests.config.page`` writes them.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import msgspec

from nvmet_vdev.config import model
from nvmet_vdev.config.fields import Field, fields
from nvmet_vdev.config.nvmetcli import NO_USE

PAGE = Path(__file__).resolve().parents[2] / "docs" / "configuration.md"

TABLES: tuple[tuple[str, type[msgspec.Struct]], ...] = (
    ("[target]", model.TargetSettings),
    ("[[host]]", model.Host),
    ("[[subsystem]]", model.Subsystem),
    ("[subsystem.health]", model.Health),
    ("[[subsystem.namespace]]", model.Namespace),
    ("[[port]]", model.Port),
)
"""The tables by their headings in TOML."""


def example(name: str) -> str:
    """The block of the page that has this file."""
    block = rf"^```toml\n# {re.escape(name)}\n(.*?)^```$"
    found = re.search(block, PAGE.read_text(), re.DOTALL | re.MULTILINE)
    assert found, f"{PAGE} has lost {name}"
    return found[1]


def keys() -> str:
    """All keys, with the values that the example of all of them has."""
    tree: Any = tomllib.loads(example("everything.toml"))
    return "\n" + "\n".join(table(heading, node, tree) for heading, node in TABLES)


def table(heading: str, node: type[msgspec.Struct], tree: Any) -> str:
    for name in heading.strip("[]").split("."):
        tree = tree[name][0] if isinstance(tree[name], list) else tree[name]
    rows = [row(field, tree[field.name]) for field in fields(node).values() if field.node is None]
    head = "| key | in JSON | default | may be | example | meaning |\n|---|---|---|---|---|---|\n"
    return f"### `{heading}`\n\n{head}{''.join(rows)}"


def row(field: Field, value: object) -> str:
    default = "*required*"
    if not field.required:
        default = "" if field.default in (None, (), {}) else f"`{_toml(field.default)}`"
    places = f"`{field.json}`" + (", or `device.path`" if field.name == "backend" else "")
    cells = (f"`{field.name}`", places, default, field.use, f"`{_toml(value)}`", field.text)
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |\n"


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key} = {_toml(one)}' for key, one in value.items())}}}"
    if isinstance(value, int) and value > 0xFFFF:
        return hex(value)
    if isinstance(value, str):
        return f'"{value if len(value) < 40 else value[:36] + "…"}"'
    return str(value)


def skipped() -> str:
    """What is skipped of nvmetcli's JSON."""
    rows = [f"| `{name}` | {why} |\n" for name, (why, _) in NO_USE.items()]
    rows += [
        "| `dhchap.*` of a host | a socket has no authentication; its mode says who may connect |\n",
        "| a port of another `addr.trtype` | only vfio-user is served here |\n",
        "| a port without `subsystems` | nothing would be served there |\n",
        "| `referrals` of a port, `discovery` | a socket has no discovery service |\n",
        "| `passthru` of a subsystem | a drive cannot be passed through |\n",
        "| a namespace that is not enabled and has no `device.path` | there is nothing to serve |\n",
    ]
    return "\n| attribute | why it is skipped |\n|---|---|\n" + "".join(rows) + "\n"


PARTS = {"keys": keys, "skipped": skipped}


def replaced(text: str) -> str:
    """The page with its made parts made anew."""
    for name, make in PARTS.items():
        begin, end = f"<!-- {name}: made by `python -m tests.config.page` -->\n", "<!-- end -->\n"
        text, count = re.subn(
            f"({re.escape(begin)}).*?({re.escape(end)})",
            lambda found, make=make: found[1] + make() + found[2],  # type: ignore[misc]
            text,
            flags=re.DOTALL,
        )
        assert count == 1, f"{PAGE} has lost {begin!r}"
    return text


if __name__ == "__main__":
    PAGE.write_text(replaced(PAGE.read_text()))
