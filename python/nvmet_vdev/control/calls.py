"""The methods of the control socket as methods of Python: the typed half of the client.

Which there are and what they take is `methods`' to say, and a test holds this to it. Must not know sockets.
"""

from __future__ import annotations

import os
import uuid as uuids
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypedDict, Unpack

__all__ = ["AnaState", "Calls", "HealthFigures", "NamespaceOptions", "PortOptions", "SubsystemOptions"]

AnaState = Literal["optimized", "non-optimized", "inaccessible", "persistent-loss", "change"]
AnyPath = str | os.PathLike[str]


class SubsystemOptions(TypedDict, total=False):
    """Arguments of `subsystem_add` by name."""

    allowed_hosts: Sequence[str]
    allow_any_host: bool | None
    serial: str | None
    model: str
    firmware: str | None
    ieee_oui: int
    cntlid_min: int
    cntlid_max: int
    qid_max: int | None
    shared: bool | None
    subsystem_reset: bool | None


class HealthFigures(TypedDict, total=False):
    """Arguments of `subsystem_health` by name."""

    temperature: int | None
    spare: int | None
    spare_threshold: int | None
    percentage_used: int | None
    reliability_degraded: bool | None


class NamespaceOptions(TypedDict, total=False):
    """Arguments of `namespace_add` by name."""

    nsid: int | None
    enable: bool
    ana_grpid: int
    uuid: str | uuids.UUID | None
    nguid: str | None
    eui64: str | None
    resv: bool
    hosts: Sequence[str] | None
    read_only: bool
    protect: bool
    block_size: Literal[512, 4096] | None
    create: int | str | None
    iopoll: bool
    fixed_buffers: bool


class PortOptions(TypedDict, total=False):
    """Arguments of `port_add` by name."""

    portid: int | None
    hostnqn: str | None
    hostid: str | uuids.UUID | None
    ana: Mapping[int, AnaState]
    cntlid: int | None
    queues: int
    queue_size: int
    doorbells: Literal["auto", "trapped", "mapped"]


