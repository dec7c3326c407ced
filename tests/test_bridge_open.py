"""What a backend in Python finds out in `open` is what is served."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from nvmet_vdev import Backend
from nvmet_vdev._nvmet import check_storage
from nvmet_vdev.bridge import serve


class Late(Backend):
    """It knows only when it is open what it is."""

    size = 0
    write: Callable[[int, memoryview, bool], None] | None = None

    def find_out(self) -> None:
        self.block_size = 4096
        self.size = 8 * self.block_size
        self.disk = bytearray(self.size)
        self.write = self.put

    def put(self, offset: int, buf: memoryview, fua: bool) -> None:
        assert fua in (False, True)
        self.disk[offset : offset + len(buf)] = buf


class Plain(Late):
    def open(self) -> None:
        self.find_out()

    def read(self, offset: int, buf: memoryview) -> None:
        buf[:] = self.disk[offset : offset + len(buf)]


class Async(Late):
    async def open(self) -> None:
        self.find_out()

    async def read(self, offset: int, buf: memoryview) -> None:
        buf[:] = self.disk[offset : offset + len(buf)]


@pytest.mark.parametrize("kind", [Plain, Async])
def test_what_open_finds_out_is_what_is_served(kind: type[Late]) -> None:
    service = serve(kind())
    assert not service.storage.read_only
    assert service.storage.size == 32768
    assert json.loads(check_storage(service.storage))["passed"]
    assert service.close()


@pytest.mark.parametrize("kind", [Plain, Async])
def test_the_operator_can_still_have_it_read_only(kind: type[Late]) -> None:
    service = serve(kind(), read_only=True)
    assert service.storage.read_only
    assert service.close()
