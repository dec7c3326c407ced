"""The configuration in nvmetcli's JSON, written: the other way of `nvmetcli.py`.

Keys that nvmet has are always there, ours when they are not at their default. Values in groups are text.

May know the table of keys. Must not know files.
"""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID

import msgspec

from nvmet_vdev._nvmet import ConfigError
from nvmet_vdev.config.access import allows_any
from nvmet_vdev.config.fields import Field, fields
from nvmet_vdev.config.model import Config, Namespace, Port, Subsystem
from nvmet_vdev.config.normal import initial_ana
from nvmet_vdev.config.nvmetcli import TRANSPORT
from nvmet_vdev.grammar import parse as parse_spec

__all__ = ["dump"]

OURS = ("vdev", "health", "hosts")
"""Groups and keys that nvmet has not."""


def dump(config: Config) -> str:
    """`config` as text; it is in its normal form."""
    groups = {one.nqn: {namespace.ana_grpid for namespace in one.namespaces} for one in config.subsystems}
    document: dict[str, Any] = {
        **_node(config.target),
        "hosts": [_node(host) for host in config.hosts],
        "subsystems": [_subsystem(subsystem) for subsystem in config.subsystems],
        "ports": [_port(port, groups.get(port.subsystem, set())) for port in config.ports],
    }
    return json.dumps(document, indent=2, sort_keys=True) + "\n"


def _subsystem(subsystem: Subsystem) -> dict[str, Any]:
    document = _node(subsystem)
    document["attr"]["allow_any_host"] = str(int(allows_any(subsystem)))
    document["namespaces"] = [_namespace(namespace) for namespace in subsystem.namespaces]
    return document


def _namespace(namespace: Namespace) -> dict[str, Any]:
    document = _node(namespace)
    document["enable"] = int(namespace.enable)
    device = document.setdefault("device", {})
    if _is_path(namespace.backend):
        device["path"] = document.pop("backend")["spec"]
    if namespace.nguid is not None:
        # nvmet writes it like a UUID.
        device["nguid"] = str(UUID(namespace.nguid))
    return document


def _port(port: Port, used: set[int]) -> dict[str, Any]:
    document = _node(port)
    document["addr"]["trtype"] = TRANSPORT
    document["subsystems"] = [port.subsystem]
    # All groups: nvmet takes one that is not there for inaccessible.
    document["ana_groups"] = [
        {"grpid": group, "ana": {"state": port.ana.get(group, initial_ana(group))}}
        for group in sorted({1, *used, *port.ana})
    ]
    return document


def _node(node: msgspec.Struct) -> dict[str, Any]:
    document: dict[str, Any] = {}
    for field in fields(type(node)).values():
        value = getattr(node, field.attribute)
        group, _, name = field.json.rpartition(".")
        if field.kind == "node":
            document |= _node(value)
        elif field.kind in ("nodes", "states") or value is None or _is_implied(group or name, field, value):
            continue
        elif group:
            document.setdefault(group, {})[name] = _text(field.name, value)
        else:
            document[name] = list(value) if isinstance(value, tuple) else value
    return document


def _is_implied(group: str, field: Field, value: object) -> bool:
    return group in OURS and value == field.default


def _text(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return f"0x{value:06x}" if name == "ieee_oui" else str(value)


def _is_path(backend: str) -> bool:
    try:
        return not parse_spec(backend).scheme
    except ConfigError:
        return False
