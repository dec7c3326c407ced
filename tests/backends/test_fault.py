"""`Fault`: which commands a rule hits, and what happens to them."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable
from typing import Any

import pytest

from nvmet_vdev import ConfigError, NvmeError
from nvmet_vdev.backends import Fault, Ram, Rule
from tests.backends.models import BLOCK, Plain, pattern, read, write

SIZE = 1 << 20


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What a rule's latency waits for, without waiting."""
    waits: list[float] = []
    monkeypatch.setattr(time, "sleep", waits.append)
    return waits


def outcome(call: Callable[[], object]) -> str:
    """What a command ended with, in the words of a rule."""
    try:
        call()
    except NvmeError as error:
        return f"{error.sct:x}/{error.sc:02x}" + ("/dnr" if error.dnr else "")
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    return "ok"


def reads(drive: Any, blocks: range | list[int]) -> list[str]:
    return [outcome(lambda block=block: read(drive, block * BLOCK, BLOCK)) for block in blocks]  # type: ignore[misc]


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("EIO", "EIO"),
        ("ENOSPC", "ENOSPC"),
        ("2/81", "2/81"),
        ("0/6", "0/06"),
        ("2/81/dnr", "2/81/dnr"),
        ("7/FF", "7/ff"),
        ("1", "EIO"),
        ("lba=0-0", "EIO"),
        ("10ms", "ok"),
        ("10ms@EIO", "EIO"),
    ],
)
def test_a_rule_says_what_a_command_ends_with(text: str, result: str, slept: list[float]) -> None:
    assert reads(Fault(Ram(SIZE), read=text), [0]) == [result]
    assert slept == ([0.01] if "10ms" in text else [])


def test_without_rules_nothing_happens() -> None:
    drive = Fault(Ram(SIZE))
    write(drive, 0, pattern(4096))
    assert read(drive, 0, 4096) == pattern(4096)


def test_a_rule_is_for_its_command_only() -> None:
    drive = Fault(Ram(SIZE), write="EIO", discard="ENOSPC", write_zeroes="2/80", compare="2/85")
    assert outcome(lambda: read(drive, 0, BLOCK)) == "ok"
    assert outcome(lambda: write(drive, 0, bytes(BLOCK))) == "EIO"
    assert outcome(lambda: drive.discard(0, BLOCK)) == "ENOSPC"
    assert outcome(lambda: drive.write_zeroes(0, BLOCK, may_discard=True, fua=False)) == "2/80"
    assert outcome(lambda: drive.compare(0, memoryview(bytes(BLOCK)))) == "2/85"


def test_io_is_every_command() -> None:
    drive = Fault(Ram(SIZE), io="EIO")
    assert outcome(lambda: read(drive, 0, BLOCK)) == "EIO"
    assert outcome(lambda: write(drive, 0, bytes(BLOCK))) == "EIO"
    assert drive.flush is None


def test_a_range_of_blocks_is_hit_wherever_a_command_touches_it() -> None:
    drive = Fault(Ram(SIZE), read="EIO@lba=10-12")
    assert reads(drive, range(8, 15)) == ["ok", "ok", "EIO", "EIO", "EIO", "ok", "ok"]
    assert outcome(lambda: read(drive, 5 * BLOCK, 5 * BLOCK)) == "ok"
    assert outcome(lambda: read(drive, 5 * BLOCK, 6 * BLOCK)) == "EIO"


def test_blocks_are_those_of_the_drive() -> None:
    drive = Fault(Ram(SIZE, block_size=4096), read="EIO@lba=1-1")
    assert outcome(lambda: read(drive, 0, 4096)) == "ok"
    assert outcome(lambda: read(drive, 4096, 4096)) == "EIO"


def test_a_range_of_bytes_does_not_have_its_end() -> None:
    drive = Fault(Ram(SIZE), read="EIO@bytes=4K-8K")
    assert reads(drive, [7, 8, 15, 16]) == ["ok", "EIO", "EIO", "ok"]


def test_nth_every_and_times_count_the_commands_that_match() -> None:
    assert reads(Fault(Ram(SIZE), read="EIO@nth=3"), [0] * 5) == ["ok", "ok", "EIO", "ok", "ok"]
    assert reads(Fault(Ram(SIZE), read="EIO@every=2"), [0] * 5) == ["ok", "EIO", "ok", "EIO", "ok"]
    assert reads(Fault(Ram(SIZE), read="EIO@times=2"), [0] * 3) == ["EIO", "EIO", "ok"]
    assert reads(Fault(Ram(SIZE), read="EIO@lba=5-5@nth=2"), [5, 6, 6, 5, 5]) == ["ok"] * 3 + ["EIO", "ok"]


