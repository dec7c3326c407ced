"""Fixtures for tests of drives and of what uses them; pytest finds them where this package is installed.

`nvmet_target` is a running target, `nvme_drive` makes drives that are attached to it, `nvmet_directory` is a
place for sockets. docs/drive.md shows them.

Knows `Target` and `attach`; no test.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from nvmet_vdev import Drive, NvmetError, Target, attach

DEFAULT_DISK = "ram:64M"


def pytest_configure(config: pytest.Config) -> None:
    """Declares the markers, for those who run with --strict-markers."""
    for marker in (
        "nvmet_target(**options): options of the Target that the fixture nvmet_target starts",
        "nvme_drive(disk, **options): the disk or backend of nvme_drive(), and options of its namespace",
    ):
        config.addinivalue_line("markers", marker)


@pytest.fixture
def nvmet_directory() -> Iterator[Path]:
    """A directory for sockets, for one test. Its path is short: a Unix socket's has 107 bytes at most."""
    with tempfile.TemporaryDirectory(prefix="nv-") as directory:
        yield Path(directory)


@pytest.fixture
def nvmet_target(request: pytest.FixtureRequest) -> Iterator[Target]:
    """A running `Target` without subsystems. It is shut down after the test, which fails when that is not
    clean.

    Options of it are given with the marker: `@pytest.mark.nvmet_target(workers=2)`.
    """
    marker = request.node.get_closest_marker("nvmet_target")
    target = Target(**(marker.kwargs if marker else {}))
    yield target
    try:
        target.shutdown()
    except NvmetError as error:
        pytest.fail(f"the target did not shut down cleanly: {error}", pytrace=False)


class DriveFactory:
    """Makes attached drives on a target: what `nvme_drive` is."""

    def __init__(self, target: Target, directory: Path, disk: Any, options: Mapping[str, Any]) -> None:
        self._target = target
        self._directory = directory
        self._default = (disk, options)
        self._made = contextlib.ExitStack()
        self._count = 0

    def __call__(
        self, disk: Any = None, *, attach_options: Mapping[str, Any] | None = None, **options: Any
    ) -> Drive:
        """Serves `disk` as namespace 1 of a subsystem of its own and attaches to it.

        `disk` is a specification (`ram:64M`, a path), a backend or an open `Storage`; without one it is what
        the marker `nvme_drive` says, or a RAM drive of 64 MiB. `options` are those of a namespace,
        `attach_options` those of `attach`. The drive is detached after the test, which fails when that does
        not work; a test that leaves a controller behind that cannot shut down closes the drive itself.
        """
        if disk is None:
            disk, usual = self._default
            options = {**usual, **options}
        self._count += 1
        socket = self._directory / f"drive{self._count}.sock"
        _serve(self._target, disk, socket, serial=f"DRIVE{self._count}", options=options)
        drive = attach(socket, **(attach_options or {}))
        self._made.callback(drive.detach)
        return drive

    def detach(self) -> None:
        """Detaches all that were made, the last one first."""
        self._made.close()


@pytest.fixture
def nvme_drive(
    request: pytest.FixtureRequest, nvmet_target: Target, nvmet_directory: Path
) -> Iterator[DriveFactory]:
    """A function that makes drives, see `DriveFactory`: `drive = nvme_drive("ram:1G", block_size=4096)`."""
    marker = request.node.get_closest_marker("nvme_drive")
    disk = marker.args[0] if marker and marker.args else DEFAULT_DISK
    drives = DriveFactory(nvmet_target, nvmet_directory, disk, marker.kwargs if marker else {})
    yield drives
    try:
        drives.detach()
    except NvmetError as error:
        pytest.fail(f"a drive did not detach cleanly: {error}", pytrace=False)


def _serve(target: Target, disk: Any, socket: Path, *, serial: str, options: Mapping[str, Any]) -> None:
    """Puts a subsystem with one namespace on a socket."""
    subsystem = target.add_subsystem(serial=serial)
    subsystem.add_namespace(disk, **options)
    subsystem.listen(socket)
