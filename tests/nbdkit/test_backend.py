"""A plugin as a backend: what it advertises, how requests reach it, and what its errors become."""

from __future__ import annotations

import contextlib
import errno
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from nvmet_vdev.nbdkit import PluginBackend, open_plugin
from tests.nbdkit.sides import PLUGINS

# Everything is noted; answers and errors are what `config` says, in Python.
RECORDER = """
import nbdkit
API_VERSION = {version}
calls = []
answers = {{}}
def config(key, value): answers[key] = value
def note(name, *arguments):
    calls.append((name, *(len(a) if isinstance(a, memoryview) else a for a in arguments)))
    return eval(answers[name]) if name in answers else None
def open(readonly): return calls
def get_size(h): return 1 << 40
"""
V2 = """
def pread(h, buf, offset, flags): buf[:] = bytes(len(buf)); note("pread", buf, offset, flags)
def pwrite(h, buf, offset, flags): note("pwrite", buf, offset, flags)
def flush(h, flags): note("flush", flags)
def trim(h, count, offset, flags): note("trim", count, offset, flags)
def zero(h, count, offset, flags): note("zero", count, offset, flags)
def cache(h, count, offset, flags): note("cache", count, offset, flags)
def extents(h, count, offset, flags): return note("extents", count, offset, flags)
"""
V1 = """
def pread(h, count, offset): note("pread", count, offset); return bytes(count)
def pwrite(h, buf, offset): note("pwrite", buf, offset)
def flush(h): note("flush")
def trim(h, count, offset): note("trim", count, offset)
def zero(h, count, offset, may_trim): note("zero", count, offset, may_trim)
"""
GIB = 1 << 30

Recorded = Callable[..., tuple[PluginBackend, list[tuple[object, ...]]]]


@pytest.fixture
def recorded(tmp_path: Path) -> Recorded:
    """A plugin that notes its calls, with `more` added, `without` removed, and answers from `answers`."""

    def plugin(
        more: str = "", *, version: int = 2, without: str = "", read_only: bool = False, **answers: str
    ) -> tuple[PluginBackend, list[tuple[object, ...]]]:
        path = tmp_path / "plugin.py"
        removed = f"\ndel {without}\n" if without else "\n"
        path.write_text(RECORDER.format(version=version) + (V1 if version == 1 else V2) + removed + more)
        backend = open_plugin(str(path), list(answers.items()), read_only=read_only)
        backend.open()
        calls: list[tuple[object, ...]] = backend._handle
        return backend, calls

    return plugin


@contextlib.contextmanager
def fails(number: int) -> Iterator[None]:
    with pytest.raises(OSError) as error:  # noqa: PT011 (its number is looked at)
        yield
    assert error.value.errno == number


def write(backend: PluginBackend, offset: int = 0, length: int = 512, *, fua: bool = False) -> None:
    assert backend.write is not None
    backend.write(offset, memoryview(bytes(length)), fua)


def zero(
    backend: PluginBackend, offset: int, length: int, *, may_discard: bool = True, fua: bool = False
) -> None:
    assert backend.write_zeroes is not None
    backend.write_zeroes(offset, length, may_discard=may_discard, fua=fua)


def test_what_a_plugin_does_not_define_is_not_advertised(recorded: Recorded) -> None:
    backend, _ = recorded(without="pwrite, flush, trim, zero, cache, extents")
    assert backend.read_only
    assert (backend.write, backend.flush, backend.discard, backend.write_zeroes) == (None,) * 4


@pytest.mark.parametrize("name", ["flush", "trim", "zero"])
def test_what_a_plugin_says_it_cannot_is_not_advertised(name: str, recorded: Recorded) -> None:
    backend, _ = recorded(f"def can_{name}(h): return False")
    method = {"flush": "flush", "trim": "discard", "zero": "write_zeroes"}[name]
    assert getattr(backend, method) is None
    assert backend.write is not None


@pytest.mark.parametrize("how", ["the plugin", "the operator"])
def test_a_read_only_drive_has_no_method_that_changes_it(how: str, recorded: Recorded) -> None:
    more = "def can_write(h): return False" if how == "the plugin" else ""
    backend, _ = recorded(more, read_only=how == "the operator")
    assert backend.read_only
    assert (backend.write, backend.flush, backend.discard, backend.write_zeroes) == (None,) * 4


