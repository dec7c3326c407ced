"""The conformance suite of backends, on backends in Python of every form."""

from __future__ import annotations

import itertools
import random
import threading
from typing import Any

import pytest

from nvmet_vdev.bridge import carry_out, serve
from tests.bridge.backends import (
    SIZE,
    Async,
    Bare,
    Batches,
    Full,
    Later,
    Writable,
    conformance,
    without,
)

FORMS = [Full, Writable, Async, Batches, Later]
OPTIONAL = ("flush", "discard", "write_zeroes", "compare")


@pytest.mark.parametrize("block_size", [512, 4096])
@pytest.mark.parametrize("form", FORMS)
def test_backends_of_every_form_conform(form: type[Bare], block_size: int) -> None:
    conformance(serve(form(block_size=block_size)))


@pytest.mark.parametrize("form", [*FORMS, Bare])
def test_backends_that_are_read_only_conform(form: type[Bare]) -> None:
    backend = form(read_only=True)
    conformance(serve(backend))
    assert backend.data == b"\x5a" * SIZE


def test_an_operator_can_make_it_read_only() -> None:
    backend = Full()
    service = serve(backend, read_only=True)
    assert service.storage.read_only
    conformance(service)
    assert not {call[0] for call in backend.calls} & {"write", "write_zeroes", "discard"}


@pytest.mark.parametrize(
    "missing", [names for count in range(5) for names in itertools.combinations(OPTIONAL, count)]
)
def test_optional_methods_may_be_missing_in_every_combination(missing: tuple[str, ...]) -> None:
    conformance(serve(without(Full(), *missing)), rounds=8)


@pytest.mark.parametrize("missing", OPTIONAL)
def test_optional_methods_of_async_backends_may_be_missing(missing: str) -> None:
    conformance(serve(without(Async(), missing)), rounds=8)


@pytest.mark.parametrize("form", [Full, Async, Batches])
def test_a_generous_timeout_changes_nothing(form: type[Bare]) -> None:
    conformance(serve(form(timeout=600.0)))


@pytest.mark.parametrize("max_inflight", [1, 2, 8])
def test_thread_safe_backends_conform(max_inflight: int) -> None:
    class Locked(Full):
        lock = threading.Lock()

        def write(self, offset: int, buf: memoryview, fua: bool) -> None:
            with self.lock:
                super().write(offset, buf, fua)

    conformance(serve(Locked(thread_safe=True, max_inflight=max_inflight)))


@pytest.mark.parametrize("max_inflight", [1, 3, 200])
def test_async_backends_conform_with_any_number_in_flight(max_inflight: int) -> None:
    backend = Async(max_inflight=max_inflight)
    conformance(serve(backend), depth=128)
    assert 1 <= backend.most <= max_inflight
    assert backend.running == 0


def test_batches_have_as_many_requests_as_the_backend_wants() -> None:
    sizes: set[int] = set()

    class Counting(Batches):
        def submit(self, batch: Any) -> None:
            sizes.add(len(batch))
            super().submit(batch)

    conformance(serve(Counting(max_inflight=5)), depth=64)
    assert max(sizes) <= 5


def test_a_batch_can_be_carried_out_with_columns_of_numpy() -> None:
    numpy = pytest.importorskip("numpy")

    class Columns(Batches):
        taken = 0

        def submit(self, batch: Any) -> None:
            kinds = numpy.asarray(batch.kinds)
            if not (kinds == 0).all() or not (numpy.asarray(batch.lengths) == 4096).all():
                super().submit(batch)
                return
            memory = numpy.frombuffer(batch.memory, numpy.uint8).reshape(-1, 4096)
            data = numpy.frombuffer(self.data, numpy.uint8)
            offsets = numpy.asarray(batch.offsets)
            rows = offsets[:, None] + numpy.arange(4096, dtype=numpy.uint64)
            memory[numpy.asarray(batch.positions) // 4096] = data[rows]
            Columns.taken += len(batch)
            batch.complete()

    # Whole pages only, so that many reads are of one length.
    conformance(serve(Columns(block_size=4096)), depth=64)
    assert Columns.taken


def test_requests_of_a_batch_are_completed_in_any_order_by_several_threads() -> None:
    class Shuffled(Later):
        def submit(self, batch: Any) -> None:
            requests = list(batch)
            random.Random(len(requests)).shuffle(requests)
            half = len(requests) // 2
            for part in (requests[:half], requests[half:]):
                thread = threading.Thread(target=self.work, args=(part,))
                thread.start()
                self.threads_started.append(thread)

    conformance(serve(Shuffled()), rounds=10)


def test_requests_of_a_batch_are_carried_out_one_by_one_where_there_is_nothing_better() -> None:
    class Half(Full):
        def submit(self, batch: Any) -> None:
            for index, request in enumerate(batch):
                if request.kind == 0 and index % 2:
                    request.buffer[:] = self.data[request.offset : request.offset + request.length]
                    batch.complete(index)
                else:
                    carry_out(self, request)

    conformance(serve(Half()))
