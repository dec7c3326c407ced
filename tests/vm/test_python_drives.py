"""Linux uses drives in Python: the three forms, a plugin of nbdkit's, and filters over them.

One guest writes to drives of every form, and makes the image that a web server then has; another one has that
image under an overlay, a drive that fails by rule, and one that hangs.
"""

from __future__ import annotations

import fcntl
import hashlib
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.vm.kernel_log import complaints
from tests.vm.lab import MIB, Lab
from tests.vm.nvme_cli import status_of
from tests.vm.rig.drive import Target
from tests.vm.rig.guest import Guest, Machine

pytestmark = pytest.mark.vm

SIZE = 32 * MIB
HERE = Path(__file__).parent
PLUGIN = HERE.parent / "nbdkit" / "plugins" / "file.py"
# Seconds after which something hangs.
PATIENCE = 120.0

FORMS = "FORMS1"
# The namespaces of that drive, from 1; the last is an image that is made in the guest.
KINDS = ("plain", "nbdkit", "batch", "async")
IMAGE_NSID = len(KINDS) + 1


def in_python(name: str, options: str = f"size={SIZE}") -> str:
    """The spec of a class of python_drives.py."""
    return f"python:{HERE / 'python_drives.py'}:{name}?{options}"


@pytest.fixture(scope="module")
def forms(our_lab: Lab) -> Iterator[Guest]:
    """A guest with one drive whose namespaces are of all forms."""
    plugin = our_lab.image("plugin.img", SIZE)
    disks: list[str | Path] = [
        in_python("Plain"),
        f"nbdkit:{PLUGIN}?file={plugin}",
        in_python("Batched"),
        in_python("Async"),
        our_lab.image("image.raw", SIZE),
    ]
    with (
        Target(*disks, directory=our_lab.directory, serial=FORMS) as target,
        our_lab.boot(target, machine=Machine(fio=True)) as guest,
    ):
        guest.run(f"wait_namespaces {len(disks)}")
        yield guest
        assert complaints(guest) == []
        guest.power_off()


@pytest.mark.parametrize("nsid", range(1, IMAGE_NSID), ids=KINDS)
def test_ext4_on_a_drive_in_python_keeps_its_files_through_a_remount(forms: Guest, nsid: int) -> None:
    forms.run(f"""
        d=$(namespace_of {FORMS} {nsid})
        mkfs.ext4 -q -F $d
        mount -t ext4 $d /mnt
        for i in $(seq 12); do head -c $((i * 3001)) /dev/urandom >/mnt/file$i; done
        head -c 3000000 /dev/urandom >/mnt/big
        (cd /mnt && find . -type f | sort | xargs sha256sum) >/tmp/sums
        umount /mnt
        echo 3 >/proc/sys/vm/drop_caches
        mount -t ext4 $d /mnt
        (cd /mnt && sha256sum -c /tmp/sums >/tmp/checked) || {{ grep -v OK /tmp/checked; exit 1; }}
        umount /mnt
        e2fsck -fn $d
    """)


@pytest.mark.parametrize("nsid", range(1, IMAGE_NSID), ids=KINDS)
def test_fio_verifies_what_it_wrote_to_a_drive_in_python(forms: Guest, nsid: int) -> None:
    forms.run(f"""
        fio --name=verify --filename=$(namespace_of {FORMS} {nsid}) --allow_file_create=0 --eta=never \\
            --direct=1 --ioengine=libaio --rw=randwrite --bsrange=4k-64k --size=4m --iodepth=32 \\
            --verify=crc32c --verify_fatal=1 --do_verify=1 --randseed=7
    """)


def test_zeroes_and_freed_blocks_reach_a_drive_in_python(forms: Guest) -> None:
    forms.run(f"""
        d=$(namespace_of {FORMS} 1)
        head -c 4194304 /dev/urandom | dd of=$d bs=1M iflag=fullblock oflag=direct
        blkdiscard -z -o 1048576 -l 1048576 $d
        blkdiscard -o 2097152 -l 1048576 $d
        dd if=$d of=/tmp/read bs=1M skip=1 count=2 iflag=direct
        head -c 2097152 /dev/zero | cmp - /tmp/read
        dd if=$d of=/tmp/read bs=1M count=1 iflag=direct
        ! head -c 1048576 /dev/zero | cmp -s - /tmp/read
    """)


class Web(BaseHTTPRequestHandler):
    """A web server with one file, which knows ranges."""

    protocol_version = "HTTP/1.1"
    file: Path

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def _answer(self, *, with_body: bool) -> None:
        size = self.file.stat().st_size
        begin, end = 0, size
        if span := re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", "")):
            begin, end = int(span[1]), int(span[2]) + 1
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {begin}-{end - 1}/{size}")
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(end - begin))
        self.end_headers()
        if with_body:
            with self.file.open("rb") as file:
                file.seek(begin)
                self.wfile.write(file.read(end - begin))

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@dataclass(frozen=True)
class Published:
    """An image with a file system, and where it can be had."""

    image: Path
    url: str
    # As sha256sum has them.
    sums: str


