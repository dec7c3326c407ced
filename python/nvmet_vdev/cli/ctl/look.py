"""`ctl ls` and `ctl show`: what there is."""

from __future__ import annotations

from collections.abc import Mapping, Sized
from typing import Any, Literal

import click

from nvmet_vdev.cli.ctl.outline import Branch, draw
from nvmet_vdev.cli.ctl.session import Session, common, pass_session
from nvmet_vdev.cli.ctl.words import HOST, NAMESPACE, PORT, SUBSYSTEM, subsystem_option
from nvmet_vdev.control import tree
from nvmet_vdev.output import fields
from nvmet_vdev.sizes import format_size


@click.command(
    "ls",
    short_help="Show all that there is, as a tree.",
    epilog="""\b
Examples:
  nvmet-vdev ctl ls
  nvmet-vdev ctl ls --output json | jq '.ports[].traddr'
""",
)
@common
@pass_session
def ls(session: Session) -> None:
    """Show hosts, ports and subsystems with their namespaces, as a tree, and how they stand."""
    found = session.client.list()
    session.tell(found, lambda: draw(outline(found)))


def outline(found: tree.Node) -> Branch:
    """The tree as people read it."""
    root = Branch("/", "nvmet-vdev")
    hosts = root.add("hosts", _count(tree.hosts(found), "host"))
    for host in tree.hosts(found):
        hosts.add(host["nqn"], f"hostid={host['hostid']}" if host["hostid"] else "")
    ports = root.add("ports", _count(tree.ports(found), "port"))
    for port in tree.ports(found):
        _port(ports, port)
    subsystems = root.add("subsystems", _count(tree.subsystems(found), "subsystem"))
    for subsystem in tree.subsystems(found):
        _subsystem(subsystems, subsystem)
    return root


def _port(ports: Branch, port: tree.Node) -> None:
    state = "attached" if port["attached"] else "not attached"
    branch = ports.add(str(port["portid"]), f"{port['traddr']}, controller {port['cntlid']}, {state}")
    branch.add("subsystem", port["subsystem"])
    branch.add("host", port["hostnqn"])
    groups = port["ana"]
    if groups:
        ana = branch.add("ana_groups", _count(groups, "group"))
        for group, access in groups.items():
            ana.add(group, access)


def _subsystem(subsystems: Branch, subsystem: tree.Node) -> None:
    branch = subsystems.add(subsystem["nqn"], f"serial={subsystem['serial']}, model={subsystem['model']}")
    allowed = subsystem["allowed_hosts"]
    hosts = branch.add(
        "allowed_hosts", "any host" if subsystem["allow_any_host"] else _count(allowed, "host")
    )
    for host in allowed:
        hosts.add(host)
    namespaces = branch.add("namespaces", _count(subsystem["namespaces"], "namespace"))
    for namespace in subsystem["namespaces"]:
        one = namespaces.add(str(namespace["nsid"]), namespace_state(namespace))
        if namespace["hosts"] is not None:
            attached = one.add("hosts", _count(namespace["hosts"], "host"))
            for host in namespace["hosts"]:
                attached.add(host)


def namespace_state(namespace: tree.Node) -> str:
    """How a namespace stands, in a few words."""
    words = [
        str(namespace["backend"]),
        format_size(namespace["size"]),
        f"ANA group {namespace['ana_grpid']}",
        "enabled" if namespace["enable"] else "disabled",
    ]
    if namespace["read_only"]:
        words.append("read-only")
    elif namespace["write_protected"]:
        words.append("write protected")
    if held := namespace.get("reservation"):
        words.append(f"reserved: {held}")
    return ", ".join(words)


def _count(things: Sized, what: str) -> str:
    return f"{len(things)} {what}{'' if len(things) == 1 else 's'}"


@click.group(
    "show",
    short_help="Show one thing with all that is known about it.",
    epilog="""\b
Examples:
  nvmet-vdev ctl show ns 1
  nvmet-vdev ctl show port 1 --output json
""",
)
@common
def show() -> None:
    """Show one thing with all that is known about it."""


def _tell(session: Session, kind: Literal["subsystem", "namespace", "port", "host"], **which: Any) -> None:
    found = session.client.show(kind, **which)
    session.tell(found, lambda: fields(_rows(found)))


def _rows(found: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    for name, value in found.items():
        label = f"{prefix}{name}"
        if isinstance(value, Mapping) and value:
            rows += _rows(value, f"{label}.")
        elif isinstance(value, list) and value:
            for number, one in enumerate(value):
                if isinstance(one, Mapping):
                    rows += _rows(one, f"{label}[{number}].")
                else:
                    rows.append((f"{label}[{number}]", _word(name, one)))
        else:
            rows.append((label, _word(name, value)))
    return rows


def _word(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None or value in ([], {}):
        return "none"
    if name == "size" and isinstance(value, int):
        return f"{value} ({format_size(value)})"
    return str(value)


@show.command(
    "subsys",
    short_help="A subsystem.",
    epilog="\b\nExamples:\n  nvmet-vdev ctl show subsys nqn.2026-01.org.example:vms\n",
)
@click.argument("nqn", type=SUBSYSTEM, required=False)
@common
@pass_session
def show_subsystem(session: Session, nqn: str | None) -> None:
    """Show the subsystem NQN; the only one, if there is one."""
    _tell(session, "subsystem", nqn=session.subsystem(nqn))


@show.command(
    "ns",
    short_help="A namespace.",
    epilog="""\b
Examples:
  nvmet-vdev ctl show ns 1
  nvmet-vdev ctl show ns nqn.2026-01.org.example:vms/1
""",
)
@click.argument("namespace", metavar="NAMESPACE", type=NAMESPACE)
@subsystem_option
@common
@pass_session
def show_namespace(session: Session, namespace: tuple[str | None, int], subsystem: str | None) -> None:
    """Show NAMESPACE, NQN/NSID or NSID."""
    nqn, nsid = session.namespace(namespace, subsystem)
    _tell(session, "namespace", nqn=nqn, nsid=nsid)


@show.command(
    "port",
    short_help="A port.",
    epilog="\b\nExamples:\n  nvmet-vdev ctl show port 1 --output json\n",
)
@click.argument("port", metavar="PORT", type=PORT)
@common
@pass_session
def show_port(session: Session, port: int | str) -> None:
    """Show PORT, its number or its socket."""
    _tell(session, "port", portid=session.port(port))


@show.command(
    "host",
    short_help="A host.",
    epilog="\b\nExamples:\n  nvmet-vdev ctl show host nqn.2026-01.org.example:vm1\n",
)
@click.argument("nqn", type=HOST)
@common
@pass_session
def show_host(session: Session, nqn: str) -> None:
    """Show the host NQN."""
    _tell(session, "host", nqn=nqn)
