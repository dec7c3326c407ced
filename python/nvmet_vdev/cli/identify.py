"""`nvmet-vdev identify`: what a drive says about itself."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import click

from nvmet_vdev import _nvmet
from nvmet_vdev.cli import verbosity
from nvmet_vdev.cli.params import output_option
from nvmet_vdev.output import fields, say, table
from nvmet_vdev.sizes import format_size


@click.command(
    "identify",
    short_help="Show what a drive says about itself.",
    epilog="""\b
Examples:
  nvmet-vdev identify /run/user/1000/nvmet-vdev/disk.sock
  nvmet-vdev identify disk.sock --output json | jq .controller.serial

A drive has one client at a time: this waits for nobody and takes the drive from nobody; while a
virtual machine is attached it is refused.
""",
)
@click.argument("socket")
@output_option
@verbosity.option
def command(socket: str, output: str) -> None:
    """Show the controller and the namespaces behind SOCKET, as a guest's driver reads them.

    SOCKET may belong to any vfio-user NVMe server.
    """
    found = _nvmet.identify(socket)
    say(json.dumps(json.loads(found), indent=2) if output == "json" else text(json.loads(found)))


def text(drive: Mapping[str, Any]) -> str:
    """A drive as people read it."""
    return f"{_controller(drive)}\n\n{_namespaces(drive['namespaces'])}"


def _controller(drive: Mapping[str, Any]) -> str:
    controller, pci = drive["controller"], drive["pci"]
    # MDTS is a power of two in units of the smallest memory page, 4 KiB for every controller of a PC.
    transfer = format_size(4096 << controller["mdts"]) if controller["mdts"] else "no limit"
    return fields(
        [
            ("model", controller["model"]),
            ("serial", controller["serial"]),
            ("firmware", controller["firmware"]),
            ("NQN", controller["subnqn"]),
            ("NVMe version", controller["version"]),
            ("controller ID", str(controller["controller_id"])),
            ("PCI ID", f"{pci['vendor']:04x}:{pci['device']:04x} revision {pci['revision']:02x}"),
            ("I/O queues", f"{drive['io_queues']} of {drive['max_queue_entries']} entries"),
            ("largest transfer", transfer),
            ("write cache", "volatile" if controller["volatile_write_cache"] else "none"),
            ("doorbells", drive["doorbells"]),
        ]
    )


def _namespaces(namespaces: list[Mapping[str, Any]]) -> str:
    if not namespaces:
        return "no namespaces"
    return table(
        ["NSID", "size", "block", "UUID"],
        [
            [str(one["nsid"]), format_size(one["size"]), str(one["block_size"]), one["uuid"] or "none"]
            for one in namespaces
        ],
    )
