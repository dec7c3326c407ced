"""JSON Schema (2020-12) of both formats, made of the table of keys: for editors, and for programs that write.

``python -m nvmet_vdev.config.schema DIRECTORY`` writes them, as docs/ has them. What keys have to be to each
other is not in a schema: `nvmet-vdev serve --check` tells.

May know the table of keys and nvmet's attributes. Must not know values.
"""

from __future__ import annotations

import json
import sys
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from nvmet_vdev.config.fields import Field, fields
from nvmet_vdev.config.model import MAX_ANA_GROUP, AnaState, Config
from nvmet_vdev.config.nvmetcli import NO_USE, OFF, ON, TRANSPORT

__all__ = ["schemas"]

Schema = dict[str, Any]

_NODES = {"host": "hosts", "subsystem": "subsystems", "namespace": "namespaces", "port": "ports"}
_NUMBER: Schema = {"$ref": "#/$defs/number"}
_SKIPPED: dict[str, Schema] = {
    "hosts": {"dhchap": {"type": "object"}},
    "ports": {"referrals": {"type": "array"}, "enable": {}},
    "subsystems": {"passthru": {"type": ["array", "object"]}},
    "namespaces": {"ana": {"type": "object"}},
}
_FOR: dict[str, str] = {
    "attr": "subsystems",
    "addr": "ports",
    "param": "ports",
    "device": "namespaces",
    "buffered_io": "namespaces",
}
"""Whose the attributes are that are not for us, by group."""


def schemas() -> dict[str, Schema]:
    """The schemas by the names of their files in docs/."""
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    toml = _table(Config, lambda _, schema: schema)
    return {
        "config.schema.json": {
            **head,
            "title": "nvmet-vdev, as nvmetcli writes it",
            **_document(),
            "$defs": {
                "flag": {"enum": [True, False, 1, 0, *sorted(ON | OFF)]},
                "number": {"type": "string", "pattern": r"^(-?[0-9]{1,20}|0[xX][0-9a-fA-F]{1,16})$"},
            },
        },
        "config.toml.schema.json": {**head, "title": "nvmet-vdev, TOML", **toml},
    }


def _table(node: type[msgspec.Struct], form: Callable[[Field, Schema], Schema]) -> Schema:
    """A table of TOML."""
    known = fields(node).values()
    return {
        "type": "object",
        "additionalProperties": False,
        "required": [field.name for field in known if field.required],
        "properties": {field.name: form(field, _value(node, field)) for field in known},
    }


def _value(node: type[msgspec.Struct], field: Field) -> Schema:
    """The value of a key in TOML."""
    said: Schema = {"description": field.text}
    if field.default not in (None, msgspec.NODEFAULT, (), {}) and field.node is None:
        said["default"] = field.default
    if field.node is not None:
        table = _table(field.node, lambda _, schema: schema)
        return {**said, "type": "array", "items": table} if field.kind == "nodes" else {**said, **table}
    if field.kind == "states":
        states = list(typing.get_args(AnaState))
        return {**said, "type": "object", "additionalProperties": {"enum": states}, "propertyNames": _group()}
    schema = _of_type(node, field)
    if field.kind == "size":
        schema = {"anyOf": [schema, {"type": "string", "pattern": "^[0-9]"}]}
    if field.kind == "hex":
        # Written with dashes as well.
        schema = {"type": "string", "pattern": "^[0-9a-fA-F:-]+$"}
    return said | schema


def _group() -> Schema:
    return {"pattern": "^[0-9]{1,4}$", "description": f"an ANA group, 1 to {MAX_ANA_GROUP}"}


