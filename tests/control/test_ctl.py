"""`nvmet-vdev ctl` on a fake target: what it asks, and what it prints."""

from __future__ import annotations

import json
import re
import shlex
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import click
import pytest

from nvmet_vdev import ConfigError, DeviceError, cli
from nvmet_vdev.control.server import ControlServer
from tests.control.fakes import NQN, FakeManager, serving
from tests.control.trees import HEALTH, ONE_SUBSYSTEM, RESERVATION, STATS, TREE, TWO, VM1, VM2

RESULTS = {
    "namespace_add": 5,
    "port_add": 4,
    "show": {"nsid": 1, "size": 1 << 30, "hosts": None, "ana": {"1": "optimized"}, "list": [1]},
    "stats": STATS,
    "health": HEALTH,
    "reservation_show": RESERVATION,
    "config": {"host": []},
}


class Target:
    """A fake target and `ctl` on it."""

    def __init__(self, manager: FakeManager, server: ControlServer, capsys: Any) -> None:
        self.manager = manager
        self.server = server
        self._capsys = capsys

    def ctl(self, *words: str | Path, status: int = 0) -> str:
        """Runs `ctl`; returns what it prints: on standard error if it fails."""
        self._capsys.readouterr()
        found = cli.main(["ctl", "--control", str(self.server.path), *map(str, words)])
        printed = self._capsys.readouterr()
        assert found == status, printed.err
        assert bool(printed.err) == bool(status), printed.err
        text = printed.err if status else printed.out
        assert isinstance(text, str)
        assert text.count("\n") == 1 or not status
        return text

    def asked(self, *words: str | Path) -> tuple[str, dict[str, Any]]:
        """Runs `ctl`; returns the last call that the manager got."""
        self.ctl(*words)
        return self.manager.calls[-1]


@pytest.fixture
def manager() -> FakeManager:
    return FakeManager(list=TREE, **RESULTS)


@pytest.fixture
def target(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], manager: FakeManager
) -> Iterator[Target]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("NVMET_VDEV_CONTROL", raising=False)
    with serving(tmp_path, manager) as server:
        yield Target(manager, server, capsys)


@pytest.fixture
def single(target: Target) -> Target:
    """With one subsystem."""
    target.manager.results["list"] = ONE_SUBSYSTEM
    return target


def test_ls_is_a_tree_with_the_state_of_everything(target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "110")
    text = target.ctl("ls")
    lines = text.splitlines()
    assert lines[0].startswith("o- / ...")
    assert max(map(len, lines)) <= 110
    shape = [(re.match(r"[| ]*", line)[0], line.lstrip("| ").split()[1]) for line in lines]  # type: ignore[index]
    assert shape == [
        ("", "/"),
        ("  ", "hosts"),
        ("  | ", VM1),
        ("  | ", VM2),
        ("  ", "ports"),
        ("  | ", "1"),
        ("  | | ", "subsystem"),
        ("  | | ", "host"),
        ("  | | ", "ana_groups"),
        ("  | |   ", "1"),
        ("  | |   ", "2"),
        ("  | ", "2"),
        ("  | | ", "subsystem"),
        ("  | | ", "host"),
        ("  | ", "3"),
        ("  |   ", "subsystem"),
        ("  |   ", "host"),
        ("  ", "subsystems"),
        ("    ", NQN),
        ("    | ", "allowed_hosts"),
        ("    | ", "namespaces"),
        ("    |   ", "1"),
        ("    |   ", "7"),
        ("    |     ", "hosts"),
        ("    |       ", VM1),
        ("    ", TWO),
        ("      ", "allowed_hosts"),
        ("      | ", VM1),
        ("      ", "namespaces"),
    ]
    for state in (
        "[/run/vm1.sock, controller 1, attached]",
        "[/run/vm2.sock, controller 2, not attached]",
        "[/images/1.img, 1 GiB, ANA group 1, enabled, reserved: write exclusive]",
        "[/images/7.img, 7 GiB, ANA group 2, disabled, write protected]",
        "[inaccessible]",
        "[any host]",
        "[1 host]",
    ):
        assert state in text


