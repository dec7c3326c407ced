"""From commands to the methods of a backend in Python.

| module | what it says |
| --- | --- |
| `traits` | what a backend has and wants, and what is wrong with it |
| `calls` | one request as one call, with what stands in for methods that are not there |
| `complaints` | what went wrong in a backend, told once for each place |
| `service` | a backend in service: its threads, from `open` to `close` |
| `threads`, `loop`, `batches` | who makes the calls: threads, an event loop, a thread with batches |
"""

from nvmet_vdev.bridge.calls import carry_out
from nvmet_vdev.bridge.service import Service, open_storage, serve

__all__ = ["Service", "carry_out", "open_storage", "serve"]
