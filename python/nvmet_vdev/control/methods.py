"""The methods of the control socket: the one place that says what they are called and what they take.

`rpc.methods` tells it and docs/control.md is held to it. What is added is described by the keys that it has
in a configuration file. Must not know sockets, nor what a method does: that is the manager's.
"""

from __future__ import annotations

from typing import Any, Literal, get_type_hints

import msgspec

from nvmet_vdev.config import model
from nvmet_vdev.config.fields import fields
from nvmet_vdev.control.method import Lane, Method, Param
from nvmet_vdev.control.values import Group, Nqn, Nsid, Path, Port, Size

__all__ = ["METHODS"]


def _required(name: str, kind: Any, doc: str) -> Param:
    return Param(name, kind, doc, required=True)


def _keys(node: type[msgspec.Struct], *, without: tuple[str, ...] = ()) -> tuple[Param, ...]:
    """The keys that `node` has in a configuration, as parameters."""
    hints = get_type_hints(node, include_extras=True)
    return tuple(
        Param(
            field.name,
            # These are written in more than one way; the manager reads them all.
            {"size": Size | None, "hex": str | None}.get(field.kind, hints[field.attribute]),
            field.text,
            field.required,
            msgspec.NODEFAULT if field.default is None else field.default,
            field.use,
        )
        for field in fields(node).values()
        if field.name not in without
    )


_NQN = _required("nqn", Nqn, "the subsystem")
_NSID = _required("nsid", Nsid, "the namespace")
_PORT = _required("portid", Port, "the port")
_HOST = _required("host", Nqn, "the host's NQN")

_ALL = (
    Method("version", "The target's version and process.", lane=Lane.HERE),
    Method("rpc.methods", "The methods, with their parameters and types.", lane=Lane.HERE),
    Method("list", "All that there is, as a tree.", lane=Lane.QUERY),
    Method(
        "show",
        "One thing, with all that is known about it.",
        (
            _required("kind", Literal["subsystem", "namespace", "port", "host"], "what it is"),
            Param("nqn", Nqn, "the subsystem, or that of the namespace, or the host"),
            Param("nsid", Nsid, "the namespace"),
            Param("portid", Port, "the port"),
        ),
        Lane.QUERY,
    ),
    Method("stats", "The counters of controllers and namespaces.", lane=Lane.QUERY),
    Method("health", "The health of subsystems, controllers and namespaces.", lane=Lane.QUERY),
    Method("config.get", "The configuration of what runs, as a file has it.", (), Lane.QUERY, "config"),
    Method(
        "config.save",
        "Writes the configuration of what runs to a file, at once and whole, mode 0600.",
        (
            Param(
                "path",
                Path,
                "the file; by default the one that the target was started with, if nothing in it was skipped",
            ),
        ),
        Lane.CHANGE,
        "save",
    ),
    Method("shutdown", "Ends the target, as SIGTERM does.", lane=Lane.HERE),
    Method(
        "host.add",
        "Makes a host known.",
        _keys(model.Host),
    ),
    Method("host.remove", "Forgets a host.", (_required("nqn", Nqn, "the host's NQN"),)),
    Method(
        "subsystem.add",
        "Adds a subsystem without namespaces.",
        _keys(model.Subsystem, without=("health", "namespace")),
    ),
    Method("subsystem.remove", "Removes a subsystem that has no controllers.", (_NQN,)),
    Method("subsystem.allow", "Lets a host use a subsystem.", (_NQN, _HOST)),
    Method("subsystem.disallow", "No longer lets a host use a subsystem.", (_NQN, _HOST)),
    Method(
        "subsystem.health",
        "Sets what guests read in the SMART log; what is left out stays.",
        (
            _NQN,
            *_keys(model.Health),
        ),
    ),
    Method(
        "namespace.add",
        "Adds a namespace; guests are told. The result is its number.",
        (
            _NQN,
            Param("nsid", Nsid | None, "its number; by default the lowest free one"),
            *_keys(model.Namespace, without=("nsid",)),
        ),
    ),
    Method("namespace.remove", "Removes a namespace; guests are told.", (_NQN, _NSID)),
    Method(
        "namespace.resize",
        "Gives a namespace another size; guests are told.",
        (
            _NQN,
            _NSID,
            Param("size", Size | None, "the size; by default the one that its backend has by now"),
        ),
        unsaid={"size": None},
    ),
    Method("namespace.enable", "Lets guests see a namespace.", (_NQN, _NSID)),
    Method("namespace.disable", "Takes a namespace from guests' sight; it keeps all else.", (_NQN, _NSID)),
    Method(
        "namespace.protect",
        "Write protects a namespace, or no longer.",
        (_NQN, _NSID, _required("on", bool, "whether it is protected")),
    ),
    Method(
        "namespace.ana_group",
        "Puts a namespace into another ANA group.",
        (_NQN, _NSID, _required("grpid", Group, "the group")),
    ),
    Method(
        "namespace.attach",
        "Says which hosts see a namespace.",
        (_NQN, _NSID, _required("hosts", list[Nqn] | None, "their NQNs; null: all of the subsystem")),
    ),
    Method(
        "port.add",
        "Makes a controller, and the socket that its guest is to be attached to. The result is its number.",
        (
            Param("portid", Port | None, "its number; by default the lowest free one, from 1"),
            *_keys(model.Port, without=("portid",)),
        ),
        unsaid={"portid": None},
    ),
    Method("port.remove", "Disconnects a port's guest and removes its socket.", (_PORT,)),
    Method(
        "ana.set",
        "Sets the state of an ANA group at a port; guests are told.",
        (_PORT, _required("grpid", Group, "the group"), _required("state", model.AnaState, "the state")),
    ),
    Method("reservation.show", "The reservation of a namespace.", (_NQN, _NSID), Lane.QUERY),
    Method(
        "reservation.clear",
        "Removes a namespace's reservation and all registrants; their hosts are told.",
        (_NQN, _NSID),
    ),
)

METHODS = {method.name: method for method in _ALL}
"""The methods by name, in the order in which people read of them."""
