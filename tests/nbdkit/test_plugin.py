"""How plugins are found, run and configured; what is wrong with one is one line."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from nvmet_vdev import ConfigError
from nvmet_vdev.nbdkit import PluginBackend, dump, open_plugin
from tests.nbdkit.sides import PLUGINS, nbdkit

GOOD = """
import nbdkit
API_VERSION = 2
def open(readonly): return 1
def get_size(h): return 4096
def pread(h, buf, offset, flags): buf[:] = bytes(len(buf))
"""

Write = Callable[..., str]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a plugin and gives its path: `GOOD`, unless told otherwise, and then `more`."""

    def plugin(more: str = "", *, base: str = GOOD, name: str = "plugin.py") -> str:
        path = tmp_path / name
        path.write_text(base + more)
        return str(path)

    return plugin


def opened(path: str, *options: tuple[str, str], read_only: bool = False) -> PluginBackend:
    backend = open_plugin(path, options, read_only=read_only)
    backend.open()
    return backend


def read(backend: PluginBackend, offset: int = 0, length: int = 512) -> bytes:
    buf = bytearray(length)
    backend.read(offset, memoryview(buf))
    return bytes(buf)


@pytest.mark.parametrize("name", ["open", "get_size", "pread"])
def test_a_plugin_without_a_required_callback_is_refused_by_name(name: str, write: Write) -> None:
    path = write(f"del {name}")
    with pytest.raises(ConfigError, match=rf"^{path}: no function {name}\(\)"):
        open_plugin(path, ())


def test_a_callback_that_cannot_be_called_counts_as_missing(write: Write) -> None:
    with pytest.raises(ConfigError, match=r"no function pread\(\)"):
        open_plugin(write("pread = 5"), ())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("\nno_such_name", "plugin.py:8: NameError: name 'no_such_name' is not defined"),
        ("import no_such_module", "plugin.py:7: ModuleNotFoundError: No module named 'no_such_module'"),
        ("def x(:", "plugin.py:7: SyntaxError: invalid syntax (plugin.py, line 7)"),
        ("raise SystemExit('enough')", "plugin.py:7: it exits: enough"),
        ("raise RuntimeError('two\\nlines')", "plugin.py:7: RuntimeError: two lines"),
        ("raise BaseException", "plugin.py:7: BaseException"),
        ("API_VERSION = 3", "plugin.py: API_VERSION is 3; use 1 to 2"),
        ("API_VERSION = 'two'", "plugin.py: API_VERSION is 'two'; use 1 to 2"),
        ("def config_complete(): raise ValueError('no disk')", "config_complete(): ValueError: no disk"),
        ("def thread_model(): return 4", "thread_model(): returned 4; use one of nbdkit.THREAD_MODEL_*"),
        ("def thread_model(): return None", "thread_model(): returned None"),
        ("def config_complete(): raise SystemExit(1)", "config_complete(): it exits: 1"),
    ],
)
def test_a_plugin_that_cannot_be_loaded_is_refused_in_one_line(text: str, message: str, write: Write) -> None:
    with pytest.raises(ConfigError) as refusal:
        open_plugin(write(text), ())
    assert message in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def get_ready(): raise OSError(28, 'full')", "get_ready(): OSError: [Errno 28] full"),
        ("def after_fork(): 1 / 0", "after_fork(): ZeroDivisionError: division by zero"),
        ("def preconnect(readonly): raise PermissionError('no')", "preconnect(): PermissionError: no"),
        ("def default_export(readonly, is_tls): return 5", "default_export(): returned 5; use a string"),
        ("def open(): return 1", "open(): TypeError: open() takes 0 positional arguments but 1 was given"),
        ("def get_size(h): return 'big'", "get_size(): returned 'big'; use a whole number"),
        ("def get_size(h): return -512", "get_size(): returned -512; a drive needs a multiple of 512"),
        ("def get_size(h): return 0", "get_size(): returned 0; a drive needs a multiple of 512"),
        ("def get_size(h): return 1000", "get_size(): returned 1000; a drive needs a multiple of 512"),
        (
            "def block_size(h): return (8192, 8192, 8192)",
            "block_size(): the minimum is 8192; a drive's blocks",
        ),
        ("def block_size(h): return (768, 4096, 8192)", "block_size(): the minimum is 768; use a power of 2"),
        (
            "def block_size(h): return (1, 512, 256)",
            "block_size(): the maximum is 256; a drive needs at least",
        ),
        ("def block_size(h): return 512", "block_size(): returned 512; use (minimum, preferred, maximum)"),
        ("def block_size(h): return (1, 2, 3.5)", "block_size(): returned 3.5; use a whole number"),
        ("def can_write(h): raise KeyError('x')", "can_write(): KeyError: 'x'"),
        ("def can_cache(h): return 3", "can_cache(): returned 3; use a constant nbdkit.CACHE_*"),
    ],
)
def test_a_plugin_that_cannot_be_opened_is_refused_in_one_line_and_cleaned_up(
    text: str, message: str, write: Write, tmp_path: Path
) -> None:
    path = write(f"{text}\nimport os\ndef cleanup(): os.mkdir({str(tmp_path / 'cleaned')!r})\n")
    backend = open_plugin(path, ())
    with pytest.raises(ConfigError) as refusal:
        backend.open()
    assert str(refusal.value).startswith(f"{path}: {message}")
    assert "\n" not in str(refusal.value)
    # nbdkit ends at once where get_ready fails.
    assert (tmp_path / "cleaned").is_dir() is not message.startswith("get_ready")


