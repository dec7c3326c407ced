"""The keys of the model as a table: name, kind of value, place in nvmetcli's JSON, default, words for people.

May know the model. Must not know values or files.
"""

from __future__ import annotations

import functools
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal
from uuid import UUID

import msgspec

from nvmet_vdev.config import model

__all__ = ["Field", "Kind", "fields"]

Kind = Literal[
    "text", "int", "bool", "uuid", "size", "hex", "words", "texts", "ints", "states", "node", "nodes"
]


@dataclass(frozen=True)
class Field:
    """A key."""

    name: str
    """In TOML and on the control socket."""
    attribute: str
    """In the class."""
    kind: Kind
    json: str
    """Group and name in nvmetcli's JSON; without a dot it stands by itself."""
    text: str
    """What it means."""
    use: str
    """What may be written."""
    default: Any
    """`msgspec.NODEFAULT`: it has to be written."""
    node: type[msgspec.Struct] | None = None
    """Of nodes."""

    @property
    def required(self) -> bool:
        """Whether it has to be written."""
        return self.default is msgspec.NODEFAULT


@functools.cache
def fields(node: type[msgspec.Struct]) -> Mapping[str, Field]:
    """The keys of a class of the model, by name, in its order."""
    hints = typing.get_type_hints(node, include_extras=True)
    return types.MappingProxyType(
        {info.encode_name: _field(info, hints[info.name]) for info in msgspec.structs.fields(node)}
    )


def _field(info: msgspec.structs.FieldInfo, hint: Any) -> Field:
    plain, outer = _bare(hint)
    if typing.get_origin(plain) in (types.UnionType, typing.Union):
        (plain,) = (one for one in typing.get_args(plain) if one is not type(None))
        plain, inner = _bare(plain)
        outer = inner | outer
    default = info.default
    if info.default_factory is not msgspec.NODEFAULT:
        default = info.default_factory()
    kind, node = _kind(info.encode_name, plain)
    return Field(
        name=info.encode_name,
        attribute=info.name,
        kind=kind,
        json=str(outer.get("json", info.name)),
        text=str(outer.get("text") or (node.__doc__ if node is not None else "")),
        use=str(outer.get("use", "a table")),
        default=default,
        node=node,
    )


def _bare(hint: Any) -> tuple[Any, dict[str, Any]]:
    """A type without what is said about it, and that."""
    told: dict[str, Any] = {}
    for one in getattr(hint, "__metadata__", ()):
        told |= (one.extra or {}) | ({"text": one.description} if one.description else {})
    return (hint.__origin__ if told else hint), told


_BY_NAME: Mapping[str, Kind] = {"create": "size", "nguid": "hex", "eui64": "hex", "ana": "states"}
_BY_TYPE: Mapping[Any, Kind] = {str: "text", int: "int", bool: "bool", UUID: "uuid"}


def _kind(name: str, hint: Any) -> tuple[Kind, type[msgspec.Struct] | None]:
    if name in _BY_NAME:
        return _BY_NAME[name], None
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        return "node", hint
    if typing.get_origin(hint) is Literal:
        return ("int" if all(isinstance(one, int) for one in typing.get_args(hint)) else "words"), None
    if typing.get_origin(hint) is tuple:
        element = typing.get_args(hint)[0]
        if isinstance(element, type) and issubclass(element, msgspec.Struct):
            return "nodes", element
        return ("texts" if element is str else "ints"), None
    return _BY_TYPE[hint], None


NODES: Mapping[str, type[msgspec.Struct]] = {
    "target": model.TargetSettings,
    "host": model.Host,
    "subsystem": model.Subsystem,
    "namespace": model.Namespace,
    "port": model.Port,
}
"""The tables by their names in TOML."""
