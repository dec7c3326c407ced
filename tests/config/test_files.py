"""Configurations in files: whole or not at all, and for their owner alone."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from nvmet_vdev import ConfigError, config
from nvmet_vdev.config import files

ONE = config.Config(hosts=(config.Host(nqn="nqn.2024-01.com.example:ä"),))


@pytest.mark.parametrize("name", ["saved.toml", "saved.json", "saved.JSON"])
def test_a_saved_file_is_for_its_owner_and_loads_as_what_was_saved(tmp_path: Path, name: str) -> None:
    old = os.umask(0)
    try:
        config.save(ONE, tmp_path / name)
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600
    assert config.load(tmp_path / name) == config.Loaded(ONE)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_file_that_was_open_to_others_is_not_any_more(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text("")
    (tmp_path / "c.toml").chmod(0o666)
    config.save(ONE, tmp_path / "c.toml")
    assert stat.S_IMODE((tmp_path / "c.toml").stat().st_mode) == 0o600


@pytest.mark.parametrize("step", ["fsync", "replace", "write"])
def test_the_old_file_stays_when_the_new_one_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    config.save(config.Config(), tmp_path / "c.toml")
    before = (tmp_path / "c.toml").read_bytes()

    def fails(*_args: object, **_options: object) -> None:
        raise OSError(28, "No space left on device")

    match step:
        case "fsync":
            monkeypatch.setattr(os, "fsync", fails)
        case "replace":
            monkeypatch.setattr(Path, "replace", fails)
        case "write":
            monkeypatch.setattr(os, "fdopen", fails)
    with pytest.raises(ConfigError, match="No space left on device; nothing was saved") as caught:
        config.save(ONE, tmp_path / "c.toml")
    assert str(caught.value).startswith(str(tmp_path / "c.toml"))
    monkeypatch.undo()
    assert (tmp_path / "c.toml").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["c.toml"]


def test_the_content_is_on_the_medium_before_the_name_leads_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def seen_fsync(descriptor: int) -> None:
        steps.append("directory" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        fsync(descriptor)

    def seen_replace(self: Path, target: Path) -> Path:
        steps.append("rename")
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", seen_fsync)
    monkeypatch.setattr(Path, "replace", seen_replace)
    config.save(ONE, tmp_path / "c.json")
    assert steps == ["file", "rename", "directory"]


def test_names_that_no_file_can_have_are_refused_and_nothing_is_written(tmp_path: Path) -> None:
    odd = config.Config(target=config.TargetSettings(state_dir="\udc80"))
    with pytest.raises(ConfigError, match="no UTF-8"):
        config.save(odd, tmp_path / "c.toml")
    assert not list(tmp_path.iterdir())


def test_a_file_that_begins_with_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    for form in ("toml", "json"):
        path = tmp_path / f"c.{form}"
        path.write_text("\ufeff" + files.dumps(ONE, files.format_of(path)))
        assert config.load(path).config == ONE


def test_toml_is_written_as_people_write_it() -> None:
    text = """[target]
cpus = [
    0,
    2,
]

[[host]]
nqn = "nqn.2024-01.com.example:a"

[[subsystem]]
nqn = "nqn.2024-01.com.example:one"
allowed_hosts = [
    "nqn.2024-01.com.example:a",
]

[subsystem.health]
spare = 90

[[subsystem.namespace]]
nsid = 1
backend = "ram:1G"

[[subsystem.namespace]]
nsid = 2
backend = "disk.img"
resv = false

[[port]]
portid = 1
traddr = "/run/one.sock"
subsystem = "nqn.2024-01.com.example:one"

[port.ana]
1 = "inaccessible"
"""
    assert config.dumps(config.loads(text, "toml").config, "toml") == text


def test_what_a_killed_process_has_left_half_written_is_in_nobodys_way(tmp_path: Path) -> None:
    (tmp_path / f".c.toml.{os.getpid()}").write_text("half")
    config.save(ONE, tmp_path / "c.toml")
    assert [path.name for path in tmp_path.iterdir()] == ["c.toml"]
