"""Backends that are ready to use, written in Python, and filters to put on top of any other.

They are ordinary users of the interface that docs/backends.md describes, and short enough to be read as
examples of it. A filter takes the backend below it first, so they compose::

    Overlay(Fault(File("disk.img", read_only=True), read="0.01"), "cow.img")

The names are loaded when they are used: importing this package is cheap.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nvmet_vdev.backends.fault import Fault, Rule
    from nvmet_vdev.backends.file import File
    from nvmet_vdev.backends.filter import Command, Filter
    from nvmet_vdev.backends.fsspec_image import Fsspec
    from nvmet_vdev.backends.log import Log, replay
    from nvmet_vdev.backends.overlay import Overlay
    from nvmet_vdev.backends.ram import Ram
    from nvmet_vdev.backends.rate import Rate

__all__ = [
    "Command",
    "Fault",
    "File",
    "Filter",
    "Fsspec",
    "Log",
    "Overlay",
    "Ram",
    "Rate",
    "Rule",
    "replay",
]

_MODULES = {
    "Command": "filter",
    "Fault": "fault",
    "File": "file",
    "Filter": "filter",
    "Fsspec": "fsspec_image",
    "Log": "log",
    "Overlay": "overlay",
    "Ram": "ram",
    "Rate": "rate",
    "Rule": "fault",
    "replay": "log",
}


def __getattr__(name: str) -> object:
    if (module := _MODULES.get(name)) is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(importlib.import_module(f"{__name__}.{module}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
