"""What a manager tells, made up: two subsystems, a port each and one that nobody is at."""

from __future__ import annotations

from typing import Any

from tests.control.fakes import NQN

TWO = "nqn.2026-01.org.example:two"
VM1 = "nqn.2026-01.org.example:vm1"
VM2 = "nqn.2026-01.org.example:vm2"


def namespace(nsid: int, **more: Any) -> dict[str, Any]:
    """A namespace."""
    return {
        "nsid": nsid,
        "backend": f"/images/{nsid}.img",
        "description": f"file /images/{nsid}.img",
        "size": nsid << 30,
        "block_size": 512,
        "enable": True,
        "read_only": False,
        "protect": False,
        "write_protected": False,
        "ana_grpid": 1,
        "uuid": f"00000000-0000-0000-0000-{nsid:012}",
        "nguid": None,
        "eui64": None,
        "hosts": None,
        "resv": True,
        "reservation": None,
        **more,
    }


def port(portid: int, subsystem: str, **more: Any) -> dict[str, Any]:
    """A port."""
    return {
        "portid": portid,
        "traddr": f"/run/vm{portid}.sock",
        "subsystem": subsystem,
        "cntlid": portid,
        "hostnqn": VM1,
        "hostid": "11111111-2222-3333-4444-555555555555",
        "attached": False,
        "ana": {},
        "queues": 64,
        "queue_size": 1024,
        "doorbells": "auto",
        **more,
    }


ONE_SUBSYSTEM: dict[str, Any] = {
    "hosts": [],
    "subsystems": [
        {
            "nqn": NQN,
            "serial": "S1",
            "model": "nvmet-vdev",
            "allow_any_host": True,
            "allowed_hosts": [],
            "namespaces": [namespace(1)],
            "ports": [],
        }
    ],
    "ports": [],
}

TREE: dict[str, Any] = {
    "hosts": [
        {"nqn": VM1, "hostid": "11111111-2222-3333-4444-555555555555", "subsystems": [TWO], "ports": [1, 2]},
        {"nqn": VM2, "hostid": None, "subsystems": [], "ports": []},
    ],
    "subsystems": [
        {
            "nqn": NQN,
            "serial": "S1",
            "model": "nvmet-vdev",
            "allow_any_host": True,
            "allowed_hosts": [],
            "namespaces": [
                namespace(1, reservation="write exclusive"),
                namespace(7, enable=False, write_protected=True, ana_grpid=2, hosts=[VM1]),
            ],
            "ports": [1, 3],
        },
        {
            "nqn": TWO,
            "serial": "S2",
            "model": "Drive",
            "allow_any_host": False,
            "allowed_hosts": [VM1],
            "namespaces": [],
            "ports": [2],
        },
    ],
    "ports": [
        port(1, NQN, attached=True, ana={"1": "optimized", "2": "inaccessible"}),
        port(2, TWO),
        port(3, NQN),
    ],
}

COUNTERS = {
    "reads": 1000,
    "writes": 20,
    "bytes_read": 4 << 20,
    "bytes_written": 1 << 20,
    "completions": 1020,
    "errors": 3,
    "media_errors": 1,
    "interrupts": 500,
}
STATS: dict[str, Any] = {
    "total": COUNTERS,
    "controllers": [{"portid": 1, "subsystem": NQN, **COUNTERS}],
    "namespaces": [{"subsystem": NQN, "nsid": 1, **COUNTERS}],
}
HEALTH: dict[str, Any] = {
    "subsystems": [
        {
            "nqn": NQN,
            "temperature": 320,
            "spare": 5,
            "spare_threshold": 10,
            "percentage_used": None,
            "reliability_degraded": True,
        }
    ],
    "controllers": [
        {
            "portid": 1,
            "subsystem": NQN,
            "errors": [{"count": 1, "sqid": 2, "cid": 3, "status": 0x4081, "lba": 77, "nsid": 1}],
        }
    ],
    "namespaces": [{"subsystem": NQN, "nsid": 1, "failures": {"OSError": 4}}],
}
RESERVATION: dict[str, Any] = {
    "generation": 4,
    "type": "write exclusive",
    "ptpl": True,
    "registrants": [
        {
            "hostid": "11111111-2222-3333-4444-555555555555",
            "key": "0x00000000deadbeef",
            "holder": True,
            "controllers": [1, 2],
        }
    ],
}
