"""What runs has counted, taken down in the ledger: at the end of a part, and of all parts now and then.

Nothing here waits for a change that another thread makes. May know entries and the ledger.
"""

from __future__ import annotations

import contextlib
from dataclasses import asdict
from typing import TYPE_CHECKING

from nvmet_vdev._nvmet import ConfigError
from nvmet_vdev.manager.entries import Entries, NamespaceEntry, PortEntry

if TYPE_CHECKING:
    from nvmet_vdev.manager.ledger import Ledger

__all__ = ["keep", "note_namespace", "note_port"]


def note_port(ledger: Ledger | None, port: PortEntry) -> None:
    """Takes down what the controller of a port has counted."""
    if ledger is not None:
        with ledger.lock:
            ledger.note_controller(port.node.subsystem, port.node.portid, port.handle.lifetime())


def note_namespace(ledger: Ledger | None, namespace: NamespaceEntry) -> None:
    """Takes down what was counted on a namespace."""
    if ledger is not None:
        with ledger.lock:
            ledger.note_namespace(namespace.handle.uuid, asdict(namespace.handle.stats()))


def keep(ledger: Ledger, entries: Entries) -> None:
    """Takes down what all have counted, and writes it. Raises ConfigError if it cannot be written."""
    for port in tuple(entries.ports.values()):
        # One that is removed meanwhile was taken down then.
        with contextlib.suppress(ConfigError):
            note_port(ledger, port)
    for subsystem in tuple(entries.subsystems.values()):
        for namespace in tuple(subsystem.namespaces.values()):
            with contextlib.suppress(ConfigError):
                note_namespace(ledger, namespace)
    try:
        ledger.save()
    except OSError as error:
        raise ConfigError(
            f"{ledger.path}: {error.strerror}; what was counted is not saved, make room or use another "
            "directory"
        ) from error
