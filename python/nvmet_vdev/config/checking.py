"""What the parts of a configuration have to be to each other: names that are unique, references that lead
somewhere, hosts that may do what they are to do.

May know the model, names, and how paths lead to files. Must not know formats or the target.
"""

from __future__ import annotations

import os
from collections.abc import Hashable, Iterator, Sequence
from pathlib import Path as FilePath
from uuid import UUID

from nvmet_vdev import identity
from nvmet_vdev._nvmet import ConfigError
from nvmet_vdev.config.access import allows_any, host_of
from nvmet_vdev.config.model import Config, Namespace, Port, Subsystem
from nvmet_vdev.config.names import is_qualified, nqn_fault
from nvmet_vdev.config.normal import initial_ana
from nvmet_vdev.config.problems import Path, Problem, Where, shown, written
from nvmet_vdev.grammar import Spec, parse
from nvmet_vdev.sockets import MAX_PATH

__all__ = ["check"]


def check(config: Config, where: Where = written) -> list[str]:
    """Raises Problem for the first thing that cannot be; the rest that is worth knowing, one line each.

    `config` is in its normal form, where every host that is named is among the hosts.
    """
    if config.target.state_dir is not None:
        _bytes(config.target.state_dir, ("target", "state_dir"))
    for at, subsystem in enumerate(config.subsystems):
        _named(subsystem.allowed_hosts, ("subsystem", at, "allowed_hosts"))
    _hosts(config)
    _subsystems(config)
    _ports(config)
    return [
        *(
            f"{where(path)}: {nqn} is no NQN as NVMe has them (nqn.2024-01.com.example:name); used as it is"
            for nqn, path in _names(config).items()
            if not is_qualified(nqn)
        ),
        *(
            f"{where(path)}: {group}, which is inaccessible at every port; add it to the ana of one"
            for group, path in _nowhere(config)
        ),
    ]


def _nowhere(config: Config) -> Iterator[tuple[int, Path]]:
    """ANA groups of namespaces that all ports have forgotten, and nobody can read."""
    for at, subsystem in enumerate(config.subsystems):
        ports = [port for port in config.ports if port.subsystem == subsystem.nqn]
        for number, namespace in enumerate(subsystem.namespaces):
            group = namespace.ana_grpid
            states = {port.ana.get(group, initial_ana(group)) for port in ports}
            if namespace.enable and states == {"inaccessible"}:
                yield group, ("subsystem", at, "namespace", number, "ana_grpid")


def _names(config: Config) -> dict[str, Path]:
    """All names, and where each stands first."""
    found: dict[str, Path] = {}
    for at, subsystem in enumerate(config.subsystems):
        found.setdefault(subsystem.nqn, ("subsystem", at, "nqn"))
        for number, nqn in enumerate(subsystem.allowed_hosts):
            found.setdefault(nqn, ("subsystem", at, "allowed_hosts", number))
    for at, port in enumerate(config.ports):
        if port.hostnqn is not None:
            found.setdefault(port.hostnqn, ("port", at, "hostnqn"))
    for at, host in enumerate(config.hosts):
        found.setdefault(host.nqn, ("host", at, "nqn"))
    return found


class _Once:
    """Things that may be there once; the second one is a problem that names the first."""

    def __init__(self) -> None:
        self._seen: dict[Hashable, Path] = {}

    def add(self, key: Hashable, path: Path, value: object, hint: str = "use another one") -> None:
        if key in self._seen:
            raise _twice(path, value, self._seen[key], hint)
        self._seen[key] = path


def _twice(path: Path, value: object, first: Path, hint: str = "use another one") -> Problem:
    return Problem(path, lambda where: f"{shown(value)} is {where(first)} as well; {hint}")


def _named(names: Sequence[str], path: Path) -> None:
    once = _Once()
    for at, name in enumerate(names):
        _nqn(name, (*path, at))
        once.add(name, (*path, at), name)


