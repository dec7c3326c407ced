"""The control socket of a real target: everything once, and what is refused leaves all as it was."""

from __future__ import annotations

import gc
import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nvmet_vdev import ConfigError, ControlClient, Target, cli
from nvmet_vdev.control.server import ControlServer
from nvmet_vdev.manager import Manager
from tests.control.fakes import NQN, descriptors

VM1 = "nqn.2026-01.org.example:vm1"


@pytest.fixture
def control(tmp_path: Path) -> Iterator[ControlClient]:
    with (
        Target() as target,
        ControlServer(Manager(target), tmp_path / "control.sock") as server,
        ControlClient(server.path) as client,
    ):
        yield client


def test_a_target_is_made_changed_saved_and_taken_apart(control: ControlClient, tmp_path: Path) -> None:
    empty = control.list()
    control.host_add(VM1)
    control.subsystem_add(NQN, serial="CTL1", allow_any_host=True)
    nsid = control.namespace_add(NQN, tmp_path / "a.img", create="1M")
    assert (nsid, (tmp_path / "a.img").stat().st_size) == (1, 1 << 20)
    assert control.namespace_add(NQN, "ram:1M", nsid=7, nguid="00112233-44556677-8899aabb-ccddeeff") == 7
    portid = control.port_add(tmp_path / "a.sock", NQN, hostnqn=VM1)
    assert (portid, (tmp_path / "a.sock").is_socket()) == (1, True)
    control.namespace_resize(NQN, 1, "2M")
    control.namespace_protect(NQN, 1)
    control.namespace_disable(NQN, 7)
    control.namespace_ana_group(NQN, 7, 2)
    control.namespace_attach(NQN, 7, [VM1])
    control.ana_set(portid, 2, "inaccessible")
    control.subsystem_health(NQN, spare=50, temperature=320)
    one, seven = control.show("subsystem", nqn=NQN)["namespaces"]
    assert (one["size"], one["protect"], one["enable"]) == (2 << 20, True, True)
    assert (seven["ana_grpid"], seven["enable"], seven["hosts"]) == (2, False, [VM1])
    assert control.show("port", portid=1)["ana"]["2"] == "inaccessible"
    assert control.reservation_show(NQN, 1)["registrants"] == []
    control.reservation_clear(NQN, 1)
    assert control.stats()["controllers"][0]["portid"] == 1
    assert control.health()["subsystems"][0]["spare"] == 50
    control.config_save(tmp_path / "saved.toml")
    assert tomllib.loads((tmp_path / "saved.toml").read_text()) == control.config_get()
    assert (tmp_path / "saved.toml").stat().st_mode & 0o777 == 0o600
    control.namespace_enable(NQN, 7)
    for number in (1, 7):
        control.namespace_remove(NQN, number)
    control.port_remove(1)
    assert not (tmp_path / "a.sock").exists()
    control.subsystem_remove(NQN)
    control.host_remove(VM1)
    assert control.list() == empty


