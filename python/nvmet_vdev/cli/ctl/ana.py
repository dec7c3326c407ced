"""`ctl ana`: which path a guest is to take."""

from __future__ import annotations

from typing import get_args

import click

from nvmet_vdev.cli.ctl.session import Session, common, pass_session
from nvmet_vdev.cli.ctl.words import PORT
from nvmet_vdev.control.calls import AnaState


@click.group(
    "ana",
    short_help="ANA states: set.",
    epilog="\b\nExamples:\n  nvmet-vdev ctl ana set 1 1 inaccessible\n",
)
@common
def ana() -> None:
    """Set states of Asymmetric Namespace Access: which paths guests with several take."""


@ana.command(
    "set",
    short_help="Set the state of a group at a port.",
    epilog="""\b
Examples:
  nvmet-vdev ctl ana set 1 1 inaccessible
  nvmet-vdev ctl ana set 2 1 optimized
""",
)
@click.argument("port", type=PORT)
@click.argument("group", type=click.IntRange(1))
@click.argument("state", metavar="STATE", type=click.Choice(get_args(AnaState)))
@common
@pass_session
def set_state(session: Session, port: int | str, group: int, state: AnaState) -> None:
    """Set the STATE of the ANA GROUP at PORT; its guest is told.

    STATE is optimized, non-optimized, inaccessible, persistent-loss or change.
    """
    number = session.port(port)
    session.client.ana_set(number, group, state)
    session.tell(None, f"group {group} is {state} at port {number}")