@pytest.mark.parametrize(
    ("words", "result"),
    [
        ("ls", TREE),
        ("stats", STATS),
        ("health", HEALTH),
        (f"resv show {NQN}/1", RESERVATION),
        (f"show ns {NQN}/1", RESULTS["show"]),
        ("call list", TREE),
        (f"ns add ram:1M --subsystem {NQN}", {"nqn": NQN, "nsid": 5}),
        (f"ns rm {NQN}/1", None),
        (f"port add a.sock --subsystem {NQN}", {"portid": 4}),
        ("port rm 1", None),
    ],
)
def test_json_is_the_result(target: Target, words: str, result: Any) -> None:
    for place in (["--output", "json", *words.split()], [*words.split(), "--output", "json"]):
        assert json.loads(target.ctl(*place)) == result


@pytest.mark.parametrize(
    ("words", "call", "arguments"),
    [
        ("ns rm {NQN}/7", "namespace_remove", {"nqn": NQN, "nsid": 7}),
        ("ns rm 7 --subsystem {NQN}", "namespace_remove", {"nqn": NQN, "nsid": 7}),
        ("ns rm {NQN}/7 --subsystem {NQN}", "namespace_remove", {"nqn": NQN, "nsid": 7}),
        ("ns rm nqn.a/b/7", "namespace_remove", {"nqn": "nqn.a/b", "nsid": 7}),
        ("ns resize {NQN}/7 10G", "namespace_resize", {"nqn": NQN, "nsid": 7, "size": 10 << 30}),
        ("ns resize {NQN}/7", "namespace_resize", {"nqn": NQN, "nsid": 7, "size": None}),
        ("ns enable {NQN}/7", "namespace_enable", {"nqn": NQN, "nsid": 7}),
        ("ns disable {NQN}/7", "namespace_disable", {"nqn": NQN, "nsid": 7}),
        ("ns protect {NQN}/7", "namespace_protect", {"nqn": NQN, "nsid": 7, "on": True}),
        ("ns protect {NQN}/7 off", "namespace_protect", {"nqn": NQN, "nsid": 7, "on": False}),
        ("ns ana {NQN}/7 3", "namespace_ana_group", {"nqn": NQN, "nsid": 7, "grpid": 3}),
        ("ns attach {NQN}/7 {VM1}", "namespace_attach", {"nqn": NQN, "nsid": 7, "hosts": [VM1]}),
        ("ns attach {NQN}/7 --all", "namespace_attach", {"nqn": NQN, "nsid": 7, "hosts": None}),
        ("ns attach {NQN}/7 --none", "namespace_attach", {"nqn": NQN, "nsid": 7, "hosts": []}),
        ("port rm 2", "port_remove", {"portid": 2}),
        ("port rm /run/vm2.sock", "port_remove", {"portid": 2}),
        ("subsys add nqn.x", "subsystem_add", {"nqn": "nqn.x"}),
        (
            "subsys add nqn.x --serial A --cntlid-min 5 --host {VM1} --host {VM2}",
            "subsystem_add",
            {"nqn": "nqn.x", "serial": "A", "cntlid_min": 5, "allowed_hosts": (VM1, VM2)},
        ),
        ("subsys rm {TWO}", "subsystem_remove", {"nqn": TWO}),
        ("subsys allow {TWO} {VM2}", "subsystem_allow", {"nqn": TWO, "host": VM2}),
        ("subsys disallow {TWO} {VM1}", "subsystem_disallow", {"nqn": TWO, "host": VM1}),
        ("host add nqn.x", "host_add", {"nqn": "nqn.x", "hostid": None}),
        (
            "host add nqn.x --hostid 00000000-0000-0000-0000-000000000007",
            "host_add",
            {"nqn": "nqn.x", "hostid": UUID(int=7)},
        ),
        ("host rm {VM2}", "host_remove", {"nqn": VM2}),
        ("ana set 1 2 optimized", "ana_set", {"portid": 1, "grpid": 2, "state": "optimized"}),
        ("ana set /run/vm3.sock 2 change", "ana_set", {"portid": 3, "grpid": 2, "state": "change"}),
        ("resv clear {NQN}/1", "reservation_clear", {"nqn": NQN, "nsid": 1}),
        ("show subsys {TWO}", "show", {"kind": "subsystem", "nqn": TWO}),
        ("show port /run/vm2.sock", "show", {"kind": "port", "portid": 2}),
        ("show host {VM1}", "show", {"kind": "host", "nqn": VM1}),
        ("save /x/y.toml", "save", {"path": "/x/y.toml"}),
        (
            "call namespace.protect nqn={NQN} nsid=7 on=true",
            "namespace_protect",
            {"nqn": NQN, "nsid": 7, "on": True},
        ),
        ('call host.remove nqn="5"', "host_remove", {"nqn": "5"}),
    ],
)
def test_a_command_is_one_call(target: Target, words: str, call: str, arguments: dict[str, Any]) -> None:
    assert target.asked(*words.format(NQN=NQN, TWO=TWO, VM1=VM1, VM2=VM2).split()) == (call, arguments)


