"""Writes the generated parts of docs/performance.md, and the plots, from the results of one run.

`python -m benches.report RESULTS.json`; with `--add RESULTS.json...` the groups of a run of a part
(BENCH_ONLY) take the place of those of the same name that the document shows.

A part stands between `<!-- bench:NAME -->` and `<!-- /bench:NAME -->`; the words around it are written by
hand. The results that the document shows are kept beside it.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benches import goals
from benches.results import LARGE, SMALL, Cell, Results

ROOT = Path(__file__).resolve().parent.parent
DOCUMENT = ROOT / "docs" / "performance.md"
PLACE = ROOT / "docs" / "performance"
RESULTS = PLACE / "results.json"
NOTHING = "Not measured in this run."
BACKENDS = {"null": "null", "ram": "ram", "tmpfs": "file on tmpfs", "disk": "file on a disk"}

_PART = re.compile(r"(<!-- bench:(\w+) -->\n).*?(<!-- /bench:\2 -->)", re.DOTALL)


def write(path: Path) -> None:
    """The document, its plots, and a copy of the results."""
    from benches import plots

    results = Results.load(path)
    PLACE.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(results.raw, separators=(",", ":")).replace('{"name"', '\n{"name"') + "\n")
    DOCUMENT.write_text(render(DOCUMENT.read_text(), results))
    plots.write(results, PLACE)


def add(paths: Sequence[Path]) -> None:
    """Takes the groups of other runs into the results that the document shows, and writes it."""
    raw = json.loads(RESULTS.read_text())
    for path in paths:
        other = json.loads(path.read_text())
        names = {group["name"] for group in other["groups"]}
        raw["groups"] = [group for group in raw["groups"] if group["name"] not in names] + other["groups"]
        kinds = sorted({f"{name.partition('/')[0]}/" for name in names})
        about = {"date": other["date"], "load": other["machine"]["load"]}
        raw.setdefault("added", {}).update(dict.fromkeys(kinds, about))
    merged = RESULTS.with_suffix(".new")
    merged.write_text(json.dumps(raw))
    write(merged)
    merged.unlink()


def render(document: str, results: Results) -> str:
    """The document with every generated part made anew."""

    def part(match: re.Match[str]) -> str:
        content = PARTS[match[2]](results) or NOTHING
        return f"{match[1]}{content}\n{match[3]}"

    return _PART.sub(part, document)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown; empty when it has no rows."""
    lines = [" | ".join(("", *cells, "")).strip() for cells in rows]
    if not lines:
        return ""
    return "\n".join([" | ".join(("", *head, "")).strip(), "|---" * len(head) + "|", *lines])


def ratio(value: float | None) -> str:
    """A ratio for people: two digits after the point below ten, none above."""
    if value is None:
        return ""
    return f"{value:.2f}" if value < 10 else f"{value:.0f}"


def count(value: float | None) -> str:
    """Commands a second: 783 K, 2.87 M."""
    if value is None:
        return ""
    for unit, size in (("M", 1e6), ("K", 1e3)):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value:.3g}"


def micros(value: float | None) -> str:
    """Nanoseconds as microseconds."""
    return "" if value is None else f"{value / 1000:.3g}"


def size_of(size: int) -> str:
    return f"{size >> 10} KiB"


def one_line(group: Mapping[str, Any]) -> str:
    """A group that has just been measured, for the terminal."""
    cell = Cell(**{key: value for key, value in group.items() if key != "name"})
    said = ", ".join(f"{who} {count(cell.median(who))}" for who in cell.entries)
    return f"{group['name']:<34} {said}"


def _depths(cells: Iterable[Cell]) -> list[int]:
    return sorted({cell.depth for cell in cells})


def _by_depth(
    rows: Iterable[tuple[str, Sequence[Cell]]], figure: Callable[[Cell], str], first: str = ""
) -> str:
    """One row for each series of cells, one column for each depth; rows without a figure are left out."""
    all_of_them = [(name, {cell.depth: figure(cell) for cell in cells}) for name, cells in rows]
    shown = [(name, found) for name, found in all_of_them if any(found.values())]
    depths = sorted({depth for _, found in shown for depth in found})
    head = (first, *(f"QD{depth}" for depth in depths))
    return table(head, [(name, *(found.get(depth, "") for depth in depths)) for name, found in shown])


