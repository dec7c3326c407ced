"""Whatever a namespace can be made of, opened: a spec, a path, open storage, a backend in Python.

May know specs and the bridge to Python, which are imported when something needs them. Must not know who
serves what is opened.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nvmet_vdev._nvmet import ConfigError, Storage, open_disk
from nvmet_vdev.grammar import Spec, as_spec

if TYPE_CHECKING:
    from nvmet_vdev.bridge import Service


@dataclass(frozen=True, slots=True)
class Opened:
    """Open storage, and who serves it if that is Python."""

    storage: Storage
    service: Service | None
    block_size: int
    """Of a namespace on it, in bytes."""
    spec: Spec | None
    """The words that it was made of, if there are any."""

    def on_resize(self, callback: Callable[[], None] | None) -> None:
        """`callback` is called, from any thread, when the backend says that it has got another size."""
        if self.service is not None:
            self.service.on_resize = callback

    def prepare_resize(self, size: int | None) -> int | None:
        """Has a backend in Python take another size, in bytes, or say its own; the size that is left to the
        storage then.

        Raises ConfigError if the backend refuses.
        """
        if self.service is None:
            return size
        if size is None:
            self.service.refresh_size()
        else:
            self.service.resize(size)
        return None


def open_any(
    backend: object,
    *,
    block_size: int | None = None,
    read_only: bool = False,
    create: int | None = None,
    iopoll: bool = False,
    fixed_buffers: bool = True,
) -> Opened:
    """Opens `backend`: a spec or path as the command line takes it, a `Storage`, or an object with `read`;
    the arguments are those of `Subsystem.add_namespace`. What is open already stays as it is.

    Raises ConfigError, one line, if that cannot be done.
    """
    if isinstance(backend, Opened):
        return backend
    spec = None
    if isinstance(backend, str | os.PathLike | Spec):
        spec = as_spec(_path(backend) if isinstance(backend, os.PathLike) else backend)
        if spec.native:
            backend = open_disk(
                str(spec),
                block_size=block_size if block_size is not None else 512,
                read_only=read_only,
                create=create,
                # Memory is done at once: there is nothing to wait for.
                iopoll=iopoll and not spec.memory,
                fixed_buffers=fixed_buffers,
            )
        else:
            # Late, as all that most drives do without.
            from nvmet_vdev.spec import open_backend

            backend = open_backend(spec, read_only=read_only, create=create)
    elif create is not None:
        raise ConfigError("create: only the path of a file that does not exist can be created")
    service = None
    if isinstance(backend, Storage):
        storage = backend
    else:
        from nvmet_vdev import bridge

        name = None if spec is None else str(spec)
        service = bridge.serve(backend, name=name, read_only=read_only)
        storage = service.storage
    if block_size is None:
        block_size = max(storage.min_block, 512)
    return Opened(storage, service, block_size, spec)


def _path(path: os.PathLike[str]) -> str:
    """A path in words that cannot be taken for anything else."""
    text = os.fspath(path)
    return text if "/" in text else f"./{text}"
