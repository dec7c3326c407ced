"""`ctl health`: how drives are, as guests read it, and what went wrong."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from nvmet_vdev.cli.ctl.session import Session, common, pass_session
from nvmet_vdev.nvme import Status
from nvmet_vdev.output import table

ZERO_CELSIUS = 273
"""In kelvins, as NVMe counts (NVMe Base 2.0, 5.16.1.3)."""


@click.command(
    "health",
    short_help="Show how drives are, and what went wrong.",
    epilog="""\b
Examples:
  nvmet-vdev ctl health
  nvmet-vdev ctl health --output json | jq '.controllers[].errors'
""",
)
@common
@pass_session
def health(session: Session) -> None:
    """Show what subsystems say about their medium, the errors of controllers, and failures of backends."""
    found = session.client.health()
    session.tell(found, lambda: text(found))


def text(found: Mapping[str, Any]) -> str:
    """Health as people read it."""
    parts = [
        table(
            ["subsystem", "temperature", "spare", "threshold", "used", "reliability"],
            [
                [
                    one["nqn"],
                    _temperature(one.get("temperature")),
                    _percent(one.get("spare")),
                    _percent(one.get("spare_threshold")),
                    _percent(one.get("percentage_used")),
                    "degraded" if one.get("reliability_degraded") else "good",
                ]
                for one in found["subsystems"]
            ],
        )
        if found["subsystems"]
        else "no subsystems"
    ]
    errors = [
        [
            f"port {one['portid']}",
            str(entry["count"]),
            f"queue {entry['sqid']}, command {entry['cid']}",
            _status(entry["status"]),
            str(entry["nsid"]),
            str(entry["lba"]),
        ]
        for one in found["controllers"]
        for entry in one["errors"]
    ]
    parts.append(
        table(["error log of", "error", "command", "status", "NSID", "LBA"], errors)
        if errors
        else "no errors logged"
    )
    failures = [
        [f"{one['subsystem']}/{one['nsid']}", str(count), what]
        for one in found["namespaces"]
        for what, count in one["failures"].items()
    ]
    if failures:
        parts.append(table(["backend of", "times", "failure"], failures))
    return "\n\n".join(parts)


def _temperature(kelvins: int | None) -> str:
    return "unknown" if not kelvins else f"{kelvins - ZERO_CELSIUS} C"


def _percent(value: int | None) -> str:
    return "unknown" if value is None else f"{value} %"


def _status(bits: Any) -> str:
    return str(Status.from_bits(bits)) if isinstance(bits, int) else str(bits)
