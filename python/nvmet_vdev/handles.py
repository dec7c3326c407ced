"""Handles of what a target is made of: subsystems and controllers.

A handle names one thing for good: what was removed refuses with ConfigError, even if another one has its
number by now.
"""

from __future__ import annotations

import os
import threading
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any, Literal, TypedDict, cast

from nvmet_vdev import _nvmet, identity
from nvmet_vdev._nvmet import ConfigError
from nvmet_vdev.model import AnaState, Health, Host, Lifetime
from nvmet_vdev.namespaces import Namespace, resizes
from nvmet_vdev.opening import open_any
from nvmet_vdev.stats import ControllerStats

__all__ = ["Controller", "Host", "Namespace", "Subsystem"]


class NamespaceOptions(TypedDict, total=False):
    """Arguments of `Subsystem.add_namespace` by name."""

    nsid: int | None
    block_size: int | None
    read_only: bool
    uuid: uuid.UUID | bytes | None
    create: int | None
    iopoll: bool
    fixed_buffers: bool
    nguid: bytes | None
    eui64: bytes | None
    ana_group: int
    reservations: bool
    state: str | os.PathLike[str] | None
    discard_state: bool
    hosts: Sequence[str] | None
    enabled: bool
    counted: Mapping[str, int] | None


class ControllerOptions(TypedDict, total=False):
    """Arguments of `Subsystem.listen` by name."""

    fd: int | None
    queues: int
    queue_size: int
    doorbells: str
    hostnqn: str | None
    hostid: uuid.UUID | bytes | None
    cntlid: int | None
    ana: Mapping[int, AnaState] | None
    lifetime: Lifetime | None


