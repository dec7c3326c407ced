"""`ctl ns`: namespaces that come, change and go while guests run."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any
from uuid import UUID

import click

from nvmet_vdev.cli.ctl.session import Session, common, pass_session
from nvmet_vdev.cli.ctl.words import HOST, NAMESPACE, subsystem_option
from nvmet_vdev.cli.params import DISK, SIZE
from nvmet_vdev.errors import UsageError
from nvmet_vdev.grammar import Spec, parse
from nvmet_vdev.sizes import format_size


@click.group(
    "ns",
    short_help="Namespaces: add, remove, change.",
    epilog="""\b
Examples:
  nvmet-vdev ctl ns add data.img --create 10G
  nvmet-vdev ctl ns rm 2
  nvmet-vdev ctl ns resize nqn.2026-01.org.example:vms/2 20G

\b
A namespace is NQN/NSID, or NSID where there is one subsystem alone or --subsystem
names it.
""",
)
@common
def ns() -> None:
    """Add, remove and change namespaces. Guests are told, and commands that run end as they will."""


@ns.command(
    "add",
    short_help="Add a namespace.",
    epilog="""\b
Examples:
  nvmet-vdev ctl ns add data.img --create 10G
  nvmet-vdev ctl ns add /dev/vg/lv --nsid 5 --ana-group 2
  nvmet-vdev ctl ns add ram:1G --subsystem nqn.2026-01.org.example:vms --disabled
""",
)
@click.argument("backend", metavar="DISK", type=DISK)
@subsystem_option
@click.option("--nsid", metavar="N", type=click.IntRange(1), help="Its number; else the lowest free one.")
@click.option(
    "--create", metavar="SIZE", type=SIZE, help="Make an image file that does not exist, this large."
)
@click.option("--block-size", type=click.Choice(["512", "4096"]), help="Bytes per LBA.")
@click.option("--read-only", is_flag=True, help="Open it for reading only.")
@click.option("--uuid", metavar="UUID", type=click.UUID, help="Its UUID; else made of the file's path.")
@click.option("--nguid", metavar="HEX", help="Its NGUID, 32 hexadecimal digits.")
@click.option("--eui64", metavar="HEX", help="Its EUI64, 16 hexadecimal digits.")
@click.option("--ana-group", metavar="N", type=click.IntRange(1), help="Its ANA group; else 1.")
@click.option("--no-reservations", is_flag=True, help="Guests may not reserve it.")
@click.option(
    "--host", "hosts", metavar="NQN", type=HOST, multiple=True, help="A host that sees it; else all."
)
@click.option("--disabled", is_flag=True, help="Guests do not see it yet.")
@click.option("--protect", is_flag=True, help="Write protect it.")
@common
@pass_session
def add(
    session: Session,
    backend: str,
    subsystem: str | None,
    nsid: int | None,
    create: int | None,
    block_size: str | None,
    read_only: bool,
    uuid: UUID | None,
    nguid: str | None,
    eui64: str | None,
    ana_group: int | None,
    no_reservations: bool,
    hosts: tuple[str, ...],
    disabled: bool,
    protect: bool,
) -> None:
    """Add DISK as a namespace: a file, a block device, ram:SIZE, or what `nvmet-vdev backends` lists."""
    options: dict[str, Any] = {
        "nsid": nsid,
        "create": create,
        "block_size": int(block_size) if block_size is not None else None,
        "read_only": read_only or None,
        "uuid": uuid,
        "nguid": nguid,
        "eui64": eui64,
        "ana_grpid": ana_group,
        "resv": False if no_reservations else None,
        "hosts": list(hosts) or None,
        "enable": False if disabled else None,
        "protect": protect or None,
    }
    given = {name: value for name, value in options.items() if value is not None}
    nqn = session.subsystem(subsystem)
    found = session.client.namespace_add(nqn, str(_from_here(parse(backend))), **given)
    session.tell({"nqn": nqn, "nsid": found}, f"added {nqn}/{found}")


def _from_here(spec: Spec) -> Spec:
    """`spec` with its path made absolute: the target may be in another directory."""
    if spec.inner is not None:
        return dataclasses.replace(spec, inner=_from_here(spec.inner))
    if not spec.scheme:
        return dataclasses.replace(spec, rest=str(Path(spec.rest).absolute()))
    if spec.scheme == "python" and spec.rest.startswith("."):
        place, colon, name = spec.rest.rpartition(":")
        return dataclasses.replace(spec, rest=f"{Path(place).absolute()}{colon}{name}")
    if spec.scheme == "nbdkit" and spec.rest.endswith(".py"):
        return dataclasses.replace(spec, rest=str(Path(spec.rest).absolute()))
    return spec


@ns.command("rm", short_help="Remove a namespace.", epilog="\b\nExamples:\n  nvmet-vdev ctl ns rm 2\n")
@click.argument("namespace", type=NAMESPACE)
@subsystem_option
@common
@pass_session
def remove(session: Session, namespace: tuple[str | None, int], subsystem: str | None) -> None:
    """Remove NAMESPACE from its subsystem. The file stays as it is."""
    nqn, nsid = session.namespace(namespace, subsystem)
    session.client.namespace_remove(nqn, nsid)
    session.tell(None, f"removed {nqn}/{nsid}")


@ns.command(
    "resize",
    short_help="Give a namespace another size.",
    epilog="""\b