def _of_type(node: type[msgspec.Struct], field: Field) -> Schema:
    """What msgspec says of the type, without that it may be left out."""
    _, components = msgspec.json.schema_components([node])
    schema: Schema = dict(components[node.__name__]["properties"][field.name])
    alternatives = [one for one in schema.pop("anyOf", ()) if one != {"type": "null"}]
    schema |= alternatives[0] if alternatives else {}
    if isinstance(schema.get("enum"), list):
        schema["enum"] = [one for one in schema["enum"] if one is not None]
    return {name: one for name, one in schema.items() if name not in ("default", "description")}


def _document() -> Schema:
    """nvmetcli's JSON."""
    properties: Schema = {
        plural: {"type": "array", "items": _object(plural, field.node)}
        for field in fields(Config).values()
        if field.node is not None and (plural := _NODES.get(field.name, ""))
    }
    settings = fields(Config)["target"].node
    assert settings is not None  # noqa: S101 - for the type checker
    properties |= _object("vdev", settings)["properties"]
    properties["discovery"] = {"type": "object", "description": "skipped"}
    return {"type": "object", "additionalProperties": False, "properties": properties}


def _object(plural: str, node: type[msgspec.Struct]) -> Schema:
    properties: Schema = {}
    for field in fields(node).values():
        if field.kind == "nodes" and field.node is not None:
            inner = _NODES[field.name]
            properties[inner] = {"type": "array", "items": _object(inner, field.node)}
        elif field.kind == "node" and field.node is not None:
            for one in fields(field.node).values():
                _put(properties, one.json, _text(field.node, one))
        elif field.name == "ana":
            properties["ana_groups"] = _ana_groups()
        elif field.name == "subsystem":
            properties["subsystems"] = {"type": "array", "items": {"type": "string"}}
        else:
            _put(properties, field.json, _text(node, field))
    if plural == "namespaces":
        _put(properties, "device.path", {"type": "string", "description": "path of a file or block device"})
    if plural == "ports":
        # Ports of other transports have whatever they have.
        properties["addr"]["properties"]["traddr"].pop("minLength")
        _put(properties, "addr.trtype", {"type": "string", "description": f"{TRANSPORT}; others are skipped"})
    for name, (why, _) in NO_USE.items():
        if _FOR[name.partition(".")[0]] == plural:
            _put(properties, name, {"description": f"skipped: {why}"})
    properties |= {name: {**one, "description": "skipped"} for name, one in _SKIPPED.get(plural, {}).items()}
    return {
        "type": "object",
        "additionalProperties": False,
        "required": [name for name in ("nqn", "nsid", "portid") if name in properties],
        "properties": properties,
    }


def _put(properties: Schema, place: str, schema: Schema) -> None:
    group, _, name = place.rpartition(".")
    if group:
        empty: Schema = {"type": "object", "additionalProperties": False, "properties": {}}
        properties.setdefault(group, empty)["properties"][name] = schema
    else:
        properties[name] = schema


def _ana_groups() -> Schema:
    return {
        "type": "array",
        "items": {
            "type": "object",
            "properties": {
                "grpid": {"anyOf": [{"type": "integer", "minimum": 1, "maximum": MAX_ANA_GROUP}, _NUMBER]},
                "ana": {"type": "object", "properties": {"state": {"enum": list(typing.get_args(AnaState))}}},
            },
            "required": ["grpid"],
        },
    }


def _text(node: type[msgspec.Struct], field: Field) -> Schema:
    """The value of a key in a group, where all is text, and may be what it is."""
    schema = _value(node, field)
    said: Schema = {name: schema.pop(name) for name in ("description", "default") if name in schema}
    match field.kind:
        case "bool":
            schema = {"$ref": "#/$defs/flag"}
        case "int":
            schema = {"anyOf": [schema, _NUMBER]}
        case "ints":
            schema = {"anyOf": [schema, {"type": "string", "pattern": "^([0-9]+( *, *[0-9]+)*)?$"}]}
    return said | schema


def _write(directory: Path) -> None:
    for name, schema in schemas().items():
        (directory / name).write_text(json.dumps(schema, indent=2, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    _write(Path(sys.argv[1]))
