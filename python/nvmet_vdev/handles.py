"""Handles of what a target is made of: subsystems, namespaces, controllers, and the hosts these belong to.

A handle names one thing for good: what was removed refuses with ConfigError, even if another one has its
number by now.
"""

from __future__ import annotations

import os
import threading
import time
import uuid
import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypedDict

from nvmet_vdev import _nvmet, identity
from nvmet_vdev._nvmet import ConfigError
from nvmet_vdev.opening import Opened, open_any
from nvmet_vdev.stats import ControllerStats

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Controller", "Host", "Namespace", "Subsystem"]


@dataclass(frozen=True, slots=True)
class Host:
    """The host that a controller belongs to: who its guest is to reservations."""

    nqn: str
    """Host NVMe Qualified Name (HOSTNQN; NVMe Base 2.0, 4.5)."""
    id: uuid.UUID
    """Host Identifier (HOSTID; NVMe Base 2.0, 5.27.1.19), never zero."""


class NamespaceOptions(TypedDict, total=False):
    """Arguments of `Subsystem.add_namespace` by name."""

    nsid: int | None
    block_size: int | None
    read_only: bool
    uuid: uuid.UUID | bytes | None
    create: int | None
    iopoll: bool
    fixed_buffers: bool


class ControllerOptions(TypedDict, total=False):
    """Arguments of `Subsystem.listen` by name."""

    fd: int | None
    queues: int
    queue_size: int
    doorbells: str
    hostnqn: str | None
    hostid: uuid.UUID | bytes | None


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
    ) -> Namespace:
        """Adds a namespace on `backend`; hosts that are there are told (Namespace Attribute Changed).

        `backend` is a spec as the command line takes it (a path, `ram:SIZE`, `python:module:Class`), a path
        object, a `Storage`, or an object with the methods of `Backend`, which is opened. `nsid` is 1 to 1024,
        else the lowest free one. `block_size` is 512 or 4096 bytes, else what the backend says, or 512.
        `read_only` refuses writes even if the backend would take them. `uuid` is the namespace's UUID (NVMe
        Base 2.0, 4.5.1.4); without one it is made of the file's path, else of the subsystem's NQN and the
        NSID. With `create` an image file that does not exist is made, that many bytes large. `iopoll` has
        block devices with poll queues asked for results; `fixed_buffers` keeps guest memory that is used
        often registered with the kernel.

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
            )
            namespace = Namespace(self, target, raw, number, opened)
            self._namespaces[number] = namespace
        opened.on_resize(_teller(namespace))
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
    ) -> Controller:
        """Makes a controller and listens for its client, a virtual machine's monitor.

        Either `socket` is a path at which a socket is made, mode 0600, or `fd` is a socket that listens
        already; it is duplicated. `queues` I/O queues, 1 to 511, of up to `queue_size` entries, 2 to 65536.
        `doorbells` says how the guest rings: "trapped", "mapped", or "auto". `hostnqn` and `hostid` are the
        host that the controller belongs to; else they are made of the subsystem and the socket.

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
            )
            nqn, identifier = target.host(number)
            place = None if socket is None else os.fspath(socket)
            host = Host(nqn, uuid.UUID(bytes=identifier))
            controller = Controller(self, target, number, place, host)
            self._controllers[number] = controller
        return controller

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


class Namespace:
    """A namespace: a backend with a number (NVMe Base 2.0, 3.2.1). Made by `Subsystem.add_namespace`."""

    def __init__(
        self,
        subsystem: Subsystem,
        target: _nvmet.Target,
        raw: _nvmet.Subsystem,
        nsid: int,
        opened: Opened,
    ) -> None:
        self._subsystem = subsystem
        self._alive: tuple[_nvmet.Target, _nvmet.Subsystem, Opened] | None = (target, raw, opened)
        self._nsid = nsid

    def __repr__(self) -> str:
        return f"<Namespace {self._nsid} of {self._subsystem.nqn}{'' if self._alive else ', removed'}>"

    @property
    def nsid(self) -> int:
        """Namespace identifier (NSID), 1 to 1024."""
        return self._nsid

    @property
    def subsystem(self) -> Subsystem:
        """What it belongs to."""
        return self._subsystem

    @property
    def size(self) -> int:
        """Size in bytes that guests see now."""
        return self._facts()[0]

    @property
    def block_size(self) -> int:
        """Logical block size in bytes: 512 or 4096."""
        return self._facts()[1]

    @property
    def read_only(self) -> bool:
        """Whether writes are refused (Namespace is Write Protected)."""
        return self._facts()[2]

    @property
    def description(self) -> str:
        """One line for people about the backend: kind, place and size."""
        return self._here()[2].storage.describe()

    @property
    def failures(self) -> dict[str, int]:
        """What went wrong in a backend in Python so far, and how often: by class for OSError and NvmeError,
        by class and place for other errors. Empty for other backends.
        """
        service = self._here()[2].service
        return service.failures if service is not None else {}

    def resize(self, size: int | None = None) -> None:
        """Gives the backend, and with it the namespace, another `size` in bytes; guests are told.

        None takes over the size that the backend has got by itself: a file that was extended, a block device
        that was resized, `size` of a backend in Python. Commands in flight end as they will; those that reach
        behind a smaller end get LBA Out of Range from now on (NVM Command Set 1.1, 3.2).

        Raises ConfigError for a size that is no multiple of the block size, and if the backend refuses; all
        stays as it is then.
        """
        target, _, opened = self._here()
        target.resize(opened.storage, opened.prepare_resize(size))

    def remove(self) -> None:
        """Takes the namespace from its guests, which are told; commands in flight end as they will.

        The backend is closed when the last of these has ended. What guests have not flushed may be lost if
        power fails.
        """
        subsystem = self._subsystem
        with subsystem._lock:
            _, raw, opened = self._here()
            raw.remove_namespace(self._nsid)
            del subsystem._namespaces[self._nsid]
            self._alive = None
        opened.on_resize(None)

    def _here(self) -> tuple[_nvmet.Target, _nvmet.Subsystem, Opened]:
        if self._alive is None:
            raise ConfigError(f"namespace {self._nsid} of {self._subsystem.nqn} has been removed")
        return self._alive

    def _facts(self) -> tuple[int, int, bool]:
        facts = self._here()[1].namespace(self._nsid)
        if facts is None:
            raise ConfigError(f"namespace {self._nsid} of {self._subsystem.nqn} has been removed")
        return facts

    def _name(self) -> str:
        return f"namespace {self._nsid} of {self._subsystem.nqn}"

    def _end(self, deadline: float) -> bool:
        alive, self._alive = self._alive, None
        if alive is None or (service := alive[2].service) is None:
            return True
        service.on_resize = None
        return service.close(max(deadline - time.monotonic(), 0.0))


class Controller:
    """A controller: what one virtual machine sees (NVMe Base 2.0, 3.1). Made by `Subsystem.listen`."""

    def __init__(
        self, subsystem: Subsystem, target: _nvmet.Target, number: int, socket: str | None, host: Host
    ) -> None:
        self._subsystem = subsystem
        self._target: _nvmet.Target | None = target
        self._number = number
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


def _teller(namespace: Namespace) -> Callable[[], None]:
    """Has `namespace` follow its backend, which does not keep it alive."""
    reference = weakref.ref(namespace)

    def tell() -> None:
        there = reference()
        if there is not None and there._alive is not None:
            there.resize()

    return tell
