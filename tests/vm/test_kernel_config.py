"""A configuration of the kernel's target, as `nvmetcli save` wrote it, serves a guest the same namespaces.

Nothing in it is changed but the transport and its address.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.vm.kernel_log import complaints
from tests.vm.lab import MIB, Lab
from tests.vm.rig.guest import SMALL, Guest
from tests.vm.rig.served import Port, Served

pytestmark = pytest.mark.vm

SERIAL = "a1b2c3d4e5f60718293a"
SIZES = {1: 32 * MIB, 5: 48 * MIB, 6: 16 * MIB}
DISABLED = 6
UUIDS = {nsid: uuid.uuid5(uuid.NAMESPACE_DNS, f"{nsid}.example.com") for nsid in SIZES}
NGUIDS = {nsid: uuid.uuid5(uuid.NAMESPACE_URL, f"{nsid}.example.com") for nsid in SIZES}
TRANSPORT = {
    "adrfam": "ipv4",
    "traddr": "192.0.2.1",
    "treq": "not specified",
    "trsvcid": "4420",
    "trtype": "tcp",
    "tsas": "none",
}


def saved(images: dict[int, Path]) -> str:
    """What nvmetcli saves: grouped attributes are text, keys are sorted."""
    namespaces = [
        {
            "ana": {"grpid": "1"},
            "ana_grpid": 1,
            "device": {"nguid": str(NGUIDS[nsid]), "path": str(path), "uuid": str(UUIDS[nsid])},
            "enable": int(nsid != DISABLED),
            "nsid": nsid,
            "resv": {"enable": "0"},
        }
        for nsid, path in images.items()
    ]
    attributes = {
        "allow_any_host": "1",
        "cntlid_max": "65519",
        "cntlid_min": "1",
        "firmware": "6.12.0",
        "ieee_oui": "0x000000",
        "model": "Linux",
        "pi_enable": "0",
        "qid_max": "128",
        "serial": SERIAL,
        "version": "2.1",
    }
    config = {
        "hosts": [],
        "ports": [
            {
                "addr": TRANSPORT,
                "ana_groups": [{"ana": {"state": "optimized"}, "grpid": 1}],
                "param": {
                    "inline_data_size": "16384",
                    "max_queue_size": "128",
                    "mdts": "0",
                    "pi_enable": "0",
                },
                "portid": 1,
                "referrals": [],
                "subsystems": ["nqn.2024-01.com.example:kernel"],
            }
        ],
        "subsystems": [
            {
                "allowed_hosts": [],
                "attr": attributes,
                "namespaces": namespaces,
                "nqn": "nqn.2024-01.com.example:kernel",
            }
        ],
    }
    return json.dumps(config, sort_keys=True, indent=2)


@pytest.fixture(scope="module")
def moved(our_lab: Lab) -> Iterator[Guest]:
    """A guest on the configuration, with another transport and address."""
    directory = our_lab.directory
    images = {nsid: our_lab.image(f"kernel{nsid}.img", size) for nsid, size in SIZES.items()}
    for nsid, image in images.items():
        with image.open("r+b") as file:
            file.write(f"namespace {nsid}\n".encode())
    text = saved(images)
    for old, new in (("tcp", "vfio-user"), ("192.0.2.1", str(directory / "kernel.sock"))):
        assert text.count(f'"{old}"') == 1
        text = text.replace(f'"{old}"', f'"{new}"')
    config = directory / "config.json"
    config.write_text(text)
    with Served(config, directory=directory) as target:
        port = Port(target, directory / "kernel.sock", SERIAL)
        with our_lab.boot(port, machine=SMALL) as guest:
            guest.run("wait_namespaces 2")
            yield guest
            guest.power_off()


def test_linux_has_the_namespaces_of_the_file_and_no_complaint(moved: Guest) -> None:
    controller = json.loads(moved.run(f"nvme id-ctrl $(controller_of {SERIAL}) -o json").out)
    assert controller["sn"].strip() == SERIAL
    assert controller["mn"].strip() == "Linux"
    assert controller["fr"].strip() == "6.12.0"
    assert controller["subnqn"] == "nqn.2024-01.com.example:kernel"
    listed = moved.run(f"nvme list-ns $(controller_of {SERIAL})").out
    assert re.findall(r":(0x\d+)$", listed, re.MULTILINE) == ["0x1", "0x5"]
    assert complaints(moved) == []


@pytest.mark.parametrize("nsid", [nsid for nsid in SIZES if nsid != DISABLED])
def test_a_namespace_has_its_size_identifiers_and_data(moved: Guest, nsid: int) -> None:
    moved.run(f"""
        d=$(namespace_of {SERIAL} {nsid})
        [ "$(cat /sys/block/${{d##*/}}/size)" = {SIZES[nsid] // 512} ]
        [ "$(cat /sys/block/${{d##*/}}/uuid)" = {UUIDS[nsid]} ]
        [ "$(cat /sys/block/${{d##*/}}/nguid)" = {NGUIDS[nsid]} ]
        [ "$(head -n 1 $d)" = "namespace {nsid}" ]
        dd if=/dev/urandom of=$d bs=64k seek=1 count=1 oflag=direct
    """)
