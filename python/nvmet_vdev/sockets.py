"""Where a drive's socket goes when the operator does not say, and what makes a path usable.

`NAME.sock` in the directory of `nvmet_vdev.rundir`.
"""

from __future__ import annotations

import os
import re
from pathlib import Path, PurePosixPath

from nvmet_vdev.errors import UsageError
from nvmet_vdev.grammar import MEMORY, Spec, as_spec
from nvmet_vdev.rundir import private_directory
from nvmet_vdev.seen import is_directory

MAX_PATH = 107
"""Bytes of a path in `sun_path`, which is 108 with the terminating NUL (unix(7))."""


def default_path(disk: str | Spec) -> Path:
    """The socket of a drive whose first disk is `disk`; makes its directory."""
    return private_directory("socket", "--socket") / f"{_name(as_spec(disk))}.sock"


def check(path: Path) -> Path:
    """`path`, if a socket can be bound there; says what to do when not.

    What already stands at the path is left to the one who binds: only an attempt to connect
    tells a stale socket from a live server.
    """
    length = len(os.fsencode(path))
    if length > MAX_PATH:
        raise UsageError(
            f"socket path {path} has {length} bytes, a Unix socket takes {MAX_PATH}; use a shorter --socket"
        )
    if not is_directory(path.parent):
        raise UsageError(f"socket {path}: no directory {path.parent}; create it or use another --socket")
    return path


def _name(disk: Spec) -> str:
    """A file name for `disk`, filters left aside.

    `ram` for `ram:1G`, `vm1` for `/images/vm1.img`, `Drive` for `python:./drive.py:Drive`, `image` for
    `fsspec:https://host/image.raw`.
    """
    leaf = disk.leaf
    if leaf.scheme in MEMORY:
        stem = leaf.scheme
    elif leaf.scheme == "python":
        stem = leaf.rest.rpartition(":")[2].rpartition(".")[2]
    else:
        place = leaf.rest.partition("?")[0] if leaf.scheme else leaf.rest
        stem = PurePosixPath(place).stem or leaf.scheme
    return re.sub(r"[^A-Za-z0-9._-]", "_", stem)[:40] or "drive"
