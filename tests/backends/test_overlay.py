"""`Overlay`: what it shows, what it keeps, what it refuses."""

from __future__ import annotations

import errno
import shutil
import struct
import tempfile
import threading
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from nvmet_vdev import ConfigError, NvmeError
from nvmet_vdev.backends import Fault, File, Overlay, Ram, Rule
from nvmet_vdev.backends import overlay as module
from nvmet_vdev.backends._storage import Storage
from tests.backends.models import BLOCK, Plain, opened, pattern, read, write

CLUSTER = 4096
# Not whole clusters: the last one is cut off.
SIZE = 10 * CLUSTER + 3 * BLOCK
BLOCKS = SIZE // BLOCK

spans = st.tuples(st.integers(0, BLOCKS - 1), st.integers(1, 3 * CLUSTER // BLOCK)).map(
    lambda span: (span[0] * BLOCK, min(span[1], BLOCKS - span[0]) * BLOCK)
)


class Use(RuleBasedStateMachine):
    """An overlay that is used, closed and opened again, beside a bytearray."""

    @initialize(cluster=st.sampled_from([CLUSTER, 4 * CLUSTER]))
    def begin(self, cluster: int) -> None:
        self.place = Path(tempfile.mkdtemp())
        self.base = Plain(pattern(SIZE))
        self.model = bytearray(self.base.content)
        self.count = 0
        self.cluster: int | None = cluster
        self.start()

    def start(self) -> None:
        self.drive = Overlay(self.base, str(self.place / "cow.img"), cluster=self.cluster)
        self.drive.open()
        self.cluster = None

    def teardown(self) -> None:
        self.drive.close()
        shutil.rmtree(self.place)

    @rule(span=spans, fua=st.booleans())
    def write(self, span: tuple[int, int], fua: bool) -> None:
        offset, length = span
        self.count += 1
        data = struct.pack("<Q", self.count) * (length // 8)
        write(self.drive, offset, data, fua=fua)
        self.model[offset : offset + length] = data

    @rule(span=spans, fua=st.booleans(), may_discard=st.booleans())
    def write_zeroes(self, span: tuple[int, int], fua: bool, may_discard: bool) -> None:
        offset, length = span
        self.drive.write_zeroes(offset, length, may_discard=may_discard, fua=fua)
        self.model[offset : offset + length] = bytes(length)

    @rule(span=spans)
    def discard(self, span: tuple[int, int]) -> None:
        offset, length = span
        self.drive.discard(offset, length)
        self.model[offset : offset + length] = bytes(length)

    @rule(span=spans)
    def read(self, span: tuple[int, int]) -> None:
        offset, length = span
        assert read(self.drive, offset, length) == self.model[offset : offset + length]

    @rule()
    def flush(self) -> None:
        self.drive.flush()

    @precondition(lambda self: self.count > 0)
    @rule()
    def open_again(self) -> None:
        self.drive.close()
        self.start()

    @invariant()
    def shows_the_model(self) -> None:
        assert read(self.drive, 0, SIZE) == self.model
        assert self.base.content == pattern(SIZE)


TestUse = Use.TestCase
TestUse.settings = settings(max_examples=12, stateful_step_count=12)


def test_a_read_of_what_was_not_written_asks_the_base_for_just_that(tmp_path: Path) -> None:
    base = Plain(pattern(SIZE))
    with opened(Overlay(base, str(tmp_path / "cow.img"), cluster=CLUSTER)) as drive:
        write(drive, 2 * CLUSTER, b"x" * CLUSTER)
        assert base.reads == [], "whole clusters need nothing of the base"
        read(drive, BLOCK, 4 * CLUSTER)
        assert base.reads == [(BLOCK, 2 * CLUSTER - BLOCK), (3 * CLUSTER, CLUSTER + BLOCK)]


def test_a_small_write_copies_the_rest_of_its_cluster_once(tmp_path: Path) -> None:
    base = Plain(pattern(SIZE))
    with opened(Overlay(base, str(tmp_path / "cow.img"), cluster=CLUSTER)) as drive:
        write(drive, CLUSTER + BLOCK, b"x" * BLOCK)
        assert base.reads == [(CLUSTER, BLOCK), (CLUSTER + 2 * BLOCK, CLUSTER - 2 * BLOCK)]
        write(drive, CLUSTER, b"y" * BLOCK)
        assert len(base.reads) == 2


def test_the_file_takes_up_room_only_for_what_was_written(tmp_path: Path) -> None:
    with opened(Overlay(Ram(1 << 30), str(tmp_path / "cow.img"))) as drive:
        write(drive, 512 << 20, b"x" * 4096, fua=True)
        stat = (tmp_path / "cow.img").stat()
        assert stat.st_size > 1 << 30
        assert stat.st_blocks * 512 < 1 << 20
        drive.discard(0, 1 << 30)
        drive.flush()
        assert (tmp_path / "cow.img").stat().st_blocks * 512 < 1 << 20


def test_a_cluster_that_cannot_be_copied_fails_the_write_and_stays_the_bases(tmp_path: Path) -> None:
    base = Fault(Plain(pattern(SIZE)), [Rule("read", NvmeError(2, 0x81), times=1)])
    with opened(Overlay(base, str(tmp_path / "cow.img"), cluster=CLUSTER)) as drive:
        with pytest.raises(NvmeError, match="2/81"):
            write(drive, BLOCK, b"x" * BLOCK)
        assert read(drive, 0, SIZE) == pattern(SIZE)
        write(drive, BLOCK, b"x" * BLOCK)
        assert read(drive, BLOCK, BLOCK) == b"x" * BLOCK


def test_a_flush_that_failed_for_room_can_be_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drive = Overlay(Plain(pattern(SIZE)), str(tmp_path / "cow.img"))
    with opened(drive):
        write(drive, 0, b"x" * BLOCK)
        with monkeypatch.context() as full:
            full.setattr(Storage, "write", failing(errno.ENOSPC))
            with pytest.raises(OSError, match="injected"):
                drive.flush()
        drive.flush()
        (tmp_path / "copy.img").write_bytes((tmp_path / "cow.img").read_bytes())
    with opened(Overlay(Plain(pattern(SIZE)), str(tmp_path / "copy.img"))) as again:
        assert read(again, 0, BLOCK) == b"x" * BLOCK


def failing(code: int) -> object:
    def fail(*_: object, **__: object) -> None:
        raise OSError(code, "injected")

    return fail


def test_two_writes_to_one_cluster_do_not_undo_each_other(tmp_path: Path) -> None:
    """The second comes while the first copies the rest of the cluster, and waits; or else is overwritten."""
    waits_or_done = threading.Event()

    class Lock:
        def __init__(self) -> None:
            self._lock = threading.Lock()

        def __enter__(self) -> None:
            if not self._lock.acquire(blocking=False):
                waits_or_done.set()
                self._lock.acquire()

        def __exit__(self, *_: object) -> None:
            self._lock.release()

    def second() -> None:
        write(drive, 6 * BLOCK, b"2" * BLOCK)
        waits_or_done.set()

    class Base(Plain):
        def read(self, offset: int, buf: memoryview) -> None:
            super().read(offset, buf)
            if len(self.reads) == 1:
                other.start()
                waits_or_done.wait()

    other = threading.Thread(target=second, daemon=True)
    drive = Overlay(Base(pattern(SIZE)), str(tmp_path / "cow.img"), cluster=CLUSTER)
    drive._growing = Lock()  # type: ignore[assignment]
    with opened(drive):
        write(drive, 0, b"1" * BLOCK)
        other.join()
        expected = bytearray(pattern(CLUSTER))
        expected[:BLOCK] = b"1" * BLOCK
        expected[6 * BLOCK : 7 * BLOCK] = b"2" * BLOCK
        assert read(drive, 0, CLUSTER) == expected


def test_a_write_during_a_flush_is_left_to_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its data may not have been written when the flush asked for that; so its map must not be either."""

    class Busy(Storage):
        def sync(self) -> None:
            super().sync()
            if during:
                write(drive, during.pop() * CLUSTER, b"y" * CLUSTER)

    during: list[int] = []
    monkeypatch.setattr(module, "Storage", Busy)
    drive = Overlay(Plain(pattern(SIZE)), str(tmp_path / "cow.img"), cluster=CLUSTER)
    with opened(drive):
        write(drive, 2 * CLUSTER, b"x" * CLUSTER)
        during.append(5)
        drive.flush()
        assert (tmp_path / "cow.img").read_bytes()[4096:4106] == b"\0\0\1\0\0\0\0\0\0\0"
        drive.flush()
        assert (tmp_path / "cow.img").read_bytes()[4096:4106] == b"\0\0\1\0\0\1\0\0\0\0"


def test_it_is_written_whatever_the_base_is(tmp_path: Path) -> None:
    (tmp_path / "disk.img").write_bytes(pattern(1 << 20))
    with opened(Overlay(File(tmp_path / "disk.img", read_only=True), str(tmp_path / "cow.img"))) as drive:
        assert not drive.read_only
        assert drive.resize is None
        assert drive.compare is None
        write(drive, 0, b"x" * BLOCK)
        assert read(drive, 0, BLOCK) == b"x" * BLOCK


def test_two_overlays_share_a_base_but_not_a_file(tmp_path: Path) -> None:
    base = tmp_path / "disk.img"
    base.write_bytes(pattern(1 << 20))
    one, two, third = (
        Overlay(File(base, read_only=True), str(tmp_path / name)) for name in ("a.img", "b.img", "a.img")
    )
    with opened(one), opened(two):
        with pytest.raises(ConfigError, match=r"a\.img.*somebody else"):
            third.open()
        write(one, 0, b"1" * BLOCK)
        write(two, 0, b"2" * BLOCK)
        assert read(one, 0, BLOCK) == b"1" * BLOCK
    with opened(third), pytest.raises(ConfigError, match="somebody else"):
        # A refusal closes the base again, too.
        File(base).open()
    with opened(File(base)):
        pass


def test_a_file_that_there_is_no_room_for_is_refused_and_the_base_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "disk.img").write_bytes(pattern(1 << 20))
    monkeypatch.setattr(Storage, "truncate", failing(errno.ENOSPC))
    drive = Overlay(File(tmp_path / "disk.img"), str(tmp_path / "cow.img"))
    for _ in range(2):
        with pytest.raises(ConfigError, match=r"cow\.img: cannot be prepared: injected"):
            drive.open()


def make(path: Path, **options: int) -> bytes:
    """An overlay's file with something in it, as bytes to be damaged."""
    with opened(Overlay(Plain(pattern(SIZE)), str(path), **options)) as drive:
        write(drive, CLUSTER, b"x" * CLUSTER)
    return path.read_bytes()


def refused(path: Path, content: bytes, why: str) -> None:
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=why) as caught:
        Overlay(Plain(pattern(SIZE)), str(path)).open()
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert path.read_bytes() == content, "a file that is refused is left as it is"


@pytest.mark.parametrize("content", [b"x", b"QFI\xfb" + bytes(508), bytes(8192), pattern(8192)])
def test_somebody_elses_file_is_refused(tmp_path: Path, content: bytes) -> None:
    refused(tmp_path / "cow.img", content, "is no overlay")


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "cow.img"
    good = make(path, cluster=CLUSTER)
    for at in range(8, 24):
        damaged = bytearray(good)
        damaged[at] ^= 0x40
        refused(path, bytes(damaged), "its header is damaged|is of version")
    refused(path, good[:4096] + b"\2" + good[4097:], "its map is damaged")
    behind = 4096 + -(-SIZE // CLUSTER)
    refused(path, good[:behind] + b"\1" + good[behind + 1 :], "its map is damaged")
    for length in (600, 4096, 8192, len(good) - 1):
        refused(path, good[:length], f"has {length} bytes instead of {len(good)}")
    refused(path, good + b"x", "bytes instead of")


def test_an_empty_file_becomes_an_overlay(tmp_path: Path) -> None:
    (tmp_path / "cow.img").touch()
    make(tmp_path / "cow.img")
    with opened(Overlay(Plain(pattern(SIZE)), str(tmp_path / "cow.img"))) as drive:
        assert read(drive, CLUSTER, CLUSTER) == b"x" * CLUSTER


def test_a_blank_disk_image_is_left_alone(tmp_path: Path) -> None:
    with (tmp_path / "cow.img").open("wb") as file:
        file.truncate(1 << 20)
    with pytest.raises(ConfigError, match="is blank and has a size"):
        Overlay(Plain(pattern(SIZE)), str(tmp_path / "cow.img")).open()
    assert (tmp_path / "cow.img").stat().st_size == 1 << 20


def test_a_base_of_another_size_is_refused(tmp_path: Path) -> None:
    make(tmp_path / "cow.img")
    with pytest.raises(ConfigError, match=f"made over {SIZE} bytes, and the base has 1024"):
        Overlay(Plain(bytes(1024)), str(tmp_path / "cow.img")).open()


def test_a_file_of_a_newer_version_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as later:
        later.setattr(module, "_VERSION", 2)
        make(tmp_path / "cow.img")
    with pytest.raises(ConfigError, match="version 2, and this program knows 1"):
        Overlay(Plain(pattern(SIZE)), str(tmp_path / "cow.img")).open()


def test_clusters_are_those_of_the_file(tmp_path: Path) -> None:
    make(tmp_path / "cow.img", cluster=CLUSTER)
    with pytest.raises(ConfigError, match="has clusters of 4096 bytes, not 8192"):
        Overlay(Plain(pattern(SIZE)), str(tmp_path / "cow.img"), cluster=8192).open()


@pytest.mark.parametrize("cluster", [0, 512, 5000, 4 << 20, -4096])
def test_a_cluster_is_a_power_of_two_within_limits(cluster: int) -> None:
    with pytest.raises(ConfigError, match=f"not {cluster} bytes"):
        Overlay(Ram(1 << 20), "cow.img", cluster=cluster)


def test_a_drive_of_too_many_clusters_is_refused(tmp_path: Path) -> None:
    class Vast(Plain):
        def size(self) -> int:
            return 1 << 60

    with pytest.raises(ConfigError, match="use larger ones"):
        Overlay(Vast(b""), str(tmp_path / "cow.img")).open()
