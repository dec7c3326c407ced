"""The target driven from Python: what comes and goes at run time, counters, events, waiting."""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import json
import os
import select
import signal
import socket as sockets
import struct
import subprocess
import threading
import time
import uuid
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from nvmet_vdev import (
    Backend,
    ConfigError,
    Controller,
    ControllerStats,
    DeviceError,
    Host,
    Namespace,
    Subsystem,
    Target,
    _nvmet,
    open_disk,
)
from tests.product import PATIENCE, PROGRAM, environment, wait_until

MIB = 1 << 20


class Memory(Backend):
    """A RAM drive in Python."""

    def __init__(self, size: int = MIB) -> None:
        self.data = bytearray(size)
        self.calls: list[str] = []

    @property
    def size(self) -> int:
        return len(self.data)

    def open(self) -> None:
        self.calls.append("open")

    def close(self) -> None:
        self.calls.append("close")

    def read(self, offset: int, buf: memoryview) -> None:
        buf[:] = self.data[offset : offset + len(buf)]

    def write(self, offset: int, buf: memoryview, fua: bool) -> None:  # noqa: ARG002 - memory is all there is
        self.data[offset : offset + len(buf)] = buf

    def resize(self, size: int) -> None:
        if size > 8 * MIB:
            raise OSError(28, "no room for that much")
        self.data = self.data[:size].ljust(size, b"\0")


@pytest.fixture
def target() -> Iterator[Target]:
    with Target() as running:
        yield running


@contextlib.contextmanager
def attached(path: Path) -> Iterator[sockets.socket]:
    """A client that has said which version of vfio-user it speaks, and does nothing else."""
    with sockets.socket(sockets.AF_UNIX) as client:
        client.settimeout(PATIENCE)
        client.connect(str(path))
        payload = struct.pack("<HH", 0, 1) + b"{}\0"
        client.sendall(struct.pack("<HHIII", 0, 1, 16 + len(payload), 0, 0) + payload)
        assert len(client.recv(4096)) > 16
        yield client


def identify(controller: Controller) -> dict[str, Any]:
    """What the drive says of itself; a client that attaches and leaves."""
    assert controller.socket is not None
    found: dict[str, Any] = json.loads(_nvmet.identify(controller.socket))
    return found


def sizes(controller: Controller) -> dict[int, int]:
    """Bytes of each namespace that a guest sees."""
    return {ns["nsid"]: ns["size"] for ns in identify(controller)["namespaces"]}


def test_a_subsystem_is_made_when_the_first_thing_needs_it(target: Target, tmp_path: Path) -> None:
    assert list(target.subsystems) == []
    namespace = target.add_namespace("ram:1M")
    controller = target.listen(tmp_path / "a.sock")
    (subsystem,) = target.subsystems
    assert namespace.subsystem is subsystem
    assert controller.subsystem is subsystem
    assert subsystem.namespaces == target.namespaces == (namespace,)
    assert subsystem.controllers == target.controllers == (controller,)
    assert (namespace.nsid, namespace.size, namespace.block_size, namespace.read_only) == (1, MIB, 512, False)
    assert namespace.description == "ram, 1M"
    assert controller.socket == str(tmp_path / "a.sock")
    found = identify(controller)
    assert found["controller"]["serial"] == subsystem.serial
    assert found["controller"]["subnqn"] == subsystem.nqn
    assert sizes(controller) == {1: MIB}


def test_names_are_those_that_were_given(target: Target, tmp_path: Path) -> None:
    subsystem = target.add_subsystem(
        serial="S1", nqn="nqn.2024-01.org.example:one", model="Disk", firmware="7"
    )
    name = uuid.UUID(int=5)
    subsystem.add_namespace("ram:1M", uuid=name, nsid=7)
    host = Host("nqn.2024-01.org.example:host", uuid.UUID(int=9))
    controller = subsystem.listen(tmp_path / "a.sock", hostnqn=host.nqn, hostid=host.id)
    assert controller.host == host
    found = identify(controller)
    assert found["controller"] | {"serial": "S1", "model": "Disk", "firmware": "7"} == found["controller"]
    assert found["controller"]["subnqn"] == subsystem.nqn == "nqn.2024-01.org.example:one"
    assert [(ns["nsid"], uuid.UUID(ns["uuid"])) for ns in found["namespaces"]] == [(7, name)]