@pytest.mark.parametrize(
    ("method", "params", "message"),
    [
        ("subsystem.add", {"nqn": NQN}, NQN),
        ("subsystem.add", {"nqn": "nqn.2026-13.x:y"}, "month"),
        ("subsystem.add", {"nqn": "nqn.2026-01.x:y", "serial": "x" * 21}, "serial"),
        ("subsystem.remove", {"nqn": NQN}, "port"),
        ("namespace.add", {"nqn": NQN, "backend": "/no/such.img"}, "/no/such.img"),
        ("namespace.add", {"nqn": NQN, "backend": "ram:1M", "nsid": 1}, "1"),
        ("namespace.add", {"nqn": NQN, "backend": "ram:1M", "nsid": 5000}, "5000"),
        ("namespace.add", {"nqn": "nqn.2026-01.x:y", "backend": "ram:1M"}, "no subsystem"),
        ("namespace.add", {"nqn": NQN, "backend": "ram:1M", "nguid": "xyz"}, "nguid"),
        ("namespace.resize", {"nqn": NQN, "nsid": 1, "size": 1}, "1"),
        ("namespace.resize", {"nqn": NQN, "nsid": 99, "size": 512}, "no namespace 99"),
        ("namespace.attach", {"nqn": NQN, "nsid": 1, "hosts": ["nqn.2026-13.x:y"]}, "month"),
        ("port.add", {"traddr": "/no/such/dir/s", "subsystem": NQN}, "/no/such/dir"),
        ("port.add", {"traddr": "{here}/a.sock", "subsystem": NQN}, "port 1 traddr as well"),
        ("port.add", {"traddr": "{here}/b.sock", "subsystem": NQN, "portid": 1}, "1"),
        ("port.remove", {"portid": 9}, "no port 9"),
        ("ana.set", {"portid": 1, "grpid": 5000, "state": "optimized"}, "5000"),
        ("host.remove", {"nqn": "nqn.2026-01.x:y"}, "no host"),
        ("config.save", {"path": "/no/such/dir/x.toml"}, "/no/such/dir"),
        ("config.save", {"path": "{here}/x.yaml"}, "x.yaml"),
        ("show", {"kind": "namespace", "nqn": NQN}, "nsid"),
    ],
)
def test_what_is_refused_is_one_line_and_leaves_everything_as_it_was(
    control: ControlClient, tmp_path: Path, method: str, params: dict[str, Any], message: str
) -> None:
    control.subsystem_add(NQN)
    control.namespace_add(NQN, "ram:1M")
    control.port_add(tmp_path / "a.sock", NQN)
    before = (control.list(), control.config_get(), sorted(tmp_path.iterdir()))
    # Targets of earlier cases may be closed at any time.
    gc.collect()
    opened = descriptors()
    given = {
        name: value.format(here=tmp_path) if isinstance(value, str) else value
        for name, value in params.items()
    }
    with pytest.raises(ConfigError, match=re.escape(message)) as raised:
        control.call(method, **given)
    assert "\n" not in str(raised.value)
    assert (control.list(), control.config_get(), sorted(tmp_path.iterdir())) == before
    assert descriptors() <= opened


def test_ctl_works_on_a_target_from_the_first_subsystem_to_the_end(
    control: ControlClient,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("NVMET_VDEV_CONTROL", str(control.path))
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.chdir(tmp_path)

    def ctl(words: str) -> str:
        assert cli.main(["ctl", *words.split()]) == 0, capsys.readouterr().err
        return capsys.readouterr().out

    ctl(f"subsys add {NQN}")
    assert ctl("ns add a.img --create 1M") == f"added {NQN}/1\n"
    ctl("ns add ram:1M --disabled --ana-group 2")
    assert ctl("port add a.sock") == "port 1 listens on a.sock\n"
    ctl("ana set ./a.sock 1 non-optimized")
    ctl("ns resize 1 3M")
    ctl("ns protect 1")
    tree = ctl("ls")
    assert re.search(r"o- 1 \.+ \[.*/a\.img, 3 MiB, ANA group 1, enabled, write protected\]", tree)
    assert re.search(r"o- 2 \.+ \[ram:1M\w*, 1 MiB, ANA group 2, disabled\]", tree)
    assert re.search(r"o- 1 \.+ \[non-optimized\]", tree)
    assert "no registrants" in ctl("resv show 1")
    assert ctl("show ns 1").count("\n") > 5
    assert ctl("stats").count("\n") == 5
    assert ctl("health")
    ctl("save drives.json")
    saved = json.loads((tmp_path / "drives.json").read_text())
    assert saved["ports"][0]["addr"]["trtype"] == "vfio-user"
    ctl("port rm ./a.sock")
    ctl("ns rm 1")
    ctl(f"subsys rm {NQN}")
    assert json.loads(ctl("ls --output json"))["subsystems"] == []
