"""From a part of the configuration to what it describes: opened, added, listening; or nothing at all.

May know the model, handles and the opening of disks. Must not know what else there is.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

import msgspec

from nvmet_vdev import identity, seen
from nvmet_vdev._nvmet import ConfigError
from nvmet_vdev.config import access, model
from nvmet_vdev.config.fields import fields
from nvmet_vdev.config.problems import Path as Place
from nvmet_vdev.config.problems import Problem
from nvmet_vdev.errors import UsageError
from nvmet_vdev.grammar import BUILT_IN, Spec, parse
from nvmet_vdev.loading import is_file
from nvmet_vdev.manager.entries import NamespaceEntry, PortEntry, SubsystemEntry
from nvmet_vdev.opening import Opened, open_any
from nvmet_vdev.sockets import MAX_PATH
from nvmet_vdev.target import Target

if TYPE_CHECKING:
    from nvmet_vdev.manager.ledger import Ledger

__all__ = ["REMOVE_SECONDS", "Builder", "absolute"]

REMOVE_SECONDS = 2.0
"""How long a removal waits for what runs on a namespace; it is done all the same after that."""

Guard = Callable[[], AbstractContextManager[None]]


@dataclass
class Builder:
    """Makes parts of `target`. Each method adds to `undo` how that is undone, or has undone it and raises.

    `state_dir` has a file for each namespace, for what outlives the target; with `discard_state` one that
    cannot be used is thrown away. `ledger` has what was counted in earlier targets. `guard` is entered while
    code of others runs, which may not return. `sockets` are paths that somebody listens at for us, and his
    descriptors.
    """

    target: Target
    state_dir: Path | None = None
    discard_state: bool = False
    ledger: Ledger | None = None
    guard: Guard = contextlib.nullcontext
    sockets: Mapping[str, int] = field(default_factory=dict)

    def subsystem(
        self, node: model.Subsystem, place: Place, undo: contextlib.ExitStack, *, controllers: int = 0
    ) -> SubsystemEntry:
        """A subsystem without namespaces, which is to have that many controllers soon."""
        options = _changed(node, ("model", "firmware", "ieee_oui", "cntlid_min", "cntlid_max", "shared"))
        if node.subsystem_reset is not None:
            options["subsystem_reset"] = node.subsystem_reset
        if node.shared is None and controllers > 1:
            # The first guest may look before the second controller is there.
            options["shared"] = True
        serial = node.serial if node.serial is not None else identity.serial(node.nqn)
        with _at(place, node=model.Subsystem):
            handle = self.target.add_subsystem(nqn=node.nqn, serial=serial, **options)
            undo.callback(_quietly, lambda: self.target.remove_subsystem(handle))
            figures = _changed(node.health)
            if figures:
                handle.set_health(**figures)
        return SubsystemEntry(msgspec.structs.replace(node, namespaces=()), handle)

    def namespace(
        self, subsystem: SubsystemEntry, node: model.Namespace, place: Place, undo: contextlib.ExitStack
    ) -> NamespaceEntry:
        """A namespace of `subsystem`."""
        with _at((*place, "backend")):
            opened = self._open(parse(node.backend), node, undo)
        options = _changed(node, ("uuid", "hosts"))
        options |= {name: bytes.fromhex(value) for name, value in _changed(node, ("nguid", "eui64")).items()}
        if node.read_only:
            options["read_only"] = True
        if node.ana_grpid != 1:
            options["ana_group"] = node.ana_grpid
        if not node.resv:
            options["reservations"] = False
        if not node.enable or node.protect:
            # It is protected before the first guest sees it.
            options["enabled"] = False
        fresh: Path | None = None
        if self.state_dir is not None:
            state = self.state_dir / f"{self._uuid(subsystem, node, opened)}.state"
            fresh = state if not seen.exists(state) else None
            options |= {"state": state, "discard_state": self.discard_state}
        if self.ledger is not None:
            options["counted"] = self.ledger.namespace(self._uuid(subsystem, node, opened))
        with _at(place, node=model.Namespace):
            handle = subsystem.handle.add_namespace(opened, nsid=node.nsid, **options)
            if fresh is not None:
                # Only now is it locked: had somebody else made it meanwhile, it would be his.
                undo.callback(seen.forget, fresh)
            undo.callback(_quietly, lambda: handle.remove(REMOVE_SECONDS))
            if node.protect:
                handle.protect(True)
                if node.enable:
                    handle.enable()
        return NamespaceEntry(msgspec.structs.replace(node, backend=absolute(node.backend)), handle)

    def _open(self, spec: Spec, node: model.Namespace, undo: contextlib.ExitStack) -> Opened:
        image = spec.path
        new = node.create is not None and image is not None and not seen.exists(image)
        with contextlib.nullcontext() if spec.native else self.guard():
            opened = open_any(
                spec,
                create=node.create if new else None,
                read_only=node.read_only,
                block_size=node.block_size,
                iopoll=node.iopoll,
                fixed_buffers=node.fixed_buffers,
            )
        # Only now is it ours: had somebody else made it meanwhile, the lock would have refused it.
        if new and image is not None:
            undo.callback(seen.forget, image)
        return opened

    @staticmethod
    def _uuid(subsystem: SubsystemEntry, node: model.Namespace, opened: Opened) -> UUID:
        if node.uuid is not None:
            return node.uuid
        return identity.namespace(opened.spec, subsystem.node.nqn, node.nsid)

    def port(
        self,
        subsystem: SubsystemEntry,
        node: model.Port,
        hosts: Mapping[str, model.Host],
        place: Place,
        undo: contextlib.ExitStack,
    ) -> PortEntry:
        """A port of `subsystem`: its controller, and the socket."""
        name, identifier = access.host_of(node, subsystem.node, hosts.values(), place)
        nqn = name
        options = _changed(node, ("queue_size", "doorbells", "cntlid"))
        if node.ana:
            options["ana"] = dict(node.ana)
        if self.ledger is not None:
            options["lifetime"] = self.ledger.controller(node.subsystem, node.portid)
        limit = subsystem.node.qid_max
        descriptor = self.sockets.get(node.traddr)
        if descriptor is None:
            if nqn is None:
                # Of the path that is saved: a relative one would make another host of it.
                nqn = identity.host(node.subsystem, Path(node.traddr), identifier)
            if not seen.is_directory(directory := Path(node.traddr).parent):
                what = f"{node.traddr}: no directory {directory}; create it, or use another one"
                raise Problem((*place, "traddr"), what)
        _free_cntlid(subsystem, node, place)
        with _at(place, "traddr", model.Port):
            handle = subsystem.handle.listen(
                node.traddr if descriptor is None else None,
                fd=descriptor,
                queues=node.queues if limit is None else min(node.queues, limit),
                hostnqn=nqn,
                hostid=identifier,
                **options,
            )
            undo.callback(_quietly, handle.close)
        # Who it belongs to stays, whoever may use the subsystem later.
        kept = msgspec.structs.replace(node, hostnqn=name, traddr=_socket(node.traddr))
        return PortEntry(kept, handle)


def absolute(backend: str) -> str:
    """`backend` in words that mean the same in every directory, as far as we know where paths are."""
    return str(_absolute(parse(backend)))


def _free_cntlid(subsystem: SubsystemEntry, node: model.Port, place: Place) -> None:
    """Whether the controller can have an identifier: that is known before there is a socket."""
    used = {other.cntlid for other in subsystem.handle.controllers}
    if node.cntlid in used:
        raise Problem((*place, "cntlid"), f"{node.cntlid}; another controller has it, use another one")
    low, high = subsystem.node.cntlid_min, subsystem.node.cntlid_max
    if len(used) > high - low:
        raise Problem(
            (*place, "subsystem"),
            f"{node.subsystem} has no controller identifier left, {low} to {high}; raise its cntlid_max",
        )


def _socket(traddr: str) -> str:
    """`traddr` absolute, if a socket takes as much."""
    found = str(Path(traddr).absolute())
    return found if len(os.fsencode(found)) <= MAX_PATH else traddr


def _absolute(spec: Spec) -> Spec:
    if spec.inner is not None:
        return replace(spec, inner=_absolute(spec.inner))
    file, colon, name = spec.rest.rpartition(":") if spec.scheme == "python" else (spec.rest, "", "")
    if not spec.scheme or (spec.scheme in BUILT_IN and is_file(file)):
        return replace(spec, rest=f"{Path(file).absolute()}{colon}{name}")
    return spec


def _changed(node: msgspec.Struct, names: tuple[str, ...] | None = None) -> dict[str, Any]:
    """What is not at its default, of all keys or of `names`."""
    known = fields(type(node))
    values = {name: getattr(node, known[name].attribute) for name in (names or known)}
    return {name: value for name, value in values.items() if value != known[name].default}


def _quietly(call: Callable[[], object]) -> None:
    """Undoes a step; what was wrong before that is what is told."""
    with contextlib.suppress(ConfigError):
        call()


@contextlib.contextmanager
def _at(place: Place, key: str | None = None, node: type[msgspec.Struct] | None = None) -> Iterator[None]:
    """Errors of the target are problems of `key` there, or of the key of `node` that they begin with."""
    try:
        yield
    except Problem:
        raise
    except (ConfigError, UsageError) as error:
        head, colon, rest = str(error).partition(": ")
        if colon and node is not None and head in fields(node):
            raise Problem((*place, head), rest) from error
        raise Problem(place if key is None else (*place, key), str(error)) from error
