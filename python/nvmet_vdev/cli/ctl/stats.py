"""`ctl stats`: what went through."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any

import click

from nvmet_vdev.cli.ctl.session import Session, common, pass_session
from nvmet_vdev.output import say, table
from nvmet_vdev.sizes import format_count, format_size

Figures = Mapping[str, Any]


@click.command(
    "stats",
    short_help="Show what went through, or goes through.",
    epilog="""\b
Examples:
  nvmet-vdev ctl stats
  nvmet-vdev ctl stats --watch 1
  nvmet-vdev ctl stats --watch 5 --count 2 --output json
""",
)
@click.option(
    "--watch",
    metavar="SECONDS",
    type=click.FloatRange(0.01, 86400),
    help="Show what goes through in a second, again and again.",
)
@click.option("--count", metavar="N", type=click.IntRange(1), help="With --watch: N times.")
@common
@pass_session
def stats(session: Session, watch: float | None, count: int | None) -> None:
    """Show the counters of ports and namespaces since these were made.

    With --watch, what goes through in a second, until Ctrl-C; as JSON a line each time.
    """
    before = session.client.stats()
    if watch is None:
        session.tell(before, lambda: totals(before))
        return
    started = time.monotonic()
    done = 0
    while count is None or done < count:
        time.sleep(watch)
        found, now = session.client.stats(), time.monotonic()
        passed = rates(before, found, now - started)
        if session.output == "json":
            say(json.dumps(passed))
        else:
            say(f"{time.strftime('%H:%M:%S')}\n{flowing(passed)}\n")
        before, started, done = found, now, done + 1


def totals(found: Figures) -> str:
    """Counters as people read them."""
    head = ["", "reads", "writes", "read", "written", "errors", "media errors", "interrupts"]
    rows = [
        [
            name,
            *(format_count(one[key]) for key in ("reads", "writes")),
            *(format_size(one[key]) for key in ("bytes_read", "bytes_written")),
            *(format_count(one[key]) for key in ("errors", "media_errors", "interrupts")),
        ]
        for name, one in _named(found)
    ]
    return table(head, rows)


def flowing(found: Figures) -> str:
    """Rates as people read them."""
    rows = [
        [
            name,
            *(format_count(one[key]) for key in ("reads", "writes")),
            *(f"{format_size(one[key])}/s" for key in ("bytes_read", "bytes_written")),
            format_count(one["errors"]),
        ]
        for name, one in _named(found)
    ]
    return table(["", "reads/s", "writes/s", "read", "written", "errors/s"], rows)


def rates(before: Figures, after: Figures, seconds: float) -> dict[str, Any]:
    """What went through in a second between two looks, in the form of `stats`."""

    def rate(old: Figures | None, new: Figures) -> dict[str, Any]:
        return {
            # What was removed and made again in between has counted from nothing.
            name: value if name in _NAMES else max(value - (old or {}).get(name, 0), 0) / seconds
            for name, value in new.items()
        }

    def each(kind: str) -> list[dict[str, Any]]:
        known = {_key(one): one for one in before[kind]}
        return [rate(known.get(_key(one)), one) for one in after[kind]]

    return {
        "seconds": seconds,
        "total": rate(before["total"], after["total"]),
        "controllers": each("controllers"),
        "namespaces": each("namespaces"),
    }


_NAMES = ("portid", "subsystem", "nsid")


def _key(one: Figures) -> tuple[Any, ...]:
    return tuple(one.get(name) for name in _NAMES)


def _named(found: Figures) -> list[tuple[str, Figures]]:
    rows = [(f"port {one['portid']}", one) for one in found["controllers"]]
    rows += [(f"{one['subsystem']}/{one['nsid']}", one) for one in found["namespaces"]]
    return [*rows, ("all", found["total"])]
