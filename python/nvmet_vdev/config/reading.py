"""From a tree of plain values, in the words of the model, to the model: kinds, ranges, unknown keys.

The tree is what TOML has, what nvmetcli's JSON is turned into, and what comes over the control socket.

May know the table of keys. Must not know formats, nor what keys mean to each other.
"""

from __future__ import annotations

import re
import typing
from collections.abc import Mapping
from typing import Any, TypeVar
from uuid import UUID

import msgspec

from nvmet_vdev._nvmet import ConfigError
from nvmet_vdev.config.fields import Field, fields
from nvmet_vdev.config.model import MAX_ANA_GROUP, AnaState, Config
from nvmet_vdev.config.problems import Path, Problem, nearest, shown
from nvmet_vdev.sizes import parse_size

__all__ = ["read", "read_node"]

_Node = TypeVar("_Node", bound=msgspec.Struct)
_STATES = typing.get_args(AnaState)
_HEX_DIGITS = {"nguid": 32, "eui64": 16}
_AT = re.compile(r" - at `\$(?P<path>[^`]*)`$")


def read(tree: object) -> Config:
    """The configuration that `tree` is. Raises Problem."""
    return read_node(Config, tree)


def read_node(node: type[_Node], tree: object, path: Path = ()) -> _Node:
    """The node that `tree` is; `path` is where that stands. Raises Problem."""
    plain = _table(node, tree, path)
    try:
        return msgspec.convert(plain, node)
    except msgspec.ValidationError as error:
        raise _translated(error, node, plain, path) from None


def _table(node: type[msgspec.Struct], tree: object, path: Path) -> dict[str, Any]:
    known = fields(node)
    if not isinstance(tree, Mapping):
        raise Problem(path, f"{shown(tree)}; use a table with {', '.join(known)}")
    for name in tree:
        if name not in known:
            raise Problem((*path, str(name)), f"is unknown; {nearest(str(name), known)}")
    for field in known.values():
        if field.required and tree.get(field.name) is None:
            raise Problem((*path, field.name), f"is missing; use {field.use}")
    return {
        name: _value(known[name], value, (*path, name)) for name, value in tree.items() if value is not None
    }


def _value(field: Field, value: Any, path: Path) -> Any:
    """`value` as the model has it, if it is of the right kind."""
    wrong = Problem(path, f"{shown(value)}; use {field.use}")
    match field.kind:
        case "node":
            assert field.node is not None  # noqa: S101 - for the type checker
            return _table(field.node, value, path)
        case "nodes":
            assert field.node is not None  # noqa: S101 - for the type checker
            if not isinstance(value, list | tuple):
                raise Problem(path, f"{shown(value)}; use a list of tables")
            return [_table(field.node, one, (*path, index)) for index, one in enumerate(value)]
        case "text" | "words":
            return _of(str, value, wrong)
        case "int":
            return _integer(value, wrong)
        case "bool":
            return _of(bool, value, wrong)
        case "uuid":
            return _uuid(value, wrong)
        case "size":
            return _size(value, wrong)
        case "hex":
            return _hex(value, _HEX_DIGITS[field.name], wrong)
        case "texts":
            values = _of(list, list(value) if isinstance(value, tuple) else value, wrong)
            return [
                _of(str, one, Problem((*path, at), f"{shown(one)}; use a text"))
                for at, one in enumerate(values)
            ]
        case "ints":
            values = _of(list, list(value) if isinstance(value, tuple) else value, wrong)
            return [
                _integer(one, Problem((*path, at), f"{shown(one)}; use a number"))
                for at, one in enumerate(values)
            ]
        case "states":
            return _states(_of(dict, value, wrong), path)


_Plain = TypeVar("_Plain")


def _of(kind: type[_Plain], value: object, wrong: Problem) -> _Plain:
    if not isinstance(value, kind):
        raise wrong
    return value


def _integer(value: object, wrong: Problem) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise wrong
    return value


def _uuid(value: object, wrong: Problem) -> UUID:
    if isinstance(value, UUID):
        return value
    text = _of(str, value, wrong)
    try:
        found = UUID(text)
    except ValueError:
        raise wrong from None
    # Python takes more than the form that everybody knows.
    if text.lower() not in (str(found), found.hex):
        raise wrong
    return found


def _size(value: object, wrong: Problem) -> int:
    if not isinstance(value, str):
        return _integer(value, wrong)
    try:
        return parse_size(value)
    except ConfigError:
        raise wrong from None


def _hex(value: object, digits: int, wrong: Problem) -> str:
    if isinstance(value, bytes):
        value = value.hex()
    text = re.sub("[-:]", "", _of(str, value, wrong)).lower()
    if re.fullmatch(f"[0-9a-f]{{{digits}}}", text) is None or not int(text, 16):
        raise wrong
    return text


def _states(value: dict[Any, Any], path: Path) -> dict[int, str]:
    states: dict[int, str] = {}
    for key, state in value.items():
        place = (*path, str(key))
        number = int(key) if isinstance(key, str) and re.fullmatch("[0-9]{1,6}", key) else key
        if isinstance(number, bool) or not isinstance(number, int) or not 1 <= number <= MAX_ANA_GROUP:
            raise Problem(path, f"group {shown(key)}; use 1 to {MAX_ANA_GROUP}")
        if number in states:
            raise Problem(place, "is there twice; leave one of the two out")
        if state not in _STATES:
            raise Problem(place, f"{shown(state)}; use {', '.join(_STATES[:-1])} or {_STATES[-1]}")
        states[number] = state
    return states


def _translated(
    error: msgspec.ValidationError, node: type[msgspec.Struct], plain: dict[str, Any], start: Path
) -> Problem:
    """What msgspec says about a range, with the value and what may be written."""
    found = _AT.search(str(error))
    steps = re.findall(r"\[(\d+)\]|\.?([^.\[\]]+)", found["path"]) if found else []
    path: Path = ()
    value: Any = plain
    use = "something else"
    table: type[msgspec.Struct] | None = node
    for index, name in steps:
        path = (*path, int(index) if index else name)
        value = value[int(index) if index else name]
        if name and table is not None and name in fields(table):
            field = fields(table)[name]
            table, use = field.node, field.use
    return Problem((*start, *path), f"{shown(value)}; use {use}")
