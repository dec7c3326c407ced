"""Fixtures of the VM cases, and what happens where QEMU or the guest is missing (see README.md)."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.vm.lab import Lab
from tests.vm.rig.cache import cache_dir
from tests.vm.rig.errors import RigError
from tests.vm.rig.guest import Rig

_MISSING = pytest.StashKey[str]()


@pytest.fixture(scope="session")
def rig(pytestconfig: pytest.Config) -> Rig:
    """QEMU and the guest; without them the cases are skipped, or fail where they are required."""
    mode = str(pytestconfig.getoption("--vm"))
    if mode == "skip":
        pytest.skip("--vm=skip")
    try:
        return Rig.find(cache_dir())
    except RigError as error:
        if mode == "require" or (mode == "auto" and os.environ.get("CI")):
            pytest.fail(f"VM cases are required here: {error}", pytrace=False)
        pytestconfig.stash[_MISSING] = str(error)
        pytest.skip(str(error))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """A skip of all real guests is not to be overlooked."""
    reason = config.stash.get(_MISSING, None)
    if reason is not None:
        terminalreporter.section("REAL GUESTS WERE NOT TESTED", sep="!", red=True, bold=True)
        terminalreporter.line(reason)


@pytest.fixture(scope="module")
def directory() -> Iterator[Path]:
    """A place for images and sockets whose path is short enough for a socket."""
    with tempfile.TemporaryDirectory(prefix="nvmet-vm-") as name:
        yield Path(name)


@pytest.fixture(scope="module")
def lab(rig: Rig, directory: Path, pytestconfig: pytest.Config) -> Lab:
    """The workbench of a module; cases about the target itself do not run on emulated drives."""
    return Lab(rig, directory, pytestconfig.getoption("--vm-device") == "emulated")


@pytest.fixture(scope="module")
def our_lab(lab: Lab) -> Lab:
    """The workbench of cases that are about the target's process."""
    if lab.emulated:
        pytest.skip("about the target: not for --vm-device=emulated")
    return lab