def test_a_namespace_is_added_with_what_is_said_and_nothing_else(single: Target, tmp_path: Path) -> None:
    assert single.asked("ns", "add", "a.img", "--create", "1G") == (
        "namespace_add",
        {"nqn": NQN, "backend": str(tmp_path / "a.img"), "create": 1 << 30},
    )
    words = (
        "ns add ram:1M --nsid 9 --block-size 4096 --read-only --uuid 00000000-0000-0000-0000-000000000009 "
        f"--nguid {'ab' * 16} --eui64 {'cd' * 8} --ana-group 4 --no-reservations --host {VM1} --disabled "
        "--protect"
    )
    assert single.asked(*words.split())[1] == {
        "nqn": NQN,
        "backend": "ram:1M",
        "nsid": 9,
        "block_size": 4096,
        "read_only": True,
        "uuid": UUID(int=9),
        "nguid": "ab" * 16,
        "eui64": "cd" * 8,
        "ana_grpid": 4,
        "resv": False,
        "hosts": (VM1,),
        "enable": False,
        "protect": True,
    }


@pytest.mark.parametrize(
    ("word", "backend"),
    [
        ("a.img", "{here}/a.img"),
        ("/a.img", "/a.img"),
        ("python:./d.py:Drive?size=1M", "python:{here}/d.py:Drive?size=1M"),
        ("python:pkg.mod:Drive", "python:pkg.mod:Drive"),
        ("nbdkit:p.py?a=b", "nbdkit:{here}/p.py?a=b"),
        ("fault?read=0.1:a.img", "fault?read=0.1:{here}/a.img"),
        ("null:1G", "null:1G"),
    ],
)
def test_a_relative_path_is_of_the_operators_directory(
    single: Target, tmp_path: Path, word: str, backend: str
) -> None:
    assert single.asked("ns", "add", word)[1]["backend"] == backend.format(here=tmp_path)
    assert single.asked("port", "add", "a.sock")[1]["traddr"] == str(tmp_path / "a.sock")
    assert single.asked("save", "a.toml")[1]["path"] == str(tmp_path / "a.toml")


def test_a_port_is_added_with_what_is_said_and_nothing_else(target: Target) -> None:
    assert target.asked("port", "add", "/s", "--subsystem", TWO)[1] == {
        "portid": None,
        "traddr": "/s",
        "subsystem": TWO,
    }
    words = f"port add /s --subsystem {TWO} --port 0 --host {VM1} --queues 2 --doorbells mapped"
    assert target.asked(*words.split())[1] == {
        "portid": 0,
        "traddr": "/s",
        "subsystem": TWO,
        "hostnqn": VM1,
        "queues": 2,
        "doorbells": "mapped",
    }


