"""The plots of docs/performance.md: SVG, the same bytes for the same results, colours all can tell apart."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path

import matplotlib as mpl

mpl.use("svg")

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter, NullLocator

from benches.goals import OF_FIO, OF_MAPPED
from benches.report import BACKENDS, count
from benches.results import Cell, Results

# Okabe and Ito's colours; a marker and a line each, for those who print.
STYLES = {
    "mapped": ("#0072B2", "o", "-"),
    "shadow": ("#D55E00", "s", "-"),
    "fio": ("#009E73", "^", "--"),
    "floor": ("#000000", "x", ":"),
    "p50": ("#0072B2", "o", "-"),
    "p99": ("#E69F00", "s", "-"),
    "p99.9": ("#CC79A7", "D", "-"),
    "tmpfs": ("#009E73", "^", "-"),
    "disk": ("#CC79A7", "D", "-"),
    "null": ("#0072B2", "o", "-"),
    "ram": ("#E69F00", "s", "-"),
}
SETTINGS = {
    "svg.hashsalt": "nvmet-vdev",
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 8,
    "axes.grid": True,
    "grid.linewidth": 0.4,
    "grid.color": "#dddddd",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "lines.markersize": 4,
    "lines.linewidth": 1.2,
}


def write(results: Results, place: Path) -> list[Path]:
    """All plots for which there is something to show."""
    made = []
    with mpl.rc_context(SETTINGS):  # type: ignore[arg-type]  # its stubs name every key
        for name, draw in (("iops", iops), ("latency", latency), ("ratios", ratios)):
            figure = draw(results)
            if figure is None:
                continue
            path = place / f"{name}.svg"
            figure.savefig(path, metadata={"Date": None, "Creator": None}, bbox_inches="tight")
            # Lines that end in blanks are nobody's friends.
            path.write_text("\n".join(line.rstrip() for line in path.read_text().splitlines()) + "\n")
            made.append(path)
    return made


def iops(results: Results) -> Figure | None:
    """Commands a second over the queue depth: a panel for each backend."""
    figure, panels = _panels(results)
    for backend, axes in panels:
        cells = results.find(backend)
        for who in ("floor", "mapped", "shadow", "fio"):
            _line(axes, cells, partial(Cell.median, who=who), who)
        _over_depth(axes, cells, BACKENDS[backend])
        axes.set_yscale("log")
        _plain(axes, count)
        axes.legend(loc="best")
    if panels:
        panels[0][1].set_ylabel("IOPS, 4 KiB random reads")
    return figure


def latency(results: Results) -> Figure | None:
    """Percentiles over the queue depth; fio's 99th beside ours where there is one."""
    figure, panels = _panels(results)
    for backend, axes in panels:
        cells = results.find(backend)
        for label, key in (("p50", "p50_ns"), ("p99", "p99_ns"), ("p99.9", "p99_9_ns")):
            _line(axes, cells, partial(_late, key=key), label)
        _line(axes, cells, lambda cell: _micros(cell.median("fio", "p99_ns")), "fio", "fio p99")
        _over_depth(axes, cells, BACKENDS[backend])
        axes.set_yscale("log")
        _plain(axes, lambda value: f"{value:g}")
        axes.legend(loc="best")
    if panels:
        panels[0][1].set_ylabel("latency in µs, shadow doorbells")
    return figure


def ratios(results: Results) -> Figure | None:
    """Time over the floor's, IOPS over fio's, shadow over mapped doorbells."""
    if not results.find("null"):
        return None
    figure = Figure(figsize=(9, 2.6), layout="constrained")
    floor, fio, rings = figure.subplots(1, 3)
    for who in ("mapped", "shadow"):
        _line(floor, results.find("null"), partial(_over_floor, who=who), who)
    _over_depth(floor, results.find("null"), "null: time of a command / bare ring echo")
    for backend in ("tmpfs", "disk"):
        _line(fio, results.find(backend), lambda cell: cell.ratio("shadow", "fio"), backend)
    _over_depth(fio, results.find("tmpfs") or results.find("disk"), "file: IOPS / fio's on the same file")
    _goal(fio, OF_FIO)
    for backend in results.backends:
        _line(rings, results.find(backend), lambda cell: cell.ratio("shadow", "mapped"), backend)
    _over_depth(rings, results.find("null"), "IOPS, shadow / mapped doorbells")
    _goal(rings, OF_MAPPED)
    for axes in (floor, fio, rings):
        axes.set_ylim(bottom=0)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(loc="best")
    return figure


def _panels(results: Results) -> tuple[Figure | None, list[tuple[str, Axes]]]:
    backends = [backend for backend in results.backends if results.find(backend)]
    if not backends:
        return None, []
    figure = Figure(figsize=(2.4 * len(backends) + 0.6, 2.6), layout="constrained")
    grid = figure.subplots(1, len(backends), squeeze=False, sharey=True)
    return figure, list(zip(backends, grid[0], strict=True))


def _line(
    axes: Axes, cells: Iterable[Cell], value: Callable[[Cell], float | None], style: str, label: str = ""
) -> None:
    points = [(cell.depth, found) for cell in cells if (found := value(cell)) is not None]
    if points:
        colour, marker, line = STYLES[style]
        depths, values = zip(*points, strict=True)
        axes.plot(depths, values, color=colour, marker=marker, linestyle=line, label=label or style)


def _over_depth(axes: Axes, cells: Sequence[Cell], title: str) -> None:
    axes.set_title(title, fontsize=8)
    axes.set_xscale("log", base=2)
    depths = [cell.depth for cell in cells]
    axes.set_xticks(depths, [str(depth) for depth in depths])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("queue depth")


def _goal(axes: Axes, value: float) -> None:
    axes.axhline(value, color="#666666", linewidth=0.8, linestyle="--", label=f"goal {value}")


def _plain(axes: Axes, said: Callable[[float], str]) -> None:
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: said(value)))
    axes.yaxis.set_minor_formatter(NullFormatter())


def _late(cell: Cell, key: str) -> float | None:
    return _micros(cell.median("shadow", key))


def _over_floor(cell: Cell, who: str) -> float | None:
    return cell.ratio("floor", who)


def _micros(value: float | None) -> float | None:
    return None if value is None else value / 1000
