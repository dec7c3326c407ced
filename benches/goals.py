"""The goals of the hot path, each with what was measured and whether it is met."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from benches.results import LARGE, SMALL, Cell, Results

NULL_OVER_SPDK, RAM_OVER_SPDK, FILE_OVER_SPDK = 1.25, 1.5, 1.5
OF_FIO, OF_MAPPED, OF_MEMCPY = 0.95, 0.9, 0.9
OF_NBDKIT = 15
PYTHON_IOPS = (("plain", 1, 50e3), ("plain", 32, 200e3), ("batch", 32, 400e3))
"""Form, depth and commands a second."""
IDLE_CORE, IDLE_MAPPED_CORE = 0.001, 0.02
LOADED = 32
"""The least depth that counts as load."""

# SPDK v26.05, one queue, 4 KiB random reads, medians: another run, on a machine of the same kind.
# IOPS by depth.
SPDK = {
    "null": {1: 783e3, 32: 2.87e6, 128: 5.2e6},
    "ram": {1: 484e3, 32: 843e3, 128: 1.04e6},
    "tmpfs": {1: 229e3, 32: 293e3, 128: 362e3},
}
SPDK_SHADOW = {1: 126e3, 128: 128e3}
SPDK_LARGE_READS = 12.8e9
"""malloc, 128 KiB reads at depth 32, in bytes a second."""
QSD = {"null": {1: 160e3, 32: 1.24e6, 128: 1.16e6}, "tmpfs": {1: 84e3, 32: 236e3, 128: 250e3}}
"""qemu-storage-daemon's vhost-user-blk, measured in the same run as `SPDK`."""


@dataclass(frozen=True)
class Goal:
    """A line of the table."""

    what: str
    goal: str
    measured: str
    verdict: str

    @property
    def cells(self) -> tuple[str, str, str, str]:
        """Its columns."""
        return self.what, self.goal, self.measured, self.verdict


def all_of(results: Results) -> list[Goal]:
    """Every goal, in the order of importance."""
    made = [
        *_spdk(results),
        _memcpy(results),
        *(_fio(results, backend) for backend in ("tmpfs", "disk")),
        *(_shadow(results, backend) for backend in ("null", "ram")),
        *_python(results),
        _idle(results, "our driver", "shadow", IDLE_CORE, "default mode, any backend"),
        _idle(results, "Linux", "shadow", IDLE_CORE, "default mode, any backend, a real Linux guest"),
        _idle(results, "our driver", "mapped", IDLE_MAPPED_CORE, "mapped doorbells"),
        _idle(results, "Linux", "mapped", IDLE_MAPPED_CORE, "mapped doorbells, a real Linux guest"),
    ]
    return [goal for goal in made if goal is not None]


def _python(results: Results) -> list[Goal | None]:
    """Drives in Python: commands a second, and as a multiple of nbdkit's in the same run."""
    made: list[Goal | None] = []
    by_depth = {cell.depth: cell for cell in results.find("python")}
    for form, depth, goal in PYTHON_IOPS:
        found = by_depth[depth].median(form) if depth in by_depth else None
        if found is not None:
            made.append(
                Goal(
                    f"drive in Python, 4 KiB reads, {form}, QD{depth}",
                    f"≥ {goal / 1000:.0f} K a second",
                    f"{found / 1000:.0f} K",
                    verdict(found, goal),
                )
            )
    ratios = at_depths(by_depth.values(), lambda cell: cell.ratio("plain", "nbdkit"))
    if ratios:
        worst = min(value for _, value in ratios)
        made.append(
            Goal(
                "drive in Python, plain methods",
                f"≥ {OF_NBDKIT} × nbdkit's Python plugin",
                _said(ratios),
                verdict(worst, OF_NBDKIT),
            )
        )
    return made


def verdict(worst: float, goal: float) -> str:
    """Whether more is reached than the goal, or by how much it is missed."""
    return "met" if worst >= goal else f"missed by {1 - worst / goal:.0%}"


