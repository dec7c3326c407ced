"""The client in Python: results, errors, time-outs, and what is no target."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import UUID

import pytest

from nvmet_vdev import ConfigError, DeviceError
from nvmet_vdev.control.client import Client, NoTargetError
from tests.control.fakes import NQN, FakeManager, Hold, Wire, serving


def test_every_call_arrives_as_it_was_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    manager = FakeManager(namespace_add=4, port_add=1, list={"hosts": []}, reservation_show={"type": 1})
    with serving(tmp_path, manager) as server, Client(server.path) as client:
        assert client.version()["name"] == "nvmet-vdev"
        assert client.methods()
        assert client.list() == {"hosts": []}
        client.host_add("nqn.h", hostid=UUID(int=1))
        client.subsystem_add(NQN, serial="S", allow_any_host=True)
        client.subsystem_health(NQN, spare=3)
        assert client.namespace_add(NQN, Path("a.img"), create="1M", hosts=["nqn.h"]) == 4
        client.namespace_resize(NQN, 4)
        client.namespace_resize(NQN, 4, "2M")
        client.namespace_attach(NQN, 4, None)
        assert client.port_add("a.sock", NQN, portid=1, ana={2: "inaccessible"}) == 1
        assert client.reservation_show(NQN, 4) == {"type": 1}
        client.config_save("x.toml")
    assert manager.calls[1:] == [
        ("host_add", {"nqn": "nqn.h", "hostid": UUID(int=1)}),
        ("subsystem_add", {"nqn": NQN, "serial": "S", "allow_any_host": True}),
        ("subsystem_health", {"nqn": NQN, "spare": 3}),
        (
            "namespace_add",
            {"nqn": NQN, "backend": str(tmp_path / "a.img"), "create": 1 << 20, "hosts": ("nqn.h",)},
        ),
        ("namespace_resize", {"nqn": NQN, "nsid": 4, "size": None}),
        ("namespace_resize", {"nqn": NQN, "nsid": 4, "size": 2 << 20}),
        ("namespace_attach", {"nqn": NQN, "nsid": 4, "hosts": None}),
        (
            "port_add",
            {"portid": 1, "traddr": str(tmp_path / "a.sock"), "subsystem": NQN, "ana": {2: "inaccessible"}},
        ),
        ("reservation_show", {"nqn": NQN, "nsid": 4}),
        ("save", {"path": str(tmp_path / "x.toml")}),
    ]


def test_errors_are_the_packages_own_and_the_connection_lives_on(tmp_path: Path) -> None:
    manager = FakeManager(health=ConfigError("no such thing"), stats=DeviceError("broken"))
    with serving(tmp_path, manager) as server, Client(server.path) as client:
        with pytest.raises(ConfigError, match=r"^no such thing$"):
            client.health()
        with pytest.raises(DeviceError, match=r"^broken$"):
            client.stats()
        with pytest.raises(ConfigError, match="nqn: 5 is not an NQN"):
            client.call("host.remove", nqn=5)
        with pytest.raises(ConfigError, match=r"has no method 'no\.such'"):
            client.call("no.such")
        assert client.version()


def test_a_name_that_is_no_text_is_told_and_the_connection_lives_on(tmp_path: Path) -> None:
    with serving(tmp_path) as server, Client(server.path) as client:
        with pytest.raises(ConfigError, match="no UTF-8"):
            client.config_save(b"/x\xff".decode("utf-8", "surrogateescape"))
        client.host_remove("nqn.é")


def test_threads_share_a_client(tmp_path: Path) -> None:
    manager = FakeManager(reservation_show=lambda **given: {"nsid": given["nsid"]})
    wrong: list[int] = []
    with serving(tmp_path, manager) as server, Client(server.path) as client:

        def work(base: int) -> None:
            for nsid in range(base, base + 50):
                if client.reservation_show(NQN, nsid) != {"nsid": nsid}:
                    wrong.append(nsid)

        threads = [threading.Thread(target=work, args=(1 + 100 * number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == []


def test_where_nobody_listens_there_is_no_target(tmp_path: Path) -> None:
    with pytest.raises(NoTargetError, match="no target at"):
        Client(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "s"))
    with pytest.raises(NoTargetError, match="no target at"):
        Client(tmp_path / "s")
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError):
        Client(tmp_path / "file")


def test_a_call_that_takes_too_long_is_an_error_and_the_end(tmp_path: Path) -> None:
    hold = Hold()
    with serving(tmp_path, FakeManager(health=hold)) as server, Client(server.path, timeout=0.05) as client:
        with pytest.raises(DeviceError, match=r"within 0\.05 s"):
            client.health()
        hold.end()
        with pytest.raises(ConfigError, match="is closed"):
            client.version()


@contextmanager
def stranger(path: Path, serve: Callable[[socket.socket], None]) -> Iterator[None]:
    """Something that listens at `path` and is no target."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def accept() -> None:
            connection, _ = listener.accept()
            with connection:
                serve(connection)

        thread = threading.Thread(target=accept)
        thread.start()
        yield
        thread.join()


@pytest.mark.parametrize(
    "says",
    [
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"\xff\xfe\n",
        b"[" * 100_000 + b"\n",
        b"5\n",
        b"{}\n",
        b'{"id": 1, "result": 1, "error": 1}\n',
        b'{"id": 1, "error": "no"}\n',
        b'{"id": 1, "error": {"message": 5}}\n',
        b'{"id": 77, "result": 1}\n',
    ],
)
def test_what_is_no_target_is_told(tmp_path: Path, says: bytes) -> None:
    def serve(connection: socket.socket) -> None:
        connection.recv(4096)
        connection.sendall(says)

    with stranger(tmp_path / "s", serve), Client(tmp_path / "s") as client:
        with pytest.raises(ConfigError, match="no control socket"):
            client.version()
        with pytest.raises(ConfigError, match="is closed"):
            client.version()


def test_a_target_that_goes_away_is_told(tmp_path: Path) -> None:
    with (
        stranger(tmp_path / "s", lambda connection: connection.shutdown(socket.SHUT_RDWR)),
        Client(tmp_path / "s") as client,
        pytest.raises(DeviceError, match="closed the connection"),
    ):
        client.version()


def test_an_answer_that_never_ends_is_not_waited_for(tmp_path: Path) -> None:
    # One byte now and then must not make the time start anew.
    def serve(connection: socket.socket) -> None:
        try:
            while True:
                connection.sendall(b" ")
                threading.Event().wait(0.005)
        except OSError:
            pass

    with (
        stranger(tmp_path / "s", serve),
        Client(tmp_path / "s", timeout=0.1) as client,
        pytest.raises(DeviceError, match="no answer"),
    ):
        client.version()


def test_clients_of_one_server_are_independent(tmp_path: Path) -> None:
    with serving(tmp_path) as server, Client(server.path) as one, Wire(server.path) as two:
        assert one.version() == two.ask("version")