def _nqn(nqn: str, path: Path) -> None:
    if (fault := nqn_fault(nqn)) is not None:
        raise Problem(path, f"{shown(nqn)} {fault}")


def _hosts(config: Config) -> None:
    names, identifiers = _Once(), _Once()
    for at, host in enumerate(config.hosts):
        _nqn(host.nqn, ("host", at, "nqn"))
        names.add(host.nqn, ("host", at, "nqn"), host.nqn)
        if host.hostid is not None:
            _identifier(host.hostid.int, ("host", at, "hostid"))
            identifiers.add(host.hostid, ("host", at, "hostid"), host.hostid)


def _identifier(value: int, path: Path) -> None:
    if not value:
        raise Problem(path, "is zero, which is no host's; use another UUID, or leave it out")


def _subsystems(config: Config) -> None:
    names, identifiers, images = _Once(), _Once(), _Images()
    for at, subsystem in enumerate(config.subsystems):
        path: Path = ("subsystem", at)
        _nqn(subsystem.nqn, (*path, "nqn"))
        names.add(subsystem.nqn, (*path, "nqn"), subsystem.nqn)
        if subsystem.cntlid_min > subsystem.cntlid_max:
            raise Problem(
                (*path, "cntlid_min"),
                f"{subsystem.cntlid_min} is above cntlid_max, {subsystem.cntlid_max}; use that or less",
            )
        numbers = _Once()
        for number, namespace in enumerate(subsystem.namespaces):
            place = (*path, "namespace", number)
            numbers.add(namespace.nsid, (*place, "nsid"), namespace.nsid)
            _namespace(namespace, subsystem, place)
            images.add(namespace, place)
            # One name for two namespaces, and guests take them for one, in whatever subsystems they are.
            for kind in ("uuid", "nguid", "eui64"):
                value, hint = getattr(namespace, kind), "use another one"
                if kind == "uuid" and value is None:
                    value = identity.namespace(_spec(namespace, place), subsystem.nqn, namespace.nsid)
                    hint = "it is made of the path, set another one"
                if value is not None:
                    identifiers.add((kind, value), (*place, kind), value, hint)


def _namespace(namespace: Namespace, subsystem: Subsystem, path: Path) -> None:
    spec = _spec(namespace, path)
    if namespace.uuid is not None and not namespace.uuid.int:
        raise Problem((*path, "uuid"), "is zero; use another one, or leave it out")
    if namespace.create is not None and spec.path is None:
        raise Problem((*path, "create"), f"makes image files, and {spec} has its size; leave it out")
    if namespace.iopoll and (not spec.native or spec.memory):
        raise Problem((*path, "iopoll"), f"is for block devices, and {spec} is none; leave it out")
    if namespace.hosts is None:
        return
    _named(namespace.hosts, (*path, "hosts"))
    for at, host in enumerate(namespace.hosts):
        if not allows_any(subsystem) and host not in subsystem.allowed_hosts:
            raise Problem(
                (*path, "hosts", at),
                f"{host} is not among the allowed_hosts of {subsystem.nqn}; add it there, or leave it out",
            )


def _spec(namespace: Namespace, path: Path) -> Spec:
    try:
        return parse(namespace.backend)
    except ConfigError as error:
        raise Problem((*path, "backend"), str(error)) from None


class _Images:
    """Images that are used; two namespaces may read the same one, and nothing else."""

    def __init__(self) -> None:
        self._seen: dict[str, tuple[Path, bool]] = {}

    def add(self, namespace: Namespace, path: Path) -> None:
        content = _spec(namespace, path).content
        if content.inner is not None or content.path is None:
            return
        key = os.path.realpath(content.path)
        first, only_read = self._seen.setdefault(key, ((*path, "backend"), namespace.read_only))
        if first != (*path, "backend") and not (only_read and namespace.read_only):
            raise _twice(
                (*path, "backend"), namespace.backend, first, "use another image, or set read_only for both"
            )


