"""`nvmet-vdev serve` and `save` from outside: what a file describes is served, all of it or nothing."""

from __future__ import annotations

import json
import os
import shlex
import socket
import stat
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.config import nvmetcli
from tests.product import Server, ordinary_user, run, serve

MIB = 1 << 20
ONE = "nqn.2024-01.com.example:one"

DRIVES = f"""
[[subsystem]]
nqn = "{ONE}"
serial = "SHARED1"

[[subsystem.namespace]]
nsid = 1
backend = "new.img"
create = "4M"

[[subsystem.namespace]]
nsid = 7
backend = "ram:1M"
block_size = 4096

[[port]]
portid = 1
traddr = "a.sock"
subsystem = "{ONE}"

[[port]]
portid = 2
traddr = "b.sock"
subsystem = "{ONE}"
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "drives.toml").write_text(DRIVES)
    (tmp_path / "plain").write_text("precious")
    return tmp_path


@contextmanager
def serving(place: Path, *args: str | Path, **more: Any) -> Iterator[Server]:
    with serve(*args, cwd=place, command="serve", **more) as server:
        yield server


def identify(path: str, cwd: Path) -> Any:
    result = run("identify", path, "--output", "json", cwd=cwd)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def names(place: Path) -> list[str]:
    return sorted(path.name for path in place.iterdir() if path.name != "server.err")


def test_every_port_is_announced_and_leads_to_its_subsystem(place: Path) -> None:
    with serving(place, "-c", "drives.toml") as server:
        control = place / "nvmet-vdev" / "control.sock"
        assert stat.S_ISSOCK(control.stat().st_mode)
        first, second = identify("a.sock", place), identify("b.sock", place)
        assert server.stop() == 0
    assert server.output[:3] == ["listening on a.sock", "listening on b.sock", f"controlled on {control}"]
    assert (place / "server.err").read_text() == ""
    assert first["controller"]["serial"] == "SHARED1"
    assert first["controller"]["subnqn"] == second["controller"]["subnqn"] == ONE
    assert first["namespaces"] == second["namespaces"]
    assert [(one["nsid"], one["size"]) for one in first["namespaces"]] == [(1, 4 * MIB), (7, MIB)]
    # The image stays, sockets go.
    assert names(place) == ["drives.toml", "new.img", "nvmet-vdev", "plain"]
    assert not control.exists()


def test_the_names_of_a_drive_stay_the_same_from_start_to_start(place: Path) -> None:
    def seen() -> Any:
        with serving(place, "-c", "drives.toml") as server:
            found = identify("b.sock", place)
            assert server.stop() == 0
        return found["controller"]["serial"], [one["uuid"] for one in found["namespaces"]]

    text = DRIVES.replace('serial = "SHARED1"\n', "")
    (place / "drives.toml").write_text(text)
    assert seen() == seen()


def test_one_port_is_announced_as_run_does(place: Path) -> None:
    (place / "drives.toml").write_text(DRIVES.partition("[[port]]\nportid = 2")[0])
    with serving(place, "-c", "drives.toml", "--control", "none") as server:
        assert not (place / "nvmet-vdev").exists()
        assert server.stop() == 0
    words = shlex.split("\n".join(server.output).replace(" \\\n", " "))
    assert json.loads(words[words.index("-device") + 1])["socket"]["path"] == str(place / "a.sock")


def test_a_kernel_targets_file_serves_the_same_namespaces_and_says_what_it_skips(place: Path) -> None:
    document = nvmetcli.moved("k.sock")
    namespaces = document["subsystems"][0]["namespaces"]
    for namespace in namespaces:
        image = place / f"{namespace['nsid']}.img"
        image.write_bytes(bytes(MIB * namespace["nsid"]))
        namespace["device"]["path"] = str(image)
    namespaces[1]["enable"] = 1
    (place / "nvmet.json").write_text(nvmetcli.text(document))
    with serving(place, "-c", "nvmet.json") as server:
        found = identify("k.sock", place)
        # The kernel's file keeps what was skipped.
        saved = run("ctl", "save", cwd=place)
        assert (saved.returncode, saved.stdout) == (2, ""), saved
        assert "more than it serves; say a path" in saved.stderr
        assert (place / "nvmet.json").read_text() == nvmetcli.text(document)
        assert server.stop() == 0
    assert [(one["nsid"], one["size"], one["uuid"]) for one in found["namespaces"]] == [
        (one["nsid"], one["nsid"] * MIB, one["device"]["uuid"]) for one in namespaces
    ]
    assert found["controller"]["subnqn"] == "testnqn"
    told = (place / "server.err").read_text().splitlines()
    assert told[0] == (
        "nvmet-vdev: warning: nvmet.json: subsystems[0].attr.version: 2.1; "
        "the drive says which version it has, skipped"
    )
    assert "namespaces[1].ana_grpid: 3, which is inaccessible" in told[-1]
    assert len(told) == 4
    strict = run("serve", "-c", "nvmet.json", "--strict", cwd=place)
    assert (strict.returncode, strict.stdout) == (2, "")
    assert "attr.version" in strict.stderr


def test_check_says_what_a_file_has_and_touches_nothing(place: Path) -> None:
    before = names(place)
    done = run("serve", "-c", "drives.toml", "--check", cwd=place)
    assert done.returncode == 0
    assert done.stdout == "drives.toml: 1 subsystem, 2 namespaces, 2 ports, 0 hosts\n"
    assert done.stderr == ""
    assert names(place) == before


SERVE = ("serve", "-c", "drives.toml")
REFUSED: dict[str, tuple[tuple[str, str] | None, Sequence[str], Sequence[str]]] = {
    "no file named": (None, ("serve",), ("-c", "--help")),
    "missing file": (None, ("serve", "-c", "none.toml"), ("none.toml", "No such file")),
    "no format": (None, ("serve", "-c", "plain"), ("plain", ".toml", ".json")),
    "unknown key": (("serial", "seriel"), SERVE, ("drives.toml: subsystem[0].seriel", "serial?")),
    "unknown key, checked": (("serial", "seriel"), (*SERVE, "--check"), ("subsystem[0].seriel",)),
    "two ports on one socket": (("b.sock", "./a.sock"), SERVE, ("port[1].traddr", "port[0].traddr")),
    "last socket is a file": (("b.sock", "plain"), SERVE, ("drives.toml: port[1].traddr:", "plain")),
    "last socket is a file, with state": (
        ("b.sock", "plain"),
        (*SERVE, "--state-dir", "state"),
        ("drives.toml: port[1].traddr:", "plain"),
    ),
    "last directory missing": (
        ("b.sock", "none/b"),
        SERVE,
        ("drives.toml: port[1].traddr: none/b", "no directory none", "create it"),
    ),
    "missing image": (
        ('"ram:1M"', '"none.img"'),
        SERVE,
        ("subsystem[0].namespace[1].backend: none.img", "no such file", "create it with create"),
    ),
    "unknown function": (
        ('"ram:1M"', '"python:json:nothing"'),
        SERVE,
        ("subsystem[0].namespace[1].backend:", "nothing"),
    ),
    "odd size": (('"4M"', "1000"), SERVE, ("namespace[0].backend: new.img", "1000")),
    "no ports": (("portid", "#"), ("serve", "-c", "none.json", "--control", "none"), ("none.json", "port")),
    "a CPU that there is not": (None, (*SERVE, "--cpus", "8191"), ("cpus", "8191")),
    "no workers": (None, (*SERVE, "--workers", "0"), ("--workers",)),
    "pidfile": (None, (*SERVE, "--pidfile", "none/pid"), ("pidfile", "none")),
    "state directory": (None, (*SERVE, "--state-dir", "none/state"), ("state_dir", "none/state")),
    "state directory is a file": (None, (*SERVE, "--state-dir", "plain"), ("state_dir", "plain", "exists")),
    "control socket is a file": (None, (*SERVE, "--control", "plain"), ("plain",)),
    "control socket is too long": (None, (*SERVE, "--control", "s" * 108), ("107",)),
    "control socket in no directory, after state": (
        None,
        (*SERVE, "--state-dir", "state", "--control", "none/c"),
        ("none/c", "no directory", "create it"),
    ),
    "descriptor of no socket": (None, (*SERVE, "--fd", "0"), ("--fd 0",)),
    "no target to save": (None, ("save", "x.toml", "--control", "none.sock"), ("none.sock",)),
    "save without a format": (None, ("save", "x", "--control", "none.sock"), ("x", ".toml")),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_served_is_refused_in_one_line_and_leaves_nothing(place: Path, case: str) -> None:
    change, args, says = REFUSED[case]
    if change is not None:
        (place / "drives.toml").write_text(DRIVES.replace(*change))
    (place / "none.json").write_text("{}")
    (place / "nvmet-vdev").mkdir(mode=0o700)
    before = names(place)
    done = run(*args, cwd=place, patience=20)
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    assert done.stderr.startswith("nvmet-vdev: error: ")
    assert done.stderr.count("\n") == 1
    for word in says:
        assert word in done.stderr
    assert names(place) == before
    assert list((place / "nvmet-vdev").iterdir()) == []


def test_what_runs_is_saved_and_served_again(place: Path) -> None:
    with serving(place, "-c", "drives.toml", "--control", "c", "--state-dir", "state") as server:
        for words in (
            ("ns", "add", "ram:2M", "--nsid", "3"),
            ("ns", "resize", "1", "8M"),
            ("port", "add", "c.sock", "--port", "9"),
        ):
            done = run("ctl", "--control", "c", *words, cwd=place)
            assert done.returncode == 0, done.stderr
        for name in ("saved.toml", "saved.json"):
            done = run("save", name, "--control", "c", cwd=place)
            assert (done.returncode, done.stdout) == (0, f"saved to {name}\n"), done.stderr
            assert stat.S_IMODE((place / name).stat().st_mode) == 0o600
        first = identify("c.sock", place)
        assert server.stop() == 0
    for name in ("saved.toml", "saved.json"):
        with serving(place, "-c", name, "--control", "c") as server:
            assert identify("c.sock", place)["namespaces"] == first["namespaces"]
            again = run("save", f"again.{name}", "--control", "c", cwd=place)
            assert again.returncode == 0, again.stderr
            assert server.stop() == 0
        assert (place / f"again.{name}").read_text() == (place / name).read_text()
        assert server.output[:3] == [f"listening on {place}/{letter}.sock" for letter in "abc"]


def test_options_go_before_what_the_file_says(place: Path) -> None:
    (place / "drives.toml").write_text('[target]\nworkers = 4\nwait = "poll"\n' + DRIVES)
    args = ("-c", "drives.toml", "--workers", "2", "--wait", "event", "--state-dir", "here", "--control", "c")
    with serving(place, *args) as server:
        tasks = Path(f"/proc/{server.process.pid}/task")
        workers = [task for task in tasks.iterdir() if (task / "comm").read_text().startswith("nvmet-w")]
        assert len(workers) == 2
        assert run("save", "saved.toml", "--control", "c", cwd=place).returncode == 0
        assert server.stop() == 0
    assert (
        (place / "saved.toml")
        .read_text()
        .startswith(f'[target]\nworkers = 2\nwait = "event"\nstate_dir = "{place / "here"}"\n')
    )


def test_sockets_that_listen_already_are_found_by_their_paths(place: Path) -> None:
    with socket.socket(socket.AF_UNIX) as first, socket.socket(socket.AF_UNIX) as second:
        for listener, name in ((first, "b.sock"), (second, "other.sock")):
            listener.bind(str(place / name))
            listener.listen()
        fds = (first.fileno(), second.fileno())
        refused = run("serve", "-c", "drives.toml", "--fd", "0", cwd=place)
        assert refused.returncode == 2
        with serving(place, "-c", "drives.toml", "--fd", str(fds[0]), pass_fds=fds) as server:
            assert identify("b.sock", place)["namespaces"] == identify("a.sock", place)["namespaces"]
            assert server.stop() == 0
        # Who made the socket removes it.
        assert (place / "b.sock").exists()
        assert not (place / "a.sock").exists()
        with pytest.raises(AssertionError, match="no port has that traddr"):
            serving(place, "-c", "drives.toml", "--fd", str(fds[1]), pass_fds=fds).__enter__()


def test_a_second_target_leaves_the_control_socket_of_the_first_alone(place: Path) -> None:
    (place / "other.toml").write_text(DRIVES.replace(".sock", ".other").replace("new.img", "other.img"))
    with serving(place, "-c", "drives.toml") as server:
        refused = run("serve", "-c", "other.toml", cwd=place)
        assert refused.returncode == 2
        assert refused.stderr.count("\n") == 1
        assert "--control" in refused.stderr
        assert not (place / "other.img").exists()
        assert not (place / "a.other").exists()
        assert run("ctl", "ls", cwd=place).returncode == 0
        assert server.stop() == 0


def test_a_plain_run_can_be_controlled_and_saved_too(place: Path) -> None:
    with serve("ram:1M", "--socket", "s", "--control", "c", cwd=place) as server:
        assert run("ctl", "--control", "c", "ns", "add", "ram:2M", cwd=place).returncode == 0
        assert [one["size"] for one in identify("s", place)["namespaces"]] == [MIB, 2 * MIB]
        before = identify("s", place)
        assert run("save", "run.toml", "--control", "c", cwd=place).returncode == 0
        assert run("ctl", "--control", "c", "shutdown", cwd=place).returncode == 0
        assert server.finish() == 0
    with serving(place, "-c", "run.toml", "--control", "none") as server:
        assert identify("s", place) == before
        assert server.stop() == 0


def test_the_service_manager_is_told_when_all_ports_listen(place: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(place / "notify"))
        manager.settimeout(60)
        environment = {"NOTIFY_SOCKET": str(place / "notify")}
        with serving(place, "-c", "drives.toml", "--pidfile", "pid", env=environment) as server:
            assert manager.recv(100) == b"READY=1"
            assert identify("b.sock", place)["namespaces"]
            assert (place / "pid").read_text() == f"{server.process.pid}\n"
            assert server.stop() == 0
            assert manager.recv(100) == b"STOPPING=1"
    assert not (place / "pid").exists()


def test_a_directory_for_state_is_for_its_owner_alone(place: Path) -> None:
    with serving(place, "-c", "drives.toml", "--state-dir", "state") as server:
        assert stat.S_IMODE((place / "state").stat().st_mode) == 0o700
        assert (place / "state").stat().st_uid == os.geteuid()
        assert server.stop() == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="needs another user's directory")
def test_directories_that_nobody_else_may_look_into_are_named_in_one_line() -> None:
    with tempfile.TemporaryDirectory(prefix="nvmet-home-") as name:
        place, user = Path(name), ordinary_user()
        (place / "closed" / "inner").mkdir(parents=True)
        (place / "closed").chmod(0o700)
        user.give(place)
        for file, old, new in (
            ("drives.toml", "", ""),
            ("socket.toml", "b.sock", "closed/inner/b.sock"),
            ("image.toml", "new.img", "closed/inner/new.img"),
        ):
            (place / file).write_text(DRIVES.replace(old, new) if old else DRIVES)
        before = names(place)
        for args in (
            ("-c", "drives.toml", "--pidfile", "closed/inner/pid"),
            ("-c", "drives.toml", "--control", "closed/inner/c.sock"),
            ("-c", "drives.toml", "--state-dir", "closed/inner/state"),
            ("-c", "socket.toml"),
            ("-c", "image.toml"),
        ):
            done = run("serve", "--control", "none", *args, cwd=place, program=user.program, patience=20)
            assert (done.returncode, done.stdout) == (2, ""), done
            assert done.stderr.count("\n") == 1
            assert "closed/inner" in done.stderr
        assert names(place) == before
