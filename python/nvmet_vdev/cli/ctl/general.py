"""`ctl save`, `methods`, `call` and `shutdown`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from nvmet_vdev.cli.ctl.session import Session, common, pass_session
from nvmet_vdev.errors import UsageError
from nvmet_vdev.output import bold, say


@click.command(
    "save",
    short_help="Write the configuration of what runs to a file.",
    epilog="""\b
Examples:
  nvmet-vdev ctl save
  nvmet-vdev ctl save drives.toml
  nvmet-vdev ctl save drives.json
""",
)
@click.argument("file", type=click.Path(dir_okay=False), required=False)
@common
@pass_session
def save(session: Session, file: str | None) -> None:
    """Write the configuration of what runs to FILE, TOML or JSON by its name, whole and with mode 0600.

    The target writes it, as its own user. Without FILE it is the file that the target was
    started with, unless that has something that was skipped.
    """
    session.client.config_save(file)
    session.tell(None, f"saved to {Path(file).absolute()}" if file is not None else "saved")


@click.command(
    "methods",
    short_help="List the methods of the control socket.",
    epilog="\b\nExamples:\n  nvmet-vdev ctl methods\n  nvmet-vdev ctl methods namespace.add\n",
)
@click.argument("names", metavar="[METHOD]...", nargs=-1)
@common
@pass_session
def methods(session: Session, names: tuple[str, ...]) -> None:
    """List the methods of the control socket with their parameters: all, or METHODs."""
    found = session.client.methods()
    known = {method["name"] for method in found}
    if unknown := [name for name in names if name not in known]:
        raise UsageError(f"there is no method {unknown[0]!r}; 'nvmet-vdev ctl methods' lists them")
    chosen = [method for method in found if not names or method["name"] in names]
    session.tell(chosen, lambda: "\n\n".join(map(_method, chosen)))


def _method(method: Mapping[str, Any]) -> str:
    import sys

    lines = [bold(method["name"], sys.stdout), f"  {method['doc']}"]
    width = max((len(param["name"]) for param in method["params"]), default=0)
    for param in method["params"]:
        default = f", by default {json.dumps(param['default'])}" if "default" in param else ""
        must = "" if param["required"] else "optional, "
        lines.append(f"    {param['name']:<{width}}  {must}{param['use']}{default}: {param['doc']}")
    return "\n".join(lines)


@click.command(
    "call",
    short_help="Call any method.",
    epilog="""\b
Examples:
  nvmet-vdev ctl call list
  nvmet-vdev ctl call namespace.enable nqn=nqn.2026-01.org.example:vms nsid=1
  nvmet-vdev ctl call namespace.attach nqn=nqn.2026-01.org.example:vms nsid=1 'hosts=null'
""",
)
@click.argument("method")
@click.argument("params", metavar="[KEY=VALUE]...", nargs=-1)
@common
@pass_session
def call(session: Session, method: str, params: Sequence[str]) -> None:
    """Call METHOD of the control socket and print its result, which is JSON.

    A VALUE is JSON if it is any (5, true, null, [...], "5"), else text.
    """
    say(json.dumps(session.client.call(method, **_parsed(params)), indent=2))


def _parsed(params: Sequence[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for word in params:
        key, equals, text = word.partition("=")
        if not key or not equals:
            raise UsageError(f"'{word}' is no parameter; write key=value")
        if key in found:
            raise UsageError(f"{key} is given twice; give it once")
        try:
            found[key] = json.loads(text)
        except (ValueError, RecursionError):
            found[key] = text
    return found


@click.command("shutdown", short_help="End the target.", epilog="\b\nExamples:\n  nvmet-vdev ctl shutdown\n")
@common
@pass_session
def shutdown(session: Session) -> None:
    """End the target, as SIGTERM does: guests are disconnected, running commands end, data is flushed."""
    session.client.shutdown()
    session.tell(None, "the target ends")
