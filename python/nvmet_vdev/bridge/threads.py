"""Plain methods: one thread makes the calls, or several where the backend is thread-safe.

The hot path of a backend in Python: the loop in `work` runs for every request.
"""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING

from nvmet_vdev.bridge.calls import METHOD_OF, READ, MistakeError
from nvmet_vdev.bridge.complaints import fork, leave_fork

if TYPE_CHECKING:
    from nvmet_vdev.bridge.service import Run

log = logging.getLogger("nvmet_vdev.backend")

#: Requests that one thread takes at once: one trip for the GIL.
_TOGETHER = 32


def main(run: Run) -> None:
    """Opens the backend, carries requests out until there are no more, and closes it."""
    if not run.open():
        return
    if run.start():
        others = []
        if run.traits.thread_safe:
            for number in range(1, run.traits.max_inflight):
                other = threading.Thread(target=work, args=(run, 1), name=f"backend-{number}", daemon=True)
                try:
                    other.start()
                except RuntimeError as error:
                    log.warning(
                        "%s: %d threads instead of %d: %s", run.name, number, run.traits.max_inflight, error
                    )
                    break
                others.append(other)
        work(run, 1 if others else _TOGETHER)
        for other in others:
            other.join()
    run.close()


def work(run: Run, together: int) -> None:
    """Carries requests out until there are no more."""
    channel, calls, complaints = run.channel, run.calls, run.complaints
    take, done, fail, differs = channel.take, channel.done, channel.fail, channel.differs
    read, plain, returned = calls.read, calls.plain, calls.returned
    assert read is not None  # noqa: S101 - for the type checker
    while (requests := take(together)) is not None:
        for token, kind, offset, what, flags in requests:
            try:
                if kind == READ:
                    equal = True
                    if (value := read(offset, what)) is not None:
                        returned("read", value, what)
                else:
                    equal = plain(kind, offset, what, flags)
            except BaseException as error:
                if not channel.is_own_process():
                    leave_fork(run.backend, METHOD_OF[kind])
                if not isinstance(error, MistakeError):
                    complaints.raised(METHOD_OF[kind], error)
                # Whether the buffer was kept nobody knows: the exception has the method's variables.
                fail(token, error)
            else:
                if fork.happened:
                    leave_fork(run.backend, METHOD_OF[kind])
                if done(token) if equal else differs(token):
                    complaints.misbehaved(METHOD_OF[kind], KEPT)
        # A fork that Python has not seen.
        if requests and not channel.is_own_process():
            leave_fork(run.backend, METHOD_OF[kind])
        # Views that nobody needs would keep their memory until the next request.
        del requests
        what = None
        if run.jobs:
            run.do_jobs()


#: What is said of a method that has kept its buffer.
KEPT = "kept buf, or a part of it, after it returned; keep a copy, as in bytes(buf)"