def test_a_handle_is_closed_when_what_follows_open_fails(write: Write, tmp_path: Path) -> None:
    path = write(
        f"import os\ndef get_size(h): 1 / 0\ndef close(h): os.mkdir({str(tmp_path / 'closed')!r} + str(h))\n"
    )
    with pytest.raises(ConfigError, match=r"get_size\(\): ZeroDivisionError"):
        opened(path)
    assert (tmp_path / "closed1").is_dir()


@pytest.mark.parametrize("target", ["/no/such/plugin.py", "missing.py", "./missing"])
def test_a_file_that_is_not_there_is_refused(target: str) -> None:
    with pytest.raises(ConfigError, match=rf"^{target}: cannot read the plugin: No such file or directory$"):
        open_plugin(target, ())


@pytest.mark.parametrize("target", ["no_such_module", "no_such_package.module", "sys", "", "..", "a b"])
def test_what_is_no_module_is_refused(target: str) -> None:
    with pytest.raises(ConfigError):
        open_plugin(target, ())


def test_options_go_to_config_in_order(write: Write) -> None:
    path = write("seen = []\ndef config(key, value): seen.append((key, value))\ndef open(r): return seen\n")
    backend = opened(path, ("a", "1"), ("b", ""), ("a", "2"))
    assert backend._handle == [("a", "1"), ("b", ""), ("a", "2")]


def test_options_for_a_plugin_that_takes_none_are_refused(write: Write) -> None:
    with pytest.raises(
        ConfigError, match=r"plugin.py: takes no options \(it has no config\(\)\); leave out size="
    ):
        open_plugin(write(), [("size", "1M")])


def test_a_configuration_that_the_plugin_does_not_like_is_refused_with_its_words() -> None:
    path = str(PLUGINS / "checked.py")
    for options, message in (
        ([("colour", "red")], r"config\(\): RuntimeError: unknown parameter colour"),
        ([("size", "1X")], r"config\(\): ValueError: could not parse size: unknown suffix 'X'"),
        ([], r"config_complete\(\): RuntimeError: size=SIZE is missing"),
    ):
        with pytest.raises(ConfigError, match=message):
            open_plugin(path, options)


def test_callbacks_come_in_nbdkits_order(write: Write) -> None:
    names = "config config_complete thread_model get_ready after_fork preconnect default_export open get_size"
    names += " block_size can_write can_flush close cleanup"
    path = write(
        "called = []\n"
        + "".join(
            f"def {name}(*_, name={name!r}, before=globals().get({name!r})):\n"
            f"    called.append(name)\n"
            f"    return before(*_) if before else answers.get(name)\n"
            for name in names.split()
        )
        + "answers = {'thread_model': 1, 'default_export': 'x', 'block_size': (0, 0, 0)}\n"
        "def export_description(h): return called\n"
    )
    backend = opened(path, ("key", "value"))
    backend.close()
    assert backend.plugin.callback("export_description")(1) == names.split()


