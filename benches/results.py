"""What a run measured, as the document asks for it: medians, spreads and ratios by place in the matrix."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SMALL, LARGE = 4 << 10, 128 << 10
SCRIPTED = ("python", "beside")
"""Groups about drives that are scripts; they have tables of their own."""


@dataclass(frozen=True)
class Cell:
    """One group: a load on a backend, and the rounds of everybody who took part."""

    backend: str
    about: str
    rw: str
    bs: int
    depth: int
    jobs: int
    entries: Mapping[str, Mapping[str, Sequence[float]]]

    def median(self, who: str, key: str = "iops") -> float | None:
        """The middle round; None where it did not take part."""
        rounds = self.entries.get(who, {}).get(key)
        return statistics.median(rounds) if rounds else None

    def ratio(self, who: str, other: str) -> float | None:
        """IOPS of one as a multiple of the other's: the median of the rounds, each with its neighbours."""
        ours, theirs = (self.entries.get(name, {}).get("iops", ()) for name in (who, other))
        pairs = [mine / yours for mine, yours in zip(ours, theirs, strict=False) if yours]
        return statistics.median(pairs) if pairs else None

    def spread(self, who: str) -> float | None:
        """From the slowest to the fastest round, as a part of the median."""
        rounds, middle = self.entries.get(who, {}).get("iops"), self.median(who)
        return (max(rounds) - min(rounds)) / middle if rounds and middle else None


@dataclass(frozen=True)
class Results:
    """A whole run."""

    raw: Mapping[str, Any]

    @classmethod
    def load(cls, path: Path) -> Results:
        """Reads what `make bench` kept."""
        return cls(json.loads(path.read_text()))

    @property
    def cells(self) -> list[Cell]:
        """All groups in the order in which they were measured."""
        names = ("backend", "about", "rw", "bs", "depth", "jobs", "entries")
        return [Cell(**{name: group[name] for name in names}) for group in self.raw["groups"]]

    def find(
        self, backend: str, *, rw: str = "randread", bs: int = SMALL, jobs: int | None = 1, about: str = ""
    ) -> list[Cell]:
        """The groups of a backend and a load, by depth and number of queues."""
        found = [
            cell
            for cell in self.cells
            if (cell.backend, cell.rw, cell.bs, cell.about) == (backend, rw, bs, about)
            and jobs in (None, cell.jobs)
        ]
        return sorted(found, key=lambda cell: (cell.depth, cell.jobs))

    @property
    def backends(self) -> list[str]:
        """Those of Rust that were measured: null, ram, and the files."""
        return list(dict.fromkeys(cell.backend for cell in self.cells if cell.backend not in SCRIPTED))

    @property
    def criterion(self) -> Mapping[str, Mapping[str, float]]:
        """Estimates by the name of the benchmark."""
        found: Mapping[str, Mapping[str, float]] = self.raw["criterion"]
        return found

    def part(self, name: str) -> float | None:
        """Nanoseconds of one element of a benchmark."""
        figure = self.criterion.get(name)
        return figure["ns"] / figure["elements"] if figure else None

    def parts(self, prefix: str) -> Iterator[tuple[str, float]]:
        """The benchmarks under `prefix/`, and their nanoseconds for one element."""
        for name in self.criterion:
            if name.startswith(f"{prefix}/"):
                yield name.removeprefix(f"{prefix}/"), self.part(name) or 0.0

    @property
    def idle(self) -> list[Mapping[str, Any]]:
        """What idle guests cost."""
        found: list[Mapping[str, Any]] = self.raw["idle"]
        return found
