"""What a backend's methods are called with, when, on which thread, and what their answers become."""

from __future__ import annotations

import asyncio
import errno
import gc
import threading
import weakref
from pathlib import Path
from typing import Any

import pytest

from nvmet_vdev import Backend, Command, NvmeError, Target, attach
from nvmet_vdev._nvmet import ConfigError, Storage
from nvmet_vdev.bridge import open_storage, serve
from tests.bridge.backends import (
    BLOCK,
    SIZE,
    Async,
    Bare,
    Batches,
    Full,
    Hanging,
    Later,
    Writable,
    lab,
    read,
    without,
    write,
)
from tests.product import PATIENCE, wait_until

FUA = 1 << 30


def data_calls(backend: Full) -> list[tuple[Any, ...]]:
    return [call for call in backend.calls if call[0] not in ("open", "close")]


# Arguments


@pytest.mark.parametrize("form", [Full, Batches, Later])
def test_methods_get_bytes_and_flags(form: type[Full]) -> None:
    backend = form()
    with lab(backend) as rig:
        drive = rig.drive
        drive.write(2, bytes(1024))
        drive.write(2, bytes(1024), fua=True)
        drive.read(2, 3)
        drive.flush()
        drive.deallocate([(4, 8)])
        drive.write_zeroes(16, 2)
        drive.write_zeroes(16, 2, deallocate=True)
        drive.write_zeroes(16, 2, fua=True)
        assert drive.compare(2, bytes(512))
        assert not drive.compare(2, b"x" * 512)
        assert data_calls(backend) == [
            ("write", 1024, 1024, False),
            ("write", 1024, 1024, True),
            ("read", 1024, 1536),
            ("flush",),
            ("discard", 2048, 4096),
            ("write_zeroes", 8192, 1024, False, False),
            ("write_zeroes", 8192, 1024, True, False),
            ("write_zeroes", 8192, 1024, False, True),
            ("compare", 1024, 512),
            ("compare", 1024, 512),
        ]


def test_offsets_are_bytes_with_large_blocks_too() -> None:
    backend = Full(block_size=4096)
    with lab(backend) as rig:
        rig.drive.read(3, 2)
        assert data_calls(backend) == [("read", 3 * 4096, 8192)]


