"""`nvmet-vdev run` from outside: readiness, files, signals, resources."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import signal
import socket
import stat
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from nvmet_vdev import memlock as memlock_module
from tests.product import (
    PROGRAM,
    RAN_AS,
    OrdinaryUser,
    environment,
    ordinary_user,
    run,
    serve,
    wait_until,
)

MIB = 1 << 20


def identify(path: str, cwd: Path) -> Any:
    result = run("identify", path, "--output", "json", cwd=cwd)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def test_it_says_where_it_listens_and_how_to_attach(tmp_path: Path) -> None:
    path = tmp_path / "a b.sock"
    with serve("ram:1M", "--socket", path, cwd=tmp_path) as server:
        assert server.output == [f"listening on {path}"]
        assert server.stop() == 0
        text = "\n".join(server.output).replace(" \\\n", " ")
    qemu = shlex.split(next(line for line in text.splitlines() if "-device" in line))
    assert qemu[0].startswith("qemu-system-")
    assert "share=on" in qemu[qemu.index("-object") + 1]
    device = json.loads(qemu[qemu.index("-device") + 1])
    assert device == {"driver": "vfio-user-pci", "socket": {"type": "unix", "path": str(path)}}
    hypervisor = shlex.split(next(line for line in text.splitlines() if "--user-device" in line))
    assert hypervisor[hypervisor.index("--user-device") + 1] == f"socket={path}"
    assert "shared=on" in hypervisor[hypervisor.index("--memory") + 1]


def test_the_socket_is_for_its_owner_and_goes_with_the_server(tmp_path: Path) -> None:
    with serve("ram:1M", "--socket", "s", cwd=tmp_path) as server:
        found = (tmp_path / "s").stat()
        assert stat.S_ISSOCK(found.st_mode)
        assert stat.S_IMODE(found.st_mode) == 0o600
        assert server.stop() == 0
    assert not (tmp_path / "s").exists()


def test_without_a_socket_option_it_listens_in_the_runtime_directory(tmp_path: Path) -> None:
    with serve("my disk.img", "--create", "1M", cwd=tmp_path) as server:
        assert server.socket == str(tmp_path / "nvmet-vdev" / "my_disk.sock")
        assert stat.S_IMODE((tmp_path / "nvmet-vdev").stat().st_mode) == 0o700
        assert server.stop() == 0


def test_a_runtime_directory_open_to_others_is_not_used(tmp_path: Path) -> None:
    (tmp_path / "nvmet-vdev").mkdir()
    (tmp_path / "nvmet-vdev").chmod(0o777)
    result = run("run", "ram:1M", cwd=tmp_path)
    assert result.returncode == 2
    assert "private" in result.stderr


def test_a_stale_socket_is_replaced(tmp_path: Path) -> None:
    with serve("ram:1M", "--socket", "s", cwd=tmp_path) as server:
        server.stop(signal.SIGKILL)
    assert (tmp_path / "s").exists()
    with serve("ram:1M", "--socket", "s", cwd=tmp_path) as server:
        assert identify("s", tmp_path)["namespaces"]
        assert server.stop() == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_with_status_zero(tmp_path: Path, number: signal.Signals) -> None:
    with serve("ram:1M", "--socket", "s", cwd=tmp_path) as server:
        assert server.stop(number) == 0


def test_a_signal_ends_it_while_a_client_is_at_work(tmp_path: Path) -> None:
    with serve("ram:16M", "--socket", "s", cwd=tmp_path) as server:
        # What it has used to start, which is more on a busy machine.
        before = cpu_ticks(server.process.pid)
        load = subprocess.Popen(
            [PROGRAM, "bench", "s", "--runtime", "60", "--rw", "randwrite"],
            cwd=tmp_path,
            env=environment(tmp_path),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        wait_until(lambda: cpu_ticks(server.process.pid) > before + 20, "the load reaches the server")
        assert server.stop() == 0
        _, error = load.communicate(timeout=60)
        assert load.returncode == 1
        assert error.count("\n") == 1
        assert "Traceback" not in error


def cpu_ticks(pid: int) -> int:
    values = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(values[11]) + int(values[12])


def test_the_pidfile_is_there_when_it_is_ready_and_gone_afterwards(tmp_path: Path) -> None:
    with serve("ram:1M", "--socket", "s", "--pidfile", "pid", cwd=tmp_path) as server:
        assert (tmp_path / "pid").read_text() == f"{server.process.pid}\n"
        assert server.stop() == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["server.err"]


def test_a_pidfile_that_another_process_took_over_stays(tmp_path: Path) -> None:
    with serve("ram:1M", "--socket", "s", "--pidfile", "pid", cwd=tmp_path) as server:
        (tmp_path / "pid").write_text("1\n")
        assert server.stop() == 0
    assert (tmp_path / "pid").read_text() == "1\n"


@pytest.mark.parametrize("abstract", [False, True])
def test_the_service_manager_is_told(tmp_path: Path, abstract: bool) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        name = f"nvmet-vdev-test-{os.getpid()}" if abstract else str(tmp_path / "notify")
        manager.bind("\0" + name if abstract else name)
        manager.settimeout(60)
        with serve(
            "ram:1M", "--socket", "s", cwd=tmp_path, env={"NOTIFY_SOCKET": "@" + name if abstract else name}
        ) as server:
            assert manager.recv(100) == b"READY=1"
            assert server.stop() == 0
            assert manager.recv(100) == b"STOPPING=1"


def test_a_service_manager_that_is_gone_does_no_harm(tmp_path: Path) -> None:
    with serve(
        "ram:1M", "--socket", "s", cwd=tmp_path, env={"NOTIFY_SOCKET": str(tmp_path / "gone")}
    ) as server:
        assert server.stop() == 0


def test_it_stays_when_its_client_leaves(tmp_path: Path) -> None:
    with serve("ram:1M", "--socket", "s", cwd=tmp_path) as server:
        for _ in range(3):
            assert identify("s", tmp_path)["namespaces"]
        assert server.stop() == 0


def test_with_terminate_it_ends_when_its_client_leaves(tmp_path: Path) -> None:
    with serve("ram:1M", "--socket", "s", "--terminate", cwd=tmp_path) as server:
        assert identify("s", tmp_path)["namespaces"]
        assert server.finish() == 0
    assert not (tmp_path / "s").exists()


def test_it_takes_a_socket_that_listens_already(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen()
        with serve(
            "ram:1M", "--fd", str(listener.fileno()), cwd=tmp_path, pass_fds=[listener.fileno()]
        ) as server:
            assert server.socket == str(tmp_path / "s")
            assert identify("s", tmp_path)["namespaces"]
            assert server.stop() == 0
    # Who made the socket removes it.
    assert (tmp_path / "s").exists()


def test_disks_of_every_kind_become_namespaces_in_order(tmp_path: Path) -> None:
    (tmp_path / "old.img").write_bytes(bytes(3 * MIB))
    args = ("ram:1M", "old.img", "null:2G", "new.img")
    with serve(*args, "--create", "4M", "--socket", "s", "--serial", "SN 1", cwd=tmp_path) as server:
        drive = identify("s", tmp_path)
        assert server.stop() == 0
    assert drive["controller"]["serial"] == "SN 1"
    assert [one["nsid"] for one in drive["namespaces"]] == [1, 2, 3, 4]
    assert [one["size"] for one in drive["namespaces"]] == [MIB, 3 * MIB, 2 << 30, 4 * MIB]
    assert len({one["uuid"] for one in drive["namespaces"]}) == 4
    assert (tmp_path / "new.img").stat().st_size == 4 * MIB


def test_the_names_of_a_drive_stay_and_differ_from_those_of_another(tmp_path: Path) -> None:
    def names(*args: str) -> tuple[str, str, str]:
        with serve(*args, "--create", "1M", cwd=tmp_path) as server:
            drive = identify(server.socket, tmp_path)
            assert server.stop() == 0
        return drive["controller"]["serial"], drive["controller"]["subnqn"], drive["namespaces"][0]["uuid"]

    first = names("a.img", "--socket", "one.sock")
    again = names(str(tmp_path / "a.img"), "--socket", "two.sock")
    other = names("b.img", "--socket", "one.sock")
    assert first == again
    assert all(mine != theirs for mine, theirs in zip(first, other, strict=True))


def test_what_is_written_is_in_the_image(tmp_path: Path) -> None:
    with serve("disk.img", "--create", "8M", "--socket", "s", cwd=tmp_path) as server:
        result = run("bench", "s", "--verify", "--bs", "64k", cwd=tmp_path)
        assert result.returncode == 0, result.stderr
        assert server.stop() == 0
    content = (tmp_path / "disk.img").read_bytes()
    assert len(content) == 8 * MIB
    # The pattern differs from block to block: nothing landed twice, nothing is missing.
    blocks = [content[at : at + 512] for at in range(0, len(content), 512)]
    assert len(set(blocks)) == len(blocks)


def test_create_leaves_an_image_that_exists_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "disk.img").write_bytes(b"\x77" * MIB)
    with serve("disk.img", "--create", "8M", "--socket", "s", cwd=tmp_path) as server:
        assert identify("s", tmp_path)["namespaces"][0]["size"] == MIB
        assert server.stop() == 0
    assert (tmp_path / "disk.img").read_bytes() == b"\x77" * MIB


def test_a_read_only_drive_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "disk.img").write_bytes(b"\x77" * MIB)
    with serve("disk.img", "--read-only", "--socket", "s", cwd=tmp_path) as server:
        result = run("bench", "s", "--rw", "write", "--runtime", "0.1", cwd=tmp_path)
        assert result.returncode == 1
        assert result.stderr.count("\n") == 1
        assert run("bench", "s", "--rw", "read", "--runtime", "0.1", cwd=tmp_path).returncode == 0
        assert server.stop() == 0
    assert (tmp_path / "disk.img").read_bytes() == b"\x77" * MIB


@pytest.mark.parametrize("doorbells", ["auto", "trapped", "mapped"])
@pytest.mark.parametrize("block_size", ["512", "4096"])
def test_every_byte_comes_back(tmp_path: Path, doorbells: str, block_size: str) -> None:
    args = ("ram:8M", "--socket", "s", "--doorbells", doorbells, "--block-size", block_size, "--workers", "2")
    with serve(*args, cwd=tmp_path) as server:
        result = run("bench", "s", "--verify", "--numjobs", "3", cwd=tmp_path)
        assert result.returncode == 0, result.stderr
        assert server.stop() == 0


def test_a_drive_of_64_queues_fits_in_32_mib_with_the_interpreter(tmp_path: Path) -> None:
    with serve("null:1G", "--socket", "s", cwd=tmp_path) as server:
        result = run("bench", "s", "--numjobs", "64", "--iodepth", "1", "--runtime", "0.5", cwd=tmp_path)
        assert result.returncode == 0, result.stderr
        assert identify("s", tmp_path)["controller"]
        peak, unit = server.status("VmHWM").split()
        assert unit == "kB"
        assert int(peak) < 32 * 1024
        assert server.stop() == 0


def test_an_idle_drive_never_wakes_up(tmp_path: Path) -> None:
    with serve("ram:1M", "--socket", "s", cwd=tmp_path) as server:
        identify("s", tmp_path)
        tasks = Path(f"/proc/{server.process.pid}/task")

        def switches() -> dict[str, str]:
            return {
                task.name: next(
                    line
                    for line in (task / "status").read_text().splitlines()
                    if line.startswith("voluntary")
                )
                for task in tasks.iterdir()
            }

        # Whatever the last client left to do ends; after that not one thread runs again.
        def quiet() -> bool:
            before = switches()
            signal.sigtimedwait([], 0.5)
            return switches() == before

        wait_until(quiet, "an idle drive")
        assert server.stop() == 0


@pytest.fixture
def home() -> Iterator[Path]:
    """A directory where others can go: pytest's own are its user's alone."""
    with tempfile.TemporaryDirectory(prefix="nvmet-home-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture
def user(home: Path, record_property: Callable[[str, object], None]) -> OrdinaryUser:
    """An ordinary user, who owns `home`."""
    user = ordinary_user()
    user.give(home)
    record_property(RAN_AS, user.who)
    return user


def test_an_ordinary_user_without_capabilities_serves_and_measures(home: Path, user: OrdinaryUser) -> None:
    disks = ("disk.img", "ram:1M", "--create", "4M")
    with serve(*disks, "--socket", "s", cwd=home, program=user.program) as server:
        assert server.status("Uid").split() == [str(user.uid)] * 4
        assert server.status("NoNewPrivs") == "1"
        for name in ("CapPrm", "CapEff", "CapInh", "CapAmb"):
            assert int(server.status(name), 16) == 0
        result = run("bench", "s", "--verify", cwd=home, program=user.program)
        assert result.returncode == 0, result.stderr
        assert server.stop() == 0
    # 64 KiB of lockable memory are enough for the ring of one disk.
    assert (home / "server.err").read_text() == ""


def only_the_shortage_is_told(home: Path, user: OrdinaryUser) -> bool:
    """Whether nothing was told but that little memory may be locked: once, with what to do."""
    text = (home / "server.err").read_text()
    if not charges_rings(user):
        return text == ""
    assert text.startswith("nvmet-vdev: warning: RLIMIT_MEMLOCK is 64 KiB")
    assert "ulimit -l" in text
    return text.count("\n") == 1


def test_several_files_share_the_little_memory_that_may_be_locked(home: Path, user: OrdinaryUser) -> None:
    disks = ("a.img", "b.img", "c.img", "--create", "1M")
    with serve(*disks, "--socket", "s", cwd=home, program=user.program) as server:
        # Each client makes new rings while the kernel still charges those of the last one.
        for _ in range(5):
            result = run("bench", "s", "--runtime", "0.1", cwd=home, program=user.program)
            assert result.returncode == 0, result.stderr
        assert server.stop() == 0
    # A namespace without a ring would be reported here, and so would its flush.
    assert only_the_shortage_is_told(home, user)


def test_enough_memory_that_may_be_locked_is_not_mentioned_and_memory_drives_want_none(home: Path) -> None:
    for memlock, disks in (
        (2 * memlock_module.RING_BYTES, ("d.img", "--create", "1M")),
        (0, ("ram:1M", "null:1M")),
    ):
        user = ordinary_user(memlock=memlock)
        user.give(home)
        with serve(*disks, "--socket", "s", cwd=home, program=user.program) as server:
            result = run("bench", "s", "--runtime", "0.1", cwd=home)
            assert result.returncode == 0, result.stderr
            assert server.stop() == 0
        assert (home / "server.err").read_text() == ""
        (home / "d.img").unlink(missing_ok=True)


@pytest.mark.parametrize("spare", [0, -4096])
def test_rings_are_small_if_and_only_if_that_is_told(home: Path, spare: int) -> None:
    user = ordinary_user(memlock=memlock_module.RING_BYTES + spare)
    user.give(home)
    if not charges_rings(user):
        pytest.skip("THIS KERNEL DOES NOT CHARGE io_uring TO RLIMIT_MEMLOCK")
    with serve("d.img", "--create", "1M", "--socket", "s", cwd=home, program=user.program) as server:
        load = subprocess.Popen(
            [PROGRAM, "bench", "s", "--runtime", "600"], cwd=home, stdout=subprocess.DEVNULL
        )
        try:
            seen: list[list[int]] = []

            def settled() -> bool:
                """Whether there is one ring: a reset of the controller may be between two."""
                seen.append(ring_entries(server.process.pid))
                return len(seen[-1]) == 1

            wait_until(settled, "a ring for the disk")
            entries = seen[-1]
        finally:
            load.kill()
            load.wait()
        assert server.stop() == 0
    told = (home / "server.err").read_text()
    assert (entries == [64]) == ("RLIMIT_MEMLOCK" in told) == bool(spare), (entries, told)


def ring_entries(pid: int) -> list[int]:
    """Submission queue entries of the process's rings."""
    found = []
    for info in Path(f"/proc/{pid}/fdinfo").iterdir():
        with contextlib.suppress(FileNotFoundError):
            mask = re.search(r"^SqMask:\s*(\w+)$", info.read_text(), re.MULTILINE)
            found += [int(mask[1], 16) + 1] if mask else []
    return found