def test_the_same_seed_gives_the_same_faults() -> None:
    runs = [reads(Fault(Ram(SIZE), read="0.3", seed=seed), [0] * 1000) for seed in (1, 1, 2)]
    assert runs[0] == runs[1] != runs[2]
    assert 200 < runs[0].count("EIO") < 400


def test_the_first_rule_that_hits_decides() -> None:
    drive = Fault(Ram(SIZE), read="ENOSPC@nth=2,2/81")
    assert reads(drive, [0] * 3) == ["2/81", "ENOSPC", "2/81"]


@pytest.mark.parametrize(("text", "blocks"), [("torn", 4), ("torn=1", 1), ("torn=0", 0), ("torn=99", 8)])
def test_a_torn_write_writes_its_first_blocks_and_fails(text: str, blocks: int) -> None:
    inner = Ram(SIZE)
    drive = Fault(inner, write=f"{text}@2/80")
    assert outcome(lambda: write(drive, 4096, b"x" * 4096)) == "2/80"
    assert read(inner, 4096, 4096) == b"x" * blocks * BLOCK + bytes(4096 - blocks * BLOCK)


def test_flush_and_discard_can_fail_on_a_drive_that_has_none() -> None:
    drive = Fault(Plain(pattern(4096)), flush="EIO@nth=1", discard="EIO@nth=1")
    drive.open()
    assert [outcome(drive.flush), outcome(drive.flush)] == ["EIO", "ok"]
    assert [outcome(lambda: drive.discard(0, BLOCK)), outcome(lambda: drive.discard(0, BLOCK))] == [
        "EIO",
        "ok",
    ]
    assert drive.write is None


def test_a_rule_that_could_never_hit_is_refused() -> None:
    with pytest.raises(ConfigError, match="Plain has no write"):
        Fault(Plain(b""), write="EIO")


def test_rules_in_python_are_values() -> None:
    rules = [
        Rule("read", NvmeError(2, 0x81, dnr=True), lba=range(2, 4)),
        Rule("read", errno.ENOSPC, bytes=range(512)),
        Rule("read", None, latency=0.0),
    ]
    drive = Fault(Ram(SIZE), rules)
    assert reads(drive, range(5)) == ["ENOSPC", "ok", "2/81/dnr", "2/81/dnr", "ok"]
    assert rules[0] == Rule("read", rules[0].error, lba=range(2, 4))


def test_an_error_is_a_new_one_each_time() -> None:
    drive = Fault(Ram(SIZE), [Rule("read", NvmeError(2, 0x81, message="mine"))])
    seen = []
    for _ in range(2):
        with pytest.raises(NvmeError, match="injected: mine") as caught:
            read(drive, 0, BLOCK)
        seen.append(caught.value)
    assert seen[0] is not seen[1]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("EBOGUS", "'EBOGUS' is no status"),
        ("errno", "is no status"),
        ("8/00", "is no status"),
        ("2/811", "is no status"),
        ("0/0", "status 0/0 is success"),
        ("EIO@2/81", "second error"),
        ("2", "is no status"),
        ("0", "probability 0.0 is not above 0"),
        ("lba=5", "is no status"),
        ("lba=9-5", "the range is empty"),
        ("lba=٣-٤", "is no status"),
        ("bytes=1M-x", "x"),
        ("bytes=2M-1M", "the range is empty"),
        ("nth=0", "count from 1"),
        ("nth=x", "is no status"),
        ("torn", "torn is for writes"),
        ("EIO,", "'' is no status"),
        ("10 ms", "is no status"),
    ],
)
def test_a_rule_that_makes_no_sense_is_one_line(text: str, why: str) -> None:
    with pytest.raises(ConfigError, match=why) as caught:
        Fault(Ram(SIZE), read=text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "arguments",
    [{"op": "reed"}, {"probability": 2}, {"latency": -1}, {"error": 99999}, {"op": "write", "torn": -2}],
)
def test_a_rule_in_python_is_checked_too(arguments: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="fault rule"):
        Rule(**arguments)
