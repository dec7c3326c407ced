"""The small Python modules by themselves."""

from __future__ import annotations

import io
import os
import signal
import uuid
from pathlib import Path

import click
import pytest

from nvmet_vdev import ConfigError, identity, output, sizes, sockets, vmm
from nvmet_vdev.cli.params import CPUS
from nvmet_vdev.errors import UsageError, one_line
from nvmet_vdev.signals import StopSignals


@pytest.mark.parametrize(
    ("text", "value"),
    [("512", 512), ("4k", 4096), ("4K", 4096), ("512M", 512 << 20), ("10G", 10 << 30), ("2T", 2 << 40)],
)
def test_sizes_have_binary_units(text: str, value: int) -> None:
    assert sizes.parse_size(text) == value


@pytest.mark.parametrize("text", ["", "G", "10Q", "-1", "1e3", "0x10", "1 0", "99999999999T", "\u0661"])
def test_what_is_no_size_is_named(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        sizes.parse_size(text)
    assert text in str(caught.value)


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (512, "512 B"),
        (4096, "4 KiB"),
        (1536, "1.50 KiB"),
        (10 << 30, "10 GiB"),
        (2**64, "16 EiB"),
    ],
)
def test_sizes_are_shown_in_the_largest_unit(size: int, text: str) -> None:
    assert sizes.format_size(size) == text


def test_rates_and_latencies_have_three_figures() -> None:
    assert sizes.format_count(518_321) == "518k"
    assert sizes.format_count(2_375_000) == "2.38M"
    assert sizes.format_count(42) == "42"
    assert sizes.format_latency(8.43) == "8.43 us"
    assert sizes.format_latency(61_200) == "61.2 ms"
    assert sizes.format_latency(2_500_000) == "2.50 s"


def test_a_table_puts_figures_to_the_right(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout", io.StringIO())
    assert output.table(
        ["nsid", "size", "name"], [["1", "10 GiB", "a"], ["12", "1 MiB", "bb"]]
    ).splitlines() == [
        "nsid    size  name",
        "   1  10 GiB  a",
        "  12   1 MiB  bb",
    ]
    assert output.fields([("a", "1"), ("long", "2")]) == "a     1\nlong  2"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_colour_is_for_terminals_whose_user_wants_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert output.wants_colour(Terminal())
    assert not output.wants_colour(io.StringIO())
    monkeypatch.setenv("NO_COLOR", "1")
    assert not output.wants_colour(Terminal())


def test_the_progress_line_is_for_terminals_and_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    for stream, shown in ((Terminal(), "\r\033[K50%\r\033[K"), (io.StringIO(), "")):
        monkeypatch.setattr("sys.stderr", stream)
        with output.Progress() as line:
            line.show("50%")
        assert stream.getvalue() == shown


def test_an_error_is_one_line_whatever_it_holds() -> None:
    assert one_line("a\nb\t c\x1b[31m") == "a b c [31m"


def test_an_identity_is_that_of_the_disk_not_of_its_spelling(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "disk.img").touch()
    (tmp_path / "link.img").symlink_to("disk.img")
    monkeypatch.chdir(tmp_path)
    here = identity.derive(["disk.img"], Path("one"))
    assert here == identity.derive([str(tmp_path / "disk.img")], Path("two"))
    assert here == identity.derive(["link.img"], None)
    assert here != identity.derive(["disk.img", "ram:1M"], Path("one"))
    # The namespace keeps its name when a second one joins it.
    assert here.uuids[0] == identity.derive(["disk.img", "ram:1M"], Path("one")).uuids[0]


def test_memory_takes_its_identity_from_the_socket_and_the_place() -> None:
    one, other = (identity.derive(["ram:1M", "ram:1M"], Path(name)) for name in ("one", "other"))
    assert len({*one.uuids, *other.uuids}) == 4
    assert one.nqn != other.nqn


def test_names_are_what_the_specification_allows() -> None:
    names = identity.derive(["ram:1M"], None)
    assert len(names.serial) <= 20
    assert names.serial.isalnum()
    assert uuid.UUID(names.nqn.removeprefix("nqn.2014-08.org.nvmexpress:uuid:"))
    assert names.uuids[0].version == 8
    assert names.uuids[0].variant == uuid.RFC_4122


def test_a_socket_path_may_have_107_bytes() -> None:
    room = sockets.MAX_PATH - len("/tmp/")
    assert sockets.check(Path("/tmp") / ("s" * room))
    with pytest.raises(UsageError, match="108 bytes"):
        sockets.check(Path("/tmp") / ("s" * (room + 1)))
    with pytest.raises(UsageError, match="bytes"):
        sockets.check(Path("/tmp") / ("ä" * (room // 2 + 1)))


@pytest.mark.parametrize(
    ("disk", "name"),
    [
        ("ram:1G", "ram.sock"),
        ("null:1G", "null.sock"),
        ("/images/vm 1.qcow.img", "vm_1.qcow.sock"),
        ("/", "drive.sock"),
    ],
)
def test_the_default_socket_is_named_after_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, disk: str, name: str
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert sockets.default_path(disk) == tmp_path / "nvmet-vdev" / name


def test_cpu_lists_are_those_of_taskset() -> None:
    assert CPUS.convert("0,2-4,3", None, None) == (0, 2, 3, 4)
    for bad in ("", "a", "1-", "3-1", "1,,2", "-1", "0-99999999"):
        with pytest.raises(click.BadParameter):
            CPUS.convert(bad, None, None)


def test_the_command_lines_quote_what_a_shell_would_take() -> None:
    assert "'socket=/tmp/a b'" in vmm.cloud_hypervisor("/tmp/a b")
    assert '"path":"/tmp/a b"' in vmm.qemu("/tmp/a b")


def test_a_stop_signal_ends_the_wait_and_others_do_not() -> None:
    reader, writer = os.pipe()
    try:
        previous = signal.signal(signal.SIGUSR1, lambda *_: None)
        with StopSignals() as signals:
            signal.raise_signal(signal.SIGUSR1)
            os.write(writer, b"x")
            assert signals.wait(reader) is False
            signal.raise_signal(signal.SIGTERM)
            assert signals.wait(reader) is True
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
        signal.signal(signal.SIGUSR1, previous)
    finally:
        os.close(reader)
        os.close(writer)
        signal.signal(signal.SIGINT, signal.default_int_handler)