def _ports(config: Config) -> None:
    numbers, sockets = _Once(), _Once()
    identifiers = _Identifiers(config)
    controllers: dict[str, _Once] = {}
    subsystems = {subsystem.nqn: subsystem for subsystem in config.subsystems}
    for at, port in enumerate(config.ports):
        path: Path = ("port", at)
        numbers.add(port.portid, (*path, "portid"), port.portid)
        _socket(port, path)
        sockets.add(_place(port.traddr), (*path, "traddr"), port.traddr)
        subsystem = subsystems.get(port.subsystem)
        if subsystem is None:
            names = ", ".join(subsystems) or "none"
            raise Problem((*path, "subsystem"), f"{shown(port.subsystem)} is no subsystem; there are {names}")
        if port.hostnqn is not None:
            _nqn(port.hostnqn, (*path, "hostnqn"))
        if port.hostid is not None:
            _identifier(port.hostid.int, (*path, "hostid"))
        host, identifier = host_of(port, subsystem, config.hosts, path)
        if host is not None:
            identifiers.add(host, identifier, (*path, "hostid"))
        if port.cntlid is not None:
            _controller(port, subsystem, path)
            controllers.setdefault(port.subsystem, _Once()).add(port.cntlid, (*path, "cntlid"), port.cntlid)


class _Identifiers:
    """Which Host Identifier each host has: one, and nobody else's."""

    def __init__(self, config: Config) -> None:
        self._hosts: dict[str, tuple[UUID | None, Path]] = {}
        self._owners: dict[UUID, tuple[str, Path]] = {}
        for at, host in enumerate(config.hosts):
            if host.hostid is not None:
                self.add(host.nqn, host.hostid, ("host", at, "hostid"))

    def add(self, host: str, identifier: UUID | None, path: Path) -> None:
        """`host` has `identifier`, or the one that is made of its name, by what stands at `path`."""
        known, first = self._hosts.setdefault(host, (identifier, path))
        if identifier is None and known is not None:
            raise Problem(path, lambda where: f"is missing, and {host} has {known}, {where(first)}; set it")
        if known != identifier:
            is_known = "not the one that is made of its name" if known is None else "not the one"
            raise Problem(
                path,
                lambda where: (
                    f"{identifier} is {is_known} that {host} has, {where(first)}; a host has one, leave it "
                    "out here"
                ),
            )
        if identifier is None:
            return
        owner, first = self._owners.setdefault(identifier, (host, path))
        if owner != host:
            raise Problem(
                path, lambda where: f"{identifier} is that of {owner}, {where(first)}; use another one"
            )


def _bytes(text: str, path: Path) -> bytes:
    """`text` as the name of a file."""
    try:
        name = os.fsencode(text)
    except UnicodeEncodeError:
        raise Problem(path, f"{shown(text)} is no UTF-8; write it in UTF-8") from None
    if b"\0" in name:
        raise Problem(path, f"{shown(text)} has a NUL character; leave it out")
    return name


def _socket(port: Port, path: Path) -> None:
    length = len(_bytes(port.traddr, (*path, "traddr")))
    if length > MAX_PATH:
        raise Problem(
            (*path, "traddr"),
            f"{shown(port.traddr)} has {length} bytes, and a socket takes {MAX_PATH}; use a shorter path",
        )


def _controller(port: Port, subsystem: Subsystem, path: Path) -> None:
    if port.cntlid is not None and not subsystem.cntlid_min <= port.cntlid <= subsystem.cntlid_max:
        raise Problem(
            (*path, "cntlid"),
            f"{port.cntlid}; {subsystem.nqn} has {subsystem.cntlid_min} to {subsystem.cntlid_max}",
        )


def _place(socket: str) -> str:
    """Where a socket really is: what stands at the path itself may be a link, and is replaced by it."""
    path = FilePath(socket)
    return os.path.join(os.path.realpath(path.parent), path.name)  # noqa: PTH118 - pathlib has no realpath