def _loads(results: Results) -> Iterable[tuple[str, Sequence[Cell]]]:
    """Every backend, direction and block size on one queue."""
    for backend in results.backends:
        for bs in (SMALL, LARGE):
            for rw in ("randread", "randwrite"):
                yield f"{BACKENDS[backend]}, {size_of(bs)} {rw}", results.find(backend, rw=rw, bs=bs)


def run(results: Results) -> str:
    """When, where, how long."""
    raw, about = results.raw, results.raw["machine"]
    busy = about["load"] > about["cpus"] / 4
    return (
        f"{raw['date']}, commit {about['commit']}: {about['cpu']}, {about['cpus']} processors, "
        f"{about['memory_gib']} GiB, Linux {about['kernel']}, disk with {about['disk']}, "
        f"{about['fio'] or 'no fio'}, {about['rustc']}; set `{raw['size']}`, {raw['rounds']} rounds of "
        f"{raw['seconds']} s each; load average at the start {about['load']:.2f}"
        + (". **The machine was not quiet: do not rely on these figures.**" if busy else ".")
        + "".join(
            f" Groups `{kind}`: {part['date']}, load average {part['load']:.2f}."
            for kind, part in sorted(raw.get("added", {}).items())
        )
    )


def goal_table(results: Results) -> str:
    """Goal, measured, met."""
    return table(("", "goal", "measured", ""), [goal.cells for goal in goals.all_of(results)])


def floor(results: Results) -> str:
    """The null namespace against the bare ring echo."""

    def over(who: str) -> Callable[[Cell], str]:
        return lambda cell: ratio(cell.ratio("floor", who))

    cells = results.find("null")
    made = [_by_depth([(f"{who} doorbells", cells)], over(who)) for who in ("mapped", "shadow")]
    # Two tables of one row each: the second one's heading goes.
    return "\n".join([made[0], *made[1].splitlines()[2:]]) if all(made) else made[0]


def fio(results: Results) -> str:
    """Ours over fio's, in the default mode."""
    return _by_depth(_loads(results), lambda cell: ratio(cell.ratio("shadow", "fio")))


def psync(results: Results) -> str:
    """Ours over one thread that just reads tmpfs."""
    alone = [cell for cell in results.find("tmpfs") if cell.median("psync")]
    if not alone:
        return ""
    plain = alone[0].median("psync") or 1.0
    return _by_depth(
        [("shadow / plain pread", results.find("tmpfs"))],
        lambda cell: ratio((cell.median("shadow") or 0) / plain),
    )


def memcpy(results: Results) -> str:
    """Large reads of ram against one core's memcpy."""
    return _by_depth(
        [("ram, 128 KiB randread / memcpy", results.find("ram", bs=LARGE))],
        lambda cell: ratio(cell.ratio("shadow", "memcpy")),
    )


def doorbells(results: Results) -> str:
    """Trapped doorbells with shadows against mapped ones."""
    return _by_depth(_loads(results), lambda cell: ratio(cell.ratio("shadow", "mapped")), "shadow / mapped")


def queues(results: Results) -> str:
    """More queues against one, and against fio with as many jobs."""
    rows = []
    for backend in results.backends:
        cells = [cell for cell in results.find(backend, jobs=None) if cell.depth == 32]
        one = next((cell.median("shadow") for cell in cells if cell.jobs == 1), None)
        if not one or len(cells) < 2:
            continue
        alone = [ratio((cell.median("shadow") or 0) / one) for cell in cells]
        beside = [ratio(cell.ratio("shadow", "fio")) for cell in cells]
        rows.append((f"{BACKENDS[backend]}, of one queue", *alone))
        if any(beside):
            rows.append((f"{BACKENDS[backend]}, of fio with as many jobs", *beside))
    width = max(map(len, rows), default=0)
    head = ("4 KiB randread, QD32 each", "1 queue", *(f"{2**n} queues" for n in range(1, width - 1)))
    return table(head, [row for row in rows if len(row) == width])


