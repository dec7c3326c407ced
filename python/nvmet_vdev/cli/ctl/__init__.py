"""`nvmet-vdev ctl`: the running target, asked and changed through its control socket.

Finds a command; each is in a module of its own. May know the commands' names; must not know the target.
"""

from __future__ import annotations

import importlib

import click

from nvmet_vdev.cli.ctl.session import Session, common

_PLACES = {
    "ls": "look",
    "show": "look",
    "ns": "ns",
    "port": "port",
    "subsys": "subsys",
    "host": "host",
    "ana": "ana",
    "resv": "resv",
    "stats": "stats",
    "health": "health",
    "save": "general",
    "methods": "general",
    "call": "general",
    "shutdown": "general",
}


class _Commands(click.Group):
    """Commands that are imported only when they are used."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(_PLACES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if (place := _PLACES.get(cmd_name)) is None:
            return None
        module = importlib.import_module(f"nvmet_vdev.cli.ctl.{place}")
        command = getattr(module, cmd_name)
        assert isinstance(command, click.Command)  # noqa: S101 - for the type checker
        return command


@click.group(
    "ctl",
    cls=_Commands,
    short_help="Ask and change a target that runs.",
    epilog="""\b
Examples:
  nvmet-vdev ctl ls
  nvmet-vdev ctl ns add data.img --create 10G
  nvmet-vdev ctl ns resize 2 20G
  nvmet-vdev ctl port add /run/user/1000/nvmet-vdev/vm2.sock
  nvmet-vdev ctl ana set 1 1 inaccessible
  nvmet-vdev ctl stats --watch 1
  nvmet-vdev ctl ls --output json | jq .subsystems

\b
A namespace is written NQN/NSID. Where there is one subsystem alone, or --subsystem
names it, its NSID will do.
""",
)
@common
@click.pass_context
def command(ctx: click.Context) -> None:
    """Ask and change a target that runs, through its control socket.

    The socket is --control, else $NVMET_VDEV_CONTROL, else the one that the target has when
    nobody says: $XDG_RUNTIME_DIR/nvmet-vdev/control.sock.
    """
    ctx.ensure_object(Session)
