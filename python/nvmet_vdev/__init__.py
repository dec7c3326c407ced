"""A local NVMe drive for a virtual machine, served from user space over vfio-user.

The command line is ``nvmet-vdev``. From Python, a `Target` serves controllers, and every
error that it reports is an `NvmetError`::

    from nvmet_vdev import Target

    with Target() as target:
        subsystem = target.add_subsystem(serial="S1")
        subsystem.add_namespace("ram:1G")
        target.listen(subsystem, socket="/run/user/1000/drive.sock")
        ...
"""

from nvmet_vdev._nvmet import (
    ConfigError,
    DeviceError,
    NvmetError,
    Subsystem,
    Target,
    __version__,
)
from nvmet_vdev.backend import Backend, NvmeError

__all__ = [
    "Backend",
    "ConfigError",
    "DeviceError",
    "NvmeError",
    "NvmetError",
    "Subsystem",
    "Target",
    "__version__",
]