def test_only_true_is_true(recorded: Recorded) -> None:
    backend, _ = recorded("def can_write(h): return 1")
    assert backend.read_only


@pytest.mark.parametrize(("model", "safe"), [(0, False), (1, False), (2, False), (3, True)])
def test_only_a_parallel_plugin_is_called_by_several_threads(
    model: int, safe: bool, recorded: Recorded
) -> None:
    assert recorded(f"def thread_model(): return {model}")[0].thread_safe is safe


def test_a_parallel_plugin_serves_several_requests_at_once() -> None:
    backend = open_plugin(str(PLUGINS / "parallel.py"), [("crowd", "4")])
    backend.open()
    assert backend.thread_safe
    buffers = [bytearray(512) for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda buf: backend.read(0, memoryview(buf)), buffers))
    assert [buf[0] >= 4 for buf in buffers] == [True] * 4


@pytest.mark.parametrize(
    ("answer", "block_size", "parts"),
    [
        ("(0, 0, 0)", 512, [1 << 20]),
        ("(1, 4096, 0xffffffff)", 512, [1 << 20]),
        ("(512, 4096, 1 << 20)", 512, [1 << 20]),
        ("(512, 4096, 1000)", 512, [512] * 2048),
        ("(1024, 4096, 1 << 30)", 4096, [1 << 20]),
        ("(4096, 65536, 1 << 18)", 4096, [1 << 18] * 4),
        ("(4096, 4096, 700 << 10)", 4096, [700 << 10, 324 << 10]),
    ],
)
def test_block_size_sets_the_block_and_splits_what_is_longer(
    answer: str, block_size: int, parts: list[int], recorded: Recorded
) -> None:
    backend, calls = recorded(f"def block_size(h): return {answer}")
    assert backend.block_size == block_size
    backend.read(4096, memoryview(bytearray(1 << 20)))
    write(backend, 4096, 1 << 20)
    offsets = [4096 + sum(parts[:index]) for index in range(len(parts))]
    split = list(zip(parts, offsets, strict=True))
    assert calls == [(name, *part, 0) for name in ("pread", "pwrite") for part in split]


def test_long_ranges_are_split_to_what_nbd_can_say(recorded: Recorded) -> None:
    backend, calls = recorded(extents="[(0, 1 << 40, 3)]")
    assert backend.discard is not None
    backend.discard(512, 5 * GIB)
    zero(backend, 512, 3 * GIB)
    backend.cache(0, 4 * GIB)
    assert backend.extents(0, 5 * GIB) == [(0, 5 * GIB, 3)]
    assert calls == [
        ("trim", 2 * GIB, 512, 0),
        ("trim", 2 * GIB, 2 * GIB + 512, 0),
        ("trim", GIB, 4 * GIB + 512, 0),
        ("zero", 2 * GIB, 512, 1),
        ("zero", GIB, 2 * GIB + 512, 1),
        ("cache", 2 * GIB, 0, 0),
        ("cache", 2 * GIB, 2 * GIB, 0),
        ("extents", 2 * GIB, 0, 0),
        ("extents", 2 * GIB, 2 * GIB, 0),
        ("extents", GIB, 4 * GIB, 0),
    ]


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ("def can_fua(h): return nbdkit.FUA_NATIVE", [("pwrite", 512, 0, 2), ("zero", 512, 0, 3)]),
        ("", [("pwrite", 512, 0, 0), ("flush", 0), ("zero", 512, 0, 1), ("flush", 0)]),
        # Advertised or not, flush is how FUA is made up.
        (
            "def can_flush(h): return False",
            [("pwrite", 512, 0, 0), ("flush", 0), ("zero", 512, 0, 1), ("flush", 0)],
        ),
        # NBD's clients may not ask for it then; guests may.
        (
            "def can_fua(h): return nbdkit.FUA_NONE",
            [("pwrite", 512, 0, 0), ("flush", 0), ("zero", 512, 0, 1), ("flush", 0)],
        ),
        ("del flush", [("pwrite", 512, 0, 0), ("zero", 512, 0, 1)]),
    ],
)
def test_fua_is_a_flag_or_a_flush(more: str, expected: list[object], recorded: Recorded) -> None:
    backend, calls = recorded(more)
    write(backend, fua=True)
    zero(backend, 0, 512, fua=True)
    assert calls == expected


