"""Plugins served by the target: the conformance suite on them, and a driver at the other end of a socket."""

from __future__ import annotations

import contextlib
import errno
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from nvmet_vdev import ConfigError, DeviceError, NvmeStatusError, Target, _nvmet, attach
from nvmet_vdev.bridge import Service, serve
from nvmet_vdev.nbdkit import open_plugin
from nvmet_vdev.pytest_plugin import DriveFactory
from tests.nbdkit.sides import PLUGINS
from tests.product import PATIENCE, run
from tests.product import serve as serve_command

MIB = 1 << 20
WRITABLE = {"ram.py": [("size", "4M")], "ram_v1.py": [], "file.py": [], "checked.py": [("size", "1M")]}


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """A sparse file of 4 MiB."""
    path = tmp_path / "disk.img"
    with path.open("wb") as image:
        image.truncate(4 * MIB)
    return path


def served(name: str, options: Sequence[tuple[str, str]], disk: Path, *, read_only: bool = False) -> Service:
    more = [("file", str(disk))] if name == "file.py" else []
    backend = open_plugin(str(PLUGINS / name), [*options, *more], read_only=read_only)
    return serve(backend, name=name)


@pytest.fixture
def target() -> Iterator[Target]:
    with Target(workers=1) as target:
        yield target


def passes(service: Service) -> None:
    report = json.loads(_nvmet.check_storage(service.storage))
    failed = [check for check in report["checks"] if check["outcome"] == "failed"]
    assert not failed
    assert report["passed"]
    assert service.failures == {}
    assert service.close()


def test_what_a_plugin_says_in_open_is_what_is_served(disk: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"checked.py: config_complete\(\): RuntimeError: size=SIZE is missing"
    ):
        served("checked.py", [], disk)
    service = served("checked.py", [("size", "1M"), ("ro", "true")], disk)
    assert service.storage.read_only
    assert service.storage.size == MIB
    assert service.close()


def test_a_plugin_that_refuses_to_open_refuses_the_drive(disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHECKED_REFUSE", "yes")
    with pytest.raises(
        ConfigError, match=r"checked.py: preconnect\(\): PermissionError: nobody may connect$"
    ):
        served("checked.py", [("size", "1M")], disk)


@pytest.mark.parametrize("name", WRITABLE)
def test_a_plugin_passes_the_conformance_suite(name: str, disk: Path) -> None:
    service = served(name, WRITABLE[name], disk)
    passes(service)


@pytest.mark.parametrize("name", ["ram.py", "computed.py"])
def test_a_read_only_plugin_passes_the_conformance_suite(name: str, disk: Path) -> None:
    service = served(name, WRITABLE.get(name, []), disk, read_only=name == "ram.py")
    assert service.storage.read_only
    passes(service)


def test_the_command_line_serves_a_plugin(disk: Path, tmp_path: Path) -> None:
    word = f"nbdkit:{PLUGINS / 'file.py'}?file={disk.name}"
    with serve_command(word, "--socket", "s", cwd=tmp_path) as server:
        result = run("bench", server.socket, "--verify", cwd=tmp_path)
        assert result.returncode == 0, result.stderr
        assert server.stop() == 0
    assert any(disk.read_bytes())


def test_the_command_line_says_what_is_wrong_with_a_plugin(tmp_path: Path) -> None:
    plugin = PLUGINS / "checked.py"
    result = run("run", f"nbdkit:{plugin}", cwd=tmp_path)
    assert result.returncode == 2
    wrong = "config_complete(): RuntimeError: size=SIZE is missing"
    assert result.stderr == f"nvmet-vdev: error: {plugin}: {wrong}\n"


def test_a_plugin_that_asks_for_a_shutdown_ends_the_command_line_cleanly(tmp_path: Path) -> None:
    (tmp_path / "plugin.py").write_text(
        "import nbdkit\ndef open(readonly): return 1\ndef get_size(h): return 4096\n"
        "def pread(h, count, offset): nbdkit.shutdown(); return bytes(count)\n"
        "def cleanup():\n    with __builtins__['open']('cleaned', 'w'): pass\n"
    )
    with serve_command("nbdkit:plugin.py", "--socket", "s", cwd=tmp_path) as server:
        # The target may be gone before the driver is.
        with contextlib.suppress(DeviceError), attach(tmp_path / "s") as drive:
            drive.read(0, 8)
        assert server.finish() == 0
    assert (tmp_path / "cleaned").exists()


STATUSES = {
    0: (2, 0x81),
    errno.EPERM: (0, 0x20),
    errno.ENOENT: (0, 0x06),
    errno.EIO: (2, 0x81),
    errno.ENOMEM: (0, 0x06),
    errno.EINVAL: (0, 0x02),
    errno.ENOSPC: (0, 0x81),
    errno.EOPNOTSUPP: (0, 0x01),
    errno.ESHUTDOWN: (0, 0x82),
    errno.ETIMEDOUT: (0, 0x06),
}


def test_a_guest_gets_the_status_of_the_errno_that_was_set(nvme_drive: DriveFactory, tmp_path: Path) -> None:
    """Every block fails with its own number."""
    plugin = tmp_path / "plugin.py"
    plugin.write_text(
        "import nbdkit\ndef open(readonly): return 1\ndef get_size(h): return 512 * 200\n"
        "def pread(h, count, offset): nbdkit.set_error(offset // 512); raise OSError(28, 'not asked')\n"
    )
    drive = nvme_drive(open_plugin(str(plugin), ()))

    def status(block: int) -> tuple[int, int]:
        with pytest.raises(NvmeStatusError) as error:
            drive.read(block, 1)
        return error.value.status.sct, error.value.status.sc

    assert {block: status(block) for block in STATUSES} == STATUSES


@pytest.mark.parametrize("name", WRITABLE)
def test_a_driver_reads_back_what_it_wrote_to_a_plugin(
    name: str, disk: Path, target: Target, tmp_path: Path
) -> None:
    service = served(name, WRITABLE[name], disk)
    subsystem = target.add_subsystem(serial="PLUGIN")
    subsystem.add_namespace(service.storage)
    socket = str(tmp_path / "s")
    subsystem.listen(socket)
    bench = _nvmet.Bench(socket, verify=True, bs=16384, iodepth=8)
    while not bench.wait(PATIENCE):
        pass
    verified = json.loads(bench.result())["verify"]
    assert verified["blocks"] > 0
    assert verified["mismatched"] == 0
    assert service.failures == {}
