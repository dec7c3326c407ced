"""What crosses between a host and an NVMe controller, as plain values: commands, completions, events,
identify data.

Knows layouts and names, and no drive. Sections are those of the NVM Express Base Specification 2.0.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass, field

from nvmet_vdev import _nvmet
from nvmet_vdev._nvmet import ConfigError, DeviceError

__all__ = [
    "AsyncEvent",
    "Command",
    "Completion",
    "IdentifyController",
    "IdentifyNamespace",
    "NvmeStatusError",
    "Status",
    "number",
]

_ENTRY = struct.Struct("<BBHIIIQQQ6I")
_BITS = {"opcode": 8, "flags": 8, "mptr": 64}
"""Bits of the fields of a `Command`; the others have 32."""
_EVENTS = {
    (0, 0x00): "Write to Invalid Doorbell Register",
    (0, 0x01): "Invalid Doorbell Write Value",
    (0, 0x02): "Diagnostic Failure",
    (0, 0x03): "Persistent Internal Error",
    (0, 0x04): "Transient Internal Error",
    (0, 0x05): "Firmware Image Load Error",
    (1, 0x00): "NVM Subsystem Reliability",
    (1, 0x01): "Temperature Threshold",
    (1, 0x02): "Spare Below Threshold",
    (2, 0x00): "Namespace Attribute Changed",
    (2, 0x01): "Firmware Activation Starting",
    (2, 0x02): "Telemetry Log Changed",
    (2, 0x03): "Asymmetric Namespace Access Change",
    (2, 0x04): "Predictable Latency Event Aggregate Log Change",
    (2, 0x05): "LBA Status Information Alert",
    (2, 0x06): "Endurance Group Event Aggregate Log Page Change",
    (3, 0x00): "Normal NVM Subsystem Shutdown",
    (6, 0x00): "Reservation Log Page Available",
    (6, 0x01): "Sanitize Operation Completed",
    (6, 0x02): "Sanitize Operation Completed With Unexpected Deallocation",
}
"""Names of events by type and information (5.2.1)."""


def number(what: str, value: int, bits: int = 64) -> int:
    """`value`, when it is a number of so many bits; else ConfigError."""
    if not 0 <= value < 1 << bits:
        raise ConfigError(f"{what}: {value}; use a number of {bits} bits")
    return value


@dataclass(frozen=True, slots=True)
class Status:
    """The Status field of a completion (3.3.3.2.1)."""

    sct: int
    """Status Code Type, 0 to 7."""
    sc: int
    """Status Code, 0 to 255."""
    dnr: bool = False
    """Do Not Retry."""
    more: bool = False
    """The Error Information log page (01h) tells more."""
    crd: int = 0
    """Command Retry Delay, 0 to 3: the index of the time to wait, 0 for none."""

    @classmethod
    def from_bits(cls, bits: int) -> Status:
        """From the 15 bits above the Phase Tag."""
        return cls(
            sct=bits >> 8 & 0x7,
            sc=bits & 0xFF,
            dnr=bool(bits >> 14 & 1),
            more=bool(bits >> 13 & 1),
            crd=bits >> 11 & 0x3,
        )

    @property
    def success(self) -> bool:
        """Whether the command completed successfully."""
        return self.code == (0, 0)

    @property
    def code(self) -> tuple[int, int]:
        """SCT and SC: what to compare."""
        return self.sct, self.sc

    @property
    def name(self) -> str:
        """The specification's name, such as `LBA Out of Range`."""
        return _nvmet.status_name(*self.code) or ("Vendor Specific" if self.sct == 7 else "Unknown Status")

    def __str__(self) -> str:
        flags = f" CRD{self.crd}" * bool(self.crd) + " More" * self.more + " DNR" * self.dnr
        return f"{self.name} ({self.sct:02x}/{self.sc:02x}h){flags}"