def waiting(results: Results) -> str:
    """Ways to wait against the default."""
    rows = []
    for cell in results.find("null", about="waiting"):
        for who in cell.entries:
            ours, usual = cell.median(who, "cpu_ns"), cell.median("shadow", "cpu_ns")
            late, early = cell.median(who, "p99_ns"), cell.median("shadow", "p99_ns")
            rows.append(
                (
                    f"{_WAITS.get(who, who)}, QD{cell.depth}",
                    ratio(cell.ratio(who, "shadow")),
                    ratio(late / early if late and early else None),
                    ratio(ours / usual if ours and usual else None),
                )
            )
    return table(("null, 4 KiB randread", "IOPS", "p99 latency", "target's CPU time for a command"), rows)


_WAITS = {
    "shadow": "the default: adaptive, shadow doorbells, a guest that polls",
    "interrupts": "a guest that sleeps until an interrupt",
    "trapped": "doorbells trapped, never shadowed",
    "wait poll": "`--wait poll`",
    "wait event": "`--wait event`",
}


def latency(results: Results) -> str:
    """Percentiles in microseconds."""
    rows = []
    for backend in results.backends:
        for cell in results.find(backend):
            for who, name in (("mapped", "mapped"), ("shadow", "shadow"), ("fio", "fio")):
                values = [cell.median(who, key) for key in ("p50_ns", "p99_ns", "p99_9_ns")]
                if any(values):
                    rows.append((f"{BACKENDS[backend]}, QD{cell.depth}", name, *map(micros, values)))
    return table(("4 KiB randread", "", "p50 µs", "p99 µs", "p99.9 µs"), rows)


def idle(results: Results) -> str:
    """Processor time and context switches of targets whose guests are silent."""
    rows = [
        (
            f"{row['guest']}, {BACKENDS[row['backend']]}",
            row["ring"],
            f"{row['core']:.4%}",
            f"{row['utime_stime_s']:.2f} s",
            f"{row['switches']:.0f}",
        )
        for row in results.idle
    ]
    seconds = results.idle[0]["seconds"] if results.idle else 0
    head = (
        "guest, backend", "doorbells", "of a core", f"utime + stime in {seconds:.0f} s", "context switches",
    )  # fmt: skip
    return table(head, rows)


def stages(results: Results) -> str:
    """Where the time of one command goes."""
    echo, whole = results.part("echo_floor/qd1"), results.part("stage/whole")
    rows = [
        (
            f"`{name}`",
            f"{ns:.1f}",
            f"{ns / whole:.0%}" if whole else "",
            f"{ns / echo:.3f}" if echo else "",
        )
        for name, ns in results.parts("stage")
    ]
    return table(("stage", "ns a command", "of `whole`", "of a round trip (`echo_floor/qd1`)"), rows)


def parts(results: Results) -> str:
    """All other criterion benchmarks, against the floor of a round trip."""
    echo = results.part("echo_floor/qd1")
    rows = [
        (f"`{name}`", f"{(results.part(name) or 0) / echo:.3g}" if echo else "", f"{results.part(name):.4g}")
        for name in results.criterion
        if not name.startswith("stage/")
    ]
    return table(("benchmark", "of `echo_floor/qd1`", "ns"), rows)


def scale(results: Results) -> str:
    """Many controllers on few workers."""
    found = results.raw.get("scale")
    if not found:
        return ""
    modes = found["modes"]
    named = modes.items() if isinstance(modes, dict) else [(one.get("mode", ""), one) for one in modes]
    rows = [
        (
            name,
            f"{one['idle_cpu']:.3%}",
            f"{one['idle_wakes_per_second']:.1f}",
            f"{one['memory_per_controller'] / 1024:.0f} KiB",
            f"{one['iops_slowest'] / one['iops_fastest']:.2f}" if one["iops_fastest"] else "",
        )
        for name, one in named
    ]
    what = f"{found['controllers']} controllers × {found['queues']} queues on {found['workers']} workers"
    head = (
        what, "idle: of a core", "wake-ups a second", "memory a controller beyond the first",
        "all active: slowest / fastest guest",
    )  # fmt: skip
    return table(head, rows)