def test_a_controller_has_a_host_that_stays_the_same_and_differs_from_others(tmp_path: Path) -> None:
    def hosts() -> list[Host]:
        with Target() as target:
            subsystem = target.add_subsystem(serial="S1")
            return [subsystem.listen(tmp_path / name).host for name in ("a.sock", "b.sock")]

    first = hosts()
    assert first == hosts()
    assert first[0].id != first[1].id
    assert first[0].nqn.startswith("nqn.")


def test_namespaces_come_and_go_and_numbers_are_given_again(target: Target, tmp_path: Path) -> None:
    one, two = target.add_namespace("ram:1M"), target.add_namespace("ram:2M")
    controller = target.listen(tmp_path / "a.sock")
    assert sizes(controller) == {1: MIB, 2: 2 * MIB}
    one.remove()
    assert sizes(controller) == {2: 2 * MIB}
    three = target.add_namespace("ram:3M")
    assert (three.nsid, two.nsid) == (1, 2)
    assert sizes(controller) == {1: 3 * MIB, 2: 2 * MIB}
    for refused in (one.remove, one.resize, lambda: one.size):
        with pytest.raises(ConfigError, match="has been removed"):
            refused()
    assert target.namespaces == (three, two)


def test_a_namespace_is_made_of_a_spec_a_path_storage_or_an_object(target: Target, tmp_path: Path) -> None:
    os.truncate(os.open(tmp_path / "ram:", os.O_CREAT | os.O_WRONLY), MIB)
    backend = Memory(2 * MIB)
    target.add_namespace(tmp_path / "ram:", block_size=4096)
    target.add_namespace(open_disk("null:3M"), read_only=True)
    target.add_namespace(backend)
    target.add_namespace(tmp_path / "new.img", create=4 * MIB)
    assert [(ns.size // MIB, ns.block_size, ns.read_only) for ns in target.namespaces] == [
        (1, 4096, False),
        (3, 512, True),
        (2, 512, False),
        (4, 512, False),
    ]
    assert backend.calls == ["open"]
    assert (tmp_path / "new.img").stat().st_size == 4 * MIB
    target.shutdown()
    assert backend.calls == ["open", "close"]


def test_a_file_has_its_uuid_wherever_it_is_served(tmp_path: Path) -> None:
    def name(serial: str) -> str:
        with Target() as target:
            subsystem = target.add_subsystem(serial=serial)
            path = tmp_path / "disk.img"
            subsystem.add_namespace(path, create=None if path.exists() else MIB)
            found: str = identify(subsystem.listen(tmp_path / "a.sock"))["namespaces"][0]["uuid"]
            return found

    assert name("S1") == name("S2")


def test_what_cannot_be_is_one_line_and_leaves_nothing_behind(target: Target, tmp_path: Path) -> None:
    target.add_namespace("ram:1M")
    other = Target()
    foreign = other.add_subsystem()
    cases: list[tuple[Callable[[], object], str]] = [
        (lambda: Target(workers=0), "workers"),
        (lambda: Target(wait="never"), "use poll, adaptive or event"),
        (lambda: target.add_namespace("ram:1000"), "multiple of the block size"),
        (lambda: target.add_namespace("ram:1M", nsid=1), "it is taken"),
        (lambda: target.add_namespace("ram:1M", nsid=1025), "use 1 to 1024"),
        (lambda: target.add_namespace("ram:1M", block_size=1024), "use 512 or 4096"),
        (lambda: target.add_namespace(tmp_path / "missing"), "no such file"),
        (lambda: target.add_namespace(Memory(), create=MIB), "only the path of a file"),
        (lambda: target.add_namespace(object()), "read"),
        (lambda: target.add_subsystem(serial="x" * 21), "1 to 20 printable"),
        (lambda: target.add_subsystem(serial="S", nqn=target.subsystems[0].nqn), "has it already"),
        (lambda: target.listen(), "either a socket path or a file descriptor"),
        (lambda: target.listen(tmp_path / "no" / "a.sock"), "a.sock"),
        (lambda: target.listen(tmp_path / "a.sock", queues=512), "queues"),
        (lambda: target.listen(tmp_path / "a.sock", hostid=uuid.UUID(int=0)), "any value but zero"),
        (lambda: target.listen(tmp_path / "a.sock", subsystem=foreign), "of another target"),
        (lambda: target.shutdown(float("nan")), "not a number of seconds"),
    ]
    for attempt, words in cases:
        with pytest.raises(ConfigError) as caught:
            attempt()
        assert words in str(caught.value)
        assert "\n" not in str(caught.value)
    assert len(target.namespaces) == 1
    assert target.controllers == ()
    assert list(tmp_path.iterdir()) == []
    other.shutdown()


def test_a_file_grows_and_shrinks_while_it_is_served(target: Target, tmp_path: Path) -> None:
    path = tmp_path / "disk.img"
    namespace = target.add_namespace(path, create=4 * MIB)
    controller = target.listen(tmp_path / "a.sock")
    for size in (8 * MIB, MIB):
        namespace.resize(size)
        assert namespace.size == path.stat().st_size == size
        assert sizes(controller) == {1: size}
    os.truncate(path, 3 * MIB)
    assert namespace.size == MIB
    namespace.resize()
    assert namespace.size == 3 * MIB
    with pytest.raises(ConfigError, match="multiple of the block size 512"):
        namespace.resize(1000)
    assert namespace.size == path.stat().st_size == 3 * MIB


def test_a_backend_in_python_is_resized_and_tells_of_its_own_sizes(target: Target, tmp_path: Path) -> None:
    backend = Memory(4 * MIB)
    namespace = target.add_namespace(backend)
    controller = target.listen(tmp_path / "a.sock")
    namespace.resize(2 * MIB)
    assert (namespace.size, len(backend.data), sizes(controller)) == (2 * MIB, 2 * MIB, {1: 2 * MIB})
    backend.data = bytearray(6 * MIB)
    assert namespace.size == 2 * MIB
    backend.notify_resize()
    assert (namespace.size, sizes(controller)) == (6 * MIB, {1: 6 * MIB})
    with pytest.raises(ConfigError, match="no room for that much"):
        namespace.resize(16 * MIB)
    with pytest.raises(ConfigError, match="multiple of"):
        namespace.resize(1000)
    assert namespace.size == 6 * MIB
    namespace.remove()
    # Nobody hears of it any more.
    backend.notify_resize()


def test_ram_keeps_its_size(target: Target) -> None:
    namespace = target.add_namespace("ram:1M")
    with pytest.raises(ConfigError, match="keeps the size it has"):
        namespace.resize(2 * MIB)
    assert namespace.size == MIB


def test_a_removed_backend_is_closed(target: Target) -> None:
    backend = Memory()
    namespace = target.add_namespace(backend)
    namespace.remove()
    wait_until(lambda: backend.calls == ["open", "close"], "the backend is closed")


def test_a_controller_is_closed_and_its_socket_goes_and_another_one_takes_its_place(
    target: Target, tmp_path: Path
) -> None:
    target.add_namespace("ram:1M")
    controller = target.listen(tmp_path / "a.sock")
    with attached(tmp_path / "a.sock") as client:
        assert controller.attached
        controller.close()
        assert client.recv(1) == b""
    assert not (tmp_path / "a.sock").exists()
    assert target.controllers == ()
    controller.close()
    with pytest.raises(ConfigError, match="has been closed"):
        controller.stats()
    again = target.listen(tmp_path / "a.sock")
    assert again.id != controller.id
    assert sizes(again) == {1: MIB}


def test_an_inherited_socket_is_served(target: Target, tmp_path: Path) -> None:
    target.add_namespace("ram:1M")
    with sockets.socket(sockets.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "a.sock"))
        listener.listen()
        controller = target.listen(fd=listener.fileno())
    assert controller.socket is None
    assert json.loads(_nvmet.identify(str(tmp_path / "a.sock")))["namespaces"][0]["size"] == MIB


