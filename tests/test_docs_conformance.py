"""docs/architecture.md lists every source file, docs/conformance.md names only files and tests that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ARCHITECTURE = ROOT / "docs" / "architecture.md"
CONFORMANCE = ROOT / "docs" / "conformance.md"
DOCUMENTS = sorted((ROOT / "docs").glob("*.md"))

_HEADING = re.compile(r"^### `((?:rust/|python/|benches)[^`]*)`$", re.MULTILINE)
_ROW = re.compile(r"^\| `([^`]+\.(?:rs|pyi?))` \|", re.MULTILINE)
_FILE = re.compile(r"`([\w/.-]+\.(?:rs|pyi?|md|toml))(?:::\w+)?`")
_TEST = re.compile(r"`([\w/.-]+\.(?:rs|py))::(\w+)`")
# Where conformance.md looks for a file: most are of the core.
_BASES = (ROOT, ROOT / "rust", ROOT / "rust" / "nvmet-core" / "src")


def is_source(path: Path) -> bool:
    """Whether a file is the product's: tests are described as a whole, not one by one."""
    if path.name in ("tests.rs", "testing.rs"):
        return False
    return not {"tests", "fuzz", "__pycache__", "target"} & set(path.relative_to(ROOT).parts)


def sources() -> set[str]:
    patterns = (("rust", "*.rs"), ("benches", "*.rs"), ("python", "*.py"), ("python", "*.pyi"))
    files = (path for top, pattern in patterns for path in (ROOT / top).rglob(pattern))
    return {str(path.relative_to(ROOT)) for path in files if is_source(path)}


def listed() -> list[str]:
    """The files of the tables, in order; each table stands under the heading of its directory."""
    text = ARCHITECTURE.read_text()
    headings = list(_HEADING.finditer(text))
    ends = [heading.start() for heading in headings[1:]] + [len(text)]
    return [
        f"{heading.group(1)}/{file}"
        for heading, end in zip(headings, ends, strict=True)
        for file in _ROW.findall(text[heading.end() : end])
    ]


def test_every_source_file_is_in_the_architecture_once() -> None:
    files = listed()
    missing = sorted(sources() - set(files))
    assert not missing, f"say in {ARCHITECTURE.name} what they are and may know: {missing}"
    gone = sorted(set(files) - sources())
    assert not gone, f"{ARCHITECTURE.name} lists what is not there: {gone}"
    assert len(files) == len(set(files)), "a file is listed twice"


def find(file: str) -> Path | None:
    return next((base / file for base in _BASES if (base / file).is_file()), None)


def test_every_file_that_the_conformance_names_is_there() -> None:
    gone = sorted(file for file in set(_FILE.findall(CONFORMANCE.read_text())) if find(file) is None)
    assert not gone, f"{CONFORMANCE.name} names what is not there: {gone}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_of_a_document_lead_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", document.read_text()):
        assert (document.parent / target).exists(), f"{document.name} links to {target}"


def test_every_test_that_the_conformance_names_is_there() -> None:
    named = set(_TEST.findall(CONFORMANCE.read_text()))
    assert named, "no row names its test"
    gone = []
    for file, name in sorted(named):
        path = find(file)
        keyword = "fn" if file.endswith(".rs") else "def"
        if path is None or not re.search(rf"\b{keyword} {name}\b", path.read_text()):
            gone.append(f"{file}::{name}")
    assert not gone, f"{CONFORMANCE.name} names tests that are not there: {gone}"


def test_every_row_of_the_conformance_tables_has_a_status() -> None:
    """A table whose last column is `status` says one of four words in each row."""
    allowed = ("yes", "part", "no", "n/a")
    status_table = False
    for number, line in enumerate(CONFORMANCE.read_text().splitlines(), start=1):
        if not line.startswith("|"):
            status_table = False
            continue
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if cells[-1] == "status":
            status_table = True
        elif status_table and not set(line) <= set("|-: "):
            assert cells[-1] in allowed, f"{CONFORMANCE.name}:{number}: {cells[-1]!r} is none of {allowed}"