def test_a_module_can_be_a_plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "disks"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "size.py").write_text("SIZE = 8192")
    (package / "small.py").write_text(GOOD + "from .size import SIZE\ndef get_size(h): return SIZE\n")
    monkeypatch.syspath_prepend(tmp_path)
    backend = opened("disks.small")
    assert backend.size == 8192
    assert read(backend) == bytes(512)


def test_a_script_needs_no_suffix(write: Write) -> None:
    assert opened(write(name="nbdkit-mine-plugin")).size == 4096


def test_a_plugin_runs_as_main_and_ours_stays(write: Write) -> None:
    before = sys.modules["__main__"]
    path = write(
        "from __future__ import annotations\nfrom dataclasses import dataclass\nfrom typing import ClassVar\n"
        "@dataclass\nclass Disk:\n    count: ClassVar[int] = 0\n    size: int = 4096\n"
        + GOOD
        + "def get_size(h): return Disk().size\nif __name__ != '__main__': raise RuntimeError(__name__)\n",
        base="",
    )
    assert opened(path).size == 4096
    assert sys.modules["__main__"] is before


def test_two_drives_of_one_plugin_share_nothing() -> None:
    path = str(PLUGINS / "ram.py")
    first, second = opened(path, ("size", "64k")), opened(path, ("size", "128k"))
    assert first.write is not None
    first.write(0, memoryview(b"\x01" * 512), False)
    assert (first.size, second.size) == (65536, 131072)
    assert (read(first), read(second)) == (b"\x01" * 512, bytes(512))


def test_each_plugin_has_its_own_module(write: Write) -> None:
    """Imported at the top, with a star, later in a function, or by a helper that was imported."""
    text = (
        "from nbdkit import *\nimport importlib\n"
        "def default_export(readonly, is_tls): return name\n"
        "def config(key, value): global name; name = value\n"
        "def export_description(h):\n    import nbdkit as late\n    from nbdkit import export_name as other\n"
        "    return (export_name(), late.export_name(), other(), nbdkit.export_name())\n"
        "importlib.import_module('nbdkit').THREAD_MODEL_PARALLEL\n"
    )
    path = write(text)
    for name, backend in [(name, opened(path, ("name", name))) for name in ("one", "two")]:
        assert backend.plugin.callback("export_description")(1) == (name,) * 4


def test_the_example_of_the_manual_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manual = Path(__file__).parents[2] / "docs" / "nbdkit.md"
    (tmp_path / "ramdisk.py").write_bytes((PLUGINS / "ram.py").read_bytes())
    monkeypatch.chdir(tmp_path)
    names: dict[str, PluginBackend] = {}
    for example in re.findall(r"^```python\n(.*?)^```$", manual.read_text(), re.DOTALL | re.MULTILINE):
        exec(example, names)  # noqa: S102 (our own)
    names["backend"].open()
    assert names["backend"].size == 64 << 20


def test_dump_says_what_nbdkit_says() -> None:
    for name in ("checked.py", "file.py"):
        ours = dump(str(PLUGINS / name)).splitlines()
        theirs = subprocess.run(
            [nbdkit(), "--dump-plugin", "python", str(PLUGINS / name)],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.splitlines()
        assert ours[0] == f"path={PLUGINS / name}"
        # nbdkit's own has all callbacks, whatever the script has; the rest is the script's.
        wanted = ("thread_model=", "nbdkit_python_maximum_api_version=", "checked_says=", "greeting=")
        for line in theirs:
            assert line in ours or not line.startswith(wanted), line
        assert "has_pread=1" in ours
        assert ("has_extents=1" in ours) == (name == "file.py")
        assert ours[-1] == {"checked.py": "checked_says=yes", "file.py": "greeting=hello"}[name]
