"""`ctl subsys`: subsystems and who may use them."""

from __future__ import annotations

from typing import Any

import click

from nvmet_vdev.cli.ctl.session import Session, common, pass_session
from nvmet_vdev.cli.ctl.words import HOST, SUBSYSTEM


@click.group(
    "subsys",
    short_help="Subsystems: add, remove, who may use them.",
    epilog="""\b
Examples:
  nvmet-vdev ctl subsys add nqn.2026-01.org.example:vms
  nvmet-vdev ctl subsys allow nqn.2026-01.org.example:vms nqn.2026-01.org.example:vm1
""",
)
@common
def subsys() -> None:
    """Add and remove subsystems, and say who may use them."""


@subsys.command(
    "add",
    short_help="Add a subsystem.",
    epilog="""\b
Examples:
  nvmet-vdev ctl subsys add nqn.2026-01.org.example:vms
  nvmet-vdev ctl subsys add nqn.2026-01.org.example:vms --serial VMS1
""",
)
@click.argument("nqn")
@click.option("--serial", metavar="S", help="Serial number, up to 20 ASCII characters.")
@click.option("--model", metavar="S", help="Model number, up to 40 ASCII characters.")
@click.option("--firmware", metavar="S", help="Firmware revision, up to 8 ASCII characters.")
@click.option("--cntlid-min", metavar="N", type=click.IntRange(1), help="Lowest controller ID.")
@click.option("--cntlid-max", metavar="N", type=click.IntRange(1), help="Highest controller ID.")
@click.option(
    "--host", "hosts", metavar="NQN", type=HOST, multiple=True, help="A host that may use it; else every one."
)
@common
@pass_session
def add(
    session: Session,
    nqn: str,
    serial: str | None,
    model: str | None,
    firmware: str | None,
    cntlid_min: int | None,
    cntlid_max: int | None,
    hosts: tuple[str, ...],
) -> None:
    """Add the subsystem NQN, without namespaces."""
    options: dict[str, Any] = {
        "serial": serial,
        "model": model,
        "firmware": firmware,
        "cntlid_min": cntlid_min,
        "cntlid_max": cntlid_max,
        "allowed_hosts": list(hosts) or None,
    }
    given = {name: value for name, value in options.items() if value is not None}
    session.client.subsystem_add(nqn, **given)
    session.tell(None, f"added {nqn}")


@subsys.command(
    "rm",
    short_help="Remove a subsystem.",
    epilog="\b\nExamples:\n  nvmet-vdev ctl subsys rm nqn.2026-01.org.example:vms\n",
)
@click.argument("nqn", type=SUBSYSTEM)
@common
@pass_session
def remove(session: Session, nqn: str) -> None:
    """Remove the subsystem NQN and its namespaces; its ports have to go before."""
    session.client.subsystem_remove(nqn)
    session.tell(None, f"removed {nqn}")


@subsys.command(
    "allow",
    short_help="Let a host use a subsystem.",
    epilog="""\b
Examples:
  nvmet-vdev ctl subsys allow nqn.2026-01.org.example:vms nqn.2026-01.org.example:vm1
""",
)
@click.argument("nqn", type=SUBSYSTEM)
@click.argument("host", type=HOST)
@common
@pass_session
def allow(session: Session, nqn: str, host: str) -> None:
    """Let HOST use the subsystem NQN."""
    session.client.subsystem_allow(nqn, host)
    session.tell(None, f"{host} may use {nqn}")


@subsys.command(
    "disallow",
    short_help="No longer let a host use a subsystem.",
    epilog="""\b
Examples:
  nvmet-vdev ctl subsys disallow nqn.2026-01.org.example:vms nqn.2026-01.org.example:vm1
""",
)
@click.argument("nqn", type=SUBSYSTEM)
@click.argument("host", type=HOST)
@common
@pass_session
def disallow(session: Session, nqn: str, host: str) -> None:
    """No longer let HOST use the subsystem NQN."""
    session.client.subsystem_disallow(nqn, host)
    session.tell(None, f"{host} may no longer use {nqn}")
