"""What specs load: other people's modules, files and packages, and what is said when that fails."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent

import pytest

from nvmet_vdev import ConfigError, registry
from nvmet_vdev.cli.params import DISK
from nvmet_vdev.grammar import parse, schemes
from nvmet_vdev.spec import open_backend


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A current directory of its own, whose modules are forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


DRIVE = """
import dataclasses
from nvmet_vdev import Backend
from nvmet_vdev.sizes import Size

@dataclasses.dataclass
class Drive(Backend):
    size: Size = 1 << 20
    name: str = "none"

    def read(self, offset, buf):
        buf[:] = bytes(len(buf))

def made(size: Size) -> Drive:
    return Drive(size, "made")

class Outer:
    class Inner(Drive):
        pass

there = Drive(4096, "there")
"""


def write(path: Path, code: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(dedent(code))


def test_classes_functions_and_objects_of_a_module_are_backends(place: Path) -> None:
    write(place / "drives" / "__init__.py", "")
    write(place / "drives" / "ram.py", DRIVE)
    assert open_backend("python:drives.ram:Drive").size == 1 << 20
    assert open_backend("python:drives.ram:Drive?size=64M&name=a%20b") == open_backend(
        "python:drives.ram:Drive?name=a%20b&size=65536K"
    )
    assert open_backend("python:drives.ram:made?size=4k").name == "made"
    assert open_backend("python:drives.ram:Outer.Inner").name == "none"
    assert open_backend("python:drives.ram:there") is open_backend("python:drives.ram:there")


def test_a_file_is_a_module_of_its_own_that_pickles(place: Path) -> None:
    write(place / "drive.py", DRIVE)
    write(place / "other" / "drive.py", DRIVE.replace("none", "other"))
    drive = open_backend("python:./drive.py:Drive?size=4k")
    assert open_backend("python:other/drive.py:Drive").name == "other"
    assert type(drive) is type(open_backend(f"python:{place}/drive.py:Drive"))
    assert pickle.loads(pickle.dumps(drive)) == drive  # noqa: S301 - our own
    assert sorted(path.name for path in place.rglob("*")) == ["drive.py", "drive.py", "other"]


def test_a_file_can_import_what_lies_beside_it_and_hides_no_library(place: Path) -> None:
    write(place / "here" / "helper_beside.py", "SIZE = 8192")
    write(place / "here" / "colorsys.py", "raise RuntimeError('the wrong one')")
    write(place / "here" / "drive.py", f"import colorsys\nfrom helper_beside import SIZE\n{DRIVE}")
    assert open_backend("python:here/drive.py:Drive").size == 1 << 20


def test_a_module_of_the_current_directory_comes_first_as_with_python_m(place: Path) -> None:
    write(place / "colorsys.py", DRIVE)
    sys.modules.pop("colorsys", None)
    assert open_backend("python:colorsys:Drive").size == 1 << 20


def test_read_only_reaches_who_asks_for_it(place: Path) -> None:
    write(
        place / "d.py",
        """
        class Drive:
            size = 4096
            def __init__(self, read_only: bool = False):
                self.read_only = read_only
            def read(self, offset, buf): ...
        """,
    )
    assert open_backend("python:./d.py:Drive", read_only=True).read_only is True
    assert open_backend("python:./d.py:Drive").read_only is False
    assert open_backend("python:./d.py:Drive?read_only=yes").read_only is True


FAILURES: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "no module": ("", "python:nowhere:C", ("no module 'nowhere'", "./FILE.py")),
    "no submodule": ("", "python:json.nowhere:C", ("json.nowhere",)),
    "module of dots": ("", "python:..d:C", ("'..d'", "no name of a module")),
    "no file": ("", "python:./nowhere.py:C", ("nowhere.py", "no such file")),
    "no name of a file": ("", f"python:./{'x' * 300}.py:C", ("cannot be read", "too long")),
    "a directory": ("", "python:./:C", ("not a file",)),
    "syntax": ("x = 1\ndef f(:\n", "python:./d.py:C", ("d.py:2", "SyntaxError")),
    "indentation": ("def f():\nx = 1\n", "python:./d.py:C", ("d.py:2", "IndentationError")),
    "no text": ("x = '\udcff'", "python:./d.py:C", ("SyntaxError",)),
    "missing import": (
        "x = 1\nimport nowhere_at_all\n",
        "python:./d.py:C",
        ("d.py:2", "nowhere_at_all", "install"),
    ),
    "missing import, as a module": (
        "import nowhere_at_all\n",
        "python:d:C",
        ("d.py:1", "nowhere_at_all", "install"),
    ),
    "exception": (
        "x = 1\n\nx = 1 / 0\n",
        "python:./d.py:C",
        ("d.py:3", "ZeroDivisionError", "division by zero"),
    ),
    "in a library": ("import json\njson.loads('{')\n", "python:./d.py:C", ("d.py:2", "JSONDecodeError")),
    "exit": ("import sys\nsys.exit(3)\n", "python:./d.py:C", ("d.py:2", "SystemExit: 3", "must not end")),
    "interrupt": ("raise KeyboardInterrupt\n", "python:./d.py:C", ("d.py:1", "KeyboardInterrupt")),
    "base exception": (
        "class E(BaseException): ...\nraise E('x\\ny')",
        "python:./d.py:C",
        ("d.py:2", "E: x y"),
    ),
    "unprintable": (
        "class E(Exception):\n def __str__(self): raise self\nraise E\n",
        "python:./d.py:C",
        ("d.py:3", "cannot be shown"),
    ),
    "recursion": ("def f(): f()\nf()\n", "python:./d.py:C", ("d.py:1", "RecursionError")),
    "no name": ("Drive = 1", "python:./d.py:Drives", ("d.py", "'Drives'", "'Drive'?")),
    "no name, with backends": (
        "class Disk:\n def read(self, offset, buf): ...\n",
        "python:./d.py:Q",
        ("'Q'", "its backends are Disk"),
    ),
    "name that raises": (
        "def __getattr__(name): raise OSError('no')",
        "python:./d.py:Q",
        ("d.py:1", "OSError: no"),
    ),
    "no inner name": ("class A: ...", "python:./d.py:A.B", ("'B'",)),
    "a module": ("import json", "python:./d.py:json", ("a module", "is no backend")),
    "a number": ("N = 3", "python:./d.py:N", ("int 3", "is no backend")),
    "no read": ("class C: ...", "python:./d.py:C", ("C", "no method read(offset, buf)")),
    "read that is no method": ("class C: read = 3", "python:./d.py:C", ("no method read",)),
    "function of nothing": ("def f(): ...", "python:./d.py:f", ("None", "no method read")),
    "async function": ("async def f(): ...", "python:./d.py:f", ("async", "plain function")),
    "init raises": (
        "class C:\n def __init__(self):\n  raise ValueError('bad')\n",
        "python:./d.py:C",
        ("C()", "d.py:3", "ValueError: bad"),
    ),
    "init exits": (
        "class C:\n def __init__(self):\n  raise SystemExit",
        "python:./d.py:C",
        ("d.py:3", "SystemExit"),
    ),
    "options of an object": (
        "class C:\n def read(self, offset, buf): ...\nc = C()",
        "python:./d.py:c?a=1",
        ("object", "options"),
    ),
    "a filter": ("class F:\n wraps = True", "python:./d.py:F", ("is a filter", "entry point")),
}


@pytest.mark.parametrize("case", FAILURES)
def test_what_cannot_be_loaded_is_said_in_one_line_with_its_place(place: Path, case: str) -> None:
    code, text, says = FAILURES[case]
    (place / "d.py").write_bytes(code.encode(errors="surrogateescape"))
    modules = set(sys.modules)
    with pytest.raises(ConfigError) as caught:
        open_backend(text)
    message = str(caught.value)
    assert "\n" not in message
    for word in says:
        assert word in message, message
    assert not {name for name in set(sys.modules) - modules if name.startswith("nvmet_vdev_file_")} or (
        "cannot be imported" not in message
    )


PACKAGE = """
class Leaf:
    '''A drive of an address.

    And more.
    '''
    size = 4096
    def __init__(self, rest: str, *, block: int = 512):
        self.rest, self.block = rest, block
    def read(self, offset, buf): ...

