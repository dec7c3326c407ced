"""Clients that do not keep to the protocol, or do so too much: they harm themselves at most."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import resource
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nvmet_vdev import DeviceError
from nvmet_vdev.control.client import Client
from nvmet_vdev.control.limits import Limits
from nvmet_vdev.control.listener import Peer
from nvmet_vdev.control.server import ControlServer
from tests.control.fakes import NQN, FakeManager, Hold, Wire, descriptors, serving
from tests.product import wait_until

MIB = 1 << 20


def request(number: int, method: str = "version", **more: Any) -> bytes:
    message = {"jsonrpc": "2.0", "method": method, "id": number, **more}
    return json.dumps(message).encode() + b"\n"


def send_until_refused(wire: Wire, data: bytes) -> None:
    """Sends until the server has closed: it reads no more than it has to."""
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        wire.send(data)


@pytest.mark.parametrize("newline", [b"", b"\n"])
def test_a_message_that_is_too_long_is_refused_and_ends_the_connection(
    tmp_path: Path, newline: bytes
) -> None:
    with serving(tmp_path) as server, Wire(server.path) as other:
        with Wire(server.path) as wire:
            wire.send(request(1))
            send_until_refused(wire, b"[" + b" " * 4 * MIB + newline)
            assert wire.answer()["id"] == 1
            assert wire.kind() == "limit"
            assert wire.answer() is None
        assert other.ask("version")


def test_a_message_of_the_greatest_length_is_served(tmp_path: Path) -> None:
    with serving(tmp_path) as server, Wire(server.path) as wire:
        line = request(1).rstrip(b"\n")
        wire.send(line + b" " * (MIB - len(line)) + b"\n")
        assert wire.answer()["id"] == 1
        send_until_refused(wire, line + b" " * (MIB - len(line) + 1) + b"\n")
        assert wire.kind() == "limit"


def test_a_deep_message_of_the_greatest_length_harms_nobody(tmp_path: Path) -> None:
    with serving(tmp_path) as server, Wire(server.path) as wire:
        for half in (b"[", b'{"a":'):
            wire.send(half * ((MIB - 1) // len(half)) + b"\n")
            assert wire.kind() == "parse"
        assert wire.ask("version")


def test_a_client_that_sends_no_end_of_a_message_is_ended(tmp_path: Path) -> None:
    with serving(tmp_path, limits=Limits(patience=0.05)) as server, Wire(server.path) as wire:
        wire.send(request(1) + b'{"jsonrpc":')
        assert wire.answer()["id"] == 1
        assert wire.kind() == "limit"
        assert wire.answer() is None


def test_a_client_that_says_nothing_may_stay(tmp_path: Path) -> None:
    with serving(tmp_path, limits=Limits(patience=0.02)) as server, Wire(server.path) as wire:
        # When these have come to their end, the silent one's would have come twice.
        for _ in range(2):
            with Wire(server.path) as late:
                late.send(b"{")
                assert late.kind() == "limit"
        assert wire.ask("version")


def test_while_a_command_runs_its_client_is_not_waited_for(tmp_path: Path) -> None:
    hold = Hold(5)
    limits = Limits(patience=0.02)
    with (
        serving(tmp_path, FakeManager(host_remove=hold), limits=limits) as server,
        Wire(server.path) as wire,
        Wire(server.path) as late,
    ):
        wire.request("host.remove", nqn=NQN)
        hold.wait()
        wire.send(b"{")
        late.send(b"{")
        assert late.kind() == "limit"
        hold.end()
        assert wire.answer()["result"] == 5
        assert wire.kind() == "limit"


def test_who_sends_much_and_reads_nothing_is_not_read_either_and_dropped_at_last(tmp_path: Path) -> None:
    manager = FakeManager(list={"a": "x" * MIB})
    limits = Limits(patience=0.2)
    with serving(tmp_path, manager, limits=limits) as server, Wire(server.path) as other:
        with Wire(server.path) as wire:
            wire.socket.setblocking(False)
            sent = 0
            try:
                while True:
                    sent += wire.socket.send(request(1, "list"))
            except OSError:
                pass
            # What it may have sent is what the kernel keeps and what the server reads at most.
            assert sent < 4 * MIB
            assert other.ask("version")
            wire.socket.settimeout(60)
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                while True:
                    wire.socket.send(request(1, "list"))
        assert other.ask("version")
    # One answer was made, and no other while that one was not taken.
    assert 1 <= len(manager.calls) <= 3


def test_a_client_that_reads_late_gets_all_its_answers(tmp_path: Path) -> None:
    manager = FakeManager(list={"a": "x" * MIB})
    with serving(tmp_path, manager) as server, Wire(server.path) as wire:
        for number in range(40):
            wire.request("list", number)
        for number in range(40):
            answer = wire.answer()
            assert (answer["id"], len(answer["result"]["a"])) == (number, MIB)


def test_an_answer_that_is_too_long_becomes_an_error(tmp_path: Path) -> None:
    manager = FakeManager(list={"a": "x" * 2000}, stats=1)
    with serving(tmp_path, manager, limits=Limits(answer=1000)) as server, Wire(server.path) as wire:
        assert wire.ask("list")["data"] == {"kind": "limit"}
        assert wire.ask("stats") == 1
        wire.send(b"[" + request(1, "list").strip() + b"," + request(2, "stats").strip() + b"]\n")
        first, second = wire.answer()
        assert first["error"]["data"] == {"kind": "limit"}
        assert second["result"] == 1


def test_messages_that_wait_are_few(tmp_path: Path) -> None:
    hold = Hold()
    with serving(tmp_path, FakeManager(host_remove=hold)) as server, Wire(server.path) as wire:
        wire.request("host.remove", 0, nqn=NQN)
        hold.wait()
        wire.socket.setblocking(False)
        number = 0
        try:
            while True:
                number += 1
                rest = request(number)
                assert wire.socket.send(rest) == len(rest)
        except BlockingIOError:
            pass
        hold.end()
        wire.socket.settimeout(60)
        # Not one of them is lost.
        assert [wire.answer()["id"] for _ in range(number)] == list(range(number))


def test_while_a_command_runs_a_line_without_end_does_not_grow(tmp_path: Path) -> None:
    hold = Hold()
    with serving(tmp_path, FakeManager(host_remove=hold)) as server, Wire(server.path) as wire:
        wire.request("host.remove", nqn=NQN)
        hold.wait()
        wire.socket.setblocking(False)
        sent = 0
        with contextlib.suppress(BlockingIOError):
            while sent < 64 * MIB:
                sent += wire.socket.send(b" " * (64 << 10))
        assert sent < 8 * MIB
        wire.socket.settimeout(60)
        hold.end()
        assert wire.answer()["result"] is None
        assert wire.kind() == "limit"
        assert wire.answer() is None


@pytest.mark.parametrize(
    "line",
    [
        b'{"a":1,' + b",".join(b'"%d":1' % number for number in range(90_000)) + b',"a":1}',
        b'{"jsonrpc":"2.0","id":1,"method":"' + b"x" * 1_000_000 + b'"}',
        b'{"jsonrpc":"2.0","id":1,"' + b"x" * 1_000_000 + b'":1}',
        b'{"jsonrpc":"2.0","id":1,"method":"host.remove","params":{"' + b"x" * 1_000_000 + b'":1}}',
        b'{"jsonrpc":"2.0","id":1,"method":"host.remove","params":{"nqn":"' + b"x" * 1_000_000 + b'"}}',
        b'{"jsonrpc":"2.0","id":1,"method":"host.remove","params":{"nqn":[' + b"[]," * 300_000 + b"1]}}",
    ],
    ids=["names", "method", "member", "parameter", "value", "list"],
)
def test_a_long_message_of_nonsense_is_told_in_few_words(shared: Path, line: bytes) -> None:
    with Wire(shared) as wire:
        wire.send(line + b"\n")
        error = wire.answer()["error"]
        assert error["data"]["kind"] in ("parse", "request", "method", "params")
        assert len(error["message"]) <= 500


def test_a_client_that_vanishes_has_its_command_carried_out(tmp_path: Path) -> None:
    hold = Hold()
    manager = FakeManager(host_remove=hold)
    with serving(tmp_path, manager) as server, Wire(server.path) as other:
        assert other.ask("version")
        before = descriptors()
        for number in range(20):
            with Wire(server.path) as wire:
                wire.request("host.remove", number, nqn=NQN)
                wire.request("version")
                hold.wait()
            hold.end()
        # The server may still have to hear of the last one.
        wait_until(lambda: descriptors() == before, "the descriptors of clients that are gone")
        assert other.ask("version")
    assert len(manager.calls) == 20


def test_what_came_whole_is_carried_out_and_half_a_message_is_not(tmp_path: Path) -> None:
    manager = FakeManager()
    with serving(tmp_path, manager) as server, Wire(server.path) as other:
        with Wire(server.path) as wire:
            for _ in range(100):
                wire.notify("host.remove", nqn=NQN)
            wire.send(b'{"jsonrpc": "2.0", "method": "host.remove", "params": {"nqn": "a"}, "id": 1')
        wait_until(lambda: len(manager.calls) == 100, "what a client sent before it went")
        assert other.ask("list") is None
    assert len(manager.calls) == 101


def test_one_client_too_many_is_told_and_closed(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        wires = [Wire(server.path) for _ in range(64)]
        for wire in wires:
            assert wire.ask("version")
        with Wire(server.path) as late:
            assert late.kind() == "limit"
            assert late.answer() is None
        with pytest.raises(DeviceError, match="64 clients"), Client(server.path) as client:
            client.version()
        wires.pop().close()

        def served() -> bool:
            with Wire(server.path) as wire:
                return "name" in (wire.ask("version") or {})

        wait_until(served, "the place of a client that is gone")
        for wire in wires:
            assert wire.ask("version")
            wire.close()


def test_another_user_is_told_and_closed_and_does_not_take_a_place(tmp_path: Path) -> None:
    peers = iter([Peer(1, os.geteuid() + 1, 0), Peer(1, 65534, 0), Peer(1, os.geteuid(), 0), Peer(1, 0, 0)])
    limits = Limits(clients=2)
    manager = FakeManager()
    with serving(tmp_path, manager, peer=lambda _: next(peers), limits=limits) as server:
        for _ in range(2):
            with Wire(server.path) as stranger:
                send_until_refused(stranger, request(1, "list"))
                assert stranger.kind() == "access"
                assert stranger.answer() is None
        with Wire(server.path) as owner, Wire(server.path) as root:
            assert owner.ask("version")
            assert root.ask("version")
    assert manager.calls == []


def test_who_cannot_be_told_is_refused(tmp_path: Path) -> None:
    def unknown(_: socket.socket) -> Peer:
        raise OSError(errno.ENOPROTOOPT, "Protocol not available")

    with serving(tmp_path, peer=unknown) as server, Wire(server.path) as wire:
        assert wire.kind() == "access"


def test_the_kernel_says_who_has_connected(tmp_path: Path) -> None:
    seen: list[Peer] = []

    def note(connection: socket.socket) -> Peer:
        from nvmet_vdev.control import listener

        seen.append(listener.peer(connection))
        return seen[-1]

    with serving(tmp_path, peer=note) as server, Wire(server.path) as wire:
        assert wire.ask("version")["pid"] == os.getpid()
    assert seen == [Peer(os.getpid(), os.geteuid(), os.getegid())]


@pytest.fixture
def no_descriptors_left() -> Iterator[Any]:
    """A function after which this process can open nothing more, until the end of the test."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken: list[int] = []

    def take() -> None:
        highest = max(int(path.name) for path in Path("/proc/self/fd").iterdir())
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 8, before[1]))
        try:
            while True:
                taken.append(os.open("/dev/null", os.O_RDONLY))
        except OSError as error:
            assert error.errno == errno.EMFILE  # noqa: PT017

    def give() -> None:
        for descriptor in taken:
            os.close(descriptor)
        taken.clear()
        resource.setrlimit(resource.RLIMIT_NOFILE, before)

    yield take, give
    give()


