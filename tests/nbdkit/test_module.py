"""The module `nbdkit` has nbdkit's constants and functions, which read strings the same way."""

from __future__ import annotations

import errno
import json
import logging
import subprocess
import threading
from pathlib import Path
from types import ModuleType

import pytest

from nvmet_vdev.nbdkit.module import Server, errors, stop_with
from tests.nbdkit.sides import nbdkit

SIZES = ["0", "1k", "1K", " 5", "\t5", "5 ", "+7", "-0", "-1", "1.5M", "10s", "10S", "9999999999999999999"]
SIZES += ["8E", "7E", "8388607T", "8388608T", "9223372036854775807", "9223372036854775808", "", " ", "0x10"]
SIZES += [
    "1MiB",
    "1_0",
    "٣",
    "1b",
    "1B",
    "1kk",
    "G",
    "1 k",
    "1K\n",
    "\x0b1",
    "1\N{KELVIN SIGN}",
    "--1",
    "+-1",
]


@pytest.fixture
def module() -> ModuleType:
    return Server("plugin.py").module


def in_nbdkit(tmp_path: Path, expression: str) -> object:
    """What a Python expression gives inside of nbdkit's Python; in JSON."""
    script, result = tmp_path / "ask.py", tmp_path / "result"
    script.write_text(
        "import json, nbdkit\n"
        "def attempt(function, *arguments):\n"
        "    try:\n        return function(*arguments)\n"
        "    except Exception as error:\n        return type(error).__name__\n"
        f"with open({str(result)!r}, 'w') as file:\n    json.dump({expression}, file)\n"
        "def open(readonly): pass\ndef get_size(h): pass\ndef pread(h, count, offset): pass\n"
    )
    subprocess.run([nbdkit(), "--dump-plugin", "python", str(script)], check=True, capture_output=True)
    return json.loads(result.read_text())


def test_the_constants_are_nbdkits(module: ModuleType, tmp_path: Path) -> None:
    theirs = in_nbdkit(tmp_path, "{name: getattr(nbdkit, name) for name in dir(nbdkit) if name.isupper()}")
    assert theirs == {name: getattr(module, name) for name in dir(module) if name.isupper()}


def test_every_function_of_nbdkits_is_there(module: ModuleType, tmp_path: Path) -> None:
    theirs = in_nbdkit(tmp_path, "[name for name in dir(nbdkit) if callable(getattr(nbdkit, name))]")
    assert isinstance(theirs, list)
    assert set(theirs) - {"__loader__"} <= {name for name in dir(module) if callable(getattr(module, name))}


def test_sizes_are_read_as_nbdkit_reads_them(module: ModuleType, tmp_path: Path) -> None:
    theirs = in_nbdkit(tmp_path, f"[attempt(nbdkit.parse_size, text) for text in {SIZES!r}]")

    def ours(text: str) -> object:
        try:
            return module.parse_size(text)
        except ValueError as error:
            return type(error).__name__

    assert dict(zip(SIZES, map(ours, SIZES), strict=True)) == dict(zip(SIZES, theirs, strict=True))  # type: ignore[call-overload]


@pytest.mark.parametrize("function", ["debug", "parse_size", "set_error", "export_name", "shutdown"])
@pytest.mark.parametrize("arguments", ["5, 5, 5", "None", "b'1'", "1.5", "1 << 40", "'x', 'y'"])
def test_wrong_arguments_raise_what_nbdkit_raises(
    function: str, arguments: str, module: ModuleType, tmp_path: Path
) -> None:
    theirs = in_nbdkit(tmp_path, f"attempt(nbdkit.{function}, {arguments})")
    with pytest.raises((TypeError, OverflowError)) as raised:
        getattr(module, function)(*eval(f"({arguments},)"))  # noqa: S307
    # 1.32 takes and forgets arguments where there are none.
    if function not in ("export_name", "shutdown"):
        assert raised.type.__name__ == theirs


def test_booleans(module: ModuleType) -> None:
    for text in ("1", "true", "T", "YES", "y", "On"):
        assert module.parse_bool(text) is True
    for text in ("0", "False", "f", "no", "N", "oFF"):
        assert module.parse_bool(text) is False
    for text in ("", "2", "tru", " 1", "yes "):
        with pytest.raises(ValueError, match="could not decipher boolean"):
            module.parse_bool(text)


