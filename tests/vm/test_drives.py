"""Several drives, and several namespaces of one drive, in one guest."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.vm.kernel_log import complaints
from tests.vm.lab import MIB, Lab
from tests.vm.rig.drive import Target
from tests.vm.rig.guest import Guest, Machine

pytestmark = pytest.mark.vm

SIZE = 64 * MIB
SERIALS = ("THREE0", "THREE1", "THREE2")
KNOWN = b"what the operator put there\n"


@pytest.fixture(scope="module")
def three(lab: Lab) -> Iterator[Guest]:
    """A guest with three drives, one of them with blocks of 4096 bytes."""
    with ExitStack() as stack:
        drives = [
            stack.enter_context(lab.drive(lab.image(f"{serial}.img", SIZE), serial, block_size))
            for serial, block_size in zip(SERIALS, (512, 4096, 512), strict=True)
        ]
        guest = stack.enter_context(lab.boot(*drives))
        guest.run("wait_namespaces 3")
        yield guest


def test_three_drives_probe_without_a_complaint(three: Guest) -> None:
    assert complaints(three) == []


def test_list_shows_three_drives(three: Guest) -> None:
    listed = three.run("nvme list -o json").out
    assert all(serial in listed for serial in SERIALS)


def test_three_drives_written_at_once_keep_their_own_data(three: Guest) -> None:
    three.run(f"""
        for s in {" ".join(SERIALS)}; do head -c 8388608 /dev/urandom >/tmp/$s; done
        for s in {" ".join(SERIALS)}; do
            dd if=/tmp/$s of=$(namespace_of $s) bs=1M oflag=direct & pids="${{pids:-}} $!"
        done
        for p in $pids; do wait $p; done
        for s in {" ".join(SERIALS)}; do
            dd if=$(namespace_of $s) of=/tmp/read bs=1M count=8 iflag=direct
            cmp /tmp/$s /tmp/read
        done
    """)


def test_a_drive_that_resets_does_not_disturb_its_neighbours(three: Guest) -> None:
    three.run(f"""
        dd if=/dev/urandom of=$(namespace_of {SERIALS[1]}) bs=1M count=16 oflag=direct & writer=$!
        nvme reset $(controller_of {SERIALS[0]})
        wait $writer
        wait_namespaces 3
    """)
    assert complaints(three) == []


@pytest.fixture(scope="module")
def namespaces(our_lab: Lab) -> Iterator[Guest]:
    """A guest with one drive of two namespaces, and one drive that may only be read."""
    known = our_lab.image("known.img", SIZE)
    with known.open("r+b") as file:
        file.write(KNOWN)
    images = [our_lab.image(f"namespace-{nsid}.img", nsid * SIZE) for nsid in (1, 2)]
    directory = our_lab.directory
    with (
        Target(*images, directory=directory, serial="MANY1") as many,
        Target(known, directory=directory, serial="FIXED1", options=["--read-only"]) as fixed,
        our_lab.boot(many, fixed, machine=Machine()) as guest,
    ):
        guest.run("wait_namespaces 3")
        yield guest
    with known.open("rb") as file:
        assert file.read(2 * len(KNOWN)) == KNOWN + bytes(len(KNOWN)), "a read-only image was written to"


def test_several_disks_are_the_namespaces_of_one_drive(namespaces: Guest) -> None:
    sizes = [
        json.loads(namespaces.run(f"nvme id-ns $(namespace_of MANY1 {nsid}) -o json").out)["nsze"]
        for nsid in (1, 2)
    ]
    assert sizes == [SIZE // 512, 2 * SIZE // 512]


def test_namespaces_keep_their_own_data(namespaces: Guest) -> None:
    namespaces.run("""
        for i in 1 2; do
            head -c 1048576 /dev/urandom >/tmp/$i
            dd if=/tmp/$i of=$(namespace_of MANY1 $i) bs=64k oflag=direct
        done
        for i in 1 2; do
            dd if=$(namespace_of MANY1 $i) of=/tmp/read bs=64k count=16 iflag=direct
            cmp /tmp/$i /tmp/read
        done
    """)


def test_a_read_only_drive_is_read(namespaces: Guest) -> None:
    out = namespaces.run("dd if=$(namespace_of FIXED1) bs=512 count=1 iflag=direct 2>/dev/null").out
    assert out.startswith(KNOWN.decode())


def test_a_read_only_drive_refuses_a_write(namespaces: Guest) -> None:
    refused = namespaces.run(
        "dd if=/dev/urandom of=$(namespace_of FIXED1) bs=4k count=1 oflag=direct", check=False
    )
    assert refused.rc != 0