def test_where_there_is_one_subsystem_it_is_meant(single: Target) -> None:
    assert single.asked("ns", "enable", "1") == ("namespace_enable", {"nqn": NQN, "nsid": 1})
    assert single.asked("show", "subsys")[1] == {"kind": "subsystem", "nqn": NQN}


def test_what_is_not_clear_is_asked_for(target: Target) -> None:
    assert "2 subsystems; say which with --subsystem" in target.ctl("ns", "enable", "1", status=2)
    assert "leave one of them out" in target.ctl("ns", "rm", f"{NQN}/1", "--subsystem", TWO, status=2)
    assert "no port has the socket /no" in target.ctl("port", "rm", "/no", status=2)
    assert "is no port" in target.ctl("port", "rm", "x", status=2)
    for word in ("x", "", "/1", f"{NQN}/", f"{NQN}/-1", f"{NQN}/1x", "9" * 20):
        assert "is no namespace" in target.ctl("ns", "rm", "--", word, status=2)
    for words in ([], ["--all", VM1], ["--all", "--none"]):
        assert "one of them" in target.ctl("ns", "attach", f"{NQN}/1", *words, status=2)
    assert "write key=value" in target.ctl("call", "list", "x", status=2)
    assert "given twice" in target.ctl("call", "list", "x=1", "x=2", status=2)
    assert "no method 'x'" in target.ctl("methods", "x", status=2)
    target.manager.results["list"] = {"hosts": [], "subsystems": [], "ports": []}
    assert "subsys add NQN" in target.ctl("ns", "add", "ram:1M", status=2)


def test_an_error_of_the_target_is_one_line_and_its_status(target: Target) -> None:
    target.manager.results |= {"host_remove": ConfigError("in use"), "save": DeviceError("disk full")}
    assert target.ctl("host", "rm", VM1, status=2) == "nvmet-vdev: error: in use\n"
    assert target.ctl("save", "/x", status=1) == "nvmet-vdev: error: disk full\n"
    assert "no method 'no.such'" in target.ctl("call", "no.such", status=2)
    assert "without a file" in target.ctl("save", status=2)


def test_without_a_target_it_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.delenv("NVMET_VDEV_CONTROL", raising=False)
    line = (
        "nvmet-vdev: error: no target at {path}; start one with 'nvmet-vdev serve -c FILE', "
        "or name its socket with --control\n"
    )
    assert cli.main(["ctl", "ls"]) == 2
    assert capsys.readouterr().err == line.format(path=tmp_path / "nvmet-vdev" / "control.sock")
    monkeypatch.setenv("NVMET_VDEV_CONTROL", "/nowhere/s")
    assert cli.main(["ctl", "ns", "enable", "1"]) == 2
    assert capsys.readouterr().err == line.format(path="/nowhere/s")
    assert cli.main(["ctl", "ls", "--control", str(tmp_path / "x")]) == 2
    assert capsys.readouterr().err == line.format(path=tmp_path / "x")


def test_text_says_what_was_done(target: Target) -> None:
    assert target.ctl("ns", "add", "ram:1M", "--subsystem", NQN) == f"added {NQN}/5\n"
    assert target.ctl("ns", "resize", f"{NQN}/7", "10G") == f"{NQN}/7 has 10 GiB\n"
    assert target.ctl("ana", "set", "1", "2", "optimized") == "group 2 is optimized at port 1\n"
    assert target.ctl("port", "add", "/s", "--subsystem", NQN) == "port 4 listens on /s\n"


