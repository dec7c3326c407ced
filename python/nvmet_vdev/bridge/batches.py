"""Backends that take batches: one thread calls `submit`; requests are completed from anywhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nvmet_vdev.bridge.complaints import leave_fork

if TYPE_CHECKING:
    from nvmet_vdev.bridge.service import Run


def main(run: Run) -> None:
    """Opens the backend, passes batches on until there are no more, and closes it."""
    backend = run.backend
    if not run.open():
        return
    if run.start():
        channel, submit = run.channel, backend.submit
        while (batch := channel.take_batch(run.traits.max_inflight)) is not None:
            if len(batch):
                try:
                    if (value := submit(batch)) is not None:
                        run.calls.returned("submit", value, None)
                except BaseException as error:
                    if not channel.is_own_process():
                        leave_fork(backend, "submit")
                    run.complaints.raised("submit", error)
                    batch.complete(error=error)
                if not channel.is_own_process():
                    leave_fork(backend, "submit")
            del batch
            run.do_jobs()
    run.close()