def test_no_memory_that_may_be_locked_is_told_at_the_start(home: Path) -> None:
    user = ordinary_user(memlock=0)
    user.give(home)
    (home / "disk.img").write_bytes(bytes(MIB))
    user.give(home / "disk.img")
    if not charges_rings(user):
        pytest.skip("THIS KERNEL DOES NOT CHARGE io_uring TO RLIMIT_MEMLOCK")
    for args in (("disk.img",), ("new.img", "--create", "1M"), ("new.img", "disk.img", "--create", "1M")):
        result = run("run", *args, "--socket", "s", cwd=home, program=user.program, patience=30)
        assert result.returncode == 2, (result.stdout, result.stderr)
        assert result.stdout == ""
        assert result.stderr.startswith("nvmet-vdev: error: ")
        assert result.stderr.count("\n") == 1
        assert "RLIMIT_MEMLOCK" in result.stderr
        assert "ulimit -l" in result.stderr
        assert sorted(path.name for path in home.iterdir()) == ["disk.img"]
    with serve("ram:1M", "--socket", "s", cwd=home, program=user.program) as server:
        assert server.stop() == 0


def charges_rings(user: OrdinaryUser) -> bool:
    """Whether a large ring of io_uring is refused to a user who may lock little."""
    ask = """
import ctypes, errno
libc = ctypes.CDLL(None, use_errno=True)
made = libc.syscall(ctypes.c_long(425), ctypes.c_uint(32768), ctypes.byref((ctypes.c_uint32 * 30)()))
print(made < 0 and ctypes.get_errno() == errno.ENOMEM)
"""
    command = [*user.become, user.python, "-c", ask]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout == "True\n"