def test_a_plugin_of_version_1_gets_a_flush_for_fua_whatever_it_says(recorded: Recorded) -> None:
    backend, calls = recorded("def can_fua(h): return nbdkit.FUA_NATIVE", version=1)
    write(backend, fua=True)
    assert calls == [("pwrite", 512, 0), ("flush",)]


def test_callbacks_of_version_1_have_no_flags(recorded: Recorded) -> None:
    backend, calls = recorded(version=1)
    backend.read(512, memoryview(bytearray(1024)))
    write(backend, 512, 1024)
    assert backend.flush is not None
    assert backend.discard is not None
    backend.flush()
    backend.discard(0, 512)
    zero(backend, 0, 512, may_discard=True)
    zero(backend, 0, 512, may_discard=False)
    assert calls == [
        ("pread", 1024, 512),
        ("pwrite", 1024, 512),
        ("flush",),
        ("trim", 512, 0),
        ("zero", 512, 0, True),
        ("zero", 512, 0, False),
    ]


@pytest.mark.parametrize("returned", ["b'short'", "'text'", "None", "[0] * 512"])
def test_a_read_of_version_1_that_returns_wrongly_is_eio(
    returned: str, recorded: Recorded, caplog: pytest.LogCaptureFixture
) -> None:
    backend, _ = recorded(f"def pread(h, count, offset): return {returned}", version=1)
    with fails(errno.EIO):
        backend.read(0, memoryview(bytearray(512)))
    assert "plugin.py: pread: error:" in caplog.text


@pytest.mark.parametrize("answer", ["nbdkit.set_error(95)", "(nbdkit.set_error(95), 1 / 0)"])
def test_zero_falls_back_to_pwrite(answer: str, recorded: Recorded) -> None:
    backend, calls = recorded("def can_fua(h): return nbdkit.FUA_NATIVE", zero=answer)
    zero(backend, 0, (2 << 20) + 512, fua=True)
    assert calls == [
        ("zero", (2 << 20) + 512, 0, 3),
        ("pwrite", 1 << 20, 0, 2),
        ("pwrite", 1 << 20, 1 << 20, 2),
        ("pwrite", 512, 2 << 20, 2),
    ]


def test_zero_that_is_promised_and_missing_falls_back_to_pwrite(recorded: Recorded) -> None:
    backend, calls = recorded("def can_zero(h): return True", without="zero")
    zero(backend, 512, 512)
    assert calls == [("pwrite", 512, 512, 0)]


def test_zero_with_another_error_fails(recorded: Recorded) -> None:
    backend, calls = recorded(zero="(nbdkit.set_error(28), 1 / 0)")
    with fails(errno.ENOSPC):
        zero(backend, 0, 512)
    assert len(calls) == 1


def test_what_is_promised_and_missing_is_eio(recorded: Recorded, caplog: pytest.LogCaptureFixture) -> None:
    backend, _ = recorded(
        "def can_flush(h): return True\ndef can_trim(h): return True\ndef can_write(h): return True",
        without="flush, trim, pwrite",
    )
    assert backend.flush is not None
    assert backend.discard is not None
    with fails(errno.EIO):
        backend.flush()
    with fails(errno.EIO):
        backend.discard(0, 512)
    with fails(errno.EIO):
        write(backend)
    assert caplog.messages == [
        f"plugin.py: {name}: error: {name}() is not implemented" for name in ("flush", "trim", "pwrite")
    ]


def test_an_error_that_was_set_before_counts_for_its_own_request_only(recorded: Recorded) -> None:
    backend, _ = recorded(flush="nbdkit.set_error(28)", pread="1 / 0")
    assert backend.flush is not None
    backend.flush()
    with fails(errno.EIO):
        backend.read(0, memoryview(bytearray(512)))


def test_the_errno_is_handed_on_as_the_plugin_said_it(recorded: Recorded) -> None:
    backend, _ = recorded(pread="(nbdkit.set_error(110), 1 / 0)")
    with fails(errno.ETIMEDOUT):
        backend.read(0, memoryview(bytearray(512)))


def test_a_traceback_is_logged_once_for_each_place(
    recorded: Recorded, caplog: pytest.LogCaptureFixture
) -> None:
    backend, _ = recorded(pread="1 / 0", flush="1 / 0")
    assert backend.flush is not None
    for _ in range(3):
        with fails(errno.EIO):
            backend.read(0, memoryview(bytearray(512)))
        with fails(errno.EIO):
            backend.flush()
    assert len(caplog.messages) == 2
    assert caplog.messages[0].startswith("plugin.py: pread: error: \nTraceback (most recent call last):\n")
    assert caplog.messages[0].endswith("ZeroDivisionError: division by zero")


