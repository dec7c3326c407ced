"""The service manager's readiness protocol (sd_notify): one datagram to ``$NOTIFY_SOCKET``.

It may know sockets and the environment; it must not know what is being served.
"""

from __future__ import annotations

import os
import socket


def notify(state: str) -> bool:
    """Sends `state` (``READY=1``) to the service manager; False when there is none to tell.

    A manager that does not listen any more is no reason to stop serving: errors are dropped.
    """
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return False
    if address.startswith("@"):
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as manager:
        try:
            manager.sendto(state.encode(), address)
        except OSError:
            return False
    return True
