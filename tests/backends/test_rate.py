"""`Rate`, on a clock of the test's own."""

from __future__ import annotations

import threading
import time

import pytest

from nvmet_vdev import ConfigError
from nvmet_vdev.backends import Ram, Rate
from tests.backends.models import opened, read, write

SIZE = 1 << 20


class Clock:
    """Time that passes by sleeping only."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr(time, "monotonic", lambda: self.now)
        monkeypatch.setattr(time, "sleep", self.sleep)

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def test_commands_a_second(clock: Clock) -> None:
    drive = Rate(Ram(SIZE), iops=100, burst=0)
    for _ in range(50):
        read(drive, 0, 512)
    assert clock.now == pytest.approx(100.5)


def test_bytes_a_second_count_what_is_moved(clock: Clock) -> None:
    drive = Rate(Ram(SIZE), bandwidth=1 << 20, burst=0)
    for _ in range(4):
        read(drive, 0, 64 << 10)
        write(drive, 0, bytes(64 << 10))
        drive.compare(0, memoryview(bytes(64 << 10)))
        drive.discard(0, SIZE)
        drive.write_zeroes(0, SIZE, may_discard=True, fua=False)
    assert clock.now == pytest.approx(100.75)


def test_the_tighter_of_two_limits_decides(clock: Clock) -> None:
    drive = Rate(Ram(SIZE), iops=10, bandwidth=1 << 20, burst=0)
    read(drive, 0, 512)
    assert clock.now == pytest.approx(100.1)
    read(drive, 0, SIZE)
    assert clock.now == pytest.approx(101.1)


def test_a_burst_goes_through_at_once_and_is_saved_up_again(clock: Clock) -> None:
    drive = Rate(Ram(SIZE), iops=100, burst=0.5)
    for _ in range(50):
        read(drive, 0, 512)
    assert clock.now == 100.0
    read(drive, 0, 512)
    assert clock.now == pytest.approx(100.01)
    clock.now += 1000
    for _ in range(51):
        read(drive, 0, 512)
    assert clock.now == pytest.approx(1100.02)


def test_a_command_larger_than_the_burst_goes_through_late(clock: Clock) -> None:
    drive = Rate(Ram(SIZE), bandwidth=64 << 10, burst=0.1)
    read(drive, 0, SIZE)
    assert clock.now == pytest.approx(100 + 16 - 0.1)


def test_who_waits_does_not_hold_up_who_need_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """A large read waits for its bytes; a flush-like command without any passes it."""
    waiting, go_on = threading.Event(), threading.Event()

    def sleep(_: float) -> None:
        waiting.set()
        go_on.wait()

    monkeypatch.setattr(time, "sleep", sleep)
    with opened(Rate(Ram(SIZE), bandwidth=64 << 10, burst=0)) as drive:
        large = threading.Thread(target=read, args=(drive, 0, SIZE), daemon=True)
        large.start()
        waiting.wait()
        monkeypatch.setattr(time, "sleep", lambda _: None)
        drive.discard(0, 512)
        assert large.is_alive()
        go_on.set()
        large.join()


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"iops": -1},
        {"iops": 0},
        {"bandwidth": -1},
        {"iops": float("nan")},
        {"iops": float("inf")},
        {"iops": 1, "burst": -1},
        {"iops": 1, "burst": float("nan")},
    ],
)
def test_limits_that_make_no_sense_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="rate: "):
        Rate(Ram(SIZE), **options)  # type: ignore[arg-type]
