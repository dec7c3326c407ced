"""`nvmet-vdev identify`: what a drive says about itself."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import click

from nvmet_vdev import _nvmet
from nvmet_vdev.cli import verbosity
from nvmet_vdev.output import fields, say, table
from nvmet_vdev.sizes import format_size


@click.command(
    "identify",
    epilog="""\b
Examples:
  nvmet-vdev identify /run/user/1000/nvmet-vdev/disk.sock
  nvmet-vdev identify disk.sock --output json | jq .controller.serial

A drive has one client at a time: this waits for nobody and takes the drive from nobody; while a
virtual machine is attached it is refused.
""",
)
@click.argument("socket")
@click.option(
    "--output",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="Format.",
)
@verbosity.option
def command(socket: str, output: str) -> None:
    """Show the controller and the namespaces behind SOCKET, as a guest's driver reads them.

    SOCKET may belong to any vfio-user NVMe server.
    """
    found = _nvmet.identify(socket)
    say(json.dumps(json.loads(found), indent=2) if output == "json" else text(json.loads(found)))


def text(drive: Mapping[str, Any]) -> str:
    """A drive as people read it."""
    controller, namespaces = drive["controller"], drive["namespaces"]
    return f"{_controller(controller)}\n\n{_namespaces(namespaces)}"


def _controller(controller: Mapping[str, Any]) -> str:
    return fields([(name.replace("_", " "), str(value)) for name, value in controller.items()])


def _namespaces(namespaces: list[Mapping[str, Any]]) -> str:
    if not namespaces:
        return "no namespaces"
    return table(
        ["nsid", "size", "block", "uuid"],
        [
            [str(one["nsid"]), format_size(one["size"]), str(one["block_size"]), str(one["uuid"])]
            for one in namespaces
        ],
    )