def at_depths(cells: Iterable[Cell], ratio: Callable[[Cell], float | None]) -> list[tuple[int, float]]:
    """A ratio at each depth at which there is one."""
    found = ((cell.depth, ratio(cell)) for cell in cells)
    return [(depth, value) for depth, value in found if value is not None]


def _said(ratios: Sequence[tuple[int, float]]) -> str:
    return ", ".join(f"{value:.2f} (QD{depth})" for depth, value in ratios)


def _spdk(results: Results) -> list[Goal | None]:
    """Against figures of another run: for orientation, and said so."""
    rows: list[tuple[str, str, float]] = [
        ("null", "mapped", NULL_OVER_SPDK),
        ("ram", "mapped", RAM_OVER_SPDK),
        ("tmpfs", "mapped", FILE_OVER_SPDK),
    ]
    made: list[Goal | None] = []
    for backend, ring, goal in rows:

        def over(cell: Cell, backend: str = backend, ring: str = ring) -> float | None:
            ours, theirs = cell.median(ring), SPDK[backend].get(cell.depth)
            return ours / theirs if ours and theirs else None

        ratios = at_depths(results.find(backend), over)
        if ratios:
            worst = min(value for _, value in ratios)
            made.append(
                Goal(
                    f"{backend}, 4 KiB reads, mapped doorbells",
                    f"≥ {goal} × SPDK [1]",
                    _said(ratios),
                    f"{verdict(worst, goal)} [1]",
                )
            )
    return made


def _memcpy(results: Results) -> Goal | None:
    ratios = at_depths(results.find("ram", bs=LARGE), lambda cell: cell.ratio("shadow", "memcpy"))
    if not ratios:
        return None
    best = max(value for _, value in ratios)
    return Goal(
        "ram, 128 KiB reads", "near one core's memcpy (≥ 0.9)", _said(ratios), verdict(best, OF_MEMCPY)
    )


def _fio(results: Results, backend: str) -> Goal | None:
    ratios = at_depths(results.find(backend), lambda cell: cell.ratio("shadow", "fio"))
    if not ratios:
        return None
    worst = min(value for _, value in ratios)
    what = f"file on {'a disk' if backend == 'disk' else backend}, 4 KiB reads"
    return Goal(what, f"≥ {OF_FIO} × fio on the same file", _said(ratios), verdict(worst, OF_FIO))


def _shadow(results: Results, backend: str) -> Goal | None:
    ratios = at_depths(results.find(backend), lambda cell: cell.ratio("shadow", "mapped"))
    loaded = [(depth, value) for depth, value in ratios if depth >= LOADED]
    if not loaded:
        return None
    worst = min(value for _, value in loaded)
    what = f"trapped doorbells with shadows under load, {backend}"
    return Goal(what, f"≥ {OF_MAPPED} × mapped", _said(loaded), verdict(worst, OF_MAPPED))


def _idle(results: Results, guest: str, ring: str, goal: float, what: str) -> Goal | None:
    rows = [row for row in results.idle if (row["guest"], row["ring"]) == (guest, ring)]
    if not rows:
        return None
    worst = max(rows, key=lambda row: row["core"])
    switches = max(row["switches"] for row in rows)
    measured = f"{worst['core']:.3%} at most ({worst['backend']}), {switches} context switches at most"
    met = worst["core"] < goal
    return Goal(
        f"idle: {what}",
        f"< {goal:.1%} of a core over {worst['seconds']:.0f} s",
        measured,
        "met" if met else f"missed: {worst['core'] / goal:.1f} times as much",
    )


def text(results: Results | dict[str, object]) -> str:
    """The goals for a terminal."""
    found = results if isinstance(results, Results) else Results(results)
    lines = [f"{goal.verdict:<24} {goal.what}: {goal.measured}  (goal {goal.goal})" for goal in all_of(found)]
    return "\n".join(lines) or "no goal was measured"


__all__ = [
    "LARGE",
    "QSD",
    "SMALL",
    "SPDK",
    "SPDK_LARGE_READS",
    "SPDK_SHADOW",
    "Goal",
    "all_of",
    "text",
    "verdict",
]
