"""Where the control socket is, when nobody says.

`$NVMET_VDEV_CONTROL`, else `control.sock` in the directory that drives' sockets are in by default
(`nvmet_vdev.sockets`). May know directories and modes; must not know who listens.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from nvmet_vdev._nvmet import ConfigError

ENVIRONMENT = "NVMET_VDEV_CONTROL"
NAME = "control.sock"
MAX_PATH = 107
"""Bytes of a path in `sun_path`, which is 108 with the terminating NUL (unix(7))."""


def default_path(*, make: bool = False) -> Path:
    """The socket of this user's target; with `make` its directory is made.

    Raises ConfigError for a directory that is not this user's alone: whoever can write there can be taken
    for the target.
    """
    if chosen := os.environ.get(ENVIRONMENT):
        return Path(chosen)
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    if runtime.startswith("/"):
        directory = Path(runtime) / "nvmet-vdev"
    elif os.geteuid() == 0:
        directory = Path("/run/nvmet-vdev")
    else:
        directory = Path(f"/tmp/nvmet-vdev-{os.geteuid()}")  # noqa: S108 - checked below
    try:
        if make:
            directory.mkdir(mode=0o700, exist_ok=True)
        found = directory.lstat()
    except FileNotFoundError as error:
        if not make:
            return directory / NAME
        raise ConfigError(
            f"control socket directory {directory}: {error.strerror}; use --control PATH"
        ) from error
    except OSError as error:
        raise ConfigError(
            f"control socket directory {directory}: {error.strerror}; use --control PATH"
        ) from error
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
        raise ConfigError(
            f"control socket directory {directory} is not private to this user; use --control PATH"
        )
    return directory / NAME


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
