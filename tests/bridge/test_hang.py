"""A backend that hangs: what has nothing to do with it goes on, and what has is ended."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from nvmet_vdev import Command, DeviceError
from nvmet_vdev._nvmet import ConfigError, Target
from nvmet_vdev.bridge import serve
from tests.bridge.backends import BLOCK, Async, Bare, Full, Hanging, Writable, lab, read, write
from tests.product import PATIENCE, wait_until


class HangingAsync(Async):
    """Hangs in `read` of block 0 until it is let go, or cancelled."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.hangs = threading.Event()
        self.go = threading.Event()
        self.cancelled = 0

    async def read(self, offset: int, buf: memoryview) -> None:  # type: ignore[override]
        if offset == 0 and not self.go.is_set():
            self.hangs.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                self.cancelled += 1
                raise
        await super().read(offset, buf)


class HangingBatch(Hanging):
    """The same, in batches: `kept` are those that nobody completes."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.kept: list[Any] = []

    def submit(self, batch: Any) -> None:
        for request in batch:
            if request.kind == 0 and request.offset == 0 and not self.go.is_set():
                self.kept.append(request)
                self.hangs.set()
            else:
                request.complete()


FORMS = [Hanging, HangingAsync, HangingBatch]


@pytest.fixture(params=FORMS)
def hanging(request: pytest.FixtureRequest) -> Iterator[Any]:
    backend = request.param()
    yield backend
    backend.go.set()


def test_abort_ends_a_command_that_hangs(hanging: Any) -> None:
    with lab(hanging) as rig:
        waits = rig.drive.submit(read(0))
        assert hanging.hangs.wait(PATIENCE)
        assert rig.drive.abort(waits)
        assert waits.wait(PATIENCE).status.code == (0, 7)
        hanging.go.set()
        assert rig.drive.read(0, 1) == b"\x5a" * BLOCK or isinstance(hanging, HangingBatch)


def test_abort_ends_a_command_that_waits_behind_one_that_hangs() -> None:
    backend = Hanging()
    with lab(backend) as rig:
        first = rig.drive.submit(read(0))
        assert backend.hangs.wait(PATIENCE)
        second = rig.drive.submit(write(7, b"x" * 512))
        # The admin queue may be faster than the other.
        wait_until(lambda: rig.drive.abort(second), "an abort")
        assert second.wait(PATIENCE).status.code == (0, 7)
        backend.go.set()
        assert first.wait(PATIENCE).status.success
        # It was never carried out.
        assert rig.drive.read(7, 1) == b"\x5a" * BLOCK


@pytest.mark.parametrize("form", FORMS)
def test_a_timeout_ends_a_command_that_hangs(form: Any) -> None:
    backend = form(timeout=0.05)
    with lab(backend) as rig:
        status = rig.read_status(0)
        assert (status.code, status.dnr) == ((0, 6), False)
        backend.go.set()
        wait_until(lambda: rig.read_status(1).success, "an answer")


def test_coroutines_that_are_given_up_are_cancelled_even_if_all_slots_are_theirs() -> None:
    backend = HangingAsync(max_inflight=2)
    with lab(backend) as rig:
        waits = [rig.drive.submit(read(0)) for _ in range(4)]
        assert backend.hangs.wait(PATIENCE)
        for pending in waits:
            wait_until(lambda one=pending: rig.drive.abort(one), "an abort")
        assert {pending.wait(PATIENCE).status.code for pending in waits} == {(0, 7)}
        assert rig.drive.read(1, 1) == b"\x5a" * BLOCK
        assert 2 <= backend.cancelled <= 4
        # Nothing is said of it.
        assert rig.services[0].failures == {}


def test_coroutines_that_are_cancelled_before_they_begin_leave_their_slots() -> None:
    class Blocks(Async):
        """Blocks the loop, so that what comes meanwhile is cancelled before its first step."""

        hangs, go = threading.Event(), threading.Event()

        async def read(self, offset: int, buf: memoryview) -> None:  # type: ignore[override]
            if offset == 0 and not self.go.is_set():
                self.hangs.set()
                self.go.wait(PATIENCE)
            await super().read(offset, buf)

    backend = Blocks(max_inflight=4, timeout=0.2)
    with lab(backend) as rig:
        first = rig.drive.submit(read(0))
        assert backend.hangs.wait(PATIENCE)
        others = [rig.drive.submit(read(0)) for _ in range(12)]
        codes = {pending.wait(PATIENCE).status.code for pending in (first, *others)}
        assert codes == {(0, 6)}
        backend.go.set()
        wait_until(lambda: rig.read_status(1).success, "an answer")
        assert rig.drive.read(1, 1) == b"\x5a" * BLOCK


def test_a_coroutine_that_does_not_let_itself_be_cancelled_keeps_only_its_slot() -> None:
    class Stubborn(Async):
        go = False

        async def read(self, offset: int, buf: memoryview) -> None:  # type: ignore[override]
            while offset == 0 and not self.go:
                try:
                    await asyncio.sleep(0.001)
                except asyncio.CancelledError:
                    continue
            await super().read(offset, buf)

    backend = Stubborn(timeout=0.05, max_inflight=2)
    with lab(backend) as rig:
        assert rig.read_status(0).code == (0, 6)
        for lba in range(1, 10):
            assert rig.drive.read(lba, 1) == b"\x5a" * BLOCK
        backend.go = True


def test_other_namespaces_and_the_admin_queue_go_on(hanging: Any) -> None:
    with lab(hanging, Writable()) as rig:
        waits = rig.drive.submit(read(0))
        assert hanging.hangs.wait(PATIENCE)
        for lba in range(200):
            rig.drive.write(lba, bytes([lba]) * BLOCK, nsid=2)
            assert rig.drive.read(lba, 1, nsid=2) == bytes([lba]) * BLOCK
        assert rig.drive.identify_namespace(1).nsid == 1
        assert rig.drive.identify_controller()
        assert not waits.done()
        assert rig.drive.abort(waits)


def test_a_controller_is_reset_while_its_backend_hangs(hanging: Any) -> None:
    with lab(hanging, Writable()) as rig:
        waits = rig.drive.submit(read(0))
        assert hanging.hangs.wait(PATIENCE)
        rig.drive.reset()
        with pytest.raises(DeviceError):
            waits.wait(PATIENCE)
        assert rig.drive.read(0, 1, nsid=2) == b"\x5a" * BLOCK
        hanging.go.set()
        wait_until(lambda: rig.read_status(1).success, "an answer")


def test_a_queue_is_deleted_while_its_backend_hangs(hanging: Any) -> None:
    with lab(hanging) as rig:
        rig.drive.submit(read(0))
        assert hanging.hangs.wait(PATIENCE)
        assert rig.drive.admin(0x00, cdw10=1).status.success
        assert rig.drive.identify_controller()
        rig.drive.reset()


def test_a_guest_that_goes_leaves_nothing_behind(hanging: Any) -> None:
    with lab(hanging) as rig:
        rig.drive.submit(read(0))
        assert hanging.hangs.wait(PATIENCE)
        rig.drive.close()
        if isinstance(hanging, HangingAsync):
            wait_until(lambda: hanging.cancelled, "cancelled")


def test_a_shutdown_takes_as_long_as_it_may_and_not_longer() -> None:
    backend = Hanging()
    backend.flush = lambda: None  # type: ignore[attr-defined]
    with lab(backend) as rig:
        rig.drive.submit(read(0))
        assert backend.hangs.wait(PATIENCE)
        rig.drive.close()
        # What was written may not be on the medium.
        with pytest.raises(DeviceError, match="the shutdown"):
            rig.target.shutdown(0.2)
        backend.go.set()


def test_a_service_that_hangs_says_so_when_it_is_closed() -> None:
    backend = Hanging()
    with lab(backend) as rig:
        rig.drive.submit(read(0))
        assert backend.hangs.wait(PATIENCE)
        assert not rig.services[0].close(0.05)
        backend.go.set()
        assert rig.services[0].close(PATIENCE)


def test_a_size_that_is_asked_for_while_the_backend_is_busy_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("nvmet_vdev.bridge.service.PATIENCE", 0.05)
    asked: list[int] = []

    class Resizes(Hanging):
        def resize(self, size: int) -> None:
            asked.append(size)

    backend = Resizes()
    with lab(backend) as rig:
        rig.drive.submit(read(0))
        assert backend.hangs.wait(PATIENCE)
        with pytest.raises(ConfigError, match=r"Resizes\.resize: the backend was busy for 0\.05 s"):
            rig.services[0].resize(4096)
        backend.go.set()
        assert rig.services[0].refresh_size() == len(backend.data)
    # Who gave up does not get it later.
    assert asked == []


def test_an_opening_that_was_interrupted_ends_in_a_close(monkeypatch: pytest.MonkeyPatch) -> None:
    opens, go = threading.Event(), threading.Event()

    class Slow(Full):
        def open(self) -> None:
            opens.set()
            go.wait(PATIENCE)
            super().open()

    from concurrent.futures import Future

    original = Future.result

    def interrupted(self: Future[Any], timeout: float | None = None) -> Any:
        monkeypatch.setattr(Future, "result", original)
        assert opens.wait(PATIENCE)
        raise KeyboardInterrupt

    monkeypatch.setattr(Future, "result", interrupted)
    backend = Slow()
    with pytest.raises(KeyboardInterrupt):
        serve(backend)
    go.set()
    wait_until(lambda: [call[0] for call in backend.calls] == ["open", "close"], "a close")


def test_a_batch_that_was_given_up_may_be_completed_later_and_nothing_happens() -> None:
    backend = HangingBatch()
    with lab(backend) as rig:
        waits = rig.drive.submit(read(0))
        assert backend.hangs.wait(PATIENCE)
        assert rig.drive.abort(waits)
        (request,) = backend.kept
        assert request.ended
        for _ in range(2):
            request.complete()
            request.complete(OSError(5, "again"))
        assert waits.wait(PATIENCE).status.code == (0, 7)
        assert rig.drive.read(1, 1) is not None
        backend.kept.clear()


def test_threads_that_hang_take_no_others_with_them() -> None:
    backend = Hanging(thread_safe=True, max_inflight=3)
    with lab(backend) as rig:
        waits = [rig.drive.submit(read(0)) for _ in range(2)]
        assert backend.hangs.wait(PATIENCE)
        for lba in range(1, 100):
            assert rig.drive.read(lba, 1) == b"\x5a" * BLOCK
        backend.go.set()
        assert all(pending.wait(PATIENCE).status.success for pending in waits)


def test_a_drop_of_everything_while_it_hangs_does_not_hang() -> None:
    backend = Hanging()
    service = serve(backend)
    target = Target()
    target.add_subsystem(serial="X").add_namespace(service.storage)
    del service
    target.shutdown(PATIENCE)
    del target
    backend.go.set()
    assert isinstance(backend, Bare)
    assert Command(0).opcode == 0
    assert time.monotonic() > 0
