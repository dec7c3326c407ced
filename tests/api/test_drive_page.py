"""Every example of docs/drive.md is run: pages of tests by pytest, the others one after the other."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from nvmet_vdev.pytest_plugin import DriveFactory

pytest_plugins = ["pytester"]
PAGE = Path(__file__).resolve().parents[2] / "docs" / "drive.md"


def examples() -> list[str]:
    return re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)


def is_test(example: str) -> bool:
    return "def test_" in example


def test_the_examples_of_the_page_run_in_their_order(nvme_drive: DriveFactory, nvmet_directory: Path) -> None:
    served = nvme_drive()
    served.close()
    names: dict[str, object] = {}
    chosen = [example for example in examples() if not is_test(example)]
    assert len(chosen) > 5
    for example in chosen:
        text = example.replace("/run/user/1000/drive.sock", str(served.socket))
        text = text.replace("/run/user/1000/", f"{nvmet_directory}/")
        exec(compile(text, str(PAGE), "exec"), names)  # noqa: S102


def test_the_tests_of_the_page_pass(pytester: pytest.Pytester) -> None:
    chosen = [example for example in examples() if is_test(example)]
    assert chosen
    for number, example in enumerate(chosen):
        pytester.makepyfile(**{f"test_page{number}": example})
    passed = sum(example.count("def test_") for example in chosen)
    pytester.runpytest("--strict-markers").assert_outcomes(passed=passed)
