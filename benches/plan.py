"""What is measured beside what: the matrix of backends, loads and ways to ring, in three sizes."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benches import scripted
from benches.contest import MEMORY, NULL, Contestant, Fio, Floor, Load, Memcpy, Ours
from benches.results import SCRIPTED

SHADOW: tuple[tuple[str, ...], tuple[str, ...]] = (("--doorbells", "trapped"), ("--doorbells", "shadow"))
MAPPED: tuple[tuple[str, ...], tuple[str, ...]] = (("--doorbells", "mapped"), ("--doorbells", "mapped"))
TRAPPED: tuple[tuple[str, ...], tuple[str, ...]] = (("--doorbells", "trapped"), ("--doorbells", "trapped"))
RINGS = {"shadow": SHADOW, "mapped": MAPPED, "trapped": TRAPPED}
"""What `run` and `bench` are told. shadow: the default of a guest that has Doorbell Buffer Config."""

SMALL, LARGE = 4 << 10, 128 << 10

PYTHON, BESIDE = SCRIPTED


@dataclass(frozen=True)
class Size:
    """How much of the matrix is measured, and for how long."""

    depths: tuple[int, ...]
    jobs: tuple[int, ...]
    rounds: int
    seconds: float
    idle_seconds: float
    guest: bool
    complete: bool
    """Every combination, not only those that the document shows."""
    criterion: tuple[str, ...]
    """Options of the criterion benchmarks."""
    criterion_only: str | None


SIZES = {
    "quick": Size(
        depths=(1, 32),
        jobs=(),
        rounds=1,
        seconds=0.25,
        idle_seconds=5,
        guest=False,
        complete=False,
        criterion=("--warm-up-time", "0.1", "--measurement-time", "0.2", "--sample-size", "10"),
        criterion_only="^(echo_floor|sqe_to_cqe|stage)/",
    ),
    "default": Size(
        depths=(1, 4, 32, 128),
        jobs=(2, 4),
        rounds=3,
        seconds=0.4,
        idle_seconds=30,
        guest=True,
        complete=False,
        criterion=("--warm-up-time", "0.2", "--measurement-time", "0.5", "--sample-size", "10"),
        criterion_only="^(echo_|sqe_to_cqe|stage|dma_lookup|prp_walk|sgl_walk|decode|cqe_post)",
    ),
    "full": Size(
        depths=(1, 4, 16, 32, 64, 128),
        jobs=(2, 4),
        rounds=5,
        seconds=2,
        idle_seconds=30,
        guest=True,
        complete=True,
        criterion=(),
        criterion_only=None,
    ),
}


@dataclass(frozen=True)
class Group:
    """Contestants that are measured in turns, round after round, under one load."""

    backend: str
    load: Load
    contestants: tuple[Contestant, ...]
    about: str = ""
    """What sets it apart from another group of the same load."""

    @property
    def name(self) -> str:
        """`null/randread/4k/qd32/x1`, and what it is about."""
        load = self.load
        parts = (self.backend, load.rw, f"{load.bs >> 10}k", f"qd{load.depth}", f"x{load.jobs}", self.about)
        return "/".join(filter(None, parts))


@dataclass(frozen=True)
class Place:
    """Where the drives' bytes are, and what there is to compare with."""

    files: dict[str, Path]
    """Images by backend: tmpfs, disk."""
    fio: bool
    floor: Floor
    waits: tuple[str, ...]
    """Values of `run --wait`."""

    def disk(self, backend: str) -> str:
        """The drive's name for `nvmet-vdev run`."""
        memory = {"null": f"null:{NULL}", "ram": f"ram:{MEMORY}"}
        return memory.get(backend) or str(self.files[backend])

    def ours(self, backend: str, ring: str, rw: str = "randread") -> Ours:
        """Our drive, rung in one of the `RINGS`."""
        run, bench = RINGS[ring]
        # Who only reads may share the image, so that all read the same one.
        shared = ("--read-only",) if backend in self.files and rw == "randread" else ()
        return Ours(ring, self.disk(backend), (*run, *shared), bench)

    def fios(self, backend: str, load: Load) -> Iterator[Fio]:
        """fio on the same file: io_uring, and on tmpfs one thread that just reads or writes."""
        file = self.files.get(backend)
        if not self.fio or file is None:
            return
        yield Fio("fio", file)
        if backend == "tmpfs" and load.depth == 1 and load.jobs == 1:
            yield Fio("psync", file, engine="psync", direct=False)


