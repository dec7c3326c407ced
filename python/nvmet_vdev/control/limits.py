"""What one client, and all of them together, may cost. Knows nothing else."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of a server; the defaults are what docs/control.md says."""

    clients: int = 64
    """Connections at one time."""
    message: int = 1 << 20
    """Bytes of a message, its newline left out."""
    queued: int = 64
    """Messages of one client that wait; no more is read until there are fewer."""
    answer: int = 16 << 20
    """Bytes of an answer."""
    unread: int = 64 << 10
    """Bytes of answers that a client has not taken when its next message has to wait."""
    patience: float = 30.0
    """Seconds that a client may take for the rest of a message, and for taking anything of its answers."""
    stopping: float = 5.0
    """Seconds that the end waits for what runs and for answers that are not taken yet."""