def bench(path: Path, cwd: Path) -> None:
    command = [PROGRAM, "bench", str(path), "--rw", "randread", "--runtime", "0.2"]
    subprocess.run(command, check=True, capture_output=True, env=environment(cwd), timeout=PATIENCE)


def test_counters_are_those_of_each_controller(target: Target, tmp_path: Path) -> None:
    target.add_namespace("ram:1M")
    busy, idle = (target.listen(tmp_path / name) for name in ("a.sock", "b.sock"))
    assert target.stats().total == ControllerStats()
    bench(tmp_path / "a.sock", tmp_path)
    stats = target.stats()
    assert stats.controllers.keys() == {busy, idle}
    assert stats.controllers[idle] == idle.stats() == ControllerStats()
    counted = stats.controllers[busy]
    assert counted == busy.stats() == stats.total
    assert counted.reads == counted.completions > 0
    assert counted.bytes_read == counted.reads * 4096
    assert (counted.writes, counted.errors, counted.media_errors) == (0, 0, 0)
    with pytest.raises(dataclasses.FrozenInstanceError):
        counted.reads = 0  # type: ignore[misc]


def is_attached(controller: Controller) -> bool:
    """As it is now, which mypy takes for constant."""
    return controller.attached


def test_events_say_who_comes_and_goes(target: Target, tmp_path: Path) -> None:
    target.add_namespace("ram:1M")
    controller = target.listen(tmp_path / "a.sock")
    assert target.next_event(0) is None
    assert not is_attached(controller)
    with attached(tmp_path / "a.sock"):
        event = target.next_event(PATIENCE)
        assert event is not None
        assert (event.kind, event.controller) == ("attached", controller)
        assert is_attached(controller)
    assert select.select([target], [], [], PATIENCE)[0] == [target]
    event = target.next_event(PATIENCE)
    assert event is not None
    assert (event.kind, event.controller) == ("detached", controller)
    assert not is_attached(controller)
    assert target.next_event(0) is None


