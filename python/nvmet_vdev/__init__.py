"""A local NVMe drive for a virtual machine, served from user space over vfio-user.

The command line is ``nvmet-vdev``. From Python, a `Target` serves controllers, a `Backend` is a drive of
one's own, and every error that the package reports is an `NvmetError`::

    from nvmet_vdev import Target

    with Target() as target:
        target.add_namespace("ram:1G")
        target.listen("/run/user/1000/drive.sock")
        target.wait()
"""

import importlib
from typing import TYPE_CHECKING

from nvmet_vdev._nvmet import (
    ConfigError,
    DeviceError,
    NvmetError,
    Storage,
    __version__,
    open_disk,
)
from nvmet_vdev.backend import Backend, NvmeError

if TYPE_CHECKING:
    from nvmet_vdev.bridge.calls import carry_out
    from nvmet_vdev.control.client import ControlClient
    from nvmet_vdev.drive import Drive, attach
    from nvmet_vdev.handles import Controller, Subsystem
    from nvmet_vdev.model import Health, Host, Lifetime, Registrant, Reservation
    from nvmet_vdev.namespaces import Namespace
    from nvmet_vdev.nvme import Command, Completion, NvmeStatusError, Status
    from nvmet_vdev.stats import ControllerStats, TargetStats
    from nvmet_vdev.target import Event, Target

__all__ = [
    "Backend",
    "Command",
    "Completion",
    "ConfigError",
    "ControlClient",
    "Controller",
    "ControllerStats",
    "DeviceError",
    "Drive",
    "Event",
    "Health",
    "Host",
    "Lifetime",
    "Namespace",
    "NvmeError",
    "NvmeStatusError",
    "NvmetError",
    "Registrant",
    "Reservation",
    "Status",
    "Storage",
    "Subsystem",
    "Target",
    "TargetStats",
    "__version__",
    "attach",
    "carry_out",
    "open_disk",
]

# Where the rest is, imported when it is asked for: a module of backends needs none of it.
_LATER = {
    "Command": "nvme",
    "Completion": "nvme",
    "ControlClient": "control.client",
    "Controller": "handles",
    "ControllerStats": "stats",
    "Drive": "drive",
    "Event": "target",
    "Health": "model",
    "Host": "model",
    "Lifetime": "model",
    "Namespace": "namespaces",
    "NvmeStatusError": "nvme",
    "Registrant": "model",
    "Reservation": "model",
    "Status": "nvme",
    "Subsystem": "handles",
    "Target": "target",
    "TargetStats": "stats",
    "attach": "drive",
    "carry_out": "bridge.calls",
}


def __getattr__(name: str) -> object:
    if (module := _LATER.get(name)) is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(importlib.import_module(f"{__name__}.{module}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_LATER})
