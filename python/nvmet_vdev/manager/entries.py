"""What a manager has made: each part of the configuration beside the handle that came of it.

May know the model and handles. Must not know how they are made.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import msgspec

from nvmet_vdev._nvmet import ConfigError
from nvmet_vdev.config import model
from nvmet_vdev.config.problems import shown
from nvmet_vdev.handles import Controller, Subsystem
from nvmet_vdev.namespaces import Namespace

__all__ = ["Entries", "NamespaceEntry", "PortEntry", "SubsystemEntry"]


@dataclass
class NamespaceEntry:
    """A namespace."""

    node: model.Namespace
    handle: Namespace


@dataclass
class SubsystemEntry:
    """A subsystem; `node` has no namespaces, they are here."""

    node: model.Subsystem
    handle: Subsystem
    namespaces: dict[int, NamespaceEntry] = field(default_factory=dict)

    def namespace(self, nsid: int) -> NamespaceEntry:
        """The namespace with that number; ConfigError if there is none."""
        found = self.namespaces.get(nsid)
        if found is None:
            have = ", ".join(map(str, sorted(self.namespaces))) or "none"
            raise ConfigError(f"{self.node.nqn} has no namespace {nsid}; it has {have}")
        return found


@dataclass
class PortEntry:
    """A port."""

    node: model.Port
    handle: Controller


@dataclass
class Entries:
    """All of it. One thread at a time changes it; any may read it meanwhile."""

    settings: model.TargetSettings = field(default_factory=model.TargetSettings)
    hosts: dict[str, model.Host] = field(default_factory=dict)
    subsystems: dict[str, SubsystemEntry] = field(default_factory=dict)
    ports: dict[int, PortEntry] = field(default_factory=dict)

    def subsystem(self, nqn: str) -> SubsystemEntry:
        """The subsystem of that name; ConfigError if there is none."""
        found = self.subsystems.get(nqn)
        if found is None:
            raise ConfigError(f"no subsystem {shown(nqn)}; there are {_list(self.subsystems)}")
        return found

    def port(self, portid: int) -> PortEntry:
        """The port with that number; ConfigError if there is none."""
        found = self.ports.get(portid)
        if found is None:
            raise ConfigError(f"no port {portid}; there are {_list(sorted(self.ports))}")
        return found

    def host(self, nqn: str) -> model.Host:
        """The host of that name; ConfigError if there is none."""
        found = self.hosts.get(nqn)
        if found is None:
            raise ConfigError(f"no host {shown(nqn)}; there are {_list(self.hosts)}")
        return found

    def config(self) -> model.Config:
        """The configuration of what is there."""
        return model.Config(
            target=self.settings,
            hosts=tuple(self.hosts.values()),
            subsystems=tuple(
                msgspec.structs.replace(
                    entry.node, namespaces=tuple(one.node for _, one in sorted(entry.namespaces.items()))
                )
                for entry in tuple(self.subsystems.values())
            ),
            ports=tuple(entry.node for entry in tuple(self.ports.values())),
        )


def _list(names: Iterable[object]) -> str:
    return ", ".join(map(str, names)) or "none"
