"""Every backend that comes with the package passes the conformance suite, through the bridge."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import pytest

from nvmet_vdev import _nvmet
from nvmet_vdev.backends import Fault, File, Filter, Fsspec, Log, Overlay, Ram, Rate
from nvmet_vdev.bridge import serve
from tests.backends.models import pattern

SIZE = 4 << 20


def base(place: Path) -> File:
    """A base of an overlay, with something in it."""
    (place / "base.img").write_bytes(pattern(SIZE))
    return File(place / "base.img", read_only=True)


def image(_: Path) -> Fsspec:
    with fsspec.open("memory://conformance.raw", "wb") as file:
        file.write(pattern(SIZE))
    return Fsspec("memory://conformance.raw", chunk=64 << 10, cache=1 << 20, read_ahead=1)


BACKENDS: dict[str, Callable[[Path], Any]] = {
    "ram": lambda _: Ram(SIZE),
    "ram, blocks of 4096": lambda _: Ram(SIZE, block_size=4096),
    "file": lambda place: File(place / "disk.img", create=SIZE),
    "file, read-only": base,
    "filter": lambda _: Filter(Ram(SIZE)),
    "overlay": lambda place: Overlay(base(place), str(place / "cow.img")),
    "overlay over an image": lambda place: Overlay(image(place), str(place / "cow.img"), cluster=4096),
    "fault": lambda _: Fault(Ram(SIZE), io="1us@every=10", flush="EIO@lba=0-0"),
    "log": lambda place: Log(Ram(SIZE), file=str(place / "log.jsonl"), digest=True, data=True),
    "rate": lambda _: Rate(Ram(SIZE), iops=1e6, bandwidth=1 << 40),
    "fsspec": image,
    "a stack": lambda place: Rate(
        Log(Fault(Overlay(base(place), str(place / "cow.img"))), file=str(place / "log.jsonl")), iops=1e6
    ),
}


@pytest.mark.parametrize("name", BACKENDS)
def test_a_backend_of_the_package_passes_the_conformance_suite(name: str, tmp_path: Path) -> None:
    service = serve(BACKENDS[name](tmp_path), name=name)
    report = json.loads(_nvmet.check_storage(service.storage, rounds=8))
    assert service.close()
    failed = [check for check in report["checks"] if check["outcome"] == "failed"]
    assert not failed
    assert any(check["outcome"] == "passed" for check in report["checks"])
    assert service.failures == {}