def test_zeroes_are_written_where_there_is_no_write_zeroes() -> None:
    backend = without(Full(4 << 20), "write_zeroes", "discard")
    with lab(backend) as rig:
        rig.drive.write_zeroes(1, (5 << 19) // BLOCK, deallocate=True, fua=True)
        # A MiB at a time; the volatile cache is not asked about what is written with FUA.
        assert data_calls(backend) == [
            ("write", BLOCK, 1 << 20, True),
            ("write", BLOCK + (1 << 20), 1 << 20, True),
            ("write", BLOCK + (2 << 20), 1 << 19, True),
        ]
    assert not any(backend.data[BLOCK : BLOCK + (5 << 19)])


def test_what_is_stored_is_read_where_there_is_no_compare() -> None:
    backend = without(Full(), "compare")
    with lab(backend) as rig:
        assert rig.drive.compare(1, b"\x5a" * 512)
        assert not rig.drive.compare(1, b"\x5b" * 512)
        assert data_calls(backend) == [("read", 512, 512), ("read", 512, 512)]


def test_a_write_that_knows_no_fua_is_flushed() -> None:
    calls: list[str] = []

    class Two(Bare):
        def write(self, offset: int, buf: memoryview) -> None:
            calls.append("write")

        def flush(self) -> None:
            calls.append("flush")

        def write_zeroes(self, offset: int, length: int) -> None:
            calls.append("zeroes")

    with lab(Two()) as rig:
        rig.drive.write(0, bytes(512))
        rig.drive.write(0, bytes(512), fua=True)
        rig.drive.write_zeroes(0, 1)
        rig.drive.write_zeroes(0, 1, fua=True, deallocate=True)
        assert calls == ["write", "write", "flush", "zeroes", "zeroes", "flush"]


def test_arguments_may_be_taken_in_every_way_that_python_has() -> None:
    calls: list[Any] = []

    class Named(Bare):
        def write(self, offset: int, buf: memoryview, *, fua: bool = False) -> None:
            calls.append(fua)

        def write_zeroes(self, offset: int, length: int, *, fua: bool) -> None:
            calls.append(fua)

    class Anything(Bare):
        def write(self, *rest: Any) -> None:
            calls.append(rest[2])

        def write_zeroes(self, *rest: Any) -> None:
            calls.append(rest)

    class Options(Bare):
        def write(self, offset: int, buf: memoryview, **options: Any) -> None:
            calls.append(options)

        def write_zeroes(self, offset: int, length: int, **options: Any) -> None:
            calls.append(options)

    for form in (Named, Anything, Options):
        with lab(form()) as rig:
            rig.drive.write(0, bytes(512), fua=True)
            rig.drive.write_zeroes(0, 1, fua=True)
    options = {"may_discard": False, "fua": True}
    assert calls == [True, True, True, (0, 512), {"fua": True}, options]


def test_flush_and_discard_reach_only_backends_that_have_them() -> None:
    backend = without(Full(), "flush", "discard")
    with lab(backend) as rig:
        rig.drive.flush()
        rig.drive.deallocate([(0, 1)])
        assert data_calls(backend) == []


# Size


def test_size_may_be_an_attribute_a_property_or_a_method() -> None:
    class Property(Bare):
        size = property(lambda self: 8192, lambda self, size: None)

    class Method:
        def size(self) -> int:
            return 8192

        def read(self, offset: int, buf: memoryview) -> None: ...

    class Made(Method):
        size = None  # type: ignore[assignment]

        def open(self) -> None:
            self.size = 8192

    class Proxy:
        def __init__(self, inner: object) -> None:
            self.inner = inner

        def __getattr__(self, name: str) -> Any:
            return getattr(self.inner, name)

    class Slots:
        __slots__ = ("size",)

        def __init__(self) -> None:
            self.size = 8192

        def read(self, offset: int, buf: memoryview) -> None: ...

    for backend in (Bare(8192), Property(), Method(), Made(), Proxy(Bare(8192)), Slots()):
        service = serve(backend)
        assert service.storage.size == 8192, backend
        assert service.close(PATIENCE)


# Life


@pytest.mark.parametrize("form", [Full, Batches])
def test_open_close_and_all_calls_are_on_one_thread(form: type[Full]) -> None:
    backend = form()
    with lab(backend) as rig:
        rig.drive.write(0, bytes(4096))
        rig.drive.read(0, 8)
    names = [call[0] for call in backend.calls]
    assert names[0] == "open"
    assert names[-1] == "close"
    assert names.count("open") == names.count("close") == 1
    assert len(backend.threads) == 1
    assert threading.get_ident() not in backend.threads


@pytest.mark.parametrize("form", [Full, Batches, Later, Async])
def test_a_backend_is_closed_when_its_storage_is_dropped(form: type[Bare]) -> None:
    closed = threading.Event()

    class Closes(form):  # type: ignore[valid-type, misc]
        def close(self) -> None:
            closed.set()

    service = serve(Closes())
    # A cycle would keep it for ever.
    gc.disable()
    try:
        del service
        assert closed.wait(PATIENCE)
    finally:
        gc.enable()
    storage = open_storage(Closes())
    closed.clear()
    del storage
    assert closed.wait(PATIENCE)


def test_a_storage_outlives_its_service() -> None:
    backend = Full()
    storage = serve(backend).storage
    gc.collect()
    assert isinstance(storage, Storage)
    assert [call[0] for call in backend.calls] == ["open"]
    del storage
    wait_until(lambda: backend.calls[-1][0] == "close", "close")


def test_close_ends_a_service_once_and_for_all() -> None:
    backend = Full()
    service = serve(backend)
    assert service.close(PATIENCE)
    assert service.close(PATIENCE)
    assert [call[0] for call in backend.calls] == ["open", "close"]
    with pytest.raises(ConfigError, match="the backend is closed"):
        service.refresh_size()
    with pytest.raises(ConfigError, match="no resize"):
        service.resize(SIZE)


def test_commands_to_a_service_that_was_closed_fail() -> None:
    backend = without(Full(), "flush")
    with lab(backend) as rig:
        rig.drive.read(0, 1)
        assert rig.services[0].close(PATIENCE)
        # Namespace Not Ready.
        assert rig.read_status().code == (0, 0x82)
    assert [call[0] for call in backend.calls] == ["open", "read", "close"]


def test_an_object_is_served_once_at_a_time() -> None:
    backend = Full()
    service = serve(backend)
    with pytest.raises(ConfigError, match="in service already") as caught:
        serve(backend)
    assert __file__ not in str(caught.value) or "\n" not in str(caught.value)
    assert service.close(PATIENCE)
    again = serve(backend)
    assert again.close(PATIENCE)
    assert [call[0] for call in backend.calls] == ["open", "close", "open", "close"]


# How many at once


def test_threads_are_as_many_as_wanted() -> None:
    meet = threading.Barrier(4)
    lock = threading.Lock()
    state = {"now": 0, "most": 0}

    class Safe(Bare):
        def read(self, offset: int, buf: memoryview) -> None:
            with lock:
                state["now"] += 1
                state["most"] = max(state["most"], state["now"])
            # Only if four are here together does anybody go on.
            meet.wait(PATIENCE)
            with lock:
                state["now"] -= 1

    before = threading.active_count()
    with lab(Safe(thread_safe=True, max_inflight=4)) as rig:
        rig.drive.run(read(n) for n in range(64))
    assert state["most"] == 4
    assert threading.active_count() == before


def test_plain_methods_are_called_one_at_a_time() -> None:
    lock = threading.Lock()

    class Alone(Bare):
        def read(self, offset: int, buf: memoryview) -> None:
            assert lock.acquire(blocking=False)
            lock.release()
            super().read(offset, buf)

    with lab(Alone(), Alone()) as rig:
        rig.drive.run(read(n, nsid=1 + n % 2) for n in range(300))
        assert not any(service.failures for service in rig.services)


def test_coroutines_wait_together_as_many_as_wanted() -> None:
    class Meets(Async):
        async def open(self) -> None:
            self.all = asyncio.Event()

        async def read(self, offset: int, buf: memoryview) -> None:  # type: ignore[override]
            self.running += 1
            self.most = max(self.most, self.running)
            if self.running == 100:
                self.all.set()
            await self.all.wait()
            self.running -= 1

    backend = Meets(max_inflight=100)
    with lab(backend) as rig:
        rig.drive.run(read(n) for n in range(120))
    assert backend.most == 100


def test_python_goes_on_while_the_backend_waits_and_while_others_work() -> None:
    backend = Hanging()
    with lab(backend, Writable()) as rig:
        waits = rig.drive.submit(read(0))
        assert backend.hangs.wait(PATIENCE)
        # The GIL is free for this thread, and other namespaces answer.
        assert rig.drive.read(5, 1, nsid=2) == b"\x5a" * BLOCK
        assert not waits.done()
        backend.go.set()
        assert waits.wait(PATIENCE).status.success


# Size that changes


class Growing(Full):
    def resize(self, size: int) -> None:
        self.note("resize", size)
        if size > 1 << 30:
            raise OSError(errno.ENOSPC, "no room for that")
        if size == 1 << 29:
            raise TimeoutError("too slow")
        self.size = size
        self.data = bytearray(size)


def test_an_operator_resizes_on_the_backends_thread() -> None:
    backend = Growing()
    service = serve(backend)
    assert service.resize(2 * SIZE) == 2 * SIZE
    assert service.storage.size == 2 * SIZE
    for size, words in (
        (2 << 30, "no room for that"),
        (1 << 29, "too slow"),
        (511, "multiple of the block size"),
        (0, "is 0"),
        (-512, "is -512"),
        ("1G", "is '1G', a str"),
    ):
        with pytest.raises(ConfigError, match=words) as caught:
            service.resize(size)  # type: ignore[arg-type]
        assert "\n" not in str(caught.value)
    assert service.storage.size == 2 * SIZE
    assert service.close(PATIENCE)
    assert len(backend.threads) == 1


@pytest.mark.parametrize("form", [Async, Later])
def test_other_forms_are_asked_for_their_size_as_well(form: type[Bare]) -> None:
    backend = form()
    service = serve(backend)
    backend.size = 4096
    assert service.refresh_size() == 4096
    assert service.storage.size == 4096
    assert service.close(PATIENCE)


def test_a_backend_tells_of_a_new_size() -> None:
    from nvmet_vdev import backend as public

    class Tells(Bare, public.Backend):
        pass

    backend = Tells()
    backend.notify_resize()
    service = serve(backend)
    backend.notify_resize()
    told: list[int] = []
    service.on_resize = lambda: told.append(service.refresh_size())
    backend.size = 4096
    thread = threading.Thread(target=backend.notify_resize)
    thread.start()
    thread.join()
    assert told == [4096]
    assert service.close(PATIENCE)
    backend.notify_resize()
    assert told == [4096]


def test_a_service_is_collected_with_its_callbacks() -> None:
    from nvmet_vdev import backend as public

    class Tells(Bare, public.Backend):
        pass

    backend = Tells()
    service = serve(backend)
    gone = weakref.ref(service)
    gc.disable()
    try:
        del service
        assert gone() is None
    finally:
        gc.enable()


# Errors

EIO = {"EIO", "EREMOTEIO", "EILSEQ", "ENODATA", "EUCLEAN"}
TABLE: list[tuple[set[str], tuple[int, int], bool]] = [
    ({"ENOSPC", "EDQUOT", "EFBIG"}, (0, 0x81), False),
    ({"EROFS", "EPERM", "EACCES"}, (0, 0x20), True),
    ({"EINVAL"}, (0, 0x02), True),
    ({"EOPNOTSUPP", "ENOTSUP", "ENOSYS", "ENOTTY"}, (0, 0x01), True),
    ({"ETIMEDOUT", "EAGAIN", "ENOMEM", "ENOBUFS", "EBUSY", "EINTR", "EWOULDBLOCK"}, (0, 0x06), False),
    ({"ESHUTDOWN", "ENODEV", "ENXIO", "ENOMEDIUM", "ENOLINK", "ESTALE"}, (0, 0x82), False),
    ({"EBADE"}, (0, 0x83), False),
    ({"EBADMSG"}, (2, 0x82), False),
    ({"ECANCELED"}, (0, 0x07), False),
]


class Raises(Full):
    """Raises what it is told, in every method."""

    error: BaseException | None = None

    def note(self, *call: Any) -> None:
        super().note(*call)
        if self.error is not None:
            raise self.error


@pytest.fixture(scope="module")
def raising() -> Any:
    backend = Raises()
    with lab(backend) as rig:
        yield backend, rig
        backend.error = None


def test_every_errno_becomes_the_status_of_the_table(raising: Any) -> None:
    backend, rig = raising
    by_number = {getattr(errno, name): (code, dnr) for names, code, dnr in TABLE for name in names}
    media = {getattr(errno, name) for name in EIO}
    zeroes, flush = Command(8, 1, cdw12=0), Command(0, 1)
    for number in [*sorted(errno.errorcode), 0, -1, 99999]:
        backend.error = OSError(number, "as the test wants")
        for command, reads in (
            (read(0), True),
            (write(0, bytes(512)), False),
            (zeroes, False),
            (flush, False),
        ):
            status = rig.status(command)
            expected = by_number.get(number, ((0, 0x06), False))
            if number in media:
                expected = ((2, 0x81) if reads else (2, 0x80), False)
            assert (status.code, status.dnr) == expected, (errno.errorcode.get(number), command.name)


def test_an_error_without_errno_is_one_of_the_medium(raising: Any) -> None:
    backend, rig = raising
    backend.error = OSError("no number")
    assert rig.status(read(0)).code == (2, 0x81)
    assert rig.status(write(0, bytes(512))).code == (2, 0x80)
    backend.error = TimeoutError()
    assert rig.status(read(0)).code == (0, 0x06)


@pytest.mark.parametrize("dnr", [False, True])
def test_an_exact_status_is_what_the_guest_gets(raising: Any, dnr: bool) -> None:
    backend, rig = raising
    for sct, sc in ((0, 1), (0, 0x82), (1, 0x80), (2, 0x81), (3, 2), (7, 0xFF)):
        backend.error = NvmeError(sct, sc, dnr=dnr)
        for command in (read(0), write(0, bytes(512)), Command(0, 1)):
            status = rig.status(command)
            assert (status.code, status.dnr) == ((sct, sc), dnr)


@pytest.mark.parametrize(("sct", "sc"), [(0, 0), (8, 0), (-1, 0), (0, 256), (0, -1)])
def test_a_status_that_is_none_is_refused(sct: int, sc: int) -> None:
    with pytest.raises(ValueError, match="use sct 0 to 7"):
        NvmeError(sct, sc)


def test_a_status_that_was_spoilt_is_an_internal_error(raising: Any) -> None:
    backend, rig = raising
    backend.error = NvmeError(1, 1)
    backend.error.sct, backend.error.sc = 0, 0
    assert rig.read_status().code == (0, 6)
    backend.error.sc = 10**6
    assert rig.read_status().code == (0, 6)


@pytest.mark.parametrize("form", [Batches, Async])
def test_errors_of_other_forms_are_the_same(form: type[Bare]) -> None:
    class Sync(Batches):
        def read(self, offset: int, buf: memoryview) -> None:
            raise NvmeError(1, 0x81, dnr=True)

        def write(self, offset: int, buf: memoryview, fua: bool) -> None:
            raise OSError(errno.ENOSPC, "full")

    class Coroutines(Async):
        async def read(self, offset: int, buf: memoryview) -> None:  # type: ignore[override]
            await asyncio.sleep(0)
            raise NvmeError(1, 0x81, dnr=True)

        async def write(self, offset: int, buf: memoryview, fua: bool) -> None:
            raise OSError(errno.ENOSPC, "full")

    with lab(Sync() if form is Batches else Coroutines()) as rig:
        status = rig.read_status()
        assert (status.code, status.dnr) == ((1, 0x81), True)
        assert rig.status(write(0, bytes(512))).code == (0, 0x81)


def test_failures_are_counted_and_told_once_for_each_place(caplog: pytest.LogCaptureFixture) -> None:
    class Fails(Writable):
        def read(self, offset: int, buf: memoryview) -> None:
            if offset == 0:
                raise OSError(errno.EIO, "no")
            if offset == 512:
                raise NvmeError(2, 0x81)
            if offset == 1024:
                raise KeyError("one place")
            raise KeyError("another")

    with lab(Fails()) as rig:
        for _ in range(5):
            for lba in range(4):
                rig.read_status(lba)
        failures = rig.services[0].failures
    assert failures["OSError"] == failures["NvmeError"] == 5
    places = {what: count for what, count in failures.items() if what.startswith("KeyError at ")}
    assert sorted(places.values()) == [5, 5]
    assert all(__file__ in what for what in places)
    messages = [record.getMessage() for record in caplog.records if "KeyError" in record.getMessage()]
    assert len(messages) == 2
    assert all("Fails.read raised KeyError at " in message and "Traceback" in message for message in messages)


def test_what_waits_beyond_a_smaller_size_never_comes_to_the_backend(tmp_path: Path) -> None:
    started, go_on = threading.Event(), threading.Event()
    seen: list[tuple[int, int]] = []

    class Shrinks(Backend):
        size = 8 << 20

        def read(self, offset: int, buf: memoryview) -> None:
            started.set()
            assert go_on.wait(60)
            buf[:] = bytes(len(buf))

        def write(self, offset: int, buf: memoryview, fua: bool) -> None:
            seen.append((offset, self.size))

        def resize(self, size: int) -> None:
            self.size = size

    with Target() as target:
        namespace = target.add_namespace(Shrinks())
        target.listen(tmp_path / "s")
        with attach(tmp_path / "s") as drive:
            first = drive.submit(Command(opcode=2, nsid=1, length=512))
            assert started.wait(60)
            writes = [
                drive.submit(Command(opcode=1, nsid=1, cdw10=lba, data=bytes(512)))
                for lba in (0, 12000, 12001)
            ]
            resizing = threading.Thread(target=namespace.resize, args=(1 << 20,))
            resizing.start()
            # The smaller size holds before the backend is asked, which is busy.
            storage = namespace._here()[2].storage
            wait_until(lambda: storage.size == 1 << 20, "the smaller size holds")
            go_on.set()
            resizing.join()
            assert drive.wait(first).status.sc == 0
            found = [drive.wait(write).status for write in writes]
    assert [(status.sct, status.sc) for status in found] == [(0, 0), (0, 0x80), (0, 0x80)]
    assert [offset for offset, _ in seen] == [0]
