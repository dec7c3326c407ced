"""The schemes that installed packages bring: entry points of the group ``nvmet_vdev.backends``.

An entry point's name is the word before the colon; it leads to a class or function that makes a backend:
``factory(rest, **options)`` of a leaf (without ``rest`` where nothing stands behind the colon), or
``factory(inner, **options)`` of a filter, which says so with an attribute ``wraps = True``. It is imported
when its name is used, or listed.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

from nvmet_vdev._nvmet import ConfigError
from nvmet_vdev.loading import find, import_module

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

__all__ = ["GROUP", "Listing", "description", "installed", "kind_of", "listing", "load"]

GROUP = "nvmet_vdev.backends"
RESERVED = frozenset({"ram", "null", "python", "nbdkit"})

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9+._-]*")


@dataclass(frozen=True)
class Listing:
    """One entry point, for people."""

    name: str
    kind: Literal["leaf", "filter"] | None
    """None if it cannot be used."""
    description: str
    """The first line of its docstring."""
    package: str
    """Who brings it: name and version."""
    problem: str | None = None
    """Why it cannot be used."""


@functools.cache
def installed() -> Mapping[str, tuple[EntryPoint, ...]]:
    """What is installed, by name; one package that is found twice counts once. Read once in a process."""
    # It takes longer to import than all the rest; most drives are paths.
    from importlib.metadata import entry_points

    found: dict[str, dict[tuple[str, str], EntryPoint]] = {}
    for point in entry_points(group=GROUP):
        found.setdefault(point.name, {}).setdefault((point.value, _package(point)), point)
    return MappingProxyType({name: tuple(points.values()) for name, points in sorted(found.items())})


def kind_of(name: str) -> Literal["leaf", "filter"] | None:
    """What a word before a colon is; None if nothing of that name is installed.

    Raises ConfigError if it is installed and cannot be imported.
    """
    if name not in installed():
        return None
    return "filter" if getattr(load(name), "wraps", False) is True else "leaf"


def load(name: str) -> Any:
    """The class or function that makes a backend of that name; ConfigError if it cannot be had."""
    points = installed()[name]
    if len(points) > 1:
        packages = " and ".join(_package(point) for point in points)
        raise ConfigError(f"{name}: is brought by {packages}; uninstall all but one of them")
    (point,) = points
    if name in RESERVED or not _NAME.fullmatch(name):
        why = "is the name of a kind that is built in" if name in RESERVED else "is no name for a scheme"
        raise ConfigError(f"{name}: {why}; ask the author of {_package(point)} for another name")
    what = f"{name}: {point.value} of {_package(point)}"
    factory = find(import_module(point.module, what, f"reinstall {_package(point)}"), point.attr, what)
    if not callable(factory):
        raise ConfigError(f"{what} is no class or function; tell the author of {_package(point)}")
    return factory


def listing() -> list[Listing]:
    """All entry points; what is wrong with one of them does not hide the others."""
    return [_listing(name, points) for name, points in installed().items()]


def _listing(name: str, points: tuple[EntryPoint, ...]) -> Listing:
    package = " and ".join(_package(point) for point in points)
    try:
        factory = load(name)
    except ConfigError as error:
        return Listing(name, None, "", package, str(error).removeprefix(f"{name}: "))
    kind: Literal["leaf", "filter"] = "filter" if getattr(factory, "wraps", False) is True else "leaf"
    return Listing(name, kind, description(factory), package)


def description(thing: object) -> str:
    """The first line of the docstring that `thing` has itself."""
    written = getattr(thing, "__doc__", None)
    return written.strip().partition("\n")[0].strip() if isinstance(written, str) else ""


def _package(point: EntryPoint) -> str:
    return f"{point.dist.name} {point.dist.version}" if point.dist is not None else "an unknown package"
