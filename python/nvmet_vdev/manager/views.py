"""What runs, as plain data for people and programs: trees of names and numbers.

Nothing here changes anything or waits for a change. May know entries and handles.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from typing import Any, TypeVar

from nvmet_vdev._nvmet import ConfigError
from nvmet_vdev.config import access, model
from nvmet_vdev.config.normal import initial_ana
from nvmet_vdev.manager.entries import Entries, NamespaceEntry, PortEntry, SubsystemEntry
from nvmet_vdev.namespaces import Namespace
from nvmet_vdev.stats import ControllerStats

__all__ = ["everything", "health", "host", "namespace", "port", "reservation", "stats", "subsystem"]

RESERVATIONS = (
    None,
    "write exclusive",
    "exclusive access",
    "write exclusive, registrants only",
    "exclusive access, registrants only",
    "write exclusive, all registrants",
    "exclusive access, all registrants",
)
"""Reservation Type (NVMe Base 2.0, 8.19), in words."""


def everything(entries: Entries) -> dict[str, Any]:
    """All of it as a tree."""
    return {
        "hosts": [host(entries, one) for one in tuple(entries.hosts.values())],
        "subsystems": _each(lambda one: subsystem(entries, one), entries.subsystems.values()),
        "ports": _each(lambda one: port(entries, one), entries.ports.values()),
    }


def host(entries: Entries, node: model.Host) -> dict[str, Any]:
    """A host, and where it is named."""
    subsystems, ports = tuple(entries.subsystems.values()), tuple(entries.ports.values())
    return {
        "nqn": node.nqn,
        "hostid": _text(node.hostid),
        "subsystems": [one.node.nqn for one in subsystems if node.nqn in one.node.allowed_hosts],
        "ports": [one.node.portid for one in ports if one.handle.host.nqn == node.nqn],
    }


def subsystem(entries: Entries, entry: SubsystemEntry) -> dict[str, Any]:
    """A subsystem with its namespaces, and the ports that lead to it."""
    node, ports = entry.node, tuple(entries.ports.values())
    return {
        "nqn": node.nqn,
        "serial": entry.handle.serial,
        "model": node.model,
        "allow_any_host": access.allows_any(node),
        "allowed_hosts": list(node.allowed_hosts),
        "namespaces": _each(namespace, (one for _, one in sorted(entry.namespaces.items()))),
        "ports": [one.node.portid for one in ports if one.node.subsystem == node.nqn],
    }


def namespace(entry: NamespaceEntry) -> dict[str, Any]:
    """A namespace."""
    node, handle = entry.node, entry.handle
    return {
        "nsid": node.nsid,
        "backend": node.backend,
        "description": handle.description,
        "size": handle.size,
        "block_size": handle.block_size,
        "enable": handle.enabled,
        "read_only": node.read_only,
        "protect": node.protect,
        "write_protected": handle.write_protected,
        "ana_grpid": handle.ana_group,
        "uuid": _text(handle.uuid),
        "nguid": node.nguid,
        "eui64": node.eui64,
        "hosts": None if node.hosts is None else list(node.hosts),
        "resv": node.resv,
        "reservation": reservation(handle)["type"] if node.resv else None,
    }


def port(entries: Entries, entry: PortEntry) -> dict[str, Any]:
    """A port, its controller, and the controller's host."""
    node, handle = entry.node, entry.handle
    states = handle.ana
    subsystem = entries.subsystems.get(node.subsystem)
    namespaces = tuple(subsystem.namespaces.values()) if subsystem is not None else ()
    groups = {1, *states, *(one.node.ana_grpid for one in namespaces)}
    return {
        "portid": node.portid,
        "traddr": node.traddr,
        "subsystem": node.subsystem,
        "cntlid": handle.cntlid,
        "hostnqn": handle.host.nqn,
        "hostid": str(handle.host.id),
        "attached": handle.attached,
        "ana": {str(group): states.get(group, initial_ana(group)) for group in sorted(groups)},
        "queues": node.queues,
        "queue_size": node.queue_size,
        "doorbells": node.doorbells,
    }


def reservation(handle: Namespace) -> dict[str, Any]:
    """The reservation of a namespace, and who is registered. Keys have 64 bits, more than JSON's numbers."""
    found = handle.reservation()
    return {
        "generation": found.generation,
        "type": RESERVATIONS[found.type],
        "ptpl": found.ptpl,
        "registrants": [
            {
                "hostid": str(one.host),
                "key": f"{one.key:#018x}",
                "holder": one.holder,
                "controllers": list(one.controllers),
            }
            for one in found.registrants
        ],
    }


def stats(entries: Entries) -> dict[str, Any]:
    """Counters of controllers and namespaces, and the sum over all controllers."""
    counted = _each(lambda one: (one.node, one.handle.stats()), entries.ports.values())
    return {
        "total": asdict(sum((figures for _, figures in counted), ControllerStats())),
        "controllers": [
            {"portid": node.portid, "subsystem": node.subsystem, **asdict(figures)}
            for node, figures in counted
        ],
        "namespaces": _each(
            lambda one: {"subsystem": one[0], "nsid": one[1].node.nsid, **asdict(one[1].handle.stats())},
            _namespaces(entries),
        ),
    }


def health(entries: Entries) -> dict[str, Any]:
    """What subsystems say of their medium, what controllers have counted and logged over their lives, what
    went wrong in backends in Python.
    """
    return {
        "subsystems": _each(
            lambda one: {"nqn": one.node.nqn, **asdict(one.handle.health)}, entries.subsystems.values()
        ),
        "controllers": _each(_life, entries.ports.values()),
        "namespaces": _each(
            lambda one: {"subsystem": one[0], "nsid": one[1].node.nsid, "failures": one[1].handle.failures},
            _namespaces(entries),
        ),
    }


def _life(entry: PortEntry) -> dict[str, Any]:
    life = entry.handle.lifetime()
    return {
        "portid": entry.node.portid,
        "subsystem": entry.node.subsystem,
        "power_cycles": life.power_cycles,
        "power_on_seconds": life.power_on_seconds,
        "unsafe_shutdowns": life.unsafe_shutdowns,
        "media_errors": life.stats.media_errors,
        "error_log_entries": life.error_log_entries,
        "errors": [asdict(error) for error in life.errors],
    }


_Item = TypeVar("_Item")
_Made = TypeVar("_Made")


def _each(make: Callable[[_Item], _Made], items: Iterable[_Item]) -> list[_Made]:
    """What `make` makes of each, without those that were removed meanwhile."""
    made: list[_Made] = []
    for one in tuple(items):
        with contextlib.suppress(ConfigError):
            made.append(make(one))
    return made


def _namespaces(entries: Entries) -> Iterator[tuple[str, NamespaceEntry]]:
    for one in tuple(entries.subsystems.values()):
        for _, namespace in sorted(one.namespaces.items()):
            yield one.node.nqn, namespace


def _text(value: object) -> str | None:
    return None if value is None else str(value)
