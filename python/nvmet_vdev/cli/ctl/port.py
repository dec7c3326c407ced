"""`ctl port`: sockets, with a controller each."""

from __future__ import annotations

from typing import Any

import click

from nvmet_vdev.cli.ctl.session import Session, common, pass_session
from nvmet_vdev.cli.ctl.words import HOST, PORT, subsystem_option


@click.group(
    "port",
    short_help="Ports: add, remove.",
    epilog="""\b
Examples:
  nvmet-vdev ctl port add /run/user/1000/nvmet-vdev/vm2.sock
  nvmet-vdev ctl port rm 2
""",
)
@common
def port() -> None:
    """Add and remove ports: sockets, each with one controller for one guest."""


@port.command(
    "add",
    short_help="Add a port.",
    epilog="""\b
Examples:
  nvmet-vdev ctl port add /run/user/1000/nvmet-vdev/vm2.sock
  nvmet-vdev ctl port add vm2.sock --port 7 --host nqn.2026-01.org.example:vm2
""",
)
@click.argument("socket", type=click.Path())
@subsystem_option
@click.option(
    "--port", "portid", metavar="N", type=click.IntRange(0, 65535), help="Its number; else the next free one."
)
@click.option("--host", "hostnqn", metavar="NQN", type=HOST, help="The host that its guest is.")
@click.option("--hostid", metavar="UUID", type=click.UUID, help="That host's identifier.")
@click.option(
    "--cntlid", metavar="N", type=click.IntRange(1), help="Controller ID; else the lowest free one."
)
@click.option("--queues", metavar="N", type=click.IntRange(1, 511), help="I/O queues; else 64.")
@click.option(
    "--queue-size", metavar="N", type=click.IntRange(2, 65536), help="Entries per queue; else 1024."
)
@click.option("--doorbells", type=click.Choice(["auto", "trapped", "mapped"]), help="How its guest rings.")
@common
@pass_session
def add(
    session: Session,
    /,
    socket: str,
    subsystem: str | None,
    **given: Any,
) -> None:
    """Add a port: a controller of the subsystem, behind SOCKET."""
    options: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    found = session.client.port_add(socket, session.subsystem(subsystem), **options)
    session.tell({"portid": found}, f"port {found} listens on {socket}")


@port.command("rm", short_help="Remove a port.", epilog="\b\nExamples:\n  nvmet-vdev ctl port rm 2\n")
@click.argument("port", type=PORT)
@common
@pass_session
def remove(session: Session, port: int | str) -> None:
    """Remove PORT, its number or its socket: its guest is disconnected."""
    number = session.port(port)
    session.client.port_remove(number)
    session.tell(None, f"removed port {number}")