@pytest.fixture(scope="module")
def published(our_lab: Lab, forms: Guest) -> Iterator[Published]:
    """An image with files on ext4, on a web server."""
    sums = forms.run(f"""
        d=$(namespace_of {FORMS} {IMAGE_NSID})
        mkfs.ext4 -q -F $d
        mount -t ext4 $d /mnt
        for i in $(seq 10); do head -c $((i * 70001)) /dev/urandom >/mnt/file$i; done
        cd /mnt && sha256sum file*
        cd / && umount /mnt
    """).out
    image = our_lab.directory / "image.raw"
    handler = type("OneFile", (Web,), {"file": image})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield Published(image, f"http://127.0.0.1:{server.server_port}/{image.name}", sums)
        server.shutdown()


class Gate:
    """A file whose lock makes the reads of `Hanging` hang."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._marker = path.with_suffix(".hanging")
        path.touch()

    @property
    def hanging(self) -> bool:
        """Whether a read hangs."""
        return self._marker.exists()

    @contextmanager
    def shut(self) -> Iterator[None]:
        """Reads hang until the context ends."""
        with self.path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def wait(self, *, hanging: bool) -> None:
        """Waits until a read hangs, or none does any more."""
        deadline = time.monotonic() + PATIENCE
        while self.hanging != hanging:
            assert time.monotonic() < deadline, "the backend was not called" if hanging else "it still hangs"
            time.sleep(0.02)


OVERLAY, FAULTY, HANGS = "OVERLAY1", "FAULTY1", "HANGS1"
# LBA, what is done to it, and the type and code of the status; each with Do Not Retry.
FAULTS = (
    (9000, "read", 0x2, 0x81),
    (9100, "read", 0x2, 0x82),
    (9200, "read", 0x7, 0xC5),
    (9300, "write", 0x0, 0x81),
    (9400, "write", 0x2, 0x80),
)


@dataclass(frozen=True)
class Filtered:
    """The second guest, and what its drives rest on."""

    guest: Guest
    published: Published
    cow: Path
    gate: Gate
    # Of the one that has a timeout.
    limited: Gate


@pytest.fixture(scope="module")
def filtered(our_lab: Lab, published: Published) -> Iterator[Filtered]:
    """A guest with an overlay over the published image, a drive that fails, and one that hangs."""
    directory = our_lab.directory
    cow = directory / "cow.img"
    overlay = f"overlay?file={cow}:fsspec:{published.url}"
    rules = {
        op: ",".join(f"{sct:x}/{sc:x}/dnr@lba={lba}-{lba}" for lba, what, sct, sc in FAULTS if what == op)
        for op in ("read", "write")
    }
    fault = f"fault?read={rules['read']}&write={rules['write']}:ram:{SIZE}"
    gate, limited = Gate(directory / "gate"), Gate(directory / "limited")
    hangs = [
        in_python("Hanging", f"size={SIZE}&gate={gate.path}"),
        f"ram:{SIZE}",
        in_python("Hanging", f"size={SIZE}&gate={limited.path}&timeout=1"),
    ]
    with (
        Target(overlay, directory=directory, serial=OVERLAY) as first,
        Target(fault, directory=directory, serial=FAULTY) as second,
        Target(*hangs, directory=directory, serial=HANGS) as third,
        our_lab.boot(first, second, third) as guest,
    ):
        guest.run("wait_namespaces 5")
        yield Filtered(guest, published, cow, gate, limited)
        guest.power_off()


def test_an_image_of_a_web_server_mounts_under_an_overlay_that_takes_the_writes(filtered: Filtered) -> None:
    published = filtered.published
    before = hashlib.sha256(published.image.read_bytes()).digest()
    assert published.sums.count("\n") >= 10
    filtered.guest.run(f"""
        d=$(namespace_of {OVERLAY})
        mount -t ext4 $d /mnt
        cat >/tmp/sums <<'END'
{published.sums}
END
        (cd /mnt && sed '/^$/d' /tmp/sums | sha256sum -c)
        head -c 3000000 /dev/urandom >/tmp/new
        cp /tmp/new /mnt/new
        rm /mnt/file1
        umount /mnt
        echo 3 >/proc/sys/vm/drop_caches
        mount -t ext4 $d /mnt
        cmp /tmp/new /mnt/new
        [ ! -e /mnt/file1 ]
        (cd /mnt && sed '/^$/d; / file1$/d' /tmp/sums | sha256sum -c)
        umount /mnt
        e2fsck -fn $d
    """)
    assert complaints(filtered.guest) == []
    assert hashlib.sha256(published.image.read_bytes()).digest() == before
    assert filtered.cow.stat().st_blocks * 512 >= 3_000_000


@pytest.mark.parametrize(
    ("lba", "op", "sct", "sc"), FAULTS, ids=[f"{op}-{sct:x}-{sc:x}" for _, op, sct, sc in FAULTS]
)
def test_linux_reports_exactly_the_injected_status_and_goes_on(
    filtered: Filtered, lba: int, op: str, sct: int, sc: int
) -> None:
    guest = filtered.guest
    block = f"--namespace-id=1 --block-count=0 --data-size=512 --data=/tmp/block --start-block={lba}"
    failed = guest.run(
        f"head -c 512 /dev/urandom >/tmp/block; nvme {op} $(namespace_of {FAULTY}) {block}", check=False
    )
    assert failed.rc != 0
    assert status_of(failed.out) == (sct, sc, True)

    direction = "if=$d of=/tmp/got skip" if op == "read" else "if=/tmp/block of=$d seek"
    flag = "iflag" if op == "read" else "oflag"
    failed = guest.run(
        f"d=$(namespace_of {FAULTY}); dd {direction}={lba} bs=512 count=1 {flag}=direct", check=False
    )
    assert failed.rc != 0
    said = [line for line in complaints(guest) if re.search(rf"@ LBA {lba}\b", line)]
    assert len(said) == 1, said
    assert f"(sct {sct:#x} / sc {sc:#x})" in said[0]

    guest.run(f"""
        d=$(namespace_of {FAULTY})
        dd if=/tmp/block of=$d bs=512 seek={lba + 1} oflag=direct
        dd if=$d of=/tmp/got bs=512 skip={lba + 1} count=1 iflag=direct
        cmp /tmp/block /tmp/got
        [ "$(cat /sys/block/${{d##*/}}/device/state)" = live ]
    """)


# The other namespace of a drive that hangs, written and read.
USE_THE_OTHER = f"""
    m=$(namespace_of {HANGS} 2)
    head -c 1048576 /dev/urandom >/tmp/data
    dd if=/tmp/data of=$m bs=64k oflag=direct
    dd if=$m of=/tmp/got bs=64k count=16 iflag=direct
    cmp /tmp/data /tmp/got
