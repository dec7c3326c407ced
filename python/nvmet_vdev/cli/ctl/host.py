"""`ctl host`: hosts that are known by name."""

from __future__ import annotations

from uuid import UUID

import click

from nvmet_vdev.cli.ctl.session import Session, common, pass_session
from nvmet_vdev.cli.ctl.words import HOST


@click.group(
    "host",
    short_help="Hosts: add, remove.",
    epilog="""\b
Examples:
  nvmet-vdev ctl host add nqn.2026-01.org.example:vm1
  nvmet-vdev ctl host rm nqn.2026-01.org.example:vm1
""",
)
@common
def host() -> None:
    """Add and remove hosts, which subsystems and namespaces can be restricted to."""


@host.command(
    "add",
    short_help="Make a host known.",
    epilog="""\b
Examples:
  nvmet-vdev ctl host add nqn.2026-01.org.example:vm1
  nvmet-vdev ctl host add nqn.2026-01.org.example:a --hostid 9c0c2d4e-6f0b-4b8e-9a53-0a1b2c3d4e5f
""",
)
@click.argument("nqn")
@click.option("--hostid", metavar="UUID", type=click.UUID, help="Its Host Identifier; else made of NQN.")
@common
@pass_session
def add(session: Session, nqn: str, hostid: UUID | None) -> None:
    """Make the host NQN known."""
    session.client.host_add(nqn, hostid=hostid)
    session.tell(None, f"added {nqn}")


@host.command(
    "rm",
    short_help="Forget a host.",
    epilog="\b\nExamples:\n  nvmet-vdev ctl host rm nqn.2026-01.org.example:vm1\n",
)
@click.argument("nqn", type=HOST)
@common
@pass_session
def remove(session: Session, nqn: str) -> None:
    """Forget the host NQN."""
    session.client.host_remove(nqn)
    session.tell(None, f"removed {nqn}")
