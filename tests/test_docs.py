"""Every example that the documentation shows is run: the README's and those in `--help`."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from tests.product import run, serve

ROOT = Path(__file__).resolve().parent.parent
COMMANDS = ("run", "serve", "save", "identify", "bench", "backends", "check-backend", "demo")
DRIVE = """
from nvmet_vdev.sizes import Size

class Drive:
    def __init__(self, size: Size) -> None:
        self.size = size
        self.data = {}

    def read(self, offset, buf):
        for at in range(0, len(buf), 512):
            buf[at : at + 512] = self.data.get(offset + at, bytes(512))

    def write(self, offset, buf, fua):
        for at in range(0, len(buf), 512):
            self.data[offset + at] = bytes(buf[at : at + 512])
"""


def examples_of_readme() -> list[str]:
    text = (ROOT / "README.md").read_text()
    blocks = re.findall(r"^```sh\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return [line for block in blocks for line in block.splitlines() if line.startswith("nvmet-vdev ")]


def config_of_readme() -> str:
    (text,) = re.findall(r"^```toml\n(.*?)^```$", (ROOT / "README.md").read_text(), re.DOTALL | re.MULTILINE)
    return str(text)


def examples_of_help() -> list[str]:
    from click.testing import CliRunner

    from nvmet_vdev.cli import commands

    found = []
    for command in COMMANDS:
        text = CliRunner().invoke(commands, [command, "--help"], prog_name="nvmet-vdev").output
        examples = text.partition("Examples:")[2].partition("\n\n")[0]
        # What follows an example after several blanks is a remark; what follows a pipe is another program.
        lines = [line.strip() for line in examples.splitlines() if line.strip()]
        assert lines, f"{command} --help shows no example"
        found += [re.split(r"\s{2,}|\s[|>]", line)[0] for line in lines]
    return found


def arguments(example: str, place: Path) -> list[str]:
    """The example's arguments, with what a test machine does not have replaced."""
    here = {"/run/user/1000/": f"{place}/", "/tmp/": f"{place}/", "/dev/sdb": "sdb.img"}
    pattern = re.compile("|".join(map(re.escape, here)))
    words = shlex.split(example, comments=True)[1:]
    return [pattern.sub(lambda match: here[match.group()], word) for word in words]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    for name in ("disk.img", "data.img", "golden.img", "scratch.img", "sdb.img"):
        (tmp_path / name).write_bytes(bytes(1 << 20))
    (tmp_path / "drive.py").write_text(DRIVE)
    (tmp_path / "drives.toml").write_text(config_of_readme().replace("/tmp/", f"{tmp_path}/"))
    (tmp_path / "nvmet.json").write_text('{"hosts": [], "ports": [], "subsystems": []}')
    (tmp_path / "nvmet-vdev").mkdir(mode=0o700)
    return tmp_path


@pytest.mark.parametrize("example", [pytest.param(e, id=e) for e in dict.fromkeys(examples_of_readme())])
def test_an_example_of_the_readme_works(place: Path, example: str) -> None:
    works(example, place)


@pytest.mark.parametrize("example", [pytest.param(e, id=e) for e in dict.fromkeys(examples_of_help())])
def test_an_example_of_the_help_works(place: Path, example: str) -> None:
    works(example, place)


def works(example: str, place: Path) -> None:
    command, *rest = arguments(example, place)
    if command == "serve":
        checks = "--check" in rest or "nvmet.json" in rest
        if checks:
            assert run("serve", *rest, "--check", cwd=place).returncode == 0
            return
        with serve(*rest, cwd=place, command="serve") as server:
            assert server.stop() == 0
        return
    if command in ("ctl", "save"):
        with serve("-c", "drives.toml", cwd=place, command="serve") as server:
            # They are one session: what an example names, one before it has made.
            if "data.img" in rest:
                (place / "data.img").unlink()
            result = run(command, *rest, cwd=place)
            assert result.returncode == 0, (result.stdout, result.stderr)
            assert server.stop() == 0
        return
    if command == "run":
        if "--create" in rest:
            (place / "disk.img").unlink()
        with serve(*rest, cwd=place) as server:
            assert server.stop() == 0
        return
    if command == "demo":
        assert run("demo", "--size", "16M", "--runtime", "0.2", cwd=place).returncode == 0
        return
    # The last value of an option counts: the examples' patience is for people.
    if command in ("backends", "check-backend"):
        short = ("--rounds", "1") if command == "check-backend" else ()
        result = run(command, *rest, *short, cwd=place)
        assert result.returncode == 0, (result.stdout, result.stderr)
        return
    quick = ("--runtime", "0.2", "--size", "8M", "--cpus", "0") if command == "bench" else ()
    with serve("ram:16M", "--socket", rest[0], cwd=place) as server:
        result = run(command, *rest, *quick, cwd=place)
        assert result.returncode == 0, result.stderr
        assert result.stdout
        assert server.stop() == 0


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_fits_a_terminal_and_is_on_standard_output(tmp_path: Path, command: str) -> None:
    result = run(*command.split(), "--help", cwd=tmp_path, COLUMNS="100")
    assert result.returncode == 0
    assert result.stderr == ""
    assert result.stdout.startswith("Usage: nvmet-vdev")
    assert max(len(line) for line in result.stdout.splitlines()) <= 100


def test_the_version_is_that_of_the_package(tmp_path: Path) -> None:
    from importlib.metadata import version

    from nvmet_vdev import __version__

    assert __version__ == version("nvmet-vdev")
    assert run("--version", cwd=tmp_path).stdout == f"nvmet-vdev {__version__}\n"


def test_links_in_the_documents_lead_somewhere() -> None:
    for document in ROOT.glob("*.md"):
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", document.read_text()):
            assert (ROOT / target).exists(), f"{document.name} links to {target}"


def test_every_make_target_says_what_it_does() -> None:
    text = (ROOT / "Makefile").read_text()
    phony = set(re.findall(r"^\.PHONY: (\S+)$", text, re.MULTILINE))
    explained = set(re.findall(r"^(\S+):.*## \S", text, re.MULTILINE))
    assert {"demo", "test", "check", "bench", "soak", "fuzz", "clean", "build", "venv", "help"} <= explained
    assert phony - explained == {"need"}
