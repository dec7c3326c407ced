"""A configuration with one part more, or another one, and where it stands: checked before the change.

May know the model. Must not know what runs.
"""

from __future__ import annotations

import msgspec

from nvmet_vdev.config.model import Config, Host, Namespace, Port, Subsystem
from nvmet_vdev.config.problems import Path

__all__ = ["with_host", "with_namespace", "with_port", "with_subsystem"]


def with_host(config: Config, host: Host) -> tuple[Config, Path]:
    """`config` with one host more."""
    return msgspec.structs.replace(config, hosts=(*config.hosts, host)), ("host", len(config.hosts))


def with_subsystem(config: Config, subsystem: Subsystem) -> tuple[Config, Path]:
    """`config` with one subsystem more."""
    subsystems = (*config.subsystems, subsystem)
    return msgspec.structs.replace(config, subsystems=subsystems), ("subsystem", len(config.subsystems))


def changed_subsystem(config: Config, subsystem: Subsystem) -> tuple[Config, Path]:
    """`config` with `subsystem` in the place of the one of its name, whose namespaces it has."""
    at = next(at for at, one in enumerate(config.subsystems) if one.nqn == subsystem.nqn)
    subsystem = msgspec.structs.replace(subsystem, namespaces=config.subsystems[at].namespaces)
    subsystems = (*config.subsystems[:at], subsystem, *config.subsystems[at + 1 :])
    return msgspec.structs.replace(config, subsystems=subsystems), ("subsystem", at)


def with_namespace(config: Config, nqn: str, namespace: Namespace) -> tuple[Config, Path]:
    """`config` with one namespace more in the subsystem called `nqn`."""
    return _namespaces(config, nqn, namespace, replace=False)


def changed_namespace(config: Config, nqn: str, namespace: Namespace) -> tuple[Config, Path]:
    """`config` with `namespace` in the place of the one of its number."""
    return _namespaces(config, nqn, namespace, replace=True)


def with_port(config: Config, port: Port) -> tuple[Config, Path]:
    """`config` with one port more."""
    return msgspec.structs.replace(config, ports=(*config.ports, port)), ("port", len(config.ports))


def _namespaces(config: Config, nqn: str, namespace: Namespace, *, replace: bool) -> tuple[Config, Path]:
    at = next(at for at, one in enumerate(config.subsystems) if one.nqn == nqn)
    there = config.subsystems[at].namespaces
    number = len(there)
    if replace:
        number = next(number for number, one in enumerate(there) if one.nsid == namespace.nsid)
    subsystem = msgspec.structs.replace(
        config.subsystems[at], namespaces=(*there[:number], namespace, *there[number + 1 :])
    )
    subsystems = (*config.subsystems[:at], subsystem, *config.subsystems[at + 1 :])
    return msgspec.structs.replace(config, subsystems=subsystems), ("subsystem", at, "namespace", number)
