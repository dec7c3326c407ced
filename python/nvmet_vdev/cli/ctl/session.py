"""What the commands of `ctl` share: the connection, the options, and what a name stands for.

May know the client and the tree that `list` gives; must not know commands.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, TypeVar

import click
from click.shell_completion import CompletionItem

from nvmet_vdev.cli import verbosity
from nvmet_vdev.control import tree
from nvmet_vdev.control.client import Client, NoTargetError
from nvmet_vdev.errors import UsageError
from nvmet_vdev.output import say

_F = TypeVar("_F", bound=Callable[..., Any])

COMPLETION_SECONDS = 0.5
"""How long a shell may wait for a target at a Tab."""


class Session:
    """One run of `ctl`: which target, and how results are shown."""

    def __init__(self) -> None:
        self.path: str | None = None
        self.output = "text"
        self._client: Client | None = None

    @property
    def client(self) -> Client:
        """The connection; made when it is asked for."""
        if self._client is None:
            self._client = connect(self.path)
            click.get_current_context().call_on_close(self._client.close)
        return self._client

    def tell(self, result: Any, text: str | Callable[[], str]) -> None:
        """One result: as JSON, or as `text`."""
        if self.output == "json":
            say(json.dumps(result, indent=2))
        else:
            say(text if isinstance(text, str) else text())

    def subsystem(self, given: str | None) -> str:
        """The subsystem that is meant: `given`, or the only one."""
        if given is not None:
            return given
        nqns = [one["nqn"] for one in tree.subsystems(self.client.list())]
        if len(nqns) == 1:
            return str(nqns[0])
        if not nqns:
            raise UsageError("the target has no subsystem; add one with 'nvmet-vdev ctl subsys add NQN'")
        raise UsageError(f"the target has {len(nqns)} subsystems; say which with --subsystem NQN")

    def namespace(self, place: tuple[str | None, int], given: str | None) -> tuple[str, int]:
        """The namespace that is meant by `place`, where `--subsystem` is `given`."""
        nqn, nsid = place
        if nqn is not None and given is not None and nqn != given:
            raise UsageError(f"{nqn}/{nsid} is not in --subsystem {given}; leave one of them out")
        return self.subsystem(nqn if nqn is not None else given), nsid

    def port(self, place: int | str) -> int:
        """The port that is meant: its number, or its socket's path."""
        if isinstance(place, int):
            return place
        for one in tree.ports(self.client.list()):
            if one["traddr"] == place:
                return int(one["portid"])
        raise UsageError(f"no port has the socket {place}; 'nvmet-vdev ctl ls' shows all")


def connect(path: str | None, timeout: float = 60.0) -> Client:
    """A connection, or what to do to have one."""
    try:
        return Client(path, timeout=timeout)
    except NoTargetError as error:
        raise UsageError(
            f"{error}; start one with 'nvmet-vdev serve -c FILE', or name its socket with --control"
        ) from None


def offered(
    ctx: click.Context, incomplete: str, items: Callable[[tree.Node], list[CompletionItem]]
) -> list[CompletionItem]:
    """What completes `incomplete`, of what `items` finds in the target's tree; nothing if there is none that
    answers at once.
    """
    session = ctx.find_object(Session)
    try:
        with Client(session.path if session is not None else None, timeout=COMPLETION_SECONDS) as client:
            found = items(client.list())
    except Exception:
        # A shell would show whatever is said here in the middle of the operator's line.
        return []
    return [item for item in found if item.value.startswith(incomplete)]


def common(command: _F) -> _F:
    """Adds --control, --output and -v to a command; they may stand before a subcommand or behind it."""
    command = click.option(
        "--output",
        type=click.Choice(["text", "json"]),
        expose_value=False,
        callback=_set_output,
        help="Format.  [default: text]",
    )(command)
    command = click.option(
        "--control",
        metavar="PATH",
        type=click.Path(),
        expose_value=False,
        callback=_set_control,
        help="The target's control socket.",
    )(command)
    return verbosity.option(command)


def _set_output(ctx: click.Context, _param: click.Parameter, value: str | None) -> None:
    if value is not None:
        ctx.ensure_object(Session).output = value


def _set_control(ctx: click.Context, _param: click.Parameter, value: str | None) -> None:
    if value is not None:
        ctx.ensure_object(Session).path = value


pass_session = click.make_pass_decorator(Session, ensure=True)
"""Gives a command its session."""
