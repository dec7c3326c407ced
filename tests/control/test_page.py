"""docs/control.md: what it says is so."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from nvmet_vdev import Target, cli
from nvmet_vdev.control.limits import Limits
from nvmet_vdev.control.protocol import CODES, MAX_BATCH
from nvmet_vdev.control.server import ControlServer
from nvmet_vdev.manager import Manager
from tests.control import page
from tests.control.fakes import Wire, serving

TEXT = page.PAGE.read_text()
NQN = "nqn.2026-01.org.example:vms"


def test_all_methods_are_listed_with_all_their_parameters() -> None:
    _, inside, _ = page.parts()
    assert inside == page.made(), "run `python -m tests.control.page`"


def test_all_errors_are_listed_with_their_codes() -> None:
    rows = re.findall(r"^\| (-\d+) \| `(\w+)` \|", TEXT, re.MULTILINE)
    assert {kind: int(code) for code, kind in rows} == CODES


def test_the_limits_are_those_of_the_server() -> None:
    rows = dict(re.findall(r"^\| ([^|`]+?) \| ([\w ]+?) \|", TEXT, re.MULTILINE))
    limits = Limits()
    assert rows["bytes of a message"] == f"{limits.message >> 20} MiB"
    assert rows["bytes of an answer"] == f"{limits.answer >> 20} MiB"
    assert rows["connections"] == f"{limits.clients}"
    assert rows["messages of a connection that wait"] == f"{limits.queued}"
    assert rows["answers that are not taken"] == f"{limits.unread >> 10} KiB"
    assert (
        rows["time for the rest of a message, and to take anything of an answer"] == f"{limits.patience:g} s"
    )
    assert f"A batch has up to {MAX_BATCH} requests" in TEXT


@pytest.fixture
def target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ControlServer]:
    """What the page's examples are made for."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data.img").write_bytes(bytes(1 << 20))
    with Target() as running:
        manager = Manager(running)
        manager.subsystem_add(NQN)
        manager.namespace_add(NQN, backend="ram:1M")
        manager.port_add(1, str(tmp_path / "vm1.sock"), NQN)
        with ControlServer(manager, tmp_path / "control.sock") as server:
            monkeypatch.setenv("NVMET_VDEV_CONTROL", str(server.path))
            yield server


@pytest.mark.usefixtures("target")
def test_the_commands_work_one_after_the_other(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)
    (block,) = re.findall(r"^```sh\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE)
    for line in block.splitlines()[1:]:
        words = shlex.split(line)[1:] + (["--count", "1"] if "--watch" in line else [])
        assert cli.main(words) == 0, capsys.readouterr().err
    assert "added nqn.2026-01.org.example:vms/2" in capsys.readouterr().out


@pytest.mark.usefixtures("target")
def test_the_example_in_python_works(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (block,) = re.findall(r"^```python\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE)
    exec(block.replace("/images/", f"{tmp_path}/"), {})  # noqa: S102 - our own page
    size, refused = capsys.readouterr().out.splitlines()
    assert size == str(1 << 20)
    assert "no port 99" in refused


def test_the_example_for_socat_works(tmp_path: Path) -> None:
    request, answer = re.findall(r'^(?:\$ echo \')?(\{"jsonrpc".*?\})(?:\' \|)?$', TEXT, re.MULTILINE)
    with serving(tmp_path) as server:
        if shutil.which("socat") is None:
            # What it does.
            with Wire(server.path) as wire:
                wire.send(request.encode() + b"\n")
                wire.half_close()
                assert wire.answer() == json.loads(answer)
                assert wire.answer() is None
            return
        done = subprocess.run(
            ["socat", "-t", "60", "-", f"UNIX-CONNECT:{server.path}"],
            input=request + "\n",
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
    assert json.loads(done.stdout) == json.loads(answer)


def test_the_keys_of_results_are_those_that_are_there(target: ControlServer) -> None:
    from nvmet_vdev import ControlClient

    with ControlClient(target.path) as control:
        control.host_add("nqn.2026-01.org.example:vm1")
        found = control.list()
        reserved = control.reservation_show(NQN, 1)
    (shown,) = re.findall(r'^```\n(\{"hosts": .*?)^```$', TEXT, re.DOTALL | re.MULTILINE)
    here = {key for one in (*found["hosts"], *found["ports"], *found["subsystems"]) for key in one}
    here |= set(found) | set(found["subsystems"][0]["namespaces"][0])
    assert set(re.findall(r'"(\w+)"', shown)) == here
    for key in reserved:
        assert f"`{key}`" in TEXT
