"""`nvmet-vdev serve`: serves what a configuration file describes until it is told to stop."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import click
import msgspec

from nvmet_vdev import ConfigError, config, pidfile
from nvmet_vdev.cli import verbosity
from nvmet_vdev.cli.params import CPUS
from nvmet_vdev.cli.serving import Service, listening_path
from nvmet_vdev.config.problems import Problem
from nvmet_vdev.errors import UsageError
from nvmet_vdev.manager.words import in_keys
from nvmet_vdev.output import say, warn


@click.command(
    "serve",
    short_help="Serve drives as a configuration file describes them.",
    epilog="""\b
Examples:
  nvmet-vdev serve -c drives.toml
  nvmet-vdev serve -c drives.toml --check       only says whether it can be served
  nvmet-vdev serve -c nvmet.json --strict       what `nvmetcli save` wrote
  nvmet-vdev serve -c drives.toml --state-dir /tmp/state --control none

docs/configuration.md has all keys. `nvmet-vdev ctl` changes what is served meanwhile, and
`nvmet-vdev save FILE` writes it down.
""",
)
@click.option(
    "-c",
    "--config",
    "file",
    metavar="FILE",
    required=True,
    type=click.Path(path_type=Path),
    help="TOML, or JSON as nvmetcli writes it.",
)
@click.option("--strict", is_flag=True, help="Refuse what does not apply here instead of skipping it.")
@click.option("--check", is_flag=True, help="Read the file, say what is wrong, and serve nothing.")
@click.option(
    "--control",
    metavar="PATH",
    help="Socket for `nvmet-vdev ctl`, or none. Without it $XDG_RUNTIME_DIR/nvmet-vdev/control.sock.",
)
@click.option(
    "--state-dir",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Keep there what is to outlive the target, such as reservations that persist.",
)
@click.option(
    "--discard-state",
    is_flag=True,
    help="Throw away files in it that are damaged or not ours, and begin anew.",
)
@click.option(
    "--fd",
    "fds",
    metavar="N",
    type=click.IntRange(0),
    multiple=True,
    help="Use this socket, already listening, for the port that has its path. May be repeated.",
)
@click.option("--workers", metavar="N", type=click.IntRange(1, 1024), help="Worker threads.")
@click.option("--cpus", metavar="LIST", type=CPUS, help="Pin the workers to these CPUs: 0,2-3.")
@click.option(
    "--wait",
    type=click.Choice(["poll", "adaptive", "event"]),
    help="What a worker does that has nothing to do; see `nvmet-vdev run --help`.",
)
@click.option("--pidfile", "pid_path", metavar="F", help="Write the process id here, once ready.")
@verbosity.option
def command(
    file: Path,
    strict: bool,
    check: bool,
    control: str | None,
    state_dir: Path | None,
    discard_state: bool,
    fds: tuple[int, ...],
    workers: int | None,
    cpus: tuple[int, ...] | None,
    wait: Literal["poll", "adaptive", "event"] | None,
    pid_path: str | None,
) -> None:
    """Serve the drives that FILE describes, each on the socket of its port.

    Ready when it has printed "listening on PATH" for all of them. SIGINT or SIGTERM stop it cleanly:
    running commands end, data is flushed, the exit status is 0. --workers, --cpus, --wait and
    --state-dir go before what the file says.
    """
    pid_file = Path(pid_path) if pid_path is not None else None
    if pid_file is not None:
        pidfile.check(pid_file)
    loaded = config.load(file, strict=strict)
    for note in loaded.notes:
        warn(note)
    if check:
        say(_summary(file, loaded.config))
        return
    settings: dict[str, Any] = {"workers": workers, "cpus": cpus, "wait": wait}
    wanted = msgspec.structs.replace(
        loaded.config,
        target=msgspec.structs.replace(
            loaded.config.target, **{name: value for name, value in settings.items() if value is not None}
        ),
    )
    place = _control(control)
    if place is None and not wanted.ports:
        raise UsageError(
            f"{file}: has no port on a vfio-user socket, and there is no control socket; add a port"
        )
    service = Service(
        wanted,
        checked=True,
        sockets=_sockets(fds, wanted),
        state_dir=state_dir,
        discard_state=discard_state,
        pid_file=pid_file,
        control=place,
        # What was skipped, somebody else needs: it is not to be lost by a save that names no file.
        file=None if loaded.partial else file.absolute(),
    )
    try:
        service.run()
    except Problem as problem:
        raise ConfigError(in_keys(str(loaded.named(problem)))) from problem


def _summary(file: Path, wanted: config.Config) -> str:
    namespaces = sum(len(subsystem.namespaces) for subsystem in wanted.subsystems)
    counts = [
        (len(wanted.subsystems), "subsystem"),
        (namespaces, "namespace"),
        (len(wanted.ports), "port"),
        (len(wanted.hosts), "host"),
    ]
    return f"{file}: " + ", ".join(f"{count} {name}{'' if count == 1 else 's'}" for count, name in counts)


def _control(path: str | None) -> Path | None:
    # Late: who only checks a file needs none of it.
    from nvmet_vdev.control import paths

    if path == "none":
        return None
    return paths.check(path) if path is not None else paths.default_path(make=True)


def _sockets(fds: tuple[int, ...], wanted: config.Config) -> dict[str, int]:
    """The ports' paths that the descriptors listen at."""
    ports = {Path(port.traddr).absolute(): port.traddr for port in wanted.ports}
    found: dict[str, int] = {}
    for fd in fds:
        path = listening_path(fd)
        port = ports.get(path.absolute())
        if port is None:
            raise UsageError(
                f"--fd {fd} listens on {path}, and no port has that traddr; add one, or leave it out"
            )
        found[port] = fd
    return found
