"""The document of the benchmarks is made from the results beside it; ratios are what they say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from benches import goals, report
from benches.contest import Floor
from benches.criterion import Bench
from benches.plan import SIZES, Place, groups
from benches.results import Results

FLOOR = Floor(Bench("echo", Path("nowhere")))
DOCUMENT = report.DOCUMENT.read_text()


def series(iops: list[float], **more: list[float]) -> dict[str, list[float]]:
    return {"iops": iops, **more}


def group(
    backend: str, depth: int, entries: dict[str, dict[str, list[float]]], **more: object
) -> dict[str, object]:
    load = {"rw": "randread", "bs": 4096, "jobs": 1, "about": ""}
    return {"name": "x", "backend": backend, "depth": depth, **load, "entries": entries, **more}


def results(*found: dict[str, object], **more: object) -> Results:
    about = {"load": 0.0, "cpus": 2, "memory_gib": 8, "cpu": "c", "kernel": "k", "disk": "ext4", "fio": None}
    machine = {**about, "commit": "abc", "rustc": "r"}
    raw = {"date": "2026-01-01", "size": "default", "rounds": 3, "seconds": 1, "machine": machine}
    return Results({**raw, "groups": list(found), "criterion": {}, "idle": [], **more})


def test_the_document_shows_the_results_that_lie_beside_it() -> None:
    assert report.render(DOCUMENT, Results.load(report.RESULTS)) == DOCUMENT


def test_every_generated_part_has_its_place_once() -> None:
    assert sorted(re.findall(r"<!-- bench:(\w+) -->", DOCUMENT)) == sorted(report.PARTS)


def test_what_was_not_measured_is_said_and_words_by_hand_stay() -> None:
    made = report.render("before\n<!-- bench:fio -->\nold\n<!-- /bench:fio -->\nafter\n", results())
    assert made == f"before\n<!-- bench:fio -->\n{report.NOTHING}\n<!-- /bench:fio -->\nafter\n"


def test_a_ratio_is_the_median_of_the_rounds_not_the_ratio_of_medians() -> None:
    cell = results(group("disk", 1, {"shadow": series([10, 40, 30]), "fio": series([10, 20, 60])})).cells[0]
    assert cell.ratio("shadow", "fio") == 1.0
    assert cell.median("shadow") == 30
    assert cell.ratio("shadow", "psync") is None


def test_goals_say_by_how_much_they_are_missed() -> None:
    found = results(
        group("tmpfs", 1, {"shadow": series([90]), "fio": series([100])}),
        group("null", 32, {"shadow": series([95]), "mapped": series([100])}),
        idle=[
            {
                "guest": "Linux",
                "backend": "ram",
                "ring": "shadow",
                "core": 0.002,
                "switches": 7,
                "seconds": 30.0,
            }
        ],
    )
    verdicts = {goal.what: goal.verdict for goal in goals.all_of(found)}
    assert verdicts["file on tmpfs, 4 KiB reads"] == "missed by 5%"
    assert verdicts["trapped doorbells with shadows under load, null"] == "met"
    assert verdicts["idle: default mode, any backend, a real Linux guest"] == "missed: 2.0 times as much"


def test_a_busy_machine_is_named() -> None:
    busy = results()
    assert "not quiet" not in report.run(busy)
    about = {**busy.raw["machine"], "load": 3.0}
    assert "not quiet" in report.run(Results({**busy.raw, "machine": about}))


@pytest.mark.parametrize("size", sorted(SIZES))
def test_no_load_is_measured_twice(size: str, tmp_path: Path) -> None:
    files = {"tmpfs": tmp_path / "a", "disk": tmp_path / "b"}
    names = [one.name for one in groups(SIZES[size], Place(files, True, FLOOR, ("poll",)))]
    assert len(names) == len(set(names))
    assert any(name.startswith("disk/randwrite/128k/qd32") for name in names)


def test_plots_are_the_same_bytes_for_the_same_results(tmp_path: Path) -> None:
    plots = pytest.importorskip("benches.plots", reason="matplotlib is not installed")
    both = {"shadow": series([95.0], p50_ns=[1.0], p99_ns=[2.0], p99_9_ns=[3.0]), "mapped": series([100.0])}
    found = results(*(group("null", depth, both) for depth in (1, 32)))
    first = [path.read_bytes() for path in plots.write(found, tmp_path)]
    assert len(first) == 3
    assert first == [path.read_bytes() for path in plots.write(found, tmp_path)]
