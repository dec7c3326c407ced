"""Who is who stays so over `save` and a restart: controllers, hosts, on a real target."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any, cast

import pytest

from nvmet_vdev import Target, config
from nvmet_vdev.config.model import Config, Host, Port, Subsystem
from nvmet_vdev.manager import Manager
from nvmet_vdev.manager.keeping import Keeping

ONE = "nqn.2024-01.com.example:one"
A, B = (f"nqn.2024-01.com.example:host:{name}" for name in "ab")


def served(wanted: Config) -> list[dict[str, Any]]:
    """The ports of another target that serves `wanted`, as it was saved."""
    with Target() as target:
        manager = Manager(target)
        manager.apply(config.loads(config.dumps(wanted, "toml"), "toml").config)
        ports: list[dict[str, Any]] = manager.list()["ports"]
        return ports


def test_a_controller_identifier_that_a_port_says_is_its_own_wherever_the_port_stands(tmp_path: Path) -> None:
    with Target() as target:
        manager = Manager(target)
        manager.subsystem_add(ONE)
        for portid in (1, 2):
            manager.port_add(portid, str(tmp_path / str(portid)), ONE)
        manager.port_remove(1)
        # It stands behind port 2, which would take the first that is free.
        manager.port_add(3, str(tmp_path / "3"), ONE, cntlid=1)
        saved = manager.config()
    assert [(port["portid"], port["cntlid"]) for port in served(saved)] == [(2, 2), (3, 1)]


def test_ports_of_no_host_in_particular_stay_so_when_one_host_alone_is_listed(
    tmp_path: Path,
) -> None:
    with Target() as target:
        manager = Manager(target)
        manager.subsystem_add(ONE, allowed_hosts=[A, B], allow_any_host=True)
        manager.port_add(1, str(tmp_path / "s"), ONE)
        (port,) = manager.list()["ports"]
        manager.subsystem_disallow(ONE, B)
        saved = manager.config()
        assert Host(nqn=port["hostnqn"]) in saved.hosts
    (again,) = served(saved)
    assert (again["hostnqn"], again["hostid"]) == (port["hostnqn"], port["hostid"])


def test_a_relative_socket_is_the_same_host_once_it_is_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with Target() as target:
        manager = Manager(target)
        manager.subsystem_add(ONE)
        manager.port_add(1, "s", ONE)
        (port,) = manager.list()["ports"]
        saved = manager.config()
    (again,) = served(saved)
    assert (again["hostnqn"], again["hostid"]) == (port["hostnqn"], port["hostid"])


def test_the_host_of_a_socket_is_the_one_that_the_target_would_make_of_it(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with Target() as target:
        found = target.add_subsystem(nqn=ONE).listen(path).host.nqn
    (port,) = served(
        Config(subsystems=(Subsystem(nqn=ONE),), ports=(Port(portid=1, traddr=str(path), subsystem=ONE),))
    )
    assert port["hostnqn"] == found


def test_counters_are_kept_while_a_change_waits_for_code_of_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "waits.py").write_text(
        "import threading\n"
        "begun, may_end = threading.Event(), threading.Event()\n"
        "class Drive:\n"
        "    size = 4096\n"
        "    def open(self):\n"
        "        begun.set()\n"
        "        assert may_end.wait(60)\n"
        "    def read(self, offset, length):\n"
        "        return bytes(length)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    import waits  # type: ignore[import-not-found]

    with Target() as target:
        manager = Manager(target, state_dir=tmp_path / "state")
        manager.apply(Config(subsystems=(Subsystem(nqn=ONE),)))
        change = threading.Thread(
            target=manager.namespace_add, args=(ONE,), kwargs={"backend": "python:waits:Drive"}
        )
        change.start()
        assert waits.begun.wait(60)
        manager.keep_counters()
        waits.may_end.set()
        change.join()
        assert manager.config().subsystems[0].namespaces


class Slow:
    """A manager whose first time to keep counters takes until it is told."""

    keeps_counters = True

    def __init__(self) -> None:
        self.count, self.begun, self.may_end = 0, threading.Event(), threading.Event()

    def keep_counters(self) -> None:
        self.count += 1
        if self.count == 2:
            self.begun.set()
            assert self.may_end.wait(60)


def test_what_was_counted_while_it_was_kept_is_kept_at_the_end() -> None:
    manager = Slow()
    with Keeping(cast(Manager, manager), period=0) as keeping:
        assert manager.begun.wait(60)
        keeping.soon()
        threading.Timer(0, lambda: manager.may_end.set()).start()
    # At the start, meanwhile, and once more.
    assert manager.count >= 3
