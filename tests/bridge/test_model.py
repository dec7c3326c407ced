"""Random commands against a model, while the backend fails and dawdles at random."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nvmet_vdev import NvmeStatusError
from tests.bridge.backends import Async, Batches, Later, Writable, lab

BLOCKS = 32
BLOCK = 512


class Chance:
    """When to fail and when to wait: the same for the same seed."""

    def __init__(self) -> None:
        self.random = random.Random(0)
        self.lock = threading.Lock()
        self.failures = 0.0

    def reset(self, seed: int, failures: float) -> None:
        with self.lock:
            self.random = random.Random(seed)
            self.failures = failures

    def fails(self) -> bool:
        with self.lock:
            return self.random.random() < self.failures

    def turns(self) -> int:
        with self.lock:
            return self.random.randrange(4)


class Plain(Writable):
    def __init__(self, **attributes: Any) -> None:
        super().__init__(BLOCKS * BLOCK, **attributes)
        self.chance = Chance()

    def trouble(self) -> None:
        for _ in range(self.chance.turns()):
            threading.Event().wait(0)
        if self.chance.fails():
            raise OSError(5, "bad luck")

    def read(self, offset: int, buf: memoryview) -> None:
        self.trouble()
        super().read(offset, buf)

    def write(self, offset: int, buf: memoryview, fua: bool) -> None:
        self.trouble()
        super().write(offset, buf, fua)


class Coroutines(Async):
    def __init__(self, **attributes: Any) -> None:
        super().__init__(BLOCKS * BLOCK, **attributes)
        self.chance = Chance()

    async def pause(self) -> None:
        for _ in range(self.chance.turns()):
            await asyncio.sleep(0)
        if self.chance.fails():
            raise OSError(5, "bad luck")


class Batched(Plain, Batches):
    def note(self, *call: Any) -> None: ...


class Delayed(Plain, Later):
    def note(self, *call: Any) -> None: ...


FORMS: list[tuple[type[Any], dict[str, Any]]] = [
    (Plain, {}),
    (Plain, {"thread_safe": True, "max_inflight": 3}),
    (Coroutines, {}),
    (Coroutines, {"max_inflight": 2}),
    (Batched, {}),
    (Delayed, {"timeout": 60.0}),
]

#: What, from where, how many blocks, of which byte, with FUA or deallocation, and where else.
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["write", "zeroes", "read", "compare", "flush", "many"]),
        st.integers(0, BLOCKS - 1),
        st.integers(1, 8),
        st.sampled_from([0, 1, 255]),
        st.booleans(),
        st.lists(st.integers(0, BLOCKS - 1), min_size=1, max_size=20),
    ),
    max_size=25,
)


@pytest.fixture(params=FORMS, ids=lambda form: form[0].__name__, scope="module")
def served(request: pytest.FixtureRequest) -> Iterator[Any]:
    form, attributes = request.param
    backend = form(**attributes)
    with lab(backend) as rig:
        yield backend, rig


@settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(steps=STEPS, seed=st.integers(0, 1000), failures=st.sampled_from([0.0, 0.1, 0.5]))
def test_what_succeeds_is_as_in_the_model(
    served: tuple[Any, Any],
    steps: list[tuple[str, int, int, int, bool, list[int]]],
    seed: int,
    failures: float,
) -> None:
    backend, rig = served
    drive = rig.drive
    backend.chance.reset(seed, 0.0)
    drive.write(0, bytes(BLOCKS * BLOCK))
    model = [bytes(BLOCK)] * BLOCKS
    backend.chance.reset(seed, failures)

    def put(lba: int, data: list[bytes], error: bool) -> None:
        if error:
            # What failed may have been carried out in part: the model learns what there is.
            backend.chance.reset(seed, 0.0)
            stored = drive.read(lba, len(data))
            for index, block in enumerate(data):
                found = stored[index * BLOCK :][:BLOCK]
                assert found in (block, model[lba + index])
                model[lba + index] = found
            backend.chance.reset(seed + 1, failures)
        else:
            model[lba : lba + len(data)] = data

    def change(lba: int, data: list[bytes], act: Callable[[], None]) -> None:
        try:
            act()
        except NvmeStatusError as error:
            put(lba, data, error=True)
            if error.status.code != (2, 0x80):
                raise
        else:
            put(lba, data, error=False)

    for name, lba, most, value, flag, lbas in steps:
        count = min(most, BLOCKS - lba)
        data = [bytes([value]) * BLOCK] * count
        try:
            match name:
                case "write":
                    change(lba, data, partial(drive.write, lba, b"".join(data), fua=flag))
                case "zeroes":
                    zeroes = [bytes(BLOCK)] * count
                    change(lba, zeroes, partial(drive.write_zeroes, lba, count, deallocate=flag))
                case "read":
                    assert drive.read(lba, count) == b"".join(model[lba : lba + count])
                case "compare":
                    assert drive.compare(lba, b"".join(data)) == (model[lba : lba + count] == data)
                case "flush":
                    drive.flush()
                case _:
                    found = drive.read_many([(one, 1) for one in lbas])
                    assert found == [model[one] for one in lbas]
        except NvmeStatusError as error:
            # Of reads, and of the flush of those that fail in every method.
            unlucky = failures > 0 and error.status.code in ((2, 0x81), (2, 0x80))
            if not unlucky:
                raise
