"""The rig's own parts, without a guest."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.vm.rig import qemu
from tests.vm.rig.cache import Stage, digest
from tests.vm.rig.cpio import Cpio
from tests.vm.rig.elf import needed
from tests.vm.rig.errors import RigError
from tests.vm.rig.guest import Rig
from tests.vm.rig.mirror import KEYRING_ENV, MIRROR_ENV, debian_uris, find_mirror


def _sources(etc: Path, name: str, text: str) -> Path:
    path = etc / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return etc


def test_the_mirror_is_found_in_deb822_sources(tmp_path: Path) -> None:
    text = """\
Types: deb-src
URIs: http://sources.example/debian

# a comment
Enabled: no
Types: deb
URIs: http://disabled.example/debian

Types: deb deb-src
URIs: http://security.example/debian-security
  http://mirror.example/debian/
Suites: bookworm
"""
    etc = _sources(tmp_path, "sources.list.d/debian.sources", text)
    assert debian_uris(etc) == ["http://mirror.example/debian/"]


def test_the_mirror_is_found_in_one_line_sources(tmp_path: Path) -> None:
    text = """\
# deb http://old.example/debian bookworm main
deb-src http://source.example/debian bookworm main
deb [arch=amd64 signed-by=/k] http://mirror.example/debian bookworm main
"""
    assert debian_uris(_sources(tmp_path, "sources.list", text)) == ["http://mirror.example/debian"]


def test_a_machine_without_a_debian_mirror_is_told_what_to_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(MIRROR_ENV, raising=False)
    etc = _sources(tmp_path, "sources.list", "deb http://mirror.example/ubuntu noble main\n")
    with pytest.raises(RigError, match=MIRROR_ENV):
        find_mirror(etc)


def test_the_environment_names_the_mirror_and_its_keyring(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keyring = tmp_path / "keys.gpg"
    keyring.touch()
    monkeypatch.setenv(MIRROR_ENV, "http://mirror.example/debian/")
    monkeypatch.setenv(KEYRING_ENV, str(keyring))
    assert find_mirror(tmp_path).sources(("trixie",)) == (
        f"deb [signed-by={keyring}] http://mirror.example/debian trixie main\n"
    )


def test_a_missing_keyring_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(MIRROR_ENV, "http://mirror.example/debian")
    monkeypatch.setenv(KEYRING_ENV, str(tmp_path / "none.gpg"))
    with pytest.raises(RigError, match=r"none\.gpg"):
        find_mirror(tmp_path)


def test_an_interrupted_stage_is_not_ready_and_is_built_again(tmp_path: Path) -> None:
    stage = Stage(tmp_path / "stage", digest("recipe"))

    def interrupted(into: Path) -> None:
        (into / "half").touch()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stage.build(interrupted)
    assert not stage.ready

    stage.build(lambda into: (into / "whole").touch())
    assert Stage(stage.path, stage.stamp).ready
    assert not (stage.path / "half").exists()


def test_a_changed_recipe_makes_a_stage_out_of_date(tmp_path: Path) -> None:
    Stage(tmp_path / "stage", digest("old")).build(lambda into: (into / "whole").touch())
    assert not Stage(tmp_path / "stage", digest("new")).ready


def test_a_rig_that_is_not_prepared_says_how_to_prepare_it(tmp_path: Path) -> None:
    with pytest.raises(RigError, match=r"tests\.vm\.setup"):
        Rig.find(tmp_path)


def test_an_archive_has_parents_before_children_and_each_name_once() -> None:
    archive = Cpio(frozenset({"lib"}))
    archive.file("lib/deep/a", b"x")
    archive.file("lib/deep/a", b"y")
    data = archive.finish()
    assert data.count(b"070701") == 3  # the directory, the file, the trailer
    assert data.index(b"lib/deep\0") < data.index(b"lib/deep/a\0")
    assert len(data) % 512 == 0
    assert b"y" not in data


@pytest.mark.skipif(sys.platform != "linux", reason="the interpreter is an ELF file on Linux")
def test_an_interpreter_needs_the_c_library() -> None:
    program = Path(sys.executable).resolve().read_bytes()
    assert any(name.startswith("libc.so") for name in needed(program))


def test_what_is_no_program_needs_nothing_and_says_so() -> None:
    with pytest.raises(ValueError, match="ELF"):
        needed(b"#!/bin/sh\n")


def test_an_old_system_qemu_is_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = tmp_path / qemu.BINARY
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    for version, taken in (("10.0.2", False), ("10.1.0", False), ("10.1.1", True), ("11.1.3", True)):
        fake.write_text(f"#!/bin/sh\necho 'QEMU emulator version {version} (Debian)'\n")
        fake.chmod(0o755)
        assert (qemu.system() is not None) == taken, version
