"""`Fsspec`: images of memory and of a web server, and what the cache asks them for."""

from __future__ import annotations

import builtins
import errno
import re
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import fsspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nvmet_vdev import ConfigError
from nvmet_vdev.backends import Fsspec, Overlay
from tests.backends.models import BLOCK, opened, pattern, read, write

CHUNK = 4096
# The last chunk is not whole.
SIZE = 40 * CHUNK + 3 * BLOCK
IMAGE = pattern(SIZE)


class Requests:
    """What is asked of the file system, in chunks."""

    def __init__(self, drive: Fsspec) -> None:
        self.asked: list[tuple[int, int]] = []
        self._whole = drive._fs.cat_file
        drive._fs = self

    def cat_file(self, path: str, start: int, end: int) -> bytes:
        self.asked.append((start // CHUNK, -(-end // CHUNK)))
        return bytes(self._whole(path, start, end))


@pytest.fixture(autouse=True)
def image() -> Iterator[None]:
    with fsspec.open("memory://image.raw", "wb") as file:
        file.write(IMAGE)
    yield
    fsspec.filesystem("memory").rm("image.raw")


def small(**options: Any) -> Fsspec:
    return Fsspec("memory://image.raw", chunk=CHUNK, **options)


def test_it_has_the_size_of_the_image_and_is_read_only() -> None:
    with opened(small()) as drive:
        assert drive.size == SIZE
        assert drive.read_only
        assert not hasattr(drive, "write")


@given(
    spans=st.lists(st.tuples(st.integers(0, SIZE // BLOCK - 1), st.integers(1, 100)), max_size=10),
    chunks=st.integers(1, 6),
    ahead=st.integers(0, 8),
)
def test_every_read_gives_the_image(spans: list[tuple[int, int]], chunks: int, ahead: int) -> None:
    with opened(small(cache=chunks * CHUNK, read_ahead=ahead)) as drive:
        for first, count in spans:
            offset = first * BLOCK
            length = min(count * BLOCK, SIZE - offset)
            assert read(drive, offset, length) == IMAGE[offset : offset + length]
            assert len(drive._chunks) <= chunks


def test_a_chunk_is_asked_for_once() -> None:
    with opened(small()) as drive:
        requests = Requests(drive)
        for _ in range(3):
            read(drive, 512, 512)
            read(drive, CHUNK - 512, 1024)
        assert requests.asked == [(0, 1), (1, 2)]


def test_chunks_beside_each_other_come_in_one_request() -> None:
    with opened(small(cache=16 * CHUNK)) as drive:
        requests = Requests(drive)
        read(drive, 3 * CHUNK, CHUNK)
        read(drive, 0, 8 * CHUNK)
        assert requests.asked == [(3, 4), (0, 3), (4, 8)]
        read(drive, 0, SIZE)
        # More than the cache holds comes in pieces.
        assert requests.asked[3:] == [(8, 24), (24, 40), (40, 41)]


def test_read_ahead_comes_in_the_same_request_and_stops_at_what_is_there() -> None:
    with opened(small(read_ahead=2)) as drive:
        requests = Requests(drive)
        read(drive, 5 * CHUNK, 512)
        read(drive, 3 * CHUNK, 512)
        read(drive, 4 * CHUNK, 4 * CHUNK)
        read(drive, SIZE - 512, 512)
        assert requests.asked == [(5, 8), (3, 5), (40, 41)]


def test_the_least_recently_used_chunk_goes_first() -> None:
    with opened(small(cache=2 * CHUNK)) as drive:
        requests = Requests(drive)
        for chunk in (0, 1, 0, 2, 0, 1):
            read(drive, chunk * CHUNK, 512)
        assert requests.asked == [(0, 1), (1, 2), (2, 3), (1, 2)]


def test_however_many_wait_for_a_chunk_it_is_asked_for_once() -> None:
    with opened(small()) as drive:
        requests = Requests(drive)
        whole = requests._whole
        started, go_on = threading.Event(), threading.Event()

        def slow(*arguments: object) -> bytes:
            started.set()
            go_on.wait()
            return bytes(whole(*arguments))

        requests._whole = slow
        results: list[bytes] = []
        threads = [
            threading.Thread(target=lambda: results.append(read(drive, 512, 512)), daemon=True)
            for _ in range(8)
        ]
        threads[0].start()
        started.wait()
        for thread in threads[1:]:
            thread.start()
        go_on.set()
        for thread in threads:
            thread.join()
        assert results == [IMAGE[512:1024]] * 8
        assert requests.asked == [(0, 1)]


def test_the_guests_buffer_is_never_read() -> None:
    """It may be the guest's memory, which changes: two reads of one block get the image both times."""
    with opened(small()) as drive:
        data = bytearray(512)
        drive.read(0, memoryview(data))
        data[:] = b"!" * 512
        assert read(drive, 0, 512) == IMAGE[:512]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (OSError(errno.ECONNRESET, "reset"), errno.EIO),
        (FileNotFoundError("gone"), errno.EIO),
        (TimeoutError(), errno.ETIMEDOUT),
        (RuntimeError("two\nlines"), errno.EIO),
    ],
)
def test_what_cannot_be_fetched_is_an_error_and_is_asked_for_again(error: Exception, code: int) -> None:
    with opened(small(read_ahead=1)) as drive:
        requests = Requests(drive)
        whole, requests._whole = requests._whole, raising(error)
        with pytest.raises(OSError, match=r"image\.raw") as caught:
            read(drive, 0, 512)
        assert caught.value.errno == code
        requests._whole = whole
        assert read(drive, 0, 512) == IMAGE[:512]
        assert requests.asked == [(0, 2), (0, 2)]


def raising(error: Exception) -> Any:
    def fail(*_: object) -> bytes:
        raise error

    return fail


def test_too_few_bytes_are_a_media_error() -> None:
    with opened(small()) as drive:
        requests = Requests(drive)
        requests._whole = lambda *_: b"short"
        with pytest.raises(OSError, match="5 bytes came instead of 4096"):
            read(drive, 0, 512)


class Web(BaseHTTPRequestHandler):
    """A web server with one image, which knows ranges; or does not, or says no more than it must."""

    ranges: ClassVar[bool] = True
    length: ClassVar[bool] = True
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self.answer(with_body=False)

    def do_GET(self) -> None:
        self.answer(with_body=True)

    def answer(self, *, with_body: bool) -> None:
        if self.path != "/image.raw":
            self.send_error(404)
            return
        body = IMAGE
        span = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if span and self.ranges:
            body = IMAGE[int(span[1]) : int(span[2]) + 1]
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {span[1]}-{span[2]}/{SIZE}")
        else:
            self.send_response(200)
        if self.length:
            self.send_header("Content-Length", str(len(body)))
        else:
            self.send_header("Connection", "close")
        self.end_headers()
        if with_body:
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Says nothing."""


class Server(ThreadingHTTPServer):
    def handle_error(self, *_: object) -> None:
        """A client may hang up in the middle."""


@pytest.fixture
def server() -> Iterator[str]:
    with Server(("127.0.0.1", 0), Web) as web:
        threading.Thread(target=web.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{web.server_port}"
        web.shutdown()


def test_an_image_of_a_web_server_is_a_drive_and_an_overlay_goes_on_top(server: str, tmp_path: Path) -> None:
    base = Fsspec(f"{server}/image.raw", chunk=CHUNK, read_ahead=3)
    with opened(Overlay(base, str(tmp_path / "cow.img"), cluster=CHUNK)) as drive:
        assert drive.thread_safe
        assert read(drive, 0, SIZE) == IMAGE
        write(drive, BLOCK, b"x" * BLOCK, fua=True)
        assert read(drive, 0, 3 * BLOCK) == IMAGE[:BLOCK] + b"x" * BLOCK + IMAGE[2 * BLOCK : 3 * BLOCK]


def test_a_server_without_ranges_is_refused(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Web, "ranges", False)
    with pytest.raises(ConfigError, match="range"):
        Fsspec(f"{server}/image.raw", chunk=CHUNK).open()


def test_a_server_that_does_not_tell_the_size_is_refused(
    server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Web, "length", False)
    with pytest.raises(ConfigError, match="does not tell its size"):
        Fsspec(f"{server}/image.raw").open()


def test_what_is_no_image_is_refused_in_one_line(server: str) -> None:
    with fsspec.open("memory://odd.raw", "wb") as file:
        file.write(b"x" * 1000)
    with fsspec.open("memory://empty.raw", "wb") as file:
        file.write(b"")
    urls = {
        f"{server}/none.raw": "there is no such file",
        "memory://none.raw": "there is no such file",
        "memory://odd.raw": "its 1000 bytes are not whole blocks",
        "memory://empty.raw": "its 0 bytes are not whole blocks",
        "bogus://image.raw": "bogus",
        "http://127.0.0.1:1/image.raw": "cannot be reached",
    }
    for url, why in urls.items():
        with pytest.raises(ConfigError, match=why) as caught:
            Fsspec(url).open()
        assert url in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "options", [{"chunk": 0}, {"chunk": 1000}, {"cache": 1024}, {"read_ahead": -1}, {"chunk": -512}]
)
def test_options_that_make_no_sense_are_refused(options: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="fsspec memory"):
        Fsspec("memory://image.raw", **options)  # type: ignore[arg-type]


def test_storage_options_may_be_json() -> None:
    with opened(Fsspec("memory://image.raw", storage_options='{"skip_instance_cache": true}')) as drive:
        assert drive.size == SIZE
    for text in ("anon=true", "[1]", "7"):
        with pytest.raises(ConfigError, match="as text it is JSON"):
            Fsspec("memory://image.raw", storage_options=text)


def test_without_fsspec_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    original = builtins.__import__

    def missing(name: str, *arguments: Any) -> Any:
        if name.startswith("fsspec"):
            raise ModuleNotFoundError(f"No module named {name!r}")
        return original(name, *arguments)

    monkeypatch.setattr(builtins, "__import__", missing)
    monkeypatch.delitem(sys.modules, "fsspec.core")
    with pytest.raises(ConfigError, match=r"pip install 'nvmet-vdev\[fsspec\]'"):
        small().open()
