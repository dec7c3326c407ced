"""What `nvmetcli save` writes, and how it reads what it has written."""

from __future__ import annotations

import copy
import json
from typing import Any

HOST = "nqn.2014-08.org.nvmexpress:uuid:befdec4c-2234-11b2-a85c-ca77c773af36"

KERNEL: dict[str, Any] = {
    "hosts": [
        {"nqn": HOST, "dhchap": {"key": "", "ctrl_key": "", "hash": "hmac(sha256)", "dhgroup": "null"}}
    ],
    "ports": [
        {
            "addr": {
                "adrfam": "",
                "traddr": "",
                "treq": "not specified",
                "trsvcid": "",
                "trtype": "loop",
                "tsas": "",
            },
            "ana_groups": [
                {"ana": {"state": "optimized"}, "grpid": 1},
                {"ana": {"state": "non-optimized"}, "grpid": 2},
            ],
            "param": {"inline_data_size": "16384", "max_queue_size": "128", "mdts": "0", "pi_enable": "0"},
            "portid": 1,
            "referrals": [],
            "subsystems": ["testnqn"],
        }
    ],
    "subsystems": [
        {
            "allowed_hosts": [HOST],
            "attr": {
                "allow_any_host": "0",
                "cntlid_max": "65519",
                "cntlid_min": "1",
                "firmware": "6.12.41",
                "ieee_oui": "0x000000",
                "model": "Linux",
                "pi_enable": "0",
                "qid_max": "128",
                "serial": "0c74361069d9db6c65ef",
                "version": "2.1",
            },
            "namespaces": [
                {
                    "ana": {"grpid": "1"},
                    "ana_grpid": 1,
                    "device": {
                        "nguid": "00000000-0000-0000-0000-000000000000",
                        "path": "/dev/vdb",
                        "uuid": "91fdba0d-f87b-4c25-b80f-db7be1418b9e",
                    },
                    "enable": 1,
                    "nsid": 1,
                    "resv": {"enable": "0"},
                },
                {
                    "ana": {"grpid": "3"},
                    "ana_grpid": 3,
                    "device": {
                        "nguid": "ef90689c-6c46-d44c-89c1-4067801309a8",
                        "path": "/srv/images/data.img",
                        "uuid": "5a8b0c3e-93c5-4e5f-8e2c-5f8b6f2f0a11",
                    },
                    "enable": 0,
                    "nsid": 7,
                    "resv": {"enable": "1"},
                },
            ],
            "nqn": "testnqn",
        }
    ],
}
"""A kernel target on a port that is for its own machine, with two namespaces."""


def moved(socket: str = "/run/nvmet-vdev/1.sock") -> dict[str, Any]:
    """The same for us: nothing but the port's transport and address is changed."""
    document = copy.deepcopy(KERNEL)
    document["ports"][0]["addr"] |= {"trtype": "vfio-user", "traddr": socket}
    return document


def text(document: object) -> str:
    """As nvmetcli writes it."""
    return json.dumps(document, sort_keys=True, indent=2) + "\n"


NUMBERS = {"enable", "nsid", "portid", "grpid", "ana_grpid"}
LISTS = {"hosts", "subsystems", "ports", "namespaces", "allowed_hosts", "ana_groups"}
NAMES = {"nqn"}


def assert_readable(document: object, *, depth: int = 0) -> None:
    """That `nvmetcli restore` can read `document`: groups have text alone, the rest are what it knows."""
    assert isinstance(document, dict)
    for name, value in document.items():
        if name in NUMBERS:
            assert type(value) is int, name
        elif name in NAMES:
            assert isinstance(value, str), name
        elif name in LISTS:
            assert isinstance(value, list), name
            for one in value:
                if not isinstance(one, str):
                    assert_readable(one, depth=depth + 1)
        else:
            # A group: the first part of attributes' names, such as attr of attr_serial.
            assert isinstance(value, dict), name
            for key, one in value.items():
                assert isinstance(one, str), f"{name}.{key}"
                assert "/" not in key
