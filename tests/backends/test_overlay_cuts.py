"""An overlay whose process is killed, or whose machine loses power, at every step of what it writes."""

from __future__ import annotations

import contextlib
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from nvmet_vdev.backends import Overlay
from nvmet_vdev.backends import overlay as module
from nvmet_vdev.backends._storage import Storage
from tests.backends.models import BLOCK, Plain, opened, pattern, read, write

CLUSTER = 4096
SIZE = 6 * CLUSTER + 2 * BLOCK
BLOCKS = SIZE // BLOCK
BASE = pattern(SIZE)

# What was done to the file: offset and content of a write, which is empty where the file was made so long;
# None for a sync.
Step = tuple[int, bytes] | None


class Recorder(Storage):
    """A file that remembers what was done to it."""

    steps: list[Step]

    def write(self, offset: int, buf: memoryview, *, durable: bool = False) -> None:
        self.steps.append((offset, bytes(buf)))
        super().write(offset, buf, durable=durable)

    def zero(self, offset: int, length: int, *, keep: bool = False) -> None:
        self.steps.append((offset, bytes(length)))
        super().zero(offset, length, keep=keep)

    def truncate(self, size: int) -> None:
        self.steps.append((size, b""))
        super().truncate(size)

    def sync(self) -> None:
        self.steps.append(None)


class Quick(Storage):
    """Leaves out to wait for the medium: it is looked at by this process alone."""

    def sync(self) -> None:
        """Nothing."""

    def sync_name(self) -> None:
        """Nothing."""


