"""The socket's file: who may have it, when it is replaced, when it goes; and where it is by default."""

from __future__ import annotations

import os
import socket
import stat
import threading
from pathlib import Path
from typing import Any

import pytest

from nvmet_vdev import ConfigError
from nvmet_vdev.control import paths
from nvmet_vdev.control.listener import Listener


def test_the_file_has_its_mode_from_the_moment_it_appears_whatever_the_umask(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    real = socket.socket.bind

    class Spy(socket.socket):
        def bind(self, address: Any) -> None:
            real(self, address)
            seen.append(stat.S_IMODE((tmp_path / "s").stat().st_mode))

    monkeypatch.setattr(socket, "socket", Spy)
    before = os.umask(0)
    try:
        listener = Listener(tmp_path / "s")
    finally:
        os.umask(before)
    assert seen == [0o600]
    listener.close()
    assert not (tmp_path / "s").exists()


def test_a_stale_socket_is_replaced(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "s"))
    listener = Listener(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(tmp_path / "s"))
    listener.close()


def test_a_live_one_is_refused_and_stays(tmp_path: Path) -> None:
    listener = Listener(tmp_path / "s")
    with pytest.raises(ConfigError, match="another target is listening"):
        Listener(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(tmp_path / "s"))
    listener.close()


@pytest.mark.parametrize("kind", ["file", "directory", "link", "fifo"])
def test_what_is_no_socket_is_never_touched(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "s"
    match kind:
        case "file":
            path.write_text("mine")
        case "directory":
            path.mkdir()
        case "link":
            path.symlink_to("nowhere")
        case "fifo":
            os.mkfifo(path)
    before = path.lstat()
    with pytest.raises(ConfigError, match="not a socket"):
        Listener(path)
    assert path.lstat().st_ino == before.st_ino


def test_a_file_that_is_another_ones_by_now_stays(tmp_path: Path) -> None:
    first = Listener(tmp_path / "s")
    (tmp_path / "s").unlink()
    second = Listener(tmp_path / "s")
    first.close()
    assert (tmp_path / "s").exists()
    second.close()
    second.close()
    assert not (tmp_path / "s").exists()


def test_a_relative_path_is_found_again_from_another_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    listener = Listener("s")
    monkeypatch.chdir("/")
    listener.close()
    assert not (tmp_path / "s").exists()


def test_of_servers_that_start_at_once_one_has_the_socket(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "s"))
    found: list[Listener | ConfigError] = []
    barrier = threading.Barrier(8)

    def start() -> None:
        barrier.wait()
        try:
            found.append(Listener(tmp_path / "s"))
        except ConfigError as error:
            found.append(error)

    threads = [threading.Thread(target=start) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (winner,) = (one for one in found if isinstance(one, Listener))
    assert len(found) == 8
    winner.close()


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("x" * 108, "107"),
        ("", "needs a path"),
        ("a\0b", "needs a path"),
        ("/none/such/s", "no directory /none/such"),
    ],
)
def test_a_path_that_cannot_be_is_one_line(path: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as raised:
        Listener(path)
    assert "--control" in str(raised.value)
    assert "\n" not in str(raised.value)


def test_the_default_is_beside_the_drives_sockets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NVMET_VDEV_CONTROL", raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert paths.default_path() == tmp_path / "nvmet-vdev" / "control.sock"
    assert list(tmp_path.iterdir()) == []
    assert paths.default_path(make=True) == tmp_path / "nvmet-vdev" / "control.sock"
    assert stat.S_IMODE((tmp_path / "nvmet-vdev").stat().st_mode) == 0o700
    monkeypatch.setenv("NVMET_VDEV_CONTROL", "/else/where")
    assert paths.default_path() == Path("/else/where")


def test_a_default_directory_that_is_open_to_others_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NVMET_VDEV_CONTROL", raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    (tmp_path / "nvmet-vdev").mkdir()
    (tmp_path / "nvmet-vdev").chmod(0o777)
    for make in (True, False):
        with pytest.raises(ConfigError, match="not private"):
            paths.default_path(make=make)
