"""`nvmet-vdev save`: writes the configuration of what runs to a file."""

from __future__ import annotations

from pathlib import Path

import click

from nvmet_vdev import config
from nvmet_vdev.cli import verbosity
from nvmet_vdev.config.model import Config
from nvmet_vdev.config.reading import read_node
from nvmet_vdev.output import say


@click.command(
    "save",
    short_help="Write down what a running target serves.",
    epilog="""\b
Examples:
  nvmet-vdev save drives.toml
  nvmet-vdev save nvmet.json                    for nvmetcli's readers
""",
)
@click.argument("file", metavar="FILE", type=click.Path(path_type=Path))
@click.option("--control", metavar="PATH", help="The target's control socket.")
@verbosity.option
def command(file: Path, control: str | None) -> None:
    """Write the configuration of what runs to FILE, which `nvmet-vdev serve -c FILE` serves again.

    FILE ends in .toml or .json and is for its owner alone. It has the old content or the new one, whatever
    happens meanwhile.
    """
    # Before anybody is asked.
    config.format_of(file)
    from nvmet_vdev.cli.ctl.session import connect

    with connect(control) as client:
        found = read_node(Config, client.config_get())
    config.save(found, file)
    say(f"saved to {file}")