class Story:
    """A sequence of commands, and for each block what it has been, and since which step."""

    def __init__(self, place: Path, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
        self.random = random.Random(seed)  # noqa: S311
        self.steps: list[Step] = []
        self.versions = [[(0, BASE[at : at + BLOCK])] for at in range(0, SIZE, BLOCK)]
        # Steps at which a flush had been acknowledged, and the newest version of each block when it was sent.
        self.flushed = [(0, [0] * BLOCKS)]
        monkeypatch.setattr(Recorder, "steps", self.steps, raising=False)
        monkeypatch.setattr(module, "Storage", Recorder)
        self.drive = Overlay(Plain(BASE), str(place / "story.img"), cluster=CLUSTER)
        with opened(self.drive):
            for number in range(12):
                self.act(number)

    def act(self, number: int) -> None:
        kind = self.random.choice(["write", "write", "write", "discard", "zeroes", "flush"])
        fua = kind != "discard" and self.random.random() < 0.2
        first = self.random.randrange(BLOCKS)
        count = min(self.random.randint(1, 20), BLOCKS - first)
        if kind != "flush":
            data = bytes([number + 1]) * BLOCK if kind == "write" else bytes(BLOCK)
            for block in range(first, first + count):
                self.versions[block].append((len(self.steps), data))
        sent = [len(versions) - 1 for versions in self.versions]
        match kind:
            case "write":
                write(self.drive, first * BLOCK, data * count, fua=fua)
            case "zeroes":
                self.drive.write_zeroes(first * BLOCK, count * BLOCK, may_discard=True, fua=fua)
            case "discard":
                self.drive.discard(first * BLOCK, count * BLOCK)
            case _:
                self.drive.flush()
        if fua or kind == "flush":
            # With fua it is this command alone that must last; ours makes everything before it last, too.
            self.flushed.append((len(self.steps), sent))

    def may_be(self, block: int, cut: int) -> set[bytes]:
        """What a block may read as after a cut: what was acknowledged last, or something newer."""
        oldest = [newest for step, newest in self.flushed if step <= cut][-1][block]
        return {data for step, data in self.versions[block][oldest:] if step <= cut}

    def files(self, cut: int) -> Iterator[bytes]:
        """The file after a cut: what was not synced may be there, or nothing of it, or any of its sectors."""
        done = self.steps[:cut]
        synced = max((number for number, step in enumerate(done) if step is None), default=0)
        for chance in (1.0, 0.0, 0.5, 0.5):
            content = bytearray()
            for number, step in enumerate(done):
                if step is None:
                    continue
                offset, data = step
                if not data and (number < synced or self.random.random() < chance):
                    content.extend(bytes(offset - len(content)))
                for at in range(0, len(data), BLOCK):
                    if number < synced or self.random.random() < chance:
                        end = offset + at + BLOCK
                        content.extend(bytes(max(0, end - len(content))))
                        content[offset + at : end] = data[at : at + BLOCK]
            yield bytes(content)


@pytest.mark.parametrize("seed", range(3))
def test_what_a_flush_acknowledged_is_there_after_a_cut_at_any_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    story = Story(tmp_path, seed, monkeypatch)
    monkeypatch.setattr(module, "Storage", Quick)
    path = tmp_path / "cut.img"
    for cut in range(len(story.steps) + 1):
        for content in story.files(cut):
            put(path, content)
            with opened(Overlay(Plain(BASE), str(path), cluster=CLUSTER)) as drive:
                found = read(drive, 0, SIZE)
                for block in range(BLOCKS):
                    seen = found[block * BLOCK : (block + 1) * BLOCK]
                    assert seen in story.may_be(block, cut), f"block {block} after a cut at step {cut}"
                goes_on(drive, bytearray(found), story.random.randrange(BLOCKS - 2))


def put(path: Path, content: bytes) -> None:
    """Writes a file whose zeroes are holes."""
    with path.open("wb") as file:
        file.truncate(len(content))
        for at in range(0, len(content), 4096):
            if any(part := content[at : at + 4096]):
                file.seek(at)
                file.write(part)


def goes_on(drive: Overlay, model: bytearray, block: int) -> None:
    """The overlay can be used: what lies about in its file from before the cut does not come up."""
    at = block * BLOCK
    write(drive, at, b"!" * BLOCK)
    drive.discard(at + BLOCK, BLOCK)
    model[at : at + 2 * BLOCK] = b"!" * BLOCK + bytes(BLOCK)
    assert read(drive, 0, SIZE) == model


def test_the_test_would_notice_data_that_is_written_after_its_map(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Careless(Recorder):
        """Does not wait for the data."""

        def sync(self) -> None:
            last = self.steps[-1]
            if last is None or not last[1] or last[0] < 2 * CLUSTER:
                super().sync()

    monkeypatch.setitem(globals(), "Recorder", Careless)
    with pytest.raises(AssertionError):
        test_what_a_flush_acknowledged_is_there_after_a_cut_at_any_step(tmp_path, monkeypatch, 0)


WRITER = """
import sys
from nvmet_vdev.backends import File, Overlay
drive = Overlay(File(sys.argv[1], read_only=True), sys.argv[2], cluster=4096)
drive.open()
for number in range(1, 1 << 30):
    block = number * 7 % 2048
    drive.write(block * 512, memoryview(number.to_bytes(8, "little") * 64), number % 2 == 0)
    if number % 2:
        drive.flush()
    print(number, flush=True)
"""


@pytest.mark.parametrize("count", [0, 1, 50, 200])
def test_what_was_acknowledged_is_there_after_kill_9(tmp_path: Path, count: int) -> None:
    (tmp_path / "disk.img").write_bytes(bytes(1 << 20))
    arguments = [sys.executable, "-c", WRITER, str(tmp_path / "disk.img"), str(tmp_path / "cow.img")]
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE)
    with process:
        assert process.stdout is not None
        seen = [int(process.stdout.readline()) for _ in range(count)]
        process.send_signal(signal.SIGKILL)
        with contextlib.suppress(ValueError):
            seen += [int(line) for line in process.stdout if line.endswith(b"\n")]
    assert process.returncode == -signal.SIGKILL
    expected = {number * 7 % 2048: number for number in seen}
    with opened(Overlay(Plain(bytes(1 << 20)), str(tmp_path / "cow.img"))) as drive:
        for block, number in expected.items():
            found = int.from_bytes(read(drive, block * 512, 512)[:8], "little")
            assert found >= number, f"block {block}"
