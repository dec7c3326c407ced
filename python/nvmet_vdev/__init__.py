"""A local NVMe drive for a virtual machine, served from user space over vfio-user.

The command line is ``nvmet-vdev``. From Python, a `Target` serves controllers, and every
error that it reports is an `NvmetError`::

    from nvmet_vdev import Target, open_disk

    with Target() as target:
        subsystem = target.add_subsystem(serial="S1")
        subsystem.add_namespace(open_disk("ram:1G"))
        target.listen(subsystem, socket="/run/user/1000/drive.sock")
        ...
"""

from nvmet_vdev._nvmet import (
    ConfigError,
    DeviceError,
    NvmetError,
    Storage,
    Subsystem,
    Target,
    __version__,
    open_disk,
)
from nvmet_vdev.backend import Backend, NvmeError
from nvmet_vdev.drive import Drive, attach
from nvmet_vdev.nvme import Command, Completion, NvmeStatusError, Status

__all__ = [
    "Backend",
    "Command",
    "Completion",
    "ConfigError",
    "DeviceError",
    "Drive",
    "NvmeError",
    "NvmeStatusError",
    "NvmetError",
    "Status",
    "Storage",
    "Subsystem",
    "Target",
    "__version__",
    "attach",
    "open_disk",
]
