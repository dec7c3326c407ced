"""Counters that outlive a target: taken down, given back, and what becomes of files that are not right."""

from __future__ import annotations

import stat
import uuid
from pathlib import Path

import pytest

from nvmet_vdev import ConfigError
from nvmet_vdev.manager.ledger import Ledger
from nvmet_vdev.model import Lifetime
from nvmet_vdev.stats import ControllerStats

ONE = uuid.UUID(int=1)
LIFE = Lifetime(
    ControllerStats(reads=1, bytes_written=(1 << 64) - 1),
    power_cycles=2,
    power_on_seconds=3,
    unsafe_shutdowns=4,
    error_log_entries=5,
    error_log=bytes(range(64)),
)


def test_what_was_taken_down_is_given_back(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    assert (ledger.controller("nqn.a", 1), ledger.namespace(ONE)) == (None, None)
    ledger.note_controller("nqn.a", 1, LIFE)
    ledger.note_namespace(ONE, {"reads": 7})
    ledger.save()
    again = Ledger(tmp_path)
    assert again.controller("nqn.a", 1) == LIFE
    assert again.controller("nqn.a", 2) is None
    assert again.namespace(ONE) == {"reads": 7}
    (file,) = tmp_path.iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_controller_that_was_in_use_has_had_an_unsafe_shutdown(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.note_controller("nqn.a", 1, Lifetime(unsafe_shutdowns=4, in_use=True))
    ledger.save()
    assert Ledger(tmp_path).controller("nqn.a", 1) == Lifetime(unsafe_shutdowns=5)


def test_what_has_not_changed_is_not_written_again(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.note_controller("nqn.a", 1, LIFE)
    ledger.save()
    (file,) = tmp_path.iterdir()
    file.unlink()
    ledger.save()
    assert list(tmp_path.iterdir()) == []
    ledger.note_namespace(ONE, {"reads": 1})
    ledger.save()
    assert file.exists()


def test_targets_that_share_a_directory_leave_each_other_what_they_have_counted(tmp_path: Path) -> None:
    first, second = Ledger(tmp_path), Ledger(tmp_path)
    first.note_controller("nqn.a", 1, LIFE)
    first.save()
    second.note_controller("nqn.b", 1, LIFE)
    second.note_namespace(ONE, {"reads": 7})
    second.save()
    first.note_controller("nqn.a", 1, Lifetime(power_cycles=9))
    first.save()
    again = Ledger(tmp_path)
    assert again.controller("nqn.a", 1) == Lifetime(power_cycles=9)
    assert (again.controller("nqn.b", 1), again.namespace(ONE)) == (LIFE, {"reads": 7})


def test_what_others_have_spoilt_is_written_anew(tmp_path: Path) -> None:
    Ledger(tmp_path).save()
    ledger = Ledger(tmp_path)
    ledger.note_namespace(ONE, {"reads": 7})
    ledger.save()
    (tmp_path / "counters.json").write_bytes(b"{")
    ledger.note_controller("nqn.a", 1, LIFE)
    ledger.save()
    again = Ledger(tmp_path)
    assert (again.controller("nqn.a", 1), again.namespace(ONE)) == (LIFE, {"reads": 7})


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff",
        b"[]",
        b'{"version": 2, "controllers": {}, "namespaces": {}}',
        b'{"version": 1, "controllers": {}, "namespaces": {"x": {"reads": -1}}}',
        b'{"version": 1, "controllers": {}, "namespaces": {"x": {"reads": 18446744073709551616}}}',
        b'{"version": 1, "controllers": {"x": {"counters": {}, "error_log": "%"}}, "namespaces": {}}',
        b'{"version": 1, "controllers": {"x": {"counters": [], "other": 1}}, "namespaces": {}}',
    ],
)
def test_a_file_that_is_not_right_is_refused_or_thrown_away(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "counters.json").write_bytes(content)
    with pytest.raises(ConfigError, match="--discard-state") as caught:
        Ledger(tmp_path)
    assert "\n" not in str(caught.value)
    ledger = Ledger(tmp_path, discard=True)
    assert ledger.controller("x", 1) is None
    ledger.save()
    Ledger(tmp_path)


def test_a_file_that_cannot_be_read_is_never_thrown_away(tmp_path: Path) -> None:
    (tmp_path / "counters.json").mkdir()
    with pytest.raises(ConfigError, match="make it readable"):
        Ledger(tmp_path, discard=True)
