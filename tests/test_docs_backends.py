"""Every example of docs/backends.md is run, in the order of the page, in one directory.

A Python block names its file in its first line; it is written there and run, or is a page of tests. A
shell block is run line by line.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.product import environment, run, serve

PAGE = Path(__file__).resolve().parent.parent / "docs" / "backends.md"
BLOCKS = re.findall(r"^```(python|sh)\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("docs")
    (place / "disk.img").write_bytes(bytes(1 << 20))
    (place / "nvmet-vdev").mkdir(mode=0o700)
    for kind, text in BLOCKS:
        if kind == "python":
            (place / name_of(text)).write_text(text)
    return place


def name_of(text: str) -> str:
    first = text.partition("\n")[0]
    assert re.fullmatch(r"# \w+\.py", first), f"{first!r}: an example's first line is the name of its file"
    return first.removeprefix("# ")


PROGRAMS = [name_of(text) for kind, text in BLOCKS if kind == "python"]
LINES = [line for kind, text in BLOCKS if kind == "sh" for line in text.splitlines() if line]


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_program_of_the_page_runs(place: Path, program: str) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", program],
        cwd=place,
        env=environment(place),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("line", LINES)
def test_a_command_of_the_page_works(place: Path, line: str) -> None:
    program, *words = [word.replace("/tmp/", f"{place}/") for word in shlex.split(line)]
    if program == "pytest":
        command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *words]
        subprocess.run(command, cwd=place, env=environment(place), timeout=120, check=True)
        return
    assert program == "nvmet-vdev", line
    if words[0] == "run":
        with serve(*words[1:], cwd=place) as server:
            assert server.stop() == 0
        return
    done = run(*words, cwd=place)
    assert done.returncode == 0, done.stdout + done.stderr
