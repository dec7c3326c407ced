"""Namespaces, ports, subsystems and hosts as words on the command line, completed from the running target.

May know the tree that `list` gives; must not know commands.
"""

from __future__ import annotations

from pathlib import Path

import click
from click.shell_completion import CompletionItem

from nvmet_vdev.cli.ctl.session import offered
from nvmet_vdev.control import tree
from nvmet_vdev.sizes import format_size


class NamespaceWord(click.ParamType[tuple[str | None, int]]):
    """``NQN/NSID`` or ``NSID``; the NQN may have slashes of its own."""

    name = "namespace"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str | None, int]:
        if isinstance(value, tuple):
            return value
        nqn, slash, number = str(value).rpartition("/")
        if not (number.isascii() and number.isdecimal() and len(number) <= 10) or (slash and not nqn):
            self.fail(f"'{value}' is no namespace; write NQN/NSID, or its NSID alone", param, ctx)
        return (nqn if slash else None), int(number)

    def shell_complete(
        self,
        ctx: click.Context,
        param: click.Parameter,  # noqa: ARG002
        incomplete: str,
    ) -> list[CompletionItem]:
        given = ctx.params.get("subsystem")

        def items(here: tree.Node) -> list[CompletionItem]:
            subsystems = tree.subsystems(here)
            found = []
            for subsystem in subsystems:
                bare = given == subsystem["nqn"] or (given is None and len(subsystems) == 1)
                for one in subsystem["namespaces"]:
                    word = str(one["nsid"]) if bare else f"{subsystem['nqn']}/{one['nsid']}"
                    about = f"{one['backend']}, {format_size(one['size'])}"
                    found.append(CompletionItem(word, help=about))
            return found

        return offered(ctx, incomplete, items)


class PortWord(click.ParamType[int | str]):
    """A port's number, or its socket's path."""

    name = "port"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int | str:
        if isinstance(value, int):
            return value
        text = str(value)
        if text.isascii() and text.isdecimal() and len(text) <= 5:
            return int(text)
        if "/" not in text:
            self.fail(f"'{text}' is no port; write its number, or its socket with a slash in it", param, ctx)
        return str(Path(text).absolute())

    def shell_complete(
        self,
        ctx: click.Context,
        param: click.Parameter,  # noqa: ARG002
        incomplete: str,
    ) -> list[CompletionItem]:
        def items(here: tree.Node) -> list[CompletionItem]:
            ports = tree.ports(here)
            found = [CompletionItem(str(one["portid"]), help=one["traddr"]) for one in ports]
            # A path is offered to who has begun one.
            return found + [
                CompletionItem(one["traddr"], help=f"port {one['portid']}")
                for one in ports
                if "/" in incomplete
            ]

        return offered(ctx, incomplete, items)


class SubsystemWord(click.ParamType[str]):
    """The NQN of a subsystem."""

    name = "nqn"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> str:  # noqa: ARG002
        return str(value)

    def shell_complete(
        self,
        ctx: click.Context,
        param: click.Parameter,  # noqa: ARG002
        incomplete: str,
    ) -> list[CompletionItem]:
        return offered(
            ctx, incomplete, lambda here: [CompletionItem(one["nqn"]) for one in tree.subsystems(here)]
        )


class HostWord(SubsystemWord):
    """The NQN of a host."""

    def shell_complete(
        self,
        ctx: click.Context,
        param: click.Parameter,  # noqa: ARG002
        incomplete: str,
    ) -> list[CompletionItem]:
        return offered(ctx, incomplete, lambda here: [CompletionItem(one["nqn"]) for one in tree.hosts(here)])


NAMESPACE = NamespaceWord()
PORT = PortWord()
SUBSYSTEM = SubsystemWord()
HOST = HostWord()

subsystem_option = click.option(
    "--subsystem", metavar="NQN", type=SUBSYSTEM, help="The subsystem; needed where there are several."
)
"""Adds --subsystem."""