def test_figures_are_readable(target: Target) -> None:
    stats = target.ctl("stats").splitlines()
    assert stats[0].split()[:2] == ["reads", "writes"]
    assert stats[1].split()[:4] == ["port", "1", "1k", "20"]
    assert stats[-1].split()[0] == "all"
    health = target.ctl("health")
    for word in (
        "47 C",
        "5 %",
        "10 %",
        "unknown",
        "degraded",
        "queue 2, command 3",
        "Capacity Exceeded (00/81h) DNR",
        "77",
        "OSError",
    ):
        assert word in health
    shown = target.ctl("show", "ns", f"{NQN}/1")
    assert re.search(r"size +1073741824 \(1 GiB\)", shown)
    assert re.search(r"ana\.1 +optimized", shown)
    reserved = target.ctl("resv", "show", f"{NQN}/1")
    for word in ("write exclusive", "0x00000000deadbeef", "holds it", "1, 2", "generation"):
        assert word in reserved
    target.manager.results["reservation_show"] = {
        "generation": 0,
        "type": None,
        "ptpl": False,
        "registrants": [],
    }
    assert "no registrants" in target.ctl("resv", "show", f"{NQN}/1")


def test_watching_shows_what_goes_through_in_a_second(target: Target) -> None:
    looks = iter([0, 1000, 1500])

    def stats() -> dict[str, Any]:
        reads = next(looks)
        figures = {**STATS["total"], "reads": reads, "bytes_read": reads * 4096}
        return {
            "total": figures,
            "controllers": [{"portid": 1, "subsystem": NQN, **figures}],
            "namespaces": [],
        }

    target.manager.results["stats"] = stats
    words = ("stats", "--watch", "0.01", "--count", "2", "--output", "json")
    first, second = map(json.loads, target.ctl(*words).splitlines())
    assert first["total"]["reads"] * first["seconds"] == pytest.approx(1000)
    assert second["controllers"][0]["reads"] * second["seconds"] == pytest.approx(500)
    assert second["controllers"][0]["portid"] == 1
    assert second["total"]["writes"] == 0
    looks = iter([0, 1000])
    assert "reads/s" in target.ctl("stats", "--watch", "0.01", "--count", "1")


def test_methods_are_listed_with_what_they_take(target: Target) -> None:
    text = target.ctl("methods", "namespace.resize")
    assert text.splitlines()[0] == "namespace.resize"
    assert "size  optional, a size like 4096 or 10G or null: the size; by default" in text
    everything = json.loads(target.ctl("methods", "--output", "json"))
    assert len(everything) > 25


def test_shutdown_ends_the_target(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = threading.Event()
    with serving(tmp_path, shutdown=told.set) as server:
        assert cli.main(["ctl", "shutdown", "--control", str(server.path)]) == 0
        assert told.wait(60)
    assert capsys.readouterr().out == "the target ends\n"


def commands(
    command: click.Command, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """All commands below `command`."""
    yield path, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            assert inner is not None
            yield from commands(inner, (*path, name))


def all_commands() -> dict[str, click.Command]:
    from nvmet_vdev.cli.ctl import command

    return {" ".join(("ctl", *path)): one for path, one in commands(command)}


def examples() -> list[str]:
    found = []
    for one in all_commands().values():
        text = (one.epilog or "").partition("Examples:\n")[2].partition("\n\n")[0]
        found += [line.strip().partition(" |")[0] for line in text.splitlines() if line.strip()]
    return list(dict.fromkeys(found))


@pytest.mark.parametrize("example", examples())
def test_an_example_of_the_help_works(single: Target, example: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)
    program, command, *words = shlex.split(example)
    assert (program, command) == ("nvmet-vdev", "ctl")
    if "--watch" in words and "--count" not in words:
        words += ["--count", "1"]
    if words == ["save"]:
        assert "without a file" in single.ctl(*words, status=2)
        return
    assert single.ctl(*words)


@pytest.mark.parametrize("path", [name for name in all_commands() if not name.startswith("ctl show ")])
def test_every_command_shows_examples_and_fits_a_terminal(
    path: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([*path.split(), "--help"]) == 0
    text = capsys.readouterr().out
    assert "Examples:" in text
    assert max(map(len, text.splitlines())) <= 100