def test_wait_ends_when_another_thread_shuts_the_target_down() -> None:
    target = Target()
    assert target.wait(0.01) is False
    thread = threading.Thread(target=target.shutdown)
    thread.start()
    assert target.wait(PATIENCE) is True
    assert target.next_event() is None
    thread.join()
    assert target.wait() is True


def test_signals_are_handled_while_a_target_waits(target: Target) -> None:
    seen: list[int] = []
    before = signal.signal(signal.SIGUSR1, lambda number, _: seen.append(number))
    try:
        # To this very thread, and to the process, whichever thread takes it.
        for send in (
            lambda: signal.raise_signal(signal.SIGUSR1),
            lambda: os.kill(os.getpid(), signal.SIGUSR1),
        ):
            seen.clear()
            timer = threading.Timer(0.05, send)
            timer.start()
            while not seen:
                assert target.wait(0.5) is False
            timer.join()
        with pytest.raises(KeyboardInterrupt):  # noqa: PT012 - it may come as soon as the timer runs
            threading.Timer(0.05, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
            target.wait(PATIENCE)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert signal.set_wakeup_fd(-1) == -1, "the descriptor that woke us is not left behind"


def test_a_handler_may_shut_the_target_down_that_is_waited_for() -> None:
    with Target() as target:
        before = signal.signal(signal.SIGTERM, lambda *_: target.shutdown())
        try:
            threading.Timer(0.05, lambda: os.kill(os.getpid(), signal.SIGTERM)).start()
            assert target.wait(PATIENCE) is True
        finally:
            signal.signal(signal.SIGTERM, before)


def test_after_the_shutdown_handles_refuse_and_a_second_one_does_nothing(tmp_path: Path) -> None:
    with Target() as target:
        namespace = target.add_namespace(tmp_path / "disk.img", create=MIB)
        controller = target.listen(tmp_path / "a.sock")
    target.shutdown()
    assert not (tmp_path / "a.sock").exists()
    subsystem = target.subsystems[0]
    refused: list[Callable[[], object]] = [
        target.fileno,
        target.stats,
        target.add_subsystem,
        lambda: target.add_namespace("ram:1M"),
        lambda: subsystem.add_namespace("ram:1M"),
        lambda: target.listen(tmp_path / "a.sock"),
        lambda: subsystem.listen(tmp_path / "a.sock"),
        lambda: namespace.size,
        namespace.resize,
        namespace.remove,
        controller.stats,
        lambda: controller.attached,
    ]
    for call in refused:
        with pytest.raises(ConfigError) as caught:
            call()
        assert "\n" not in str(caught.value)
    controller.close()
    # The file is free: nothing has kept it.
    with Target() as again:
        assert again.add_namespace(tmp_path / "disk.img").size == MIB


def test_the_first_error_tells_and_the_shutdown_still_happens(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), Target() as target:  # noqa: PT012 - the body is the test
        target.add_namespace("ram:1M")
        target.listen(tmp_path / "a.sock")
        _ = 1 // 0
    assert not (tmp_path / "a.sock").exists()


class Hanging(Memory):
    """Its flush does not come back."""

    def __init__(self) -> None:
        super().__init__()
        self.release = threading.Event()

    def flush(self) -> None:
        self.release.wait()


def test_a_shutdown_has_its_limit_and_is_noted_with_the_error_of_the_block() -> None:
    backend = Hanging()
    target = Target()
    target.add_namespace(backend)
    with pytest.raises(DeviceError, match="the shutdown"):
        target.shutdown(0.2)
    backend.release.set()


def test_a_target_that_is_forgotten_ends_with_a_warning_and_all_its_threads(tmp_path: Path) -> None:
    def make(keep: list[Any]) -> None:
        target = Target()
        keep.append(target.add_namespace(Memory()))
        keep.append(target.listen(tmp_path / "a.sock"))

    before = threads()
    kept: list[Namespace | Subsystem] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        make(kept)
        gc.collect()
    assert [str(w.message) for w in caught if w.category is ResourceWarning] == [
        "<Target with 1 subsystems> was not shut down"
    ]
    assert not (tmp_path / "a.sock").exists()
    with pytest.raises(ConfigError):
        kept[0].subsystem.listen(tmp_path / "a.sock")  # type: ignore[union-attr]
    wait_until(lambda: threads() <= before, "the threads have ended")


def threads() -> set[str]:
    """This process's threads, Python's and others."""
    return {task.name for task in Path("/proc/self/task").iterdir()}


def test_targets_leave_no_threads_descriptors_or_memory_behind(tmp_path: Path) -> None:
    def round_trip() -> None:
        with Target(workers=2) as target:
            target.add_namespace(Memory())
            target.add_namespace("ram:1M").remove()
            controller = target.listen(tmp_path / "a.sock")
            assert sizes(controller) == {1: MIB}

    round_trip()
    gc.collect()
    descriptors = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - the names are the point
    before = threads()
    for _ in range(5):
        round_trip()
    wait_until(lambda: threads() <= before, "the threads have ended")
    gc.collect()
    wait_until(
        lambda: len(os.listdir("/proc/self/fd")) <= descriptors,  # noqa: PTH208
        "the descriptors are closed",
    )


def test_many_threads_may_use_one_target(target: Target, tmp_path: Path) -> None:
    errors: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for _ in range(10):
                namespace = target.add_namespace("ram:1M")
                controller = target.listen(tmp_path / f"{number}.sock")
                assert namespace in target.namespaces
                target.stats()
                controller.close()
                namespace.remove()
        except BaseException as error:
            errors.append(error)

    workers = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in workers:
        thread.start()
    for thread in workers:
        thread.join()
    assert errors == []
    assert [*target.namespaces, *target.controllers] == []


def test_a_wait_with_a_time_limit_uses_no_cpu(target: Target) -> None:
    before = time.process_time()
    assert target.wait(0.3) is False
    assert time.process_time() - before < 0.2


def test_a_shutdown_says_which_backend_was_not_closed_in_time() -> None:
    go_on = threading.Event()

    class Slow(Backend):
        size = 1 << 20

        def read(self, _offset: int, buf: memoryview) -> None:
            buf[:] = bytes(len(buf))

        def close(self) -> None:
            go_on.wait(60)

    target = Target()
    target.add_namespace(Slow())
    try:
        with pytest.raises(DeviceError, match=r"namespace 1 of nqn\..* was not closed within 0\.2 s"):
            target.shutdown(0.2)
    finally:
        go_on.set()
