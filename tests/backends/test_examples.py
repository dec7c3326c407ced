"""The examples in the docstrings run, and the package's names are what they should be."""

from __future__ import annotations

import doctest
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from nvmet_vdev import ConfigError, NvmeError, backends

MODULES = ("fault", "file", "filter", "fsspec_image", "log", "overlay", "ram", "rate")


@pytest.mark.parametrize("name", MODULES)
def test_the_example_of_the_class_runs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    module = importlib.import_module(f"nvmet_vdev.backends.{name}")
    everything = {name: getattr(backends, name) for name in backends.__all__}
    names = {**vars(module), **everything, "Path": Path}
    found = [test for test in doctest.DocTestFinder().find(module, globs=names) if test.examples]
    assert found, "no example"
    for test in found:
        runner = doctest.DocTestRunner(verbose=False)
        assert runner.run(test).failed == 0


def test_every_class_says_in_one_line_what_it_is() -> None:
    for name in backends.__all__:
        first = (getattr(backends, name).__doc__ or "").partition("\n")[0]
        assert first.endswith((".", ":")), name


def test_importing_the_package_loads_no_module_of_it_and_no_fsspec() -> None:
    program = (
        "import sys, nvmet_vdev.backends as b; assert dir(b);"
        "print([m for m in sys.modules if m.startswith(('nvmet_vdev.backends.', 'fsspec'))]);"
        "b.Fsspec('memory://x'); print('fsspec' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["[]", "False"]


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="Nonsense"):
        _ = backends.Nonsense


def test_they_compose(tmp_path: Path) -> None:
    base = tmp_path / "disk.img"
    base.write_bytes(b"b" * (1 << 20))
    drive = backends.Overlay(
        backends.Fault(backends.File(base, read_only=True), read="2/81@lba=0-7@nth=1"),
        str(tmp_path / "cow.img"),
    )
    drive.open()
    data = bytearray(512)
    with pytest.raises(NvmeError, match="2/81"):
        drive.read(0, memoryview(data))
    drive.read(0, memoryview(data))
    assert data == b"b" * 512
    drive.write(0, memoryview(b"x" * 512), True)
    drive.read(0, memoryview(data))
    assert data == b"x" * 512
    drive.close()
    assert base.read_bytes() == b"b" * (1 << 20)


def test_a_backend_is_no_path() -> None:
    with pytest.raises(ConfigError, match=r"'disk\.img'.*File\(path\)"):
        backends.Overlay("disk.img", "cow.img")  # type: ignore[arg-type]