@dataclass(frozen=True, slots=True)
class Command:
    """A submission queue entry (3.3.3.1) and its data. Nothing of it is checked but that the numbers fit.

    CID is chosen when it is sent. With `data` or a `length`, PRP1 and PRP2 point at a buffer in host memory,
    page aligned and as long as the larger of the two: `data` is at its beginning when the command is sent,
    and `length` bytes of it are in the completion. Both may be of any length, odd ones as well.
    """

    opcode: int
    nsid: int = 0
    cdw10: int = 0
    cdw11: int = 0
    cdw12: int = 0
    cdw13: int = 0
    cdw14: int = 0
    cdw15: int = 0
    cdw2: int = 0
    cdw3: int = 0
    mptr: int = 0
    """Metadata Pointer."""
    flags: int = 0
    """Bits 15:8 of CDW0: FUSE in bits 1:0, PSDT in bits 7:6."""
    data: bytes | None = None
    """Bytes for the controller."""
    length: int = 0
    """Bytes wanted from the controller."""
    admin: bool = False
    """Whether it goes to the admin queue."""

    @property
    def name(self) -> str:
        """The specification's name, such as `Dataset Management`, or the opcode."""
        kind = "admin" if self.admin else "I/O"
        return _nvmet.command_name(self.admin, self.opcode) or f"{kind} command {self.opcode:02x}h"

    def entry(self) -> bytes:
        """The 64 bytes, with CID, PRP1 and PRP2 zero. ConfigError for a number that does not fit its
        field."""
        dwords = (self.cdw10, self.cdw11, self.cdw12, self.cdw13, self.cdw14, self.cdw15)
        words = (self.nsid, self.cdw2, self.cdw3, self.mptr, 0, 0, *dwords)
        try:
            return _ENTRY.pack(self.opcode, self.flags, 0, *words)
        except struct.error:
            raise ConfigError(self._what_does_not_fit()) from None

    def _what_does_not_fit(self) -> str:
        for name in ("opcode", "flags", "nsid", "cdw2", "cdw3", "mptr", *(f"cdw{n}" for n in range(10, 16))):
            value: object = getattr(self, name)
            bits = _BITS.get(name, 32)
            if not isinstance(value, int) or not 0 <= value < 1 << bits:
                return f"{name}: {value!r}; use a number of {bits} bits"
        raise AssertionError("every field fits")


@dataclass(frozen=True, slots=True)
class Completion:
    """How a command ended (3.3.3.2)."""

    dw0: int
    """Dword 0, command specific."""
    status: Status
    data: bytes = field(default=b"", repr=False)
    """What the buffer held then, whatever the status: zeroes where nothing was written."""
    dw1: int = 0
    """Dword 1, command specific."""


class NvmeStatusError(DeviceError):
    """A command of a drive ended with an error status."""

    def __init__(self, command: Command, completion: Completion) -> None:
        self.command = command
        self.completion = completion
        self.opcode = command.opcode
        self.nsid = command.nsid
        self.status = completion.status
        where = (
            f" of namespace {command.nsid:#x}" if command.nsid > 0xFFFF else f" of namespace {command.nsid}"
        )
        super().__init__(f"{command.name}{where if command.nsid else ''}: {completion.status}")


@dataclass(frozen=True, slots=True)
class AsyncEvent:
    """An asynchronous event (5.2.1)."""

    type: int
    """0 error, 1 SMART / health, 2 notice, 3 immediate, 6 I/O command set, 7 vendor specific."""
    info: int
    """What happened, by type."""
    log_page: int
    """The log page to read; events of the type are held back until that is done."""

    @property
    def name(self) -> str:
        """The specification's name, such as `Namespace Attribute Changed`."""
        return _EVENTS.get((self.type, self.info)) or (
            "Vendor Specific" if self.type == 7 else f"event {self.type:x}h/{self.info:02x}h"
        )


