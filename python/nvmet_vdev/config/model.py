"""The configuration as values, with nvmet's nouns: hosts, subsystems with namespaces, ports.

Names, ranges and meanings of all keys are here and nowhere else: the readers of both formats, the JSON Schema
and the messages about what is wrong take them from these classes. Names are those of TOML and of the control
socket.

May know names and ranges. Must not know files, formats, or the target.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal
from uuid import UUID

import msgspec

__all__ = ["AnaState", "Config", "Health", "Host", "Namespace", "Port", "Subsystem", "TargetSettings"]

AnaState = Literal["optimized", "non-optimized", "inaccessible", "persistent-loss", "change"]
"""Asymmetric Namespace Access State (NVMe Base 2.0, 8.1), in nvmet's words."""

MAX_NSID: Final = 1024
MAX_ANA_GROUP: Final = 1024
MAX_CNTLID: Final = 65519
"""FFF0h and above are reserved (NVMe Base 2.0, 3.1.2)."""


def _use(words: str, **constraints: Any) -> msgspec.Meta:
    """What may be written, in words and as constraints."""
    return msgspec.Meta(extra={"use": words}, **constraints)


def _key(json: str, text: str) -> msgspec.Meta:
    """The place in nvmetcli's JSON (group and name), and what the key means."""
    return msgspec.Meta(description=text, extra={"json": json})


def _ascii(length: int) -> msgspec.Meta:
    # A dollar alone would also match before a newline.
    return _use(f"1 to {length} printable ASCII characters", pattern=rf"^[ -~]{{1,{length}}}(?!\n)$")


Flag = Annotated[bool, _use("true or false")]
Nqn = Annotated[str, _use("1 to 223 bytes such as nqn.2024-01.com.example:name")]
Nqns = Annotated[tuple[str, ...], _use("a list of NQNs")]
HostId = Annotated[UUID, _use("a UUID that is not zero")]
Percent = Annotated[int, _use("0 to 100", ge=0, le=100)]
ControllerId = Annotated[int, _use(f"1 to {MAX_CNTLID}", ge=1, le=MAX_CNTLID)]
AnaGroup = Annotated[int, _use(f"1 to {MAX_ANA_GROUP}", ge=1, le=MAX_ANA_GROUP)]
Size = Annotated[int, _use("a size such as 10G", ge=1, le=(1 << 63) - 1)]
Nguid = Annotated[str, _use("32 hexadecimal digits that are not all zero", pattern="^[0-9a-f]{32}$")]
Eui64 = Annotated[str, _use("16 hexadecimal digits that are not all zero", pattern="^[0-9a-f]{16}$")]
BlockSize = Annotated[Literal[512, 4096], _use("512 or 4096")]
Cpu = Annotated[int, msgspec.Meta(ge=0, le=8191)]


