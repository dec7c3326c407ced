"""`ctl resv`: who has reserved a namespace."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from nvmet_vdev.cli.ctl.session import Session, common, pass_session
from nvmet_vdev.cli.ctl.words import NAMESPACE, subsystem_option
from nvmet_vdev.output import fields, table


@click.group(
    "resv",
    short_help="Reservations: show, clear.",
    epilog="""\b
Examples:
  nvmet-vdev ctl resv show 1
  nvmet-vdev ctl resv clear 1
""",
)
@common
def resv() -> None:
    """Show who has reserved a namespace, and free it."""


@resv.command(
    "show",
    short_help="Show a namespace's reservation.",
    epilog="\b\nExamples:\n  nvmet-vdev ctl resv show 1\n",
)
@click.argument("namespace", type=NAMESPACE)
@subsystem_option
@common
@pass_session
def show(session: Session, namespace: tuple[str | None, int], subsystem: str | None) -> None:
    """Show the reservation of NAMESPACE and its registrants."""
    nqn, nsid = session.namespace(namespace, subsystem)
    found = session.client.reservation_show(nqn, nsid)
    session.tell(found, lambda: text(found))


def text(found: Mapping[str, Any]) -> str:
    """A reservation as people read it."""
    head = fields(
        [
            ("reservation", found["type"] or "none"),
            ("generation", str(found["generation"])),
            ("persists through power loss", "yes" if found["ptpl"] else "no"),
        ]
    )
    if not found["registrants"]:
        return f"{head}\n\nno registrants"
    rows = [
        [
            one["hostid"],
            one["key"],
            "holds it" if one["holder"] else "",
            ", ".join(map(str, one["controllers"])),
        ]
        for one in found["registrants"]
    ]
    return f"{head}\n\n{table(['host', 'key', 'holder', 'controllers'], rows)}"


@resv.command(
    "clear",
    short_help="Remove a reservation and all registrants.",
    epilog="\b\nExamples:\n  nvmet-vdev ctl resv clear 1\n",
)
@click.argument("namespace", type=NAMESPACE)
@subsystem_option
@common
@pass_session
def clear(session: Session, namespace: tuple[str | None, int], subsystem: str | None) -> None:
    """Remove the reservation of NAMESPACE and all registrants, whoever they are; their hosts are told."""
    nqn, nsid = session.namespace(namespace, subsystem)
    session.client.reservation_clear(nqn, nsid)
    session.tell(None, f"{nqn}/{nsid} is free")