"""
# A command of nvme-cli's ends with a reset; what the block layer had under way Linux sends again.
READ_AND_HANG = f"nvme read $(namespace_of {HANGS} 1) --start-block=9000 --block-count=0 --data-size=512"
RESET = f"""
    c=$(controller_of {HANGS})
    nvme reset $c
    live() {{ [ "$(cat /sys/class/nvme/${{c##*/}}/state)" = live ]; }}
    until_true 60 live
"""


def test_a_read_of_nvme_cli_that_hangs_stops_neither_a_reset_nor_another_namespace(
    filtered: Filtered,
) -> None:
    guest, gate = filtered.guest, filtered.gate
    with gate.shut():
        guest.run("rm -f /tmp/rc")
        guest.start(f"rc=0; {READ_AND_HANG} --data=/tmp/hung || rc=$?; echo $rc >/tmp/rc")
        gate.wait(hanging=True)
        guest.run(USE_THE_OTHER)
        guest.run(f"[ ! -e /tmp/rc ]; {RESET}")
        guest.run(USE_THE_OTHER)
        # The reset has ended the command, though not the call.
        assert guest.run("until_true 60 test -s /tmp/rc; cat /tmp/rc").out.strip() != "0"
        assert gate.hanging
    gate.wait(hanging=False)
    guest.run(f"{READ_AND_HANG} --data=/tmp/hung; head -c 512 /dev/zero | cmp - /tmp/hung")


def test_an_abort_ends_a_read_that_hangs(filtered: Filtered) -> None:
    guest, gate = filtered.guest, filtered.gate
    with gate.shut():
        # Linux sends an Abort after the second that the command has.
        aborted = guest.run(f"{READ_AND_HANG} --data=/tmp/hung --timeout=1000", check=False)
        assert aborted.rc != 0
        # Command Abort Requested.
        assert status_of(aborted.out) == (0x0, 0x07, False)
        assert gate.hanging
        guest.run(USE_THE_OTHER)
    gate.wait(hanging=False)
    guest.run(f"{READ_AND_HANG} --data=/tmp/hung; head -c 512 /dev/zero | cmp - /tmp/hung")


def test_a_reset_that_waits_for_a_read_of_the_block_layer_ends_with_the_timeout_of_the_backend(
    filtered: Filtered,
) -> None:
    # Linux sends the read again and is done with the reset when it is answered, here by the timeout.
    guest, gate = filtered.guest, filtered.limited
    with gate.shut():
        guest.run(f"""
            d=$(namespace_of {HANGS} 3)
            dd if=$d of=/dev/null bs=512 skip=9000 count=1 iflag=direct & reader=$!
            under_way() {{ read -r reads writes </sys/block/${{d##*/}}/inflight; [ $reads -gt 0 ]; }}
            until_true 60 under_way
            {RESET}
            if wait $reader; then echo "the read has succeeded"; exit 1; fi
        """)
        assert gate.hanging
        guest.run(USE_THE_OTHER)
    gate.wait(hanging=False)
    guest.run(f"dd if=$(namespace_of {HANGS} 3) bs=512 skip=9000 count=1 iflag=direct >/dev/null")