@dataclass(frozen=True, slots=True)
class IdentifyController:
    """The usual fields of Identify Controller (5.17.2.1); `Drive.identify` has all."""

    serial: str
    model: str
    firmware: str
    subnqn: str
    version: str
    """Such as 2.0.0."""
    vendor_id: int
    subsystem_vendor_id: int
    ieee_oui: str
    """Hexadecimal, most significant byte first."""
    controller_id: int
    namespaces: int
    """NN: the largest namespace identifier."""
    mdts: int
    """The largest transfer, as a power of two in units of the smallest page; 0: no limit."""
    aerl_z: int
    """Asynchronous Event Request Limit, 0's based."""
    acl_z: int
    """Abort Command Limit, 0's based."""
    elpe_z: int
    """Error Log Page Entries, 0's based."""
    oacs: int
    """Optional Admin Command Support."""
    oncs: int
    """Optional NVM Command Support."""
    fuses: int
    """Fused Operation Support."""
    sgls: int
    """SGL Support."""
    volatile_write_cache: bool
    doorbell_buffer_config: bool
    rtd3e_us: int
    """How long a shutdown may take, in microseconds; 0: not reported."""
    cmic: int
    """Multi-Path I/O and Namespace Sharing; bit 1: several controllers, bit 3: asymmetric access (ANA)."""
    oaes: int
    """Optional Asynchronous Events, with the bits of feature 0Bh."""
    anatt: int
    """ANA Transition Time, in seconds: how long state `change` may last."""
    anacap: int
    """ANA Capabilities; bits 0 to 4 are the states that are reported."""
    anagrpmax: int
    """The largest ANA group identifier."""
    nanagrpid: int
    """How many ANA groups there are at most."""
    nwpc: int
    """Namespace Write Protection Capabilities."""
    mnan: int
    """How many namespaces there are at most; 0: NN."""

    @classmethod
    def from_bytes(cls, data: bytes) -> IdentifyController:
        """From the 4096 bytes of the data structure."""
        fields = json.loads(_nvmet.decode_controller(data))
        (oaes,) = struct.unpack_from("<I", data, 92)
        anatt, anacap, anagrpmax, nanagrpid = struct.unpack_from("<BBII", data, 342)
        (mnan,) = struct.unpack_from("<I", data, 540)
        return cls(
            **fields,
            cmic=data[76],
            oaes=oaes,
            anatt=anatt,
            anacap=anacap,
            anagrpmax=anagrpmax,
            nanagrpid=nanagrpid,
            nwpc=data[531],
            mnan=mnan,
        )


@dataclass(frozen=True, slots=True)
class IdentifyNamespace:
    """The usual fields of Identify Namespace (NVM Command Set 1.0, 4.1.5.1) and of its descriptors."""

    nsid: int
    size: int
    """Bytes."""
    block_size: int
    """Bytes."""
    blocks: int
    """NSZE: size in logical blocks."""
    capacity: int
    """NCAP, in logical blocks."""
    used: int
    """NUSE, in logical blocks."""
    uuid: str | None
    nguid: str | None
    """Hexadecimal."""
    eui64: str | None
    """Hexadecimal."""
    nsfeat: int
    """Namespace Features."""
    dlfeat: int
    """Deallocate Logical Block Features."""
    lba_formats: tuple[int, ...]
    """Block sizes of all LBA formats, in bytes."""
    lba_format: int
    """The format in use: an index of `lba_formats`."""
    nmic: int
    """Multi-path I/O and Namespace Sharing; bit 0: several controllers may have it."""
    rescap: int
    """Reservation Capabilities; bit 0: PTPL, bits 1 to 6: the types, bit 7: IEKEY as in NVMe 1.3."""
    ana_group: int
    """ANA group; 0: in none."""
    write_protected: bool
    """Whether it is now, whoever did it (NSATTR bit 0)."""

    @classmethod
    def from_bytes(cls, nsid: int, data: bytes, descriptors: bytes = b"") -> IdentifyNamespace:
        """From the 4096 bytes of CNS 00h and, for the UUID, those of CNS 03h.

        ConfigError for a format that makes no sense, as that of a namespace that is not active: all zeroes.
        """
        fields = json.loads(_nvmet.decode_namespace(nsid, data, descriptors))
        fields["lba_formats"] = tuple(fields["lba_formats"])
        (ana_group,) = struct.unpack_from("<I", data, 92)
        return cls(
            **fields, nmic=data[30], rescap=data[31], ana_group=ana_group, write_protected=bool(data[99] & 1)
        )