def test_probabilities(module: ModuleType) -> None:
    for text in ("0.1", "1e-1", "10%", "1:10", "1/10", ".1", "0.5:5"):
        assert module.parse_probability("p", text) == pytest.approx(0.1)
    assert module.parse_probability("p", "0") == 0
    assert module.parse_probability("p", "200%") == 2
    for text in (
        "",
        "-1",
        "nan",
        "inf",
        "1:0",
        "1:",
        "1/2/3",
        "1%%",
        "x",
        "1e999",
        "1:1e999",
        "1e308:1e-308",
    ):
        with pytest.raises(ValueError, match=r"^p: "):
            module.parse_probability("p", text)


def test_delays(module: ModuleType) -> None:
    for text, parts in {
        "1": (1, 0),
        "1.2": (1, 200_000_000),
        "1.5s": (1, 500_000_000),
        "120ms": (0, 120_000_000),
        "1.2us": (0, 1200),
        "120μs": (0, 120_000),
        "120µs": (0, 120_000),
        "1ns": (0, 1),
        "0": (0, 0),
        "4294967295": (4294967295, 0),
        "1e3ms": (1, 0),
    }.items():
        assert module.parse_delay("delay", text) == parts
    for text in ("", "-1", "1m", "1h", "s", "1 s", "4294967296", "1e999999999999999999999", "nan"):
        with pytest.raises(ValueError, match=r"^delay: "):
            module.parse_delay("delay", text)


def test_paths(module: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert module.absolute_path("a/../b") == f"{tmp_path}/a/../b"
    assert module.absolute_path("/a") == "/a"
    with pytest.raises(ValueError, match="empty path"):
        module.absolute_path("")


def test_an_error_belongs_to_its_thread(module: ModuleType) -> None:
    errors.value = 0
    thread = threading.Thread(target=module.set_error, args=(errno.ENOSPC,))
    thread.start()
    thread.join()
    assert errors.value == 0
    module.set_error(errno.EPERM)
    assert errors.value == errno.EPERM
    errors.value = 0


def test_what_needs_a_connection_fails_without_one() -> None:
    server = Server("plugin.py")
    for name in ("export_name", "is_tls", "peer_pid", "peer_uid", "peer_gid", "peer_name", "peer_tls_dn"):
        with pytest.raises(RuntimeError, match=f"nbdkit.{name} failed"):
            getattr(server.module, name)()
    server.export = "disk"
    assert server.module.export_name() == "disk"
    assert server.module.is_tls() is False


def test_standard_input_is_safe_until_the_plugin_is_configured() -> None:
    server = Server("plugin.py")
    assert server.module.stdio_safe()
    server.configured = True
    assert not server.module.stdio_safe()


def test_a_shutdown_reaches_the_hook_and_ends_sleeps(caplog: pytest.LogCaptureFixture) -> None:
    server = Server("plugin.py")
    asked: list[bool] = []
    server.on_shutdown = lambda: asked.append(True)
    server.module.nanosleep(0, 1)
    server.module.shutdown()
    assert asked == [True]
    with pytest.raises(RuntimeError, match="ended by a shutdown"):
        server.module.nanosleep(3600, 0)
    assert not caplog.records
    server.on_shutdown = None
    server.module.shutdown()
    assert caplog.messages == ["plugin.py: asks for a shutdown, and nobody here can stop the target"]


def test_a_program_can_let_all_plugins_stop_it() -> None:
    asked: list[str] = []
    one, other = Server("one.py"), Server("other.py")
    other.on_shutdown = lambda: asked.append("its own")
    stop_with(lambda: asked.append("everybody's"))
    try:
        one.module.shutdown()
        other.module.shutdown()
    finally:
        stop_with(None)
    assert asked == ["everybody's", "its own"]


@pytest.mark.parametrize("delay", [(-1, 0), (0, -1), (1 << 31, 0), ((1 << 31) - 1, 10**9)])
def test_a_sleep_that_cannot_be_is_refused(delay: tuple[int, int], module: ModuleType) -> None:
    with pytest.raises(ValueError, match="use 0 to 2"):
        module.nanosleep(*delay)


def test_debug_messages_go_to_the_log(module: ModuleType, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        module.debug("here % I am")
    assert caplog.messages == ["plugin.py: debug: here % I am"]


def test_a_disconnect_is_only_logged(module: ModuleType, caplog: pytest.LogCaptureFixture) -> None:
    module.disconnect(True)
    assert "does nothing" in caplog.text
