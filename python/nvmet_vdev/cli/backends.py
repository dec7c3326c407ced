"""`nvmet-vdev backends`: what a disk can be."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

import click

from nvmet_vdev import registry
from nvmet_vdev.cli import verbosity
from nvmet_vdev.cli.params import output_option
from nvmet_vdev.output import say, table


@dataclass(frozen=True)
class _Kind:
    form: str
    kind: str
    description: str


_BUILT_IN = (
    _Kind("PATH", "native", "An image file or a block device."),
    _Kind("ram:SIZE", "native", "Memory; its content goes with the process."),
    _Kind("null:SIZE", "native", "Nothing: reads leave the buffer as it is, writes are dropped."),
    _Kind("python:MODULE:NAME", "python", "A class, function or object of a Python module."),
    _Kind("python:./FILE.py:NAME", "python", "The same, of a file."),
    _Kind("nbdkit:PLUGIN.py", "python", "A Python plugin written for nbdkit."),
)


@click.command(
    "backends",
    short_help="List what a disk can be.",
    epilog="""\b
Examples:
  nvmet-vdev backends
  nvmet-vdev backends --output json | jq -r '.[].form'

\b
Options are written ?key=value&key=value, %26 being an & of a value: behind everything else,
but before the colon of a filter. Filters stand before any other disk, filters included:
  overlay?file=cow.img:fault?read=0.01:disk.img
A file of which the name looks like one of these is written ./NAME.
""",
)
@output_option
@verbosity.option
def command(output: str) -> None:
    """List the kinds of DISK that `nvmet-vdev run` takes, those of installed packages included.

    A package adds one with an entry point of the group nvmet_vdev.backends.
    """
    found = _found()
    say(json.dumps(found, indent=2) if output == "json" else _text(found))


def _found() -> list[dict[str, Any]]:
    own = [{**asdict(one), "package": None, "problem": None} for one in _BUILT_IN]
    return own + [
        {
            "form": f"{one.name}:{'DISK' if one.kind == 'filter' else '…'}" if one.kind else f"{one.name}:",
            "kind": one.kind or "broken",
            "description": one.description,
            "package": one.package,
            "problem": one.problem,
        }
        for one in registry.listing()
    ]


def _text(found: list[dict[str, Any]]) -> str:
    rows = [[one["form"], one["kind"], one["problem"] or one["description"]] for one in found]
    return table(["disk", "kind", "what it is"], rows)