def test_an_interrupt_is_not_an_error_of_the_plugin(recorded: Recorded) -> None:
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    backend, _ = recorded()
    backend.plugin.callback("config")("pread", "answers['call']()")
    backend.plugin.callback("note").__globals__["answers"]["call"] = interrupted
    with pytest.raises(KeyboardInterrupt):
        backend.read(0, memoryview(bytearray(512)))


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("[(0, 8192, 0)]", [(512, 4096, 0)]),
        (
            "[(512, 512, 3), (1024, 0, 0), (1024, 512, 3), (1536, 1 << 40, 1)]",
            [(512, 1024, 3), (1536, 3072, 1)],
        ),
        ("[(0, 512, 3), (512, 4096, 2)]", [(512, 4096, 2)]),
    ],
)
def test_extents_are_clipped_and_joined(
    answer: str, expected: list[tuple[int, int, int]], recorded: Recorded
) -> None:
    backend, _ = recorded(extents=answer)
    assert backend.extents(512, 4096) == expected


def test_a_plugin_that_tells_of_a_part_is_asked_again(recorded: Recorded) -> None:
    backend, _ = recorded("def extents(h, count, offset, flags): yield (offset, 512, offset // 2048)")
    assert backend.extents(512, 4096) == [(512, 1536, 0), (2048, 2048, 1), (4096, 512, 2)]


@pytest.mark.parametrize(
    "answer",
    [
        *("[]", "None", "5", "[(512, 512)]", "[[512, 512, 0]]", "[(512, 512, 0), (2048, 512, 0)]"),
        *("[(1024, 512, 0)]", "[(512, 512, 'data')]", "[(512, -512, 0)]", "1 / 0"),
    ],
)
def test_wrong_extents_are_eio(answer: str, recorded: Recorded) -> None:
    backend, _ = recorded(extents=answer)
    with fails(errno.EIO):
        backend.extents(512, 4096)


@pytest.mark.parametrize("answer", ["[(0, 512, 0)]", "[(512, 0, 0)]", "[(4608, 512, 0)]"])
def test_extents_of_other_places_are_einval(answer: str, recorded: Recorded) -> None:
    backend, _ = recorded(extents=answer)
    with fails(errno.EINVAL):
        backend.extents(512, 4096)


@pytest.mark.parametrize("more", ["del extents", "def can_extents(h): return False"])
def test_without_extents_all_is_data(more: str, recorded: Recorded) -> None:
    backend, _ = recorded(more)
    assert backend.extents(512, 4096) == [(512, 4096, 0)]


def test_holes_are_read_from_the_plugin_too(recorded: Recorded) -> None:
    backend, calls = recorded(extents="[(0, 1 << 40, 3)]")
    backend.read(0, memoryview(bytearray(512)))
    assert calls == [("pread", 512, 0, 0)]


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ("", [("cache", 8192, 512, 0)]),
        ("def can_cache(h): return nbdkit.CACHE_EMULATE", [("pread", 8192, 512, 0)]),
        ("def can_cache(h): return nbdkit.CACHE_NONE", []),
    ],
)
def test_cache_fetches_as_the_plugin_wants(more: str, expected: list[object], recorded: Recorded) -> None:
    backend, calls = recorded(more)
    backend.cache(512, 8192)
    assert calls == expected


def test_close_says_what_went_wrong_and_goes_on(recorded: Recorded, caplog: pytest.LogCaptureFixture) -> None:
    backend, calls = recorded("def close(h): 1 / 0\ndef cleanup(): calls.append(('cleanup',))")
    backend.close()
    assert calls == [("cleanup",)]
    assert caplog.messages[0].endswith("plugin.py: close(): ZeroDivisionError: division by zero")


def test_a_plugin_can_stop_the_target_from_a_thread_of_its_own(recorded: Recorded) -> None:
    backend, _ = recorded(
        "import threading\ndef flush(h, flags): threading.Thread(target=nbdkit.shutdown).start()\n"
    )
    stopped = threading.Event()
    backend.on_shutdown = stopped.set
    assert backend.flush is not None
    backend.flush()
    assert stopped.wait(60)
