"""The same plugin in nbdkit and here does the same: every byte, every error, every capability, every call."""

from __future__ import annotations

import contextlib
import errno
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from nvmet_vdev.nbdkit import PluginBackend, open_plugin
from nvmet_vdev.pytest_plugin import DriveFactory
from tests.nbdkit.nbd import Client, Flags, NbdError
from tests.nbdkit.sides import PLUGINS, Attached, Options, Ours, Side, Theirs, advertised, served
from tests.product import wait_until

KIB, MIB = 1 << 10, 1 << 20


@dataclass(frozen=True)
class Case:
    """A plugin, and how it is driven: `span` bytes from `start`, in multiples of `unit`."""

    plugin: str
    options: Options = ()
    span: int = 256 * KIB
    unit: int = 512
    largest: int = 64 * KIB
    start: int = 0

    def __str__(self) -> str:
        return self.plugin.removesuffix(".py")


CASES = (
    Case("ram.py", (("size", "256k"),)),
    Case("ram_v1.py", (("log", "{at}/calls"),)),
    Case("file.py", (("file", "{at}/disk.img"), ("log", "{at}/calls"))),
    Case("computed.py", span=512 * KIB, unit=4096),
    Case("errors.py", span=30 * 4096, largest=8192),
    Case("sparse.py", span=MIB, start=(1 << 40) - MIB),
    Case("parallel.py"),
    Case("checked.py", (("size", "256k"), ("fill", "0x5a"))),
    Case("checked.py", (("size", "128k"), ("ro", "true")), span=128 * KIB),
)


def options(case: Case, at: Path) -> Options:
    """The options of `case`, with files of its own below `at`."""
    at.mkdir()
    if case.plugin == "file.py":
        with (at / "disk.img").open("wb") as image:
            image.write(bytes(range(256)) * (case.span // 512))
            image.truncate(case.span)
    return [(key, value.replace("{at}", str(at))) for key, value in case.options]


@contextlib.contextmanager
def both(case: Case, at: Path, *, read_only: bool = False) -> Iterator[tuple[PluginBackend, Client]]:
    """The plugin of `case` here and in nbdkit, both open."""
    path = PLUGINS / case.plugin
    backend = open_plugin(str(path), options(case, at / "ours"), read_only=read_only)
    backend.open()
    flags = ["--readonly"] if read_only else []
    theirs = options(case, at / "theirs")
    with (
        contextlib.closing(backend),
        served(path, theirs, at, flags=flags) as socket,
        Client(socket, extents=True) as client,
    ):
        yield backend, client


@dataclass(frozen=True)
class Request:
    """One request; `option` is what a zero may do, `data` what a write writes."""

    kind: str
    at: int
    length: int
    option: bool
    fua: bool
    data: bytes = field(repr=False)

    def outcome(self, side: Side) -> object:
        """What it gives on `side`, or its error's number."""
        try:
            return self._carry_out(side)
        except NbdError as error:
            return f"error {error.number}"

    def _carry_out(self, side: Side) -> object:
        match self.kind:
            case "read":
                return side.read(self.at, self.length)
            case "extents":
                return side.extents(self.at, self.length)
            case "write":
                side.write(self.at, self.data, fua=self.fua)
            case "zero":
                side.zero(self.at, self.length, may_trim=self.option, fua=self.fua)
            case "trim":
                side.trim(self.at, self.length)
            case "flush":
                side.flush()
        return None


def requests(case: Case, flags: Flags, seed: int, count: int) -> Iterator[Request]:
    """Requests that the plugin takes; small ones half of the time, so that many meet."""
    source = random.Random(seed)  # noqa: S311 (no secret)
    kinds = ["read", "read", "extents"]
    if not flags & Flags.READ_ONLY:
        kinds += ["write", "write", "write", "zero", "zero"]
        kinds += ["trim"] if flags & Flags.SEND_TRIM else []
        kinds += ["flush"] if flags & Flags.SEND_FLUSH else []
    blocks = case.span // case.unit
    for _ in range(count):
        first = source.randrange(blocks)
        most = min(blocks - first, case.largest // case.unit)
        length = source.randint(1, min(most, 4) if source.random() < 0.5 else most) * case.unit
        yield Request(
            kind=source.choice(kinds),
            at=case.start + first * case.unit,
            length=length,
            option=source.random() < 0.5,
            fua=source.random() < 0.3,
            data=source.randbytes(length),
        )


@pytest.mark.parametrize("case", CASES, ids=str)
def test_what_is_advertised_is_the_same(case: Case, tmp_path: Path) -> None:
    with both(case, tmp_path) as (backend, client):
        assert client.size == backend.size
        assert client.flags & ~Flags.SEND_DF == advertised(backend)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_what_is_advertised_read_only_is_the_same(case: Case, tmp_path: Path) -> None:
    with both(case, tmp_path, read_only=True) as (backend, client):
        assert client.flags & ~Flags.SEND_DF == advertised(backend)
        assert backend.write is None
        assert backend.discard is None
        assert backend.write_zeroes is None


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("case", CASES, ids=str)
def test_random_requests_end_the_same(case: Case, seed: int, tmp_path: Path) -> None:
    with both(case, tmp_path) as (backend, client):
        ours, theirs = Ours(backend), Theirs(client)
        for request in requests(case, client.flags, seed, 200):
            assert request.outcome(ours) == request.outcome(theirs), request
        for at in range(case.start, case.start + case.span, 4096):
            request = Request("read", at, 4096, False, False, b"")
            assert request.outcome(ours) == request.outcome(theirs), request


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_driver_of_the_target_gets_what_a_client_of_nbdkit_gets(
    case: Case, nvme_drive: DriveFactory, tmp_path: Path
) -> None:
    path, served_options = PLUGINS / case.plugin, options(case, tmp_path / "theirs")
    backend = open_plugin(str(path), options(case, tmp_path / "ours"))
    with served(path, served_options, tmp_path) as socket, Client(socket) as client:
        drive = nvme_drive(backend, block_size=case.unit)
        ours, theirs = Attached(drive, case.unit), Theirs(client)
        for request in requests(case, client.flags, 0, 200):
            if request.kind != "extents":
                here, there = request.outcome(ours), request.outcome(theirs)
                assert here == (there if not isinstance(there, str) else f"error {errno.EIO}"), request
        # Every third flush of that one fails; that of the shutdown must not be it.
        while case.plugin == "errors.py" and Request("flush", 0, 0, False, False, b"").outcome(ours) is None:
            pass


@pytest.mark.parametrize("case", [case for case in CASES if "log" in dict(case.options)], ids=str)
def test_callbacks_are_called_in_the_same_order_with_the_same_arguments(case: Case, tmp_path: Path) -> None:
    with both(case, tmp_path) as (backend, client):
        ours, theirs = Ours(backend), Theirs(client)
        for request in requests(case, client.flags, 0, 100):
            # nbdkit is asked for what lies beyond the range too.
            if request.kind != "extents":
                assert request.outcome(ours) == request.outcome(theirs), request
        client.close()
        # A signal that comes sooner keeps nbdkit from calling close().
        wait_until(lambda: "\nclose" in (tmp_path / "theirs" / "calls").read_text(), "nbdkit calls close()")
    calls = {side: (tmp_path / side / "calls").read_text().splitlines() for side in ("ours", "theirs")}
    assert calls["ours"] == calls["theirs"]