class Subsystem:
    """An NVM subsystem: what its controllers have in common, above all the namespaces (NVMe Base 2.0, 3.1).

    Made by `Target.add_subsystem`.
    """

    def __init__(self, target: _nvmet.Target, raw: _nvmet.Subsystem, serial: str) -> None:
        self._target: _nvmet.Target | None = target
        self._raw: _nvmet.Subsystem | None = raw
        self._nqn = raw.nqn
        self._serial = serial
        self._lock = threading.RLock()
        self._namespaces: dict[int, Namespace] = {}
        self._controllers: dict[int, Controller] = {}

    def __repr__(self) -> str:
        return f"<Subsystem {self._nqn}>"

    @property
    def raw(self) -> _nvmet.Subsystem:
        """The subsystem in Rust; ConfigError after the shutdown."""
        return self._alive()[1]

    @property
    def nqn(self) -> str:
        """NVM Subsystem NVMe Qualified Name (SUBNQN; NVMe Base 2.0, 4.5)."""
        return self._nqn

    @property
    def serial(self) -> str:
        """Serial number, as Identify Controller has it."""
        return self._serial

    @property
    def namespaces(self) -> tuple[Namespace, ...]:
        """The namespaces by ascending NSID."""
        with self._lock:
            return tuple(namespace for _, namespace in sorted(self._namespaces.items()))

    @property
    def controllers(self) -> tuple[Controller, ...]:
        """The controllers, in the order in which they were made."""
        with self._lock:
            return tuple(self._controllers.values())

    def add_namespace(
        self,
        backend: Any,
        *,
        nsid: int | None = None,
        block_size: int | None = None,
        read_only: bool = False,
        uuid: uuid.UUID | bytes | None = None,
        create: int | None = None,
        iopoll: bool = False,
        fixed_buffers: bool = True,
        nguid: bytes | None = None,
        eui64: bytes | None = None,
        ana_group: int = 1,
        reservations: bool = True,
        state: str | os.PathLike[str] | None = None,
        discard_state: bool = False,
        hosts: Sequence[str] | None = None,
        enabled: bool = True,
        counted: Mapping[str, int] | None = None,
    ) -> Namespace:
        """Adds a namespace on `backend`; hosts that are there are told (Namespace Attribute Changed).

        `backend` is a spec as the command line takes it (a path, `ram:SIZE`, `python:module:Class`), a path
        object, a `Storage`, or an object with the methods of `Backend`, which is opened. `nsid` is 1 to 1024,
        else the lowest free one. `block_size` is 512 or 4096 bytes, else what the backend says, or 512.
        `read_only` refuses writes even if the backend would take them. `uuid` is the namespace's UUID (NVMe
        Base 2.0, 4.5.1.4); without one it is made of the file's path, else of the subsystem's NQN and the
        NSID. With `create` an image file that does not exist is made, that many bytes large. `iopoll` has
        block devices with poll queues asked for results; `fixed_buffers` keeps guest memory that is used
        often registered with the kernel. `nguid` (16 bytes) and `eui64` (8 bytes) are further identifiers.

        `ana_group`, 1 to 1024, decides with the controller's ANA states how it is reached. With
        `reservations` guests may reserve it. `state` is the file that keeps reservations that persist
        through power loss, and write protection by guests; without one they end with the target. A file
        that is damaged or another namespace's is refused, or thrown away with `discard_state`. `hosts` are
        the NQNs of the hosts that see it (None: all); not `enabled`, nobody does yet. `counted` are counters
        that `stats` gave in an earlier process.

        Raises ConfigError, one line, if the backend cannot be opened or does not fit.
        """
        opened = open_any(
            backend,
            block_size=block_size,
            read_only=read_only,
            create=create,
            iopoll=iopoll,
            fixed_buffers=fixed_buffers,
        )
        with self._lock:
            target, raw = self._alive()
            number = nsid if nsid is not None else self._free_nsid()
            if uuid is None:
                uuid = identity.namespace(opened.spec, self._nqn, number)
            raw.add_namespace(
                opened.storage,
                nsid=number,
                block_size=opened.block_size,
                read_only=read_only,
                uuid=bytes(uuid) if isinstance(uuid, bytes) else uuid.bytes,
                nguid=nguid,
                eui64=eui64,
                ana_group=ana_group,
                reservations=reservations,
                state=state,
                discard_state=discard_state,
                hosts=hosts,
                enabled=enabled,
                counted=counted,
            )
            namespace = Namespace(self, target, raw, number, opened)
            self._namespaces[number] = namespace
        opened.on_resize(resizes(namespace))
        return namespace

    def _free_nsid(self) -> int:
        return next(nsid for nsid in range(1, len(self._namespaces) + 2) if nsid not in self._namespaces)

    def listen(
        self,
        socket: str | os.PathLike[str] | None = None,
        *,
        fd: int | None = None,
        queues: int = 64,
        queue_size: int = 1024,
        doorbells: Literal["auto", "trapped", "mapped"] | str = "auto",
        hostnqn: str | None = None,
        hostid: uuid.UUID | bytes | None = None,
        cntlid: int | None = None,
        ana: Mapping[int, AnaState] | None = None,
        lifetime: Lifetime | None = None,
    ) -> Controller:
        """Makes a controller and listens for its client, a virtual machine's monitor.

        Either `socket` is a path at which a socket is made, mode 0600, or `fd` is a socket that listens
        already; it is duplicated. `queues` I/O queues, 1 to 511, of up to `queue_size` entries, 2 to 65536.
        `doorbells` says how the guest rings: "trapped", "mapped", or "auto". `hostnqn` and `hostid` are the
        host that the controller belongs to; else they are made of the subsystem and the socket. Controllers
        with one `hostnqn` are one host's and have one `hostid`.

        `cntlid` is the Controller Identifier, in the subsystem's range, else the next one. `ana` has the
        states of ANA groups; one that it leaves out is optimized if it is group 1, else inaccessible.
        `lifetime` is what SMART counted in an earlier process.

        Raises ConfigError for a socket that cannot be had and for values out of range.
        """
        with self._lock:
            target, raw = self._alive()
            number = target.listen(
                raw,
                socket=None if socket is None else os.fspath(socket),
                fd=fd,
                queues=queues,
                queue_size=queue_size,
                doorbells=doorbells,
                hostnqn=hostnqn,
                hostid=hostid.bytes if isinstance(hostid, uuid.UUID) else hostid,
                cntlid=cntlid,
                ana=ana,
                counted=None if lifetime is None else lifetime.counters,
                error_log=None if lifetime is None else lifetime.error_log,
            )
            nqn, identifier = target.host(number)
            place = None if socket is None else os.fspath(socket)
            host = Host(nqn, uuid.UUID(bytes=identifier))
            controller = Controller(self, target, number, target.cntlid(number), place, host)
            self._controllers[number] = controller
        return controller

    @property
    def health(self) -> Health:
        """What SMART says of it beyond counters."""
        return Health(**self._alive()[1].health())

    def set_health(self, **figures: Any) -> None:
        """Has SMART say something else, by the names of `Health`; guests hear of crossed thresholds.

        Raises ConfigError for a figure that cannot be.
        """
        with self._lock:
            raw = self._alive()[1]
            try:
                health = asdict(replace(self.health, **figures))
            except TypeError as error:
                allowed = ", ".join(asdict(Health()))
                raise ConfigError(f"health: {', '.join(figures)}; use {allowed}") from error
            try:
                raw.set_health(**health)
            except (OverflowError, TypeError) as error:
                given = ", ".join(f"{name} {value!r}" for name, value in figures.items())
                raise ConfigError(f"health: {given}; use whole numbers that SMART has room for") from error

    def _alive(self) -> tuple[_nvmet.Target, _nvmet.Subsystem]:
        target, raw = self._target, self._raw
        if target is None or raw is None:
            raise ConfigError(f"subsystem {self._nqn}: its target has been shut down")
        return target, raw

    def _end(self, deadline: float) -> list[str]:
        """The target is gone: so is all that it had. Waits for backends in Python to be closed; returns the
        names of those that are not by then.
        """
        with self._lock:
            self._target = self._raw = None
            namespaces = self.namespaces
            for controller in self._controllers.values():
                controller._target = None
        return [namespace._name() for namespace in namespaces if not namespace._end(deadline)]


