"""What a server does for clients that keep to the protocol."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nvmet_vdev import ConfigError, DeviceError, __version__
from nvmet_vdev.control.methods import METHODS
from tests.control.fakes import NQN, FakeManager, Hold, Wire, serving


def test_a_method_is_the_managers_and_its_result_the_answer(tmp_path: Path) -> None:
    manager = FakeManager(namespace_add=7, list={"hosts": []})
    with serving(tmp_path, manager) as server, Wire(server.path) as wire:
        assert wire.ask("namespace.add", nqn=NQN, backend="ram:1M", create="1M") == 7
        assert wire.ask("list") == {"hosts": []}
        assert wire.ask("ana.set", portid=1, grpid=2, state="optimized") is None
    assert manager.calls == [
        ("namespace_add", {"nqn": NQN, "backend": "ram:1M", "create": 1 << 20}),
        ("list", {}),
        ("ana_set", {"portid": 1, "grpid": 2, "state": "optimized"}),
    ]


def test_it_says_what_it_is_and_what_it_can_do(tmp_path: Path) -> None:
    with serving(tmp_path) as server, Wire(server.path) as wire:
        assert wire.ask("version")["version"] == __version__
        assert [method["name"] for method in wire.ask("rpc.methods")] == list(METHODS)


@pytest.mark.parametrize(
    ("error", "code", "kind"),
    [
        (ConfigError("no such namespace"), -32000, "config"),
        (DeviceError("it broke"), -32001, "device"),
        (OSError(28, "No space left on device"), -32001, "device"),
        (ZeroDivisionError("oh"), -32603, "internal"),
        (KeyboardInterrupt(), -32603, "internal"),
        (SystemExit(1), -32603, "internal"),
    ],
)
def test_what_a_method_raises_is_an_error_with_its_kind(
    tmp_path: Path, error: BaseException, code: int, kind: str
) -> None:
    with serving(tmp_path, FakeManager(health=error)) as server, Wire(server.path) as wire:
        found = wire.ask("health")
        assert found["code"] == code
        assert found["data"] == {"kind": kind}
        assert str(error) in found["message"]
        assert "\n" not in found["message"]
        assert wire.ask("list") is None


def test_an_unknown_method_is_named(tmp_path: Path) -> None:
    with serving(tmp_path) as server, Wire(server.path) as wire:
        found = wire.ask("namespace.ad")
        assert found["code"] == -32601
        assert found["message"] == "there is no method 'namespace.ad'; rpc.methods lists them"


def test_a_result_that_is_no_json_is_an_internal_error(tmp_path: Path) -> None:
    ring: list[Any] = []
    ring.append(ring)
    with serving(tmp_path, FakeManager(list=lambda: ring)) as server, Wire(server.path) as wire:
        assert wire.ask("list")["data"] == {"kind": "internal"}
        assert wire.ask("version")


def test_a_notification_is_carried_out_and_not_answered(tmp_path: Path) -> None:
    manager = FakeManager(host_remove=ConfigError("no"))
    with serving(tmp_path, manager) as server, Wire(server.path) as wire:
        wire.notify("host.remove", nqn=NQN)
        wire.notify("no.such")
        wire.notify("host.remove")
        assert wire.ask("list") is None
    assert [name for name, _ in manager.calls] == ["host_remove", "list"]


def test_a_batch_is_carried_out_in_order_and_answered_at_once(tmp_path: Path) -> None:
    manager = FakeManager(namespace_add=3, health=ConfigError("no"))
    with serving(tmp_path, manager) as server, Wire(server.path) as wire:
        batch = [
            {"jsonrpc": "2.0", "method": "namespace.add", "params": {"nqn": NQN, "backend": "x"}, "id": 1},
            {"jsonrpc": "2.0", "method": "list"},
            {"jsonrpc": "2.0", "method": "health", "id": "h"},
            5,
            {"jsonrpc": "2.0", "method": "version", "id": None},
        ]
        wire.send(json.dumps(batch).encode() + b"\n")
        answers = wire.answer()
        assert [answer["id"] for answer in answers] == [1, "h", None, None]
        assert answers[0]["result"] == 3
        assert answers[1]["error"]["data"]["kind"] == "config"
        assert answers[2]["error"]["data"]["kind"] == "request"
        assert answers[3]["result"]["name"] == "nvmet-vdev"
        wire.send(json.dumps([{"jsonrpc": "2.0", "method": "list"}]).encode() + b"\n")
        wire.request("version", 9)
        assert wire.answer()["id"] == 9
    assert [name for name, _ in manager.calls] == ["namespace_add", "list", "health", "list"]


def test_blank_lines_and_carriage_returns_are_nothing(tmp_path: Path) -> None:
    with serving(tmp_path) as server, Wire(server.path) as wire:
        wire.send(b'\n\r\n  \n{"jsonrpc": "2.0", "method": "version", "id": 1}\r\n\n')
        assert wire.answer()["id"] == 1
        assert wire.ask("version")


def test_the_last_newline_may_be_left_out_by_who_half_closes(tmp_path: Path) -> None:
    with serving(tmp_path) as server, Wire(server.path) as wire:
        wire.send(b'{"jsonrpc": "2.0", "method": "list", "id": 1}')
        wire.half_close()
        assert wire.answer()["id"] == 1
        assert wire.answer() is None


def test_requests_of_a_client_are_answered_in_their_order(tmp_path: Path) -> None:
    with serving(tmp_path, FakeManager(list=1, namespace_add=2)) as server, Wire(server.path) as wire:
        for number in range(300):
            match number % 3:
                case 0:
                    wire.request("list", number)
                case 1:
                    wire.request("namespace.add", number, nqn=NQN, backend="x")
                case 2:
                    wire.request("version", number)
        assert [wire.answer()["id"] for _ in range(300)] == list(range(300))


def test_a_long_change_keeps_nobody_from_asking(tmp_path: Path) -> None:
    hold = Hold()
    manager = FakeManager(namespace_disable=hold, list={"a": 1})
    with serving(tmp_path, manager) as server, Wire(server.path) as busy, Wire(server.path) as other:
        busy.request("namespace.disable", nqn=NQN, nsid=1)
        hold.wait()
        assert other.ask("version")
        assert other.ask("list") == {"a": 1}
        hold.end()
        assert busy.answer()["result"] is None


def test_changes_of_all_clients_come_one_after_the_other(tmp_path: Path) -> None:
    hold = Hold()
    manager = FakeManager(namespace_disable=hold)
    with serving(tmp_path, manager) as server, Wire(server.path) as first, Wire(server.path) as second:
        first.request("namespace.disable", nqn=NQN, nsid=1)
        hold.wait()
        second.request("namespace.disable", nqn=NQN, nsid=2)
        second.request("version")
        assert not hold.begun.acquire(blocking=False)
        hold.end()
        assert first.answer()["result"] is None
        hold.wait()
        hold.end()
        assert second.answer()["result"] is None
        assert second.answer()["result"]["protocol"] == 1


def test_many_clients_at_once_get_what_they_ask_for(tmp_path: Path) -> None:
    manager = FakeManager(reservation_show=lambda **given: given["nsid"])
    failures: list[BaseException] = []

    def work(path: Path, base: int) -> None:
        try:
            with Wire(path) as wire:
                for number in range(base, base + 50):
                    assert wire.ask("reservation.show", nqn=NQN, nsid=number) == number
        except BaseException as error:
            failures.append(error)

    with serving(tmp_path, manager) as server:
        threads = [threading.Thread(target=work, args=(server.path, 1 + 100 * n)) for n in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert failures == []
    assert len(manager.calls) == 16 * 50


def test_a_shutdown_is_answered_and_then_told(tmp_path: Path) -> None:
    told = threading.Event()
    with serving(tmp_path, shutdown=told.set) as server, Wire(server.path) as wire:
        assert wire.ask("shutdown", no="such")["data"] == {"kind": "params"}
        assert not told.is_set()
        assert wire.ask("shutdown") is None
        assert told.wait(60)


def test_a_shutdown_is_possible_while_a_change_hangs(tmp_path: Path) -> None:
    told, hold = threading.Event(), Hold()
    from nvmet_vdev.control.limits import Limits

    with serving(
        tmp_path, FakeManager(host_remove=hold), shutdown=told.set, limits=Limits(stopping=0.01)
    ) as server:
        with Wire(server.path) as busy, Wire(server.path) as other:
            busy.request("host.remove", nqn=NQN)
            hold.wait()
            other.notify("shutdown")
            assert told.wait(60)
        server.close()
        assert not server.path.exists()
        hold.end()


def test_the_end_lets_what_runs_end_and_answers_it_and_begins_nothing(tmp_path: Path) -> None:
    hold = Hold()
    manager = FakeManager(host_remove=hold)
    with serving(tmp_path, manager) as server, Wire(server.path) as wire, Wire(server.path) as idle:
        wire.request("host.remove", 1, nqn=NQN)
        wire.request("host.remove", 2, nqn=NQN)
        hold.wait()
        closing = threading.Thread(target=server.close)
        closing.start()
        assert idle.answer() is None
        assert not server.path.exists()
        hold.end()
        assert wire.answer()["id"] == 1
        assert wire.answer() is None
        closing.join()
    assert len(manager.calls) == 1


def test_the_configuration_is_saved_where_it_came_from_unless_it_is_told_where(tmp_path: Path) -> None:
    manager = FakeManager()
    with serving(tmp_path, manager) as server, Wire(server.path) as wire:
        assert "say a path" in wire.ask("config.save")["message"]
        assert wire.ask("config.save", path="/x.json") is None
    with serving(tmp_path, manager, config_path=Path("/from.toml")) as server, Wire(server.path) as wire:
        assert wire.ask("config.save") is None
    assert manager.calls == [("save", {"path": "/x.json"}), ("save", {"path": "/from.toml"})]


NUMBERS = st.integers(0, 1 << 40) | st.text(max_size=5)
METHOD = st.sampled_from(["version", "list", "stats", "host.remove", "no.such"])
REQUEST = st.builds(
    lambda method, number, notification: (
        {"jsonrpc": "2.0", "method": method} | ({} if notification else {"id": number})
    ),
    METHOD,
    NUMBERS,
    st.booleans(),
)
BROKEN = st.sampled_from([1, None, "x", {}, {"id": 5}, {"jsonrpc": "2.0"}])
MESSAGES = st.lists(REQUEST | BROKEN | st.lists(REQUEST | BROKEN, min_size=1, max_size=5), max_size=8)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(MESSAGES)
def test_each_request_gets_exactly_one_answer_and_notifications_none(
    shared: Path, messages: list[Any]
) -> None:
    def wanted(item: Any) -> list[Any]:
        if isinstance(item, dict) and "method" in item:
            return [item["id"]] if "id" in item else []
        number = item.get("id") if isinstance(item, dict) else None
        return [number]

    expected = []
    for message in messages:
        if isinstance(message, list):
            expected += [ids] if (ids := [one for item in message for one in wanted(item)]) else []
        else:
            expected += wanted(message)
    with Wire(shared) as wire:
        wire.send(b"".join(json.dumps(message).encode() + b"\n" for message in messages))
        wire.half_close()
        found = []
        while (answer := wire.answer()) is not None:
            found.append([one["id"] for one in answer] if isinstance(answer, list) else answer["id"])
    assert found == expected


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.binary(max_size=60), max_size=20))
def test_arbitrary_bytes_harm_nobody(shared: Path, chunks: list[bytes]) -> None:
    with Wire(shared) as good:
        with Wire(shared) as bad:
            for chunk in chunks:
                bad.send(chunk)
            bad.half_close()
            while (answer := bad.answer()) is not None:
                assert answer["error"]["data"]["kind"] in ("parse", "request")
        assert good.ask("version")["name"] == "nvmet-vdev"
