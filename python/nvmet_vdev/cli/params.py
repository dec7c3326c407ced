"""Options, and values of options, that several commands take."""

from __future__ import annotations

import click
from click.shell_completion import CompletionItem

from nvmet_vdev import ConfigError
from nvmet_vdev.grammar import schemes
from nvmet_vdev.sizes import parse_size


class Size(click.ParamType[int]):
    """A size in bytes: ``4096``, ``4k``, ``10G``."""

    name = "size"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        try:
            return parse_size(str(value))
        except ConfigError as error:
            self.fail(str(error), param, ctx)


class CpuList(click.ParamType[tuple[int, ...]]):
    """CPU numbers as in taskset(1): ``0``, ``0,2``, ``1-3,6``."""

    name = "list"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, ...]:
        if isinstance(value, tuple):
            return value
        cpus: list[int] = []
        for part in str(value).split(","):
            first, dash, last = part.partition("-")
            if not first.isdecimal() or (dash and not last.isdecimal()):
                self.fail(f"'{part}' is not a CPU number or a range; write it like 0,2-3", param, ctx)
            low, high = int(first), int(last or first)
            # The kernel's own bound on CPU numbers keeps a slip of the finger small.
            if high < low or high > 8191:
                self.fail(f"'{part}' is not a range of CPU numbers; write it like 0,2-3", param, ctx)
            cpus.extend(range(low, high + 1))
        return tuple(dict.fromkeys(cpus))


class Disk(click.ParamType[str]):
    """A spec (`nvmet_vdev.grammar`); shells complete the names that may stand before a colon, and files."""

    name = "disk"

    def shell_complete(
        self,
        ctx: click.Context,  # noqa: ARG002
        param: click.Parameter,  # noqa: ARG002
        incomplete: str,
    ) -> list[CompletionItem]:
        # Files first: where both are offered, bash takes the names of what comes later.
        return [
            CompletionItem(incomplete, type="file"),
            *(CompletionItem(name) for name in schemes() if incomplete and name.startswith(incomplete)),
        ]


SIZE = Size()
CPUS = CpuList()
DISK = Disk()

output_option = click.option(
    "--output",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="Format.",
)
