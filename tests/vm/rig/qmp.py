"""The one thing that the rig asks of QEMU's monitor."""

from __future__ import annotations

import json
import socket
from pathlib import Path

from tests.vm.rig.errors import GuestError

_LIMIT = 60.0


def system_reset(path: Path) -> None:
    """Presses the machine's reset button through the QMP socket at `path`."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(_LIMIT)
        connection.connect(str(path))
        with connection.makefile("rwb") as stream:
            stream.readline()  # the greeting
            for command in ("qmp_capabilities", "system_reset"):
                stream.write(json.dumps({"execute": command}).encode() + b"\n")
                stream.flush()
                while "return" not in (reply := json.loads(stream.readline() or b'{"error": "EOF"}')):
                    if "error" in reply:
                        raise GuestError(f"QMP {command}: {reply['error']}")
