"""The configuration of a target: hosts, subsystems with namespaces, ports; as values, and in files.

::

    from nvmet_vdev import config

    loaded = config.load("drives.toml")     # or what `nvmetcli save` wrote, .json
    config.save(loaded.config, "drives.json")

`nvmet_vdev.manager` applies one to a target. All keys are in docs/configuration.md.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from nvmet_vdev.config.model import (
    AnaState,
    Config,
    Health,
    Host,
    Namespace,
    Port,
    Subsystem,
    TargetSettings,
)

if TYPE_CHECKING:
    from nvmet_vdev.config.files import Format, Loaded, dumps, format_of, load, loads, save

__all__ = [
    "AnaState",
    "Config",
    "Format",
    "Health",
    "Host",
    "Loaded",
    "Namespace",
    "Port",
    "Subsystem",
    "TargetSettings",
    "dumps",
    "format_of",
    "load",
    "loads",
    "save",
]

# Files and their formats, imported when they are asked for: `nvmet-vdev run` has none.
_FILES = ("Format", "Loaded", "dumps", "format_of", "load", "loads", "save")


def __getattr__(name: str) -> object:
    if name not in _FILES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(importlib.import_module(f"{__name__}.files"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_FILES})