class Controller:
    """A controller: what one virtual machine sees (NVMe Base 2.0, 3.1). Made by `Subsystem.listen`."""

    def __init__(
        self,
        subsystem: Subsystem,
        target: _nvmet.Target,
        number: int,
        cntlid: int,
        socket: str | None,
        host: Host,
    ) -> None:
        self._subsystem = subsystem
        self._target: _nvmet.Target | None = target
        self._number = number
        self._cntlid = cntlid
        self._socket = socket
        self._host = host

    def __repr__(self) -> str:
        place = self._socket if self._socket is not None else "an inherited socket"
        return f"<Controller on {place}{'' if self._target is not None else ', closed'}>"

    @property
    def id(self) -> int:
        """A number that no other controller of the target ever has."""
        return self._number

    @property
    def subsystem(self) -> Subsystem:
        """What it belongs to."""
        return self._subsystem

    @property
    def socket(self) -> str | None:
        """The path that it listens at; None with an inherited socket."""
        return self._socket

    @property
    def host(self) -> Host:
        """Whose controller it is."""
        return self._host

    @property
    def cntlid(self) -> int:
        """Controller Identifier (CNTLID; NVMe Base 2.0, 5.17.2.1)."""
        return self._cntlid

    @property
    def ana(self) -> dict[int, AnaState]:
        """The states of ANA groups that were set, by group."""
        self._here()
        return cast(dict[int, AnaState], self._subsystem.raw.ana(self._cntlid))

    def set_ana(self, group: int, state: AnaState) -> None:
        """Puts an ANA group, 1 to 1024, into another state on this controller; its guest is told.

        Commands in flight end as they will; those that come after are refused where the state says so.
        """
        self._here()
        self._subsystem.raw.set_ana_state(self._cntlid, group, state)

    def lifetime(self) -> Lifetime:
        """What SMART has counted over its life, to be given to the controller of the next process."""
        return Lifetime.of(*self._here().lifetime(self._number))

    @property
    def attached(self) -> bool:
        """Whether a client is connected."""
        return self._here().attached(self._number)

    def stats(self) -> ControllerStats:
        """Its counters now."""
        return ControllerStats(**self._here().stats().get(self._number, {}))

    def close(self) -> None:
        """Disconnects the client and removes the socket. A second call does nothing."""
        with self._subsystem._lock:
            if self._target is None:
                return
            self._target.close(self._number)
            del self._subsystem._controllers[self._number]
            self._target = None

    def _here(self) -> _nvmet.Target:
        if self._target is None:
            raise ConfigError(f"controller {self._number} has been closed")
        return self._target
