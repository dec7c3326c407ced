"""The shape of the code, as docs/architecture.md describes it, checked on the sources themselves.

Which crate may use which, which module of nvmet-core may import which, where `unsafe` may stand,
and how long a file may be.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
RUST = ROOT / "rust"

# A crate and the crates of this workspace that it may be built on.
MAY_USE: dict[str, set[str]] = {
    "nvmet-spec": set(),
    "nvmet-dma": set(),
    "nvmet-vfio-user": set(),
    "nvmet-block": {"nvmet-dma"},
    "nvmet-core": {"nvmet-spec", "nvmet-vfio-user", "nvmet-dma", "nvmet-block"},
    "nvmet-host": {"nvmet-spec", "nvmet-vfio-user", "nvmet-dma"},
    "nvmet-pybuf": {"nvmet-block", "nvmet-dma"},
    "nvmet-py": {"nvmet-core", "nvmet-host", "nvmet-block", "nvmet-dma", "nvmet-pybuf"},
}

# The modules of nvmet-core from the bottom up; a module uses its own rank and those below.
CORE_RANKS: tuple[frozenset[str], ...] = (
    frozenset({"error", "stats"}),
    frozenset({"queue", "pci", "irq", "thread"}),
    frozenset({"io", "subsystem", "namespace", "reservation"}),
    frozenset({"worker"}),
    frozenset({"controller", "placement"}),
    frozenset({"device"}),
    frozenset({"target"}),
)

MAX_LINES = 600

_COMMENT = re.compile(r"//[^\n]*|/\*.*?\*/", re.DOTALL)
_STRING = re.compile(r'b?"(?:[^"\\]|\\.)*"', re.DOTALL)
_TEST_MODULE = re.compile(r"#\[cfg\(test\)\]\s*mod \w+ \{")


def manifest(crate: str) -> dict[str, object]:
    return tomllib.loads((RUST / crate / "Cargo.toml").read_text())


def sources(crate: str) -> Iterator[Path]:
    """The product's sources of `crate`: not its tests."""
    for path in sorted((RUST / crate / "src").rglob("*.rs")):
        inside = path.relative_to(RUST / crate / "src")
        if inside.name not in ("tests.rs", "testing.rs") and "tests" not in inside.parts[:-1]:
            yield path


def product_lines(text: str) -> str:
    """`text` up to its test module, which by convention stands last."""
    tests = _TEST_MODULE.search(text)
    return text[: tests.start()] if tests else text


def code(text: str) -> str:
    """`text` without comments, strings and tests."""
    return _STRING.sub('""', _COMMENT.sub("", product_lines(text)))


def uses(text: str) -> set[str]:
    """The modules at the crate's root that `text` names: `crate::a::b`, `use crate::{a::b, c}`."""
    found = set(re.findall(r"\bcrate::(\w+)", text))
    for group in re.findall(r"\bcrate::\{(.*?)\};", text, re.DOTALL):
        depth = 0
        item = ""
        for character in group + ",":
            if character == "," and depth == 0:
                if match := re.match(r"\s*(\w+)", item):
                    found.add(match.group(1))
                item = ""
                continue
            depth += (character == "{") - (character == "}")
            item += character
    return found


def test_every_crate_has_its_place() -> None:
    assert {path.parent.name for path in RUST.glob("*/Cargo.toml")} == set(MAY_USE)


@pytest.mark.parametrize("crate", MAY_USE)
def test_a_crate_depends_only_downward(crate: str) -> None:
    dependencies = manifest(crate).get("dependencies", {})
    assert isinstance(dependencies, dict)
    ours = {name for name in dependencies if name.startswith("nvmet-")}
    assert ours <= MAY_USE[crate], f"{crate} must not depend on {sorted(ours - MAY_USE[crate])}"


@pytest.mark.parametrize("crate", MAY_USE)
def test_a_crate_names_only_crates_below_it(crate: str) -> None:
    for path in sources(crate):
        named = {name.replace("_", "-") for name in re.findall(r"\b(nvmet_\w+)::", code(path.read_text()))}
        named &= set(MAY_USE)
        assert named <= MAY_USE[crate], f"{path.relative_to(ROOT)} names {sorted(named - MAY_USE[crate])}"


def test_modules_of_the_core_import_only_downward() -> None:
    rank = {name: number for number, names in enumerate(CORE_RANKS) for name in names}
    base = RUST / "nvmet-core" / "src"
    upward = []
    for path in sources("nvmet-core"):
        module = path.relative_to(base).parts[0].removesuffix(".rs")
        if module == "lib":
            continue
        assert module in rank, f"{path.relative_to(ROOT)} has no rank; give {module} one in CORE_RANKS"
        upward += [
            f"{path.relative_to(ROOT)} (rank of {module}) imports {name}"
            for name in sorted(uses(code(path.read_text())))
            if name in rank and rank[name] > rank[module]
        ]
    assert not upward, "\n".join(upward)


def test_nothing_below_the_device_knows_vfio_user() -> None:
    base = RUST / "nvmet-core" / "src"
    for path in sources("nvmet-core"):
        module = path.relative_to(base).parts[0].removesuffix(".rs")
        if module not in ("device", "target", "lib", "error"):
            assert not re.search(r"\b(nvmet_vfio_user|vfio_user)::", code(path.read_text())), path


@pytest.mark.parametrize("crate", sorted(set(MAY_USE) - {"nvmet-dma", "nvmet-pybuf"}))
def test_unsafe_code_stands_in_two_crates_alone(crate: str) -> None:
    assert "#![forbid(unsafe_code)]" in (RUST / crate / "src" / "lib.rs").read_text()
    for path in sources(crate):
        assert not re.search(r"\bunsafe\b\s*(\{|fn|impl|trait|extern)", code(path.read_text())), path


def test_no_file_is_too_long() -> None:
    files = [path for crate in MAY_USE for path in sources(crate)]
    files += (ROOT / "python").rglob("*.py")
    too_long = {
        str(path.relative_to(ROOT)): lines
        for path in files
        if (lines := product_lines(path.read_text()).count("\n")) > MAX_LINES
    }
    assert not too_long, f"more than {MAX_LINES} lines: {too_long}"


def test_the_scanner_sees_what_it_must() -> None:
    text = (
        'use crate::{queue::{Sq, Cq}, target};\nlet s = "crate::worker";\n// crate::device\ncrate::io::x();'
    )
    assert uses(code(text)) == {"queue", "target", "io"}
    assert code("a\n#[cfg(test)]\nmod tests {\n unsafe {} }").strip() == "a"