def groups(size: Size, place: Place) -> list[Group]:
    """The whole plan, in the order in which it is measured."""
    made = complete(size, place) if size.complete else chosen(size, place)
    # A size that asks for a load twice measures it once.
    everything = (*made, *waiting(place), *in_python(size), *neighbours())
    return list({group.name: group for group in everything}.values())


def chosen(size: Size, place: Place) -> Iterator[Group]:
    """What the document shows."""
    make = _maker(place)
    for depth in size.depths:
        yield make("null", Load("randread", SMALL, depth), ("mapped", "shadow"), floor=True)
    for backend in ("ram", *place.files):
        for depth in size.depths:
            yield make(backend, Load("randread", SMALL, depth), ("mapped", "shadow"))
        for depth in {size.depths[0], 32}:
            yield make(backend, Load("randwrite", SMALL, depth), ("shadow",))
        for rw in ("randread", "randwrite"):
            yield make(backend, Load(rw, LARGE, 32), ("shadow",), memcpy=rw == "randread")
    for backend, jobs in itertools.product(("null", "ram", *place.files), size.jobs):
        yield make(backend, Load("randread", SMALL, 32, jobs), ("shadow",))


def complete(size: Size, place: Place) -> Iterator[Group]:
    """Every backend, depth, block size, direction and number of queues, rung in both ways."""
    make = _maker(place)
    axes = itertools.product(
        ("null", "ram", *place.files), ("randread", "randwrite"), (SMALL, LARGE), size.depths, (1, *size.jobs)
    )
    for backend, rw, bs, depth, jobs in axes:
        load = Load(rw, bs, depth, jobs)
        alone = jobs == 1 and rw == "randread"
        floor, memcpy = (
            alone and backend == "null" and bs == SMALL,
            alone and backend == "ram" and bs == LARGE,
        )
        # An image has one writer.
        rings = ("shadow",) if backend in place.files and rw == "randwrite" else ("mapped", "shadow")
        yield make(backend, load, rings, floor=floor, memcpy=memcpy)


def waiting(place: Place) -> Iterator[Group]:
    """Ways to wait, on both sides, and doorbells that nobody shadows."""
    disk = place.disk("null")
    run, bench = SHADOW
    for depth in (1, 32):
        contestants: list[Contestant] = [
            place.ours("null", "shadow"),
            Ours("interrupts", disk, run, (*bench, "--interrupts")),
            place.ours("null", "trapped"),
        ]
        contestants += [Ours(f"wait {wait}", disk, (*run, "--wait", wait), bench) for wait in place.waits]
        yield Group("null", Load("randread", SMALL, depth), tuple(contestants), "waiting")


def in_python(size: Size) -> Iterator[Group]:
    """The same memory behind every form of a backend in Python, beside nbdkit where it is installed."""
    drives = scripted.DRIVES
    contestants: list[Contestant] = [
        scripted.drive("plain", f"python:{drives}:Plain"),
        scripted.drive("batch", f"python:{drives}:Batches"),
        scripted.drive("async", f"python:{drives}:Async"),
        scripted.drive("plugin", f"nbdkit:{scripted.PLUGIN}"),
    ]
    if scripted.Nbdkit.is_there():
        contestants.append(scripted.Nbdkit())
    for depth in {1, 32, size.depths[-1]}:
        yield Group(PYTHON, Load("randread", SMALL, depth), tuple(contestants))


def neighbours() -> Iterator[Group]:
    """A ram drive beside a drive in Python of the same target: what its load changes."""
    for kind in ("waits", "computes"):
        pair = (scripted.Beside("idle", kind, busy=False), scripted.Beside("busy", kind, busy=True))
        for depth in (1, 32):
            yield Group(BESIDE, Load("randread", SMALL, depth), pair, kind)


def _maker(place: Place) -> Callable[..., Group]:
    def make(
        backend: str, load: Load, rings: Sequence[str], *, floor: bool = False, memcpy: bool = False
    ) -> Group:
        contestants: list[Contestant] = [place.ours(backend, ring, load.rw) for ring in rings]
        if floor and load.depth in (1, 32, 128):
            contestants.append(place.floor)
        if memcpy and backend == "ram":
            contestants.append(Memcpy())
        contestants += place.fios(backend, load)
        return Group(backend, load, tuple(contestants))

    return make
