"""What a Tab offers, from a target that runs; in bash, which takes words with colons apart."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from click.shell_completion import ShellComplete

from nvmet_vdev import cli
from tests.control.fakes import NQN, FakeManager, Hold, serving
from tests.control.trees import ONE_SUBSYSTEM, TREE, TWO, VM1, VM2


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeManager]:
    manager = FakeManager(list=TREE)
    with serving(tmp_path, manager) as server:
        monkeypatch.setenv("NVMET_VDEV_CONTROL", str(server.path))
        yield manager


def offers(*words: str) -> list[str]:
    """What is offered for the last of `words`."""
    shell = ShellComplete(cli.commands, {}, "nvmet-vdev", "_NVMET_VDEV_COMPLETE")
    return [item.value for item in shell.get_completions(list(words[:-1]), words[-1])]


def bash(line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """What bash is told for the pieces of `line`, the last of which is completed."""
    pieces = line.split(" ")
    monkeypatch.setenv("_NVMET_VDEV_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", line)
    monkeypatch.setenv("COMP_CWORD", str(len(pieces) - 1))
    capsys.readouterr()
    assert cli.main([]) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    return [row.partition(",")[2] for row in printed.out.splitlines()]


@pytest.mark.usefixtures("manager")
@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (("ctl", "sta"), ["stats"]),
        (("ctl", "ns", "re"), ["resize"]),
        (("ctl", "ns", "rm", ""), [f"{NQN}/1", f"{NQN}/7"]),
        (("ctl", "ns", "rm", f"{NQN}/7"), [f"{NQN}/7"]),
        (("ctl", "ns", "rm", "--subsystem", NQN, ""), ["1", "7"]),
        (("ctl", "ns", "rm", "--subsystem", ""), [NQN, TWO]),
        (("ctl", "port", "rm", ""), ["1", "2", "3"]),
        (("ctl", "port", "rm", "/run/"), ["/run/vm1.sock", "/run/vm2.sock", "/run/vm3.sock"]),
        (("ctl", "ana", "set", "1", "1", "in"), ["inaccessible"]),
        (("ctl", "subsys", "rm", ""), [NQN, TWO]),
        (("ctl", "subsys", "allow", TWO, ""), [VM1, VM2]),
        (("ctl", "host", "rm", "nqn.2026-01.org.example:vm2"), [VM2]),
        (("ctl", "ns", "attach", f"{NQN}/1", VM1, ""), [VM1, VM2]),
        (("ctl", "resv", "show", ""), [f"{NQN}/1", f"{NQN}/7"]),
        (("ctl", "subsys", "rm", "x"), []),
    ],
)
def test_names_of_the_running_target_are_offered(words: tuple[str, ...], offered: list[str]) -> None:
    assert offers(*words) == offered


def test_a_lone_subsystem_need_not_be_named(manager: FakeManager) -> None:
    manager.results["list"] = ONE_SUBSYSTEM
    assert offers("ctl", "ns", "rm", "") == ["1"]


def test_the_target_is_the_one_that_the_line_names(
    manager: FakeManager, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    socket = str(tmp_path / "control.sock")
    monkeypatch.setenv("NVMET_VDEV_CONTROL", "/nowhere")
    assert offers("ctl", "subsys", "rm", "") == []
    assert offers("ctl", "--control", socket, "subsys", "rm", "") == [NQN, TWO]
    assert offers("ctl", "subsys", "rm", "--control", socket, "") == [NQN, TWO]
    assert len(manager.calls) == 2


@pytest.mark.parametrize(
    "result", [5, {"subsystems": 5}, {"subsystems": [{}]}, {"subsystems": [None]}, OSError(5)]
)
def test_without_a_sane_target_nothing_is_offered_and_nothing_said(
    manager: FakeManager, result: object, capfd: pytest.CaptureFixture[str]
) -> None:
    manager.results["list"] = result
    assert offers("ctl", "ns", "rm", "") == []
    assert offers("ctl", "subsys", "rm", "") == []
    assert capfd.readouterr() == ("", "")


def test_a_target_that_does_not_answer_holds_up_no_shell(
    manager: FakeManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nvmet_vdev.cli.ctl import session

    monkeypatch.setattr(session, "COMPLETION_SECONDS", 0.05)
    hold = Hold()
    manager.results["list"] = hold
    assert offers("ctl", "subsys", "rm", "") == []
    hold.end()


@pytest.mark.usefixtures("manager")
@pytest.mark.parametrize(
    ("line", "offered"),
    [
        # As bash tells the pieces of what stands before the Tab.
        ("nvmet-vdev ctl subsys rm ", [NQN, TWO]),
        ("nvmet-vdev ctl subsys rm nqn.2026", [NQN, TWO]),
        ("nvmet-vdev ctl subsys rm nqn.2026-01.org.example :", ["one", "two"]),
        ("nvmet-vdev ctl subsys rm nqn.2026-01.org.example : t", ["two"]),
        ("nvmet-vdev ctl ns rm nqn.2026-01.org.example : one/", ["one/1", "one/7"]),
        ("nvmet-vdev ctl ns rm --subsystem = nqn.2026-01.org.example : t", ["two"]),
        ("nvmet-vdev ctl ns rm --subsystem = nqn.2026-01.org.example : one ", ["1", "7"]),
        ("nvmet-vdev ctl subsys allow nqn.2026-01.org.example : two nqn.2026-01.org.example : vm2", ["vm2"]),
        ("nvmet-vdev ctl ns attach nqn.2026-01.org.example : one/1 ", [VM1, VM2]),
        ('nvmet-vdev ctl subsys rm "nqn.2026-01.org.example:t', [TWO]),
        ("nvmet-vdev ct", ["ctl"]),
    ],
)
def test_in_bash_a_name_is_completed_behind_its_last_colon(
    line: str, offered: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bash(line, monkeypatch, capsys) == offered