class Calls:
    """The methods; docs/control.md says what each does. Paths are taken from this process's directory."""

    def call(self, method: str, /, **params: Any) -> Any:
        """Calls any method by its name on the socket; returns its result."""
        raise NotImplementedError

    def version(self) -> dict[str, Any]:
        """The target's version and process."""
        return self._tree("version")

    def methods(self) -> list[dict[str, Any]]:
        """The methods, with their parameters and types."""
        found: list[dict[str, Any]] = self.call("rpc.methods")
        return found

    def list(self) -> dict[str, Any]:
        """All that there is, as a tree."""
        return self._tree("list")

    def show(
        self,
        kind: Literal["subsystem", "namespace", "port", "host"],
        *,
        nqn: str | None = None,
        nsid: int | None = None,
        portid: int | None = None,
    ) -> dict[str, Any]:
        """One thing, with all that is known about it."""
        given = {"nqn": nqn, "nsid": nsid, "portid": portid}
        return self._tree(
            "show", kind=kind, **{name: value for name, value in given.items() if value is not None}
        )

    def stats(self) -> dict[str, Any]:
        """The counters of controllers and namespaces."""
        return self._tree("stats")

    def health(self) -> dict[str, Any]:
        """The health of subsystems, controllers and namespaces."""
        return self._tree("health")

    def config_get(self) -> dict[str, Any]:
        """The configuration of what runs, as a file has it."""
        return self._tree("config.get")

    def config_save(self, path: AnyPath | None = None) -> None:
        """Writes that to a file; by default to the one that the target was started with."""
        self.call("config.save", **({} if path is None else {"path": _absolute(path)}))

    def shutdown(self) -> None:
        """Ends the target, as SIGTERM does."""
        self.call("shutdown")

    def host_add(self, nqn: str, *, hostid: str | uuids.UUID | None = None) -> None:
        """Makes a host known."""
        self.call("host.add", nqn=nqn, hostid=hostid)

    def host_remove(self, nqn: str) -> None:
        """Forgets a host."""
        self.call("host.remove", nqn=nqn)

    def subsystem_add(self, nqn: str, **options: Unpack[SubsystemOptions]) -> None:
        """Adds a subsystem without namespaces."""
        self.call("subsystem.add", nqn=nqn, **options)

    def subsystem_remove(self, nqn: str) -> None:
        """Removes a subsystem that has no controllers."""
        self.call("subsystem.remove", nqn=nqn)

    def subsystem_allow(self, nqn: str, host: str) -> None:
        """Lets a host use a subsystem."""
        self.call("subsystem.allow", nqn=nqn, host=host)

    def subsystem_disallow(self, nqn: str, host: str) -> None:
        """No longer lets a host use a subsystem."""
        self.call("subsystem.disallow", nqn=nqn, host=host)

    def subsystem_health(self, nqn: str, **figures: Unpack[HealthFigures]) -> None:
        """Sets what guests read in the SMART log; what is left out stays."""
        self.call("subsystem.health", nqn=nqn, **figures)

    def namespace_add(self, nqn: str, backend: AnyPath, **options: Unpack[NamespaceOptions]) -> int:
        """Adds a namespace and returns its number. `backend` is a path object, or a disk as text."""
        spec = backend if isinstance(backend, str) else _absolute(backend)
        return int(self.call("namespace.add", nqn=nqn, backend=spec, **options))

    def namespace_remove(self, nqn: str, nsid: int) -> None:
        """Removes a namespace."""
        self.call("namespace.remove", nqn=nqn, nsid=nsid)

    def namespace_resize(self, nqn: str, nsid: int, size: int | str | None = None) -> None:
        """Gives a namespace another size, by default the one that its backend has by now."""
        self.call("namespace.resize", nqn=nqn, nsid=nsid, size=size)

    def namespace_enable(self, nqn: str, nsid: int) -> None:
        """Lets guests see a namespace."""
        self.call("namespace.enable", nqn=nqn, nsid=nsid)

    def namespace_disable(self, nqn: str, nsid: int) -> None:
        """Takes a namespace from guests' sight."""
        self.call("namespace.disable", nqn=nqn, nsid=nsid)

    def namespace_protect(self, nqn: str, nsid: int, on: bool = True) -> None:
        """Write protects a namespace, or no longer."""
        self.call("namespace.protect", nqn=nqn, nsid=nsid, on=on)

    def namespace_ana_group(self, nqn: str, nsid: int, grpid: int) -> None:
        """Puts a namespace into another ANA group."""
        self.call("namespace.ana_group", nqn=nqn, nsid=nsid, grpid=grpid)

    def namespace_attach(self, nqn: str, nsid: int, hosts: Sequence[str] | None) -> None:
        """Says which hosts see a namespace; None: all of its subsystem."""
        self.call("namespace.attach", nqn=nqn, nsid=nsid, hosts=hosts)

    def port_add(self, traddr: AnyPath, subsystem: str, **options: Unpack[PortOptions]) -> int:
        """Makes a controller, and the socket that its guest is to be attached to; returns its number."""
        return int(self.call("port.add", traddr=_absolute(traddr), subsystem=subsystem, **options))

    def port_remove(self, portid: int) -> None:
        """Disconnects a port's guest and removes its socket."""
        self.call("port.remove", portid=portid)

    def ana_set(self, portid: int, grpid: int, state: AnaState) -> None:
        """Sets the state of an ANA group at a port."""
        self.call("ana.set", portid=portid, grpid=grpid, state=state)

    def reservation_show(self, nqn: str, nsid: int) -> dict[str, Any]:
        """The reservation of a namespace."""
        return self._tree("reservation.show", nqn=nqn, nsid=nsid)

    def reservation_clear(self, nqn: str, nsid: int) -> None:
        """Removes a namespace's reservation and all registrants."""
        self.call("reservation.clear", nqn=nqn, nsid=nsid)

    def _tree(self, method: str, /, **params: Any) -> dict[str, Any]:
        found: dict[str, Any] = self.call(method, **params)
        return found


def _absolute(path: AnyPath) -> str:
    """The target may be in another directory."""
    return str(Path(path).absolute())
