"""A local NVMe drive for a virtual machine, served from user space over vfio-user.

The command line is ``nvmet-vdev``. From Python, a `Target` serves controllers, a `Backend` is a drive of
one's own, and every error that the package reports is an `NvmetError`::

    from nvmet_vdev import Target

    with Target() as target:
        target.add_namespace("ram:1G")
        target.listen("/run/user/1000/drive.sock")
        target.wait()
"""

from nvmet_vdev._nvmet import (
    ConfigError,
    DeviceError,
    NvmetError,
    Storage,
    __version__,
    open_disk,
)
from nvmet_vdev.backend import Backend, NvmeError
from nvmet_vdev.drive import Drive, attach
from nvmet_vdev.handles import Controller, Host, Namespace, Subsystem
from nvmet_vdev.nvme import Command, Completion, NvmeStatusError, Status
from nvmet_vdev.stats import ControllerStats, TargetStats
from nvmet_vdev.target import Event, Target

__all__ = [
    "Backend",
    "Command",
    "Completion",
    "ConfigError",
    "Controller",
    "ControllerStats",
    "DeviceError",
    "Drive",
    "Event",
    "Host",
    "Namespace",
    "NvmeError",
    "NvmeStatusError",
    "NvmetError",
    "Status",
    "Storage",
    "Subsystem",
    "Target",
    "TargetStats",
    "__version__",
    "attach",
    "open_disk",
]