Examples:
  nvmet-vdev ctl ns resize 2 20G
  nvmet-vdev ctl ns resize 2
""",
)
@click.argument("namespace", type=NAMESPACE)
@click.argument("size", type=SIZE, required=False)
@subsystem_option
@common
@pass_session
def resize(
    session: Session, namespace: tuple[str | None, int], size: int | None, subsystem: str | None
) -> None:
    """Give NAMESPACE another SIZE: the file is extended or cut off. What lies behind a smaller end is lost.

    Without SIZE it takes the size that its file or device has got by itself.
    """
    nqn, nsid = session.namespace(namespace, subsystem)
    session.client.namespace_resize(nqn, nsid, size)
    what = format_size(size) if size is not None else "the size of its backend"
    session.tell(None, f"{nqn}/{nsid} has {what}")


@ns.command(
    "enable", short_help="Let guests see a namespace.", epilog="\b\nExamples:\n  nvmet-vdev ctl ns enable 2\n"
)
@click.argument("namespace", type=NAMESPACE)
@subsystem_option
@common
@pass_session
def enable(session: Session, namespace: tuple[str | None, int], subsystem: str | None) -> None:
    """Let guests see NAMESPACE."""
    nqn, nsid = session.namespace(namespace, subsystem)
    session.client.namespace_enable(nqn, nsid)
    session.tell(None, f"{nqn}/{nsid} is enabled")


@ns.command(
    "disable",
    short_help="Take a namespace from guests' sight.",
    epilog="\b\nExamples:\n  nvmet-vdev ctl ns disable 2\n",
)
@click.argument("namespace", type=NAMESPACE)
@subsystem_option
@common
@pass_session
def disable(session: Session, namespace: tuple[str | None, int], subsystem: str | None) -> None:
    """Take NAMESPACE from guests' sight. Commands that run end, or are aborted after some seconds."""
    nqn, nsid = session.namespace(namespace, subsystem)
    session.client.namespace_disable(nqn, nsid)
    session.tell(None, f"{nqn}/{nsid} is disabled")


@ns.command(
    "protect",
    short_help="Write protect a namespace, or no longer.",
    epilog="""\b
Examples:
  nvmet-vdev ctl ns protect 2
  nvmet-vdev ctl ns protect 2 off
""",
)
@click.argument("namespace", type=NAMESPACE)
@click.argument("state", type=click.Choice(["on", "off"]), default="on")
@subsystem_option
@common
@pass_session
def protect(session: Session, namespace: tuple[str | None, int], state: str, subsystem: str | None) -> None:
    """Write protect NAMESPACE, which no guest can undo, or no longer with `off`."""
    nqn, nsid = session.namespace(namespace, subsystem)
    session.client.namespace_protect(nqn, nsid, state == "on")
    session.tell(None, f"{nqn}/{nsid} is {'' if state == 'on' else 'no longer '}write protected")


@ns.command(
    "ana",
    short_help="Put a namespace into another ANA group.",
    epilog="\b\nExamples:\n  nvmet-vdev ctl ns ana 2 5\n",
)
@click.argument("namespace", type=NAMESPACE)
@click.argument("group", type=click.IntRange(1))
@subsystem_option
@common
@pass_session
def ana(session: Session, namespace: tuple[str | None, int], group: int, subsystem: str | None) -> None:
    """Put NAMESPACE into the ANA GROUP."""
    nqn, nsid = session.namespace(namespace, subsystem)
    session.client.namespace_ana_group(nqn, nsid, group)
    session.tell(None, f"{nqn}/{nsid} is in ANA group {group}")


@ns.command(
    "attach",
    short_help="Say which hosts see a namespace.",
    epilog="""\b
Examples:
  nvmet-vdev ctl ns attach 2 nqn.2026-01.org.example:vm1 nqn.2026-01.org.example:vm2
  nvmet-vdev ctl ns attach 2 --all
  nvmet-vdev ctl ns attach 2 --none
""",
)
@click.argument("namespace", type=NAMESPACE)
@click.argument("hosts", metavar="[HOST]...", type=HOST, nargs=-1)
@click.option("--all", "everybody", is_flag=True, help="All hosts see it.")
@click.option("--none", "nobody", is_flag=True, help="No host sees it.")
@subsystem_option
@common
@pass_session
def attach(
    session: Session,
    namespace: tuple[str | None, int],
    hosts: tuple[str, ...],
    everybody: bool,
    nobody: bool,
    subsystem: str | None,
) -> None:
    """Attach NAMESPACE to the controllers of each HOST, and to no other."""
    if bool(hosts) + everybody + nobody != 1:
        raise UsageError("ns attach takes hosts, or --all, or --none: one of them")
    nqn, nsid = session.namespace(namespace, subsystem)
    session.client.namespace_attach(nqn, nsid, None if everybody else list(hosts))
    whom = "all hosts" if everybody else "no host" if nobody else ", ".join(hosts)
    session.tell(None, f"{nqn}/{nsid} is attached to {whom}")
