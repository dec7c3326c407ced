"""What all tests share."""

from __future__ import annotations

import importlib.util

import pytest

from tests.product import RAN_AS

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


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Says which user the tests without privileges had: not every machine has one who can run the product."""
    for outcome in ("passed", "failed"):
        for report in terminalreporter.getreports(outcome):
            for name, who in report.user_properties:
                if name == RAN_AS and report.when == "call":
                    terminalreporter.write_line(f"{report.nodeid} ran as {who}")
