"""Types of parameters: what a value must be, in words for people and for the check alike.

May know msgspec and how sizes are written; must not know methods. Only the form is checked here: whether a
number is too large for this target is for the one who uses it to say.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from nvmet_vdev import _nvmet
from nvmet_vdev.sizes import parse_size

__all__ = ["Group", "Nqn", "Nsid", "Path", "Port", "Size", "convert", "schema", "words"]


class Size(int):
    """Bytes: a number, or text with a unit, as the command line takes it."""


Nqn = Annotated[str, Meta(title="an NQN", min_length=1, max_length=223)]
Nsid = Annotated[int, Meta(title="a namespace's number, from 1", ge=1, le=0xFFFF_FFFE)]
Port = Annotated[int, Meta(title="a port's number", ge=0, le=0xFFFF)]
Group = Annotated[int, Meta(title="an ANA group's number, from 1", ge=1, le=0xFFFF_FFFF)]
Path = Annotated[str, Meta(title="an absolute path", pattern="^/")]


def convert(value: Any, kind: Any) -> Any:
    """`value` as a `kind`; raises `msgspec.ValidationError` if it is none."""
    return msgspec.convert(value, kind, strict=True, str_keys=True, dec_hook=_size)


def _size(kind: type, value: Any) -> Any:
    if kind is not Size:
        raise NotImplementedError
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise TypeError("no size")
    try:
        size = parse_size(value) if isinstance(value, str) else value
    except _nvmet.ConfigError as error:
        raise ValueError(str(error)) from error
    if not 0 <= size < 1 << 63:
        raise ValueError("no size")
    return Size(size)


def schema(kind: Any) -> dict[str, Any]:
    """The JSON Schema of a `kind`."""
    return msgspec.json.schema(kind, schema_hook=_size_schema)


def _size_schema(kind: type) -> dict[str, Any]:
    if kind is not Size:
        raise NotImplementedError
    return {"title": "a size like 4096 or 10G", "type": ["integer", "string"], "minimum": 0}


def words(form: dict[str, Any]) -> str:
    """What a schema allows, in words."""
    if (title := form.get("title")) is not None:
        return str(title)
    if alternatives := form.get("anyOf"):
        return " or ".join(words(one) for one in alternatives)
    if choices := form.get("enum"):
        *others, last = map(str, choices)
        return f"{', '.join(others)} or {last}" if others else last
    kind = form.get("type")
    if kind == "array":
        return f"a list, each {words(form.get('items', {}))}"
    if kind == "object":
        inner = form.get("additionalProperties")
        return f"an object, each value {words(inner)}" if inner else "an object"
    if kind == "integer" and "minimum" in form and "maximum" in form:
        return f"a number from {form['minimum']} to {form['maximum']}"
    return {"boolean": "true or false", "string": "text", "integer": "a number", "null": "null"}.get(
        str(kind), "any value"
    )