class Host(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A host: a guest, as reservations and access lists know it."""

    nqn: Annotated[Nqn, _key("nqn", "its NVMe Qualified Name")]
    hostid: Annotated[
        HostId | None,
        _key("vdev.hostid", "Host Identifier; by default derived from `nqn`, always the same one"),
    ] = None


class Health(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the SMART log says about the medium (NVMe Base 2.0, 5.16.1.3)."""

    temperature: Annotated[
        Annotated[int, _use("0 to 65535 kelvins", ge=0, le=65535)] | None,
        _key("health.temperature", "composite temperature, in kelvins; by default 313"),
    ] = None
    spare: Annotated[Percent | None, _key("health.spare", "available spare, in percent; by default 100")] = (
        None
    )
    spare_threshold: Annotated[
        Percent | None,
        _key(
            "health.spare_threshold", "guests are told when the spare falls below, in percent; by default 10"
        ),
    ] = None
    percentage_used: Annotated[
        Annotated[int, _use("0 to 255", ge=0, le=255)] | None,
        _key("health.percentage_used", "life that is used, in percent; 255 is 255 or more, by default 0"),
    ] = None
    reliability_degraded: Annotated[
        Flag | None,
        _key(
            "health.reliability_degraded",
            "whether the drive says that it is less reliable; by default it does not",
        ),
    ] = None


class Namespace(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A namespace: a backend with a number."""

    nsid: Annotated[
        Annotated[int, _use(f"1 to {MAX_NSID}", ge=1, le=MAX_NSID)],
        _key("nsid", "namespace identifier (NSID), unique in its subsystem"),
    ]
    backend: Annotated[
        Annotated[str, _use("a path, or a disk as 'nvmet-vdev backends' lists them", min_length=1)],
        _key("backend.spec", "what it is made of: a path, `ram:SIZE`, `python:./FILE.py:NAME`, …"),
    ]
    enable: Annotated[Flag, _key("enable", "whether guests see it")] = True
    ana_grpid: Annotated[AnaGroup, _key("ana_grpid", "the ANA group that it is in")] = 1
    uuid: Annotated[
        Annotated[UUID, _use("a UUID that is not zero")] | None,
        _key("device.uuid", "UUID; by default derived from the path, else from subsystem and NSID"),
    ] = None
    nguid: Annotated[Nguid | None, _key("device.nguid", "NGUID, 16 bytes; by default none")] = None
    eui64: Annotated[Eui64 | None, _key("device.eui64", "EUI-64, 8 bytes; by default none")] = None
    resv: Annotated[Flag, _key("resv.enable", "whether guests may reserve it")] = True
    hosts: Annotated[
        Nqns | None, _key("hosts", "NQNs of the hosts that it is attached to; by default all")
    ] = None
    read_only: Annotated[Flag, _key("vdev.read_only", "opens the backend for reading only")] = False
    protect: Annotated[Flag, _key("vdev.protect", "write protection that no guest can take back")] = False
    block_size: Annotated[
        BlockSize | None,
        _key("vdev.block_size", "bytes per LBA; by default 512, or what a backend in Python says"),
    ] = None
    create: Annotated[
        Size | None, _key("vdev.create", "makes an image file that does not exist, that large")
    ] = None
    iopoll: Annotated[
        Flag,
        _key(
            "vdev.iopoll",
            "asks a block device with poll queues for results instead of waiting for interrupts",
        ),
    ] = False
    fixed_buffers: Annotated[
        Flag, _key("vdev.fixed_buffers", "keeps guest memory that is much used pinned for direct I/O")
    ] = True


class Subsystem(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An NVM subsystem: what several controllers have in common."""

    nqn: Annotated[Nqn, _key("nqn", "its NVMe Qualified Name")]
    allowed_hosts: Annotated[Nqns, _key("allowed_hosts", "NQNs of the hosts that may use it")] = ()
    allow_any_host: Annotated[
        Flag | None,
        _key(
            "attr.allow_any_host", "whether all hosts may use it; by default while `allowed_hosts` is empty"
        ),
    ] = None
    serial: Annotated[
        Annotated[str, _ascii(20)] | None, _key("attr.serial", "serial number; by default derived from `nqn`")
    ] = None
    model: Annotated[Annotated[str, _ascii(40)], _key("attr.model", "model number")] = "nvmet-vdev"
    firmware: Annotated[
        Annotated[str, _ascii(8)] | None,
        _key("attr.firmware", "firmware revision; by default the version of nvmet-vdev"),
    ] = None
    ieee_oui: Annotated[
        Annotated[int, _use("0 to 0xffffff", ge=0, le=0xFFFFFF)],
        _key("attr.ieee_oui", "IEEE OUI of the vendor; 0 says nothing"),
    ] = 0
    cntlid_min: Annotated[ControllerId, _key("attr.cntlid_min", "lowest controller identifier")] = 1
    cntlid_max: Annotated[ControllerId, _key("attr.cntlid_max", "highest controller identifier")] = MAX_CNTLID
    qid_max: Annotated[
        Annotated[int, _use("1 to 65535", ge=1, le=65535)] | None,
        _key("attr.qid_max", "I/O queues that a controller has at most, whatever its port says"),
    ] = None
    shared: Annotated[
        Flag | None,
        _key(
            "vdev.shared",
            "whether it says that there may be several controllers; by default if there are several ports",
        ),
    ] = None
    subsystem_reset: Annotated[
        Flag | None,
        _key(
            "vdev.subsystem_reset",
            "whether a guest may reset all controllers (NSSR); by default those of its own host",
        ),
    ] = None
    health: Health = Health()
    namespaces: tuple[Namespace, ...] = msgspec.field(default=(), name="namespace")


class Port(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A port: a socket, and the one controller that is reached by it."""

    portid: Annotated[
        Annotated[int, _use("0 to 65535", ge=0, le=65535)], _key("portid", "number of the port")
    ]
    traddr: Annotated[
        Annotated[str, _use("a path of at most 107 bytes", min_length=1)],
        _key("addr.traddr", "path of its socket"),
    ]
    subsystem: Annotated[
        Annotated[str, _use("the nqn of a subsystem")],
        _key("subsystems", "NQN of the subsystem that it leads to"),
    ]
    hostnqn: Annotated[
        Annotated[str, _use("the nqn of a host")] | None,
        _key(
            "vdev.hostnqn",
            "NQN of the host that the controller belongs to; by default the only one of `allowed_hosts`, "
            "else one derived from subsystem and socket",
        ),
    ] = None
    hostid: Annotated[HostId | None, _key("vdev.hostid", "Host Identifier; by default the host's")] = None
    ana: Annotated[
        Annotated[dict[int, AnaState], _use("ANA groups with a state each")],
        _key(
            "ana_groups",
            "ANA states by group; if not listed, group 1 is optimized and all others are inaccessible",
        ),
    ] = {}
    cntlid: Annotated[
        ControllerId | None,
        _key("vdev.cntlid", "controller identifier; by default the next one"),
    ] = None
    queues: Annotated[Annotated[int, _use("1 to 511", ge=1, le=511)], _key("vdev.queues", "I/O queues")] = 64
    queue_size: Annotated[
        Annotated[int, _use("2 to 65536", ge=2, le=65536)],
        _key("param.max_queue_size", "entries that an I/O queue has at most"),
    ] = 1024
    doorbells: Annotated[
        Annotated[Literal["auto", "trapped", "mapped"], _use("auto, trapped or mapped")],
        _key("vdev.doorbells", "how the guest rings: see `nvmet-vdev run --help`"),
    ] = "auto"


class TargetSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What all subsystems and ports share; stays as it is while the target runs."""

    workers: Annotated[
        Annotated[int, _use("1 to 1024", ge=1, le=1024)], _key("vdev.workers", "worker threads")
    ] = 1
    cpus: Annotated[
        Annotated[tuple[Cpu, ...], _use("numbers of CPUs, 0 to 8191")],
        _key("vdev.cpus", "CPUs that the workers are pinned to, in turn; by default none"),
    ] = ()
    wait: Annotated[
        Annotated[Literal["adaptive", "event", "poll"], _use("adaptive, event or poll")],
        _key("vdev.wait", "what a worker does that has nothing to do: see `nvmet-vdev run --help`"),
    ] = "adaptive"
    state_dir: Annotated[
        Annotated[str, _use("a directory", min_length=1)] | None,
        _key(
            "vdev.state_dir",
            "directory for what outlives the target, reservations above all; by default none",
        ),
    ] = None


class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All of it."""

    target: TargetSettings = TargetSettings()
    hosts: tuple[Host, ...] = msgspec.field(default=(), name="host")
    subsystems: tuple[Subsystem, ...] = msgspec.field(default=(), name="subsystem")
    ports: tuple[Port, ...] = msgspec.field(default=(), name="port")