class Layer:
    '''Something on top.'''
    wraps = True
    size = 4096
    def __init__(self, inner, *, rate: float = 1.0, read_only: bool = False):
        self.inner, self.rate, self.read_only = inner, rate, read_only
    def read(self, offset, buf): ...

class Frozen(Layer):
    opens_read_only = True

number = 3
"""


def install(place: Path, name: str, points: dict[str, str]) -> None:
    """What `pip install` would leave of a package with entry points."""
    info = place / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    lines = [f"{point} = {value}" for point, value in points.items()]
    (info / "entry_points.txt").write_text("\n".join([f"[{registry.GROUP}]", *lines]) + "\n")


@pytest.fixture
def packages(place: Path) -> Iterator[Path]:
    sys.path.insert(0, str(place))
    registry.installed.cache_clear()
    write(place / "pack.py", PACKAGE)
    write(place / "pack_broken.py", "import nowhere_at_all\n")
    install(
        place,
        "pack",
        {
            "leaf": "pack:Leaf",
            "layer": "pack:Layer",
            "frozen": "pack:Frozen",
            "broken": "pack_broken:Leaf",
            "gone": "pack:Gone",
            "away": "pack_away:Leaf",
            "number": "pack:number",
            "python": "pack:Leaf",
            "two words": "pack:Leaf",
            "both": "pack:Leaf",
        },
    )
    install(place, "other", {"both": "pack:Layer"})
    yield place
    registry.installed.cache_clear()


def test_packages_bring_leaves_and_filters(packages: Path) -> None:
    leaf = open_backend("leaf:http://host/x?block=4096")
    assert (leaf.rest, leaf.block) == ("http://host/x", 4096)
    assert open_backend("leaf:?rest=x&block=1").rest == "x"
    top = open_backend("layer?rate=0.5:layer:leaf?block=1:http://host/x?y", read_only=True)
    assert (top.rate, top.inner.rate, top.inner.inner.rest) == (0.5, 1.0, "http://host/x?y")
    assert top.read_only
    assert top.inner.read_only
    assert top.inner.inner.block == 1
    assert str(parse("layer?rate=0.5:leaf:x")) == "layer?rate=0.5:leaf:x"
    assert packages.is_dir()


def test_below_a_filter_that_only_reads_all_is_read_only(packages: Path) -> None:  # noqa: ARG001
    top = open_backend("layer:frozen:layer:leaf:x")
    assert [top.read_only, top.inner.read_only, top.inner.inner.read_only] == [False, False, True]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("broken:x", ("broken:", "pack 1.0", "pack_broken.py:1", "nowhere_at_all")),
        ("gone:x", ("gone:", "pack 1.0", "'Gone'")),
        ("away:x", ("no module 'pack_away'", "reinstall pack 1.0")),
        ("number:x", ("number:", "no class or function", "pack 1.0")),
        ("both:x", ("both:", "pack 1.0", "other 1.0", "uninstall")),
        ("layer:leaf:x?blok=1", ("leaf:", "'blok'", "'block'?")),
        ("layer?rate=x:leaf:x", ("layer:", "rate=x", "0.5")),
        ("layer:disk.img?rate=0.5", ("disk.img?rate=0.5", "layer?rate=0.5:disk.img")),
        ("layer:null:1M", ("null:1M", "ram:1M")),
    ],
)
def test_what_is_wrong_with_a_packages_backend_is_one_line(
    packages: Path,  # noqa: ARG001
    text: str,
    says: tuple[str, ...],
) -> None:
    with pytest.raises(ConfigError) as caught:
        open_backend(text)
    for word in says:
        assert word in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_broken_entry_point_is_listed_with_its_reason(packages: Path) -> None:  # noqa: ARG001
    found = {one.name: one for one in registry.listing()}
    assert (found["leaf"].kind, found["leaf"].description) == ("leaf", "A drive of an address.")
    assert (found["layer"].kind, found["layer"].package) == ("filter", "pack 1.0")
    for name, word in {
        "broken": "nowhere_at_all",
        "gone": "'Gone'",
        "away": "reinstall",
        "number": "no class",
        "python": "built in",
        "two words": "no name for a scheme",
        "both": "uninstall",
    }.items():
        assert found[name].kind is None
        assert word in (found[name].problem or "")


def test_shells_complete_schemes_and_files(packages: Path) -> None:  # noqa: ARG001
    import click

    context, parameter = click.Context(click.Command("run")), click.Argument(["disk"])
    assert {"ram:", "python:", "nbdkit:", "leaf:"} <= set(schemes())
    found = [(item.type, item.value) for item in DISK.shell_complete(context, parameter, "le")]
    assert found == [("file", "le"), ("plain", "leaf:")]
    assert [item.type for item in DISK.shell_complete(context, parameter, "")] == ["file"]
