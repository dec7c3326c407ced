"""Where the control socket is, when nobody says.

`$NVMET_VDEV_CONTROL`, else `control.sock` in the directory that drives' sockets are in by default
(`nvmet_vdev.rundir`). May know directories and modes; must not know who listens.
"""

from __future__ import annotations

import os
from pathlib import Path

from nvmet_vdev._nvmet import ConfigError
from nvmet_vdev.rundir import private_directory

ENVIRONMENT = "NVMET_VDEV_CONTROL"
NAME = "control.sock"
MAX_PATH = 107
"""Bytes of a path in `sun_path`, which is 108 with the terminating NUL (unix(7))."""


def default_path(*, make: bool = False) -> Path:
    """The socket of this user's target; with `make` its directory is made.

    Raises ConfigError for a directory that is not this user's alone.
    """
    if chosen := os.environ.get(ENVIRONMENT):
        return Path(chosen)
    return private_directory("control socket", "--control", make=make) / NAME


def check(path: str | os.PathLike[str]) -> Path:
    """`path`, if it can be the address of a socket."""
    length = len(os.fsencode(path))
    if length > MAX_PATH:
        raise ConfigError(
            f"control socket path {os.fspath(path)} has {length} bytes, a Unix socket takes {MAX_PATH}; "
            "use a shorter --control"
        )
    if length == 0 or "\0" in os.fspath(path):
        raise ConfigError("the control socket needs a path; use --control PATH")
    return Path(path)