def test_without_descriptors_clients_wait_and_those_that_are_there_are_served(
    tmp_path: Path, no_descriptors_left: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nvmet_vdev.control import server as module

    monkeypatch.setattr(module, "_ACCEPT_PAUSE", 0.01)
    take, give = no_descriptors_left
    with serving(tmp_path) as server, Wire(server.path) as good:
        assert good.ask("version")
        waiting = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        take()
        waiting.connect(str(server.path))
        waiting.sendall(request(5))
        assert good.ask("version")
        give()
        waiting.settimeout(60)
        assert json.loads(waiting.recv(4096))["id"] == 5
        waiting.close()


def test_a_server_leaves_nothing_open(tmp_path: Path) -> None:
    before = descriptors()
    for _ in range(5):
        server = ControlServer(FakeManager(), tmp_path / "s")
        wires = [Wire(server.path) for _ in range(10)]
        for wire in wires:
            assert wire.ask("list") is None
        server.close()
        server.close()
        for wire in wires:
            assert wire.answer() is None
            wire.close()
    assert descriptors() == before
    assert list(tmp_path.iterdir()) == []


def test_a_bug_in_the_server_costs_that_client_its_connection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from nvmet_vdev.control import protocol

    real = protocol.parse

    def parse(line: bytes) -> protocol.Message:
        return real(line) if b"boom" not in line else 1 / 0  # type: ignore[return-value]

    monkeypatch.setattr(protocol, "parse", parse)
    with serving(tmp_path) as server, Wire(server.path) as good, Wire(server.path) as bad:
        bad.send(b"boom\n")
        assert bad.answer() is None
        assert good.ask("version")
    assert "ZeroDivisionError" in caplog.text
