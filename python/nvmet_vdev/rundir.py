"""The directory where this user's sockets are when nobody says, and whether it is this user's alone.

`$XDG_RUNTIME_DIR/nvmet-vdev/` when there is a runtime directory; `/run/nvmet-vdev/` for root; else
`/tmp/nvmet-vdev-UID/`. All are mode 0700. May know directories and modes; must not know sockets.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from nvmet_vdev._nvmet import ConfigError

__all__ = ["private_directory"]


def private_directory(what: str, option: str, *, make: bool = True) -> Path:
    """The directory, made if there is none and `make` says so. `what` is to be in it, and `option` names
    another place.

    Raises ConfigError for one that is not this user's alone: whoever can write there can be taken for the
    target.
    """
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
        elif not os.path.lexists(directory):
            return directory
        found = directory.lstat()
    except OSError as error:
        raise ConfigError(f"{what} directory {directory}: {error.strerror}; use {option} PATH") from error
    # A directory in /tmp may have been put there by somebody else, open to somebody else.
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
        raise ConfigError(f"{what} directory {directory} is not private to this user; use {option} PATH")
    return directory
