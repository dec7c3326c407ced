"""What all tests share."""

from __future__ import annotations

import importlib.util

import pytest

if importlib.util.find_spec("nvmet_vdev") is None or importlib.util.find_spec("nvmet_vdev._nvmet") is None:
    raise pytest.UsageError(
        "nvmet_vdev is not built in this environment; run `make build` and .venv/bin/pytest"
    )


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options of the VM cases; here, because pytest reads those of a deeper conftest too late."""
    group = parser.getgroup("vm", "real guests in QEMU (tests/vm/README.md)")
    group.addoption(
        "--vm",
        choices=("auto", "require", "skip"),
        default="auto",
        help="without QEMU or the guest: auto skips, and fails where CI is set; require fails; "
        "skip runs no guest at all",
    )
    group.addoption(
        "--vm-device",
        choices=("target", "emulated"),
        default="target",
        help="emulated runs the cases on QEMU's own NVMe device, to tell a fault of the rig from ours",
    )
