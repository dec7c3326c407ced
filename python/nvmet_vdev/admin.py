"""Admin commands by name on any vfio-user NVMe socket: identify, log pages, features, events.

Knows `nvmet_vdev.passthrough`, and values that log pages become; no namespace's data, no target.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable

from nvmet_vdev import logs
from nvmet_vdev._nvmet import ConfigError
from nvmet_vdev.logs import AnaLog, ErrorEntry, ReservationNotification, SmartLog
from nvmet_vdev.nvme import AsyncEvent, Command, Completion, IdentifyController, number
from nvmet_vdev.passthrough import Buffer, Passthrough, bytes_of

ALL_NAMESPACES = 0xFFFF_FFFF
"""The NSID that stands for all namespaces (3.2.1.2)."""
_GET_LOG_PAGE, _IDENTIFY, _SET_FEATURES, _GET_FEATURES = 0x02, 0x06, 0x09, 0x0A
_IDENTIFY_BYTES = 4096
_ATTACHED_CONTROLLERS, _CONTROLLERS = 0x12, 0x13
_CONTROLLERS_OF_A_LIST, _NO_CONTROLLER = 2047, 0xFFFF

_ERROR_LOG, _SMART_LOG, _CHANGED_NAMESPACES, _ANA_LOG, _NOTIFICATIONS = 0x01, 0x02, 0x04, 0x0C, 0x80
_ANA_GROUPS_ONLY = 1
_ANA_HEADER_BYTES, _ANA_GROUP_BYTES = 16, 32

_ASYNC_EVENT_CONFIG = 0x0B
_HOST_IDENTIFIER, _NOTIFICATION_MASK, _PERSISTENCE, _WRITE_PROTECTION = 0x81, 0x82, 0x83, 0x84
_EXHID = 1
_PROTECTION = ("none", "write-protect", "until-power-cycle", "permanent")


class Administered(Passthrough):
    """A controller that is asked and told by admin commands. A `Drive` is one."""

    def _one(self, command: Command) -> Completion:
        return self.submit(command).check()

    # Identify

    def identify(
        self, cns: int, nsid: int = 0, *, controller: int = 0, specific: int = 0, csi: int = 0
    ) -> bytes:
        """Identify (5.17): 4096 bytes. `controller` is CNTID, `specific` the CNS Specific Identifier."""
        cdw10 = number("cns", cns, 8) | number("controller", controller, 16) << 16
        cdw11 = specific | csi << 24
        return self._one(Command(_IDENTIFY, nsid, cdw10, cdw11, length=_IDENTIFY_BYTES, admin=True)).data

    def identify_controller(self) -> IdentifyController:
        """Identify Controller (CNS 01h)."""
        return IdentifyController.from_bytes(self.identify(1))

    def controllers(self) -> list[int]:
        """Identifiers of all controllers of the NVM subsystem (CNS 13h), ascending."""
        return self._controllers(_CONTROLLERS, 0)

    def attached_controllers(self, nsid: int = 1) -> list[int]:
        """Identifiers of the controllers that a namespace is attached to (CNS 12h), ascending."""
        return self._controllers(_ATTACHED_CONTROLLERS, nsid)

    def _controllers(self, cns: int, nsid: int) -> list[int]:
        found: list[int] = []
        while True:
            after = found[-1] if found else -1
            count, *page = struct.unpack("<2048H", self.identify(cns, nsid, controller=after + 1))
            # As with namespaces: a list that does not ascend would lead in a circle.
            more = [one for one in page[:count] if after < one < _NO_CONTROLLER]
            found += more
            if count < _CONTROLLERS_OF_A_LIST or not more:
                return found

    # Logs

    def get_log_page(
        self,
        lid: int,
        length: int,
        *,
        nsid: int = ALL_NAMESPACES,
        offset: int = 0,
        specific: int = 0,
        retain_event: bool = False,
    ) -> bytes:
        """Get Log Page (5.16): `length` bytes, a multiple of 4, of log `lid` from byte `offset` on.

        `specific` is the Log Specific Parameter. Without `retain_event` events of the log's type are told
        again.
        """
        if length < 4 or length % 4:
            raise ConfigError(f"get_log_page: {length} bytes; use a multiple of 4")
        dwords = length // 4 - 1
        cdw10 = (
            number("lid", lid, 8)
            | number("specific", specific, 7) << 8
            | retain_event << 15
            | (dwords & 0xFFFF) << 16
        )
        low, high = offset & 0xFFFF_FFFF, offset >> 32
        command = Command(_GET_LOG_PAGE, nsid, cdw10, dwords >> 16, low, high, length=length, admin=True)
        return self._one(command).data

    def smart(self, nsid: int | None = None) -> SmartLog:
        """SMART / Health Information (02h) of the controller, or of a namespace where there is such a log."""
        return SmartLog.from_bytes(
            self.get_log_page(_SMART_LOG, 512, nsid=ALL_NAMESPACES if nsid is None else nsid)
        )

    def error_log(self) -> list[ErrorEntry]:
        """Error Information (01h): the entries that there are, the newest first."""
        entries = self.identify_controller().elpe_z + 1
        return ErrorEntry.all_from_bytes(self.get_log_page(_ERROR_LOG, 64 * entries))

    def changed_namespaces(self, *, retain_event: bool = False) -> list[int]:
        """Changed Namespace List (04h), empty after it was read; FFFFFFFFh alone is more than 1024."""
        return logs.changed_namespaces(
            self.get_log_page(_CHANGED_NAMESPACES, 4096, retain_event=retain_event)
        )

    def ana_log(self, *, groups_only: bool = False, retain_event: bool = False) -> AnaLog:
        """Asymmetric Namespace Access (0Ch), as large as it may be by what Identify Controller says.

        `groups_only` leaves the namespaces of the groups out (RGO).
        """
        controller = self.identify_controller()
        most = 0 if groups_only else controller.mnan or controller.namespaces
        size = _ANA_HEADER_BYTES + _ANA_GROUP_BYTES * controller.nanagrpid + 4 * most
        data = self.get_log_page(
            _ANA_LOG,
            min(size, self.max_transfer),
            specific=_ANA_GROUPS_ONLY * groups_only,
            retain_event=retain_event,
        )
        return AnaLog.from_bytes(data)

    def reservation_notification(self, *, retain_event: bool = False) -> ReservationNotification | None:
        """The oldest Reservation Notification (80h), which is gone when it was read; None: there is none."""
        return ReservationNotification.from_bytes(
            self.get_log_page(_NOTIFICATIONS, 64, retain_event=retain_event)
        )

    # Features

    def get_features(
        self, fid: int, *, nsid: int = 0, select: int = 0, cdw11: int = 0, length: int = 0
    ) -> Completion:
        """Get Features (5.15): the value is `dw0`, and a data structure of `length` bytes `data`.

        `select`: 0 current, 1 default, 2 saved, 3 supported capabilities.
        """
        cdw10 = number("fid", fid, 8) | number("select", select, 3) << 8
        return self._one(Command(_GET_FEATURES, nsid, cdw10, cdw11, length=length, admin=True))

    def set_features(
        self, fid: int, value: int = 0, *, nsid: int = 0, save: bool = False, data: Buffer | None = None
    ) -> Completion:
        """Set Features (5.27) with `value` in CDW11."""
        cdw10 = number("fid", fid, 8) | save << 31
        return self._one(Command(_SET_FEATURES, nsid, cdw10, value, data=bytes_of(data), admin=True))

    def host_identifier(self, *, extended: bool = True) -> bytes:
        """Host Identifier (81h): 16 bytes, or 8 when it is not `extended` (EXHID)."""
        length = 16 if extended else 8
        return self.get_features(_HOST_IDENTIFIER, cdw11=_EXHID * extended, length=length).data

    def set_host_identifier(self, identifier: bytes) -> None:
        """Host Identifier (81h), of 8 bytes or 16 (EXHID)."""
        if len(identifier) not in (8, 16):
            raise ConfigError(f"host identifier: {len(identifier)} bytes; use 8 or 16")
        self.set_features(_HOST_IDENTIFIER, _EXHID * (len(identifier) == 16), data=identifier)

    def write_protection(self, nsid: int = 1) -> str:
        """Namespace Write Protection (84h): `none`, `write-protect`, `until-power-cycle`, `permanent`."""
        state = self.get_features(_WRITE_PROTECTION, nsid=nsid).dw0 & 0x7
        return _PROTECTION[state] if state < len(_PROTECTION) else str(state)

    def set_write_protection(self, state: str, nsid: int = 1) -> None:
        """Changes it to one of the states of `write_protection`."""
        if state not in _PROTECTION:
            raise ConfigError(f"write protection: {state!r}; use one of {', '.join(_PROTECTION)}")
        self.set_features(_WRITE_PROTECTION, _PROTECTION.index(state), nsid=nsid)

    def reservation_notification_mask(self, nsid: int = 1) -> frozenset[str]:
        """Kinds of notifications that are not made (82h): see `ReservationNotification.kind`."""
        mask = self.get_features(_NOTIFICATION_MASK, nsid=nsid).dw0
        return frozenset(kind for bit, kind in logs.NOTIFICATIONS.items() if mask >> bit & 1)

    def set_reservation_notification_mask(self, kinds: Iterable[str], nsid: int = 1) -> None:
        """These kinds of notifications are not to be made, and all others are (82h)."""
        bits = {kind: bit for bit, kind in logs.NOTIFICATIONS.items()}
        mask = 0
        for kind in kinds:
            if kind not in bits:
                raise ConfigError(f"reservation notification: {kind!r}; use one of {', '.join(bits)}")
            mask |= 1 << bits[kind]
        self.set_features(_NOTIFICATION_MASK, mask, nsid=nsid)

    def reservation_persistence(self, nsid: int = 1) -> bool:
        """Whether reservations survive a loss of power (83h, PTPL)."""
        return bool(self.get_features(_PERSISTENCE, nsid=nsid).dw0 & 1)

    def set_reservation_persistence(self, on: bool, nsid: int = 1) -> None:
        """Whether reservations are to survive a loss of power (83h, PTPL)."""
        self.set_features(_PERSISTENCE, int(on), nsid=nsid)

    # Events

    def enable_events(self) -> None:
        """Turns on every asynchronous event that the controller has (OAES): most are off after a reset."""
        optional = self.identify_controller().oaes
        # The low bits are SMART / Health warnings, which need no support to be announced.
        self.set_features(_ASYNC_EVENT_CONFIG, optional & ~0xFF | 0x1F)

    def next_event(self, timeout: float | None = None) -> AsyncEvent:
        """Waits `timeout` seconds (None: the drive's) for an asynchronous event; DeviceError for none."""
        return AsyncEvent(*self._session.next_event(self.timeout if timeout is None else timeout))
