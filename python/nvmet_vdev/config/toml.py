"""The configuration as TOML: the model's own words, with the types that TOML has.

May know the table of keys. Must not know files.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from uuid import UUID

import msgspec

from nvmet_vdev.config.fields import fields
from nvmet_vdev.config.model import Config
from nvmet_vdev.config.problems import Problem
from nvmet_vdev.config.reading import read

__all__ = ["dump", "parse", "tree_of"]


def parse(text: str) -> Config:
    """The configuration that `text` is. Raises Problem."""
    # Late, as below: trees alone are wanted where there is no file.
    import tomllib

    try:
        tree = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        reason = "is nested too deep" if isinstance(error, RecursionError) else f"is no TOML: {error}"
        raise Problem((), reason) from None
    return read(tree)


def dump(config: Config) -> str:
    """`config` as text; what has its default value is left out."""
    return "\n\n".join(_tables(tree_of(config), "")) + "\n"


def _tables(tree: dict[str, Any], name: str) -> Iterator[str]:
    """`tree` as tables with headings: people write it so, and compare it line by line."""
    import tomli_w

    plain = {key: value for key, value in tree.items() if not _is_nested(value)}
    if plain:
        yield tomli_w.dumps(plain).rstrip("\n")
    for key, value in tree.items():
        inner = f"{name}.{key}" if name else key
        if isinstance(value, dict):
            yield f"[{inner}]\n{tomli_w.dumps(value)}".rstrip("\n")
        elif _is_nested(value):
            for one in value:
                first, *rest = _tables(one, inner)
                yield f"[[{inner}]]\n{first}"
                yield from rest


def _is_nested(value: Any) -> bool:
    return isinstance(value, dict) or (isinstance(value, list) and bool(value) and isinstance(value[0], dict))


def tree_of(node: msgspec.Struct) -> dict[str, Any]:
    """`node` as plain values, without what has its default value."""
    tree: dict[str, Any] = {}
    for field in fields(type(node)).values():
        value = getattr(node, field.attribute)
        if value != field.default:
            tree[field.name] = _plain(value)
    return tree


def _plain(value: Any) -> Any:
    if isinstance(value, msgspec.Struct):
        return tree_of(value)
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, tuple):
        return [_plain(one) for one in value]
    if isinstance(value, dict):
        return {str(key): one for key, one in sorted(value.items())}
    return value
