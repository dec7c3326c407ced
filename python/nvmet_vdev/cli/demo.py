"""`nvmet-vdev demo`: the whole product in ten seconds, with nothing to prepare."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import click

from nvmet_vdev import Target, _nvmet, identity, vmm
from nvmet_vdev.cli import bench, identify, verbosity
from nvmet_vdev.cli.params import SIZE
from nvmet_vdev.output import bold, say
from nvmet_vdev.sizes import format_size


@click.command(
    "demo",
    short_help="See all of it at work, with nothing to prepare.",
    epilog="""\b
Examples:
  nvmet-vdev demo
  nvmet-vdev demo --size 1G --runtime 5
""",
)
@click.option("--size", metavar="SIZE", type=SIZE, default="256M", show_default=True, help="Its size.")
@click.option(
    "--runtime",
    metavar="SECONDS",
    type=click.FloatRange(0.1, 3600),
    default=2.0,
    show_default=True,
    help="How long to measure.",
)
@verbosity.option
def command(size: int, runtime: float) -> None:
    """Serve a RAM drive, attach a driver to it through a real socket, verify it and measure it."""
    with tempfile.TemporaryDirectory(prefix="nvmet-vdev-") as directory, Target(workers=1) as target:
        socket = Path(directory) / "demo.sock"
        disk = f"ram:{size}"
        names = identity.derive([disk], socket)
        subsystem = target.add_subsystem(nqn=names.nqn, serial=names.serial)
        subsystem.add_namespace(disk, uuid=names.uuids[0])
        subsystem.listen(socket)

        _step(f"A RAM drive of {format_size(size)}, served on {socket}")
        _step("identify: what a guest's driver reads")
        say(identify.text(json.loads(_nvmet.identify(str(socket)))))
        _step("verify: a pattern written everywhere and read back")
        verified = bench.measure(str(socket), verify=True, bs=65536, iodepth=8)
        say(bench.text(verified))
        bench.check(str(socket), verified)
        _step("randread: 4 KiB random reads, 32 in flight")
        say(bench.text(bench.measure(str(socket), runtime=runtime)))

    _step("Go on with a drive for a virtual machine:")
    say(f"nvmet-vdev run ram:1G --socket /tmp/nvme.sock\n\n{vmm.qemu('/tmp/nvme.sock')}")  # noqa: S108


def _step(title: str) -> None:
    say(f"\n{bold(title, sys.stdout)}")