def instructions(results: Results) -> str:
    """Instructions of a command."""
    found = results.raw.get("instructions")
    if not found:
        return ""
    rows = [
        (f"`{name}`", f"{value:,}" if isinstance(value, int) else str(value)) for name, value in _flat(found)
    ]
    return table(("callgrind", ""), rows)


def _flat(found: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for name, value in found.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}/")
        else:
            yield f"{prefix}{name}", round(value, 1) if isinstance(value, float) else value


def reference(results: Results) -> str:
    """Figures of other targets from another run beside ours, for orientation."""
    rows = []
    for backend, spdk in goals.SPDK.items():
        cells = {cell.depth: cell for cell in results.find(backend)}
        for depth, theirs in spdk.items():
            if cell := cells.get(depth):
                other = goals.QSD.get(backend, {}).get(depth)
                rows.append(
                    (
                        f"{BACKENDS[backend]}, 4 KiB randread, QD{depth}",
                        count(cell.median("mapped")),
                        count(cell.median("shadow")),
                        count(cell.median("fio")),
                        count(theirs),
                        count(other),
                    )
                )
    large = {cell.depth: cell for cell in results.find("ram", bs=LARGE)}.get(32)
    if large and (iops := large.median("shadow")):
        theirs = goals.SPDK_LARGE_READS
        rows.append(
            (
                "ram, 128 KiB randread, QD32",
                "",
                f"{iops * LARGE / 1e9:.3g} GB/s",
                "",
                f"{theirs / 1e9:.3g} GB/s",
                "",
            )
        )
    head = ("absolute, one queue", "mapped", "shadow", "fio io_uring", "SPDK [1]", "qemu-storage-daemon [1]")
    return table(head, rows)


def spread(results: Results) -> str:
    """How far rounds were apart."""
    found = [
        value for cell in results.cells for who in cell.entries if (value := cell.spread(who)) is not None
    ]
    if not found:
        return ""
    found.sort()
    middle, worst = found[len(found) // 2], found[-1]
    return (
        f"From the slowest to the fastest round of one contestant it is {middle:.0%} of the median in the "
        f"middle of all {len(found)} series, and {worst:.0%} in the worst."
    )


FORMS = {
    "plain": "plain methods",
    "batch": "batches",
    "async": "`async def` methods",
    "plugin": "nbdkit's plugin, served by us",
    "nbdkit": "nbdkit with the same plugin",
}


def python(results: Results) -> str:
    """Every form of a drive in Python: commands a second, and as a multiple of nbdkit's."""
    cells = results.find("python")

    def said(cell: Cell, form: str) -> str:
        times = cell.ratio(form, "nbdkit") if form != "nbdkit" else None
        return count(cell.median(form)) + (f" ({ratio(times)} ×)" if times is not None else "")

    rows = [(name, [form]) for form, name in FORMS.items()]
    head = ("4 KiB random reads", *(f"QD{cell.depth}" for cell in cells))
    found = [(name, *(said(cell, form) for cell in cells)) for name, (form,) in rows]
    return table(head, [row for row in found if any(row[1:])])


def beside(results: Results) -> str:
    """What a busy drive in Python leaves to a ram drive of the same target."""
    kinds = {"waits": "waits in every read", "computes": "computes in every read"}
    rows = ((kinds[kind], results.find("beside", about=kind)) for kind in kinds)
    return _by_depth(rows, lambda cell: ratio(cell.ratio("busy", "idle")), "the other drive")


PARTS: Mapping[str, Callable[[Results], str]] = {
    "run": run,
    "goals": goal_table,
    "floor": floor,
    "fio": fio,
    "psync": psync,
    "memcpy": memcpy,
    "doorbells": doorbells,
    "queues": queues,
    "waiting": waiting,
    "latency": latency,
    "idle": idle,
    "stages": stages,
    "parts": parts,
    "scale": scale,
    "instructions": instructions,
    "reference": reference,
    "python": python,
    "beside": beside,
    "spread": spread,
}


if __name__ == "__main__":
    if sys.argv[1:2] == ["--add"]:
        add([Path(path) for path in sys.argv[2:]])
    else:
        write(Path(sys.argv[1]) if len(sys.argv) > 1 else RESULTS)
