"""The configuration of a target: hosts, subsystems with namespaces, ports; as values, and in files.

::

    from nvmet_vdev import config

    loaded = config.load("drives.toml")     # or what `nvmetcli save` wrote, .json
    config.save(loaded.config, "drives.json")

`nvmet_vdev.manager` applies one to a target. All keys are in docs/configuration.md.
"""

from __future__ import annotations

from nvmet_vdev.config.files import Format, Loaded, dumps, format_of, load, loads, save
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
