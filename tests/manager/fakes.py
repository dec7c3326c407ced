"""A target that remembers what it was told, and fails at the step that it is told to fail at."""

from __future__ import annotations

import struct
import uuid
from pathlib import Path
from typing import Any

from nvmet_vdev import ConfigError, Host
from nvmet_vdev.model import Health, Lifetime, Registrant, Reservation
from nvmet_vdev.stats import ControllerStats

ERROR = struct.pack("<QHHHxxQI36x", 1, 2, 3, 0x4281 << 1, 4096, 1)
"""An entry of the error log: command 3 of queue 2 found LBA 4096 of namespace 1 unreadable."""


class Steps:
    """Counts what is asked for; the step `fails` of them is refused, before it has done anything."""

    def __init__(self) -> None:
        self.count = 0
        self.fails = 0

    def step(self, what: str) -> None:
        self.count += 1
        if self.count == self.fails:
            # What undoes it all is not refused.
            self.fails = 0
            raise ConfigError(f"{what}: refused")


class FakeTarget:
    """Has what `Target` has, of what a manager uses."""

    def __init__(self) -> None:
        self.steps = Steps()
        self.subsystems: list[FakeSubsystem] = []

    def add_subsystem(self, *, nqn: str, serial: str, **options: Any) -> FakeSubsystem:
        self.steps.step("add_subsystem")
        self.subsystems.append(FakeSubsystem(self, nqn, serial, options))
        return self.subsystems[-1]

    def remove_subsystem(self, subsystem: FakeSubsystem) -> None:
        self.steps.step("remove_subsystem")
        assert not subsystem.controllers
        self.subsystems.remove(subsystem)

    def snapshot(self) -> Any:
        """All that there is, for comparison."""
        return [one.snapshot() for one in self.subsystems]


class FakeSubsystem:
    def __init__(self, target: FakeTarget, nqn: str, serial: str, options: dict[str, Any]) -> None:
        self.target, self.nqn, self.serial, self.options = target, nqn, serial, options
        self.namespaces: dict[int, FakeNamespace] = {}
        self.controllers: list[FakeController] = []
        self.figures: dict[str, Any] = {}

    def snapshot(self) -> Any:
        return (
            self.nqn,
            self.serial,
            self.options,
            dict(self.figures),
            [one.snapshot() for _, one in sorted(self.namespaces.items())],
            [one.snapshot() for one in self.controllers],
        )

    @property
    def health(self) -> Health:
        return Health(**self.figures)

    def set_health(self, **figures: Any) -> None:
        self.target.steps.step("set_health")
        self.figures |= figures

    def add_namespace(self, opened: Any, *, nsid: int, **options: Any) -> FakeNamespace:
        self.target.steps.step("add_namespace")
        if (state := options.get("state")) is not None:
            Path(state).touch()
        self.namespaces[nsid] = FakeNamespace(self, opened, nsid, options)
        return self.namespaces[nsid]

    def listen(self, socket: str | None, *, fd: int | None = None, **options: Any) -> FakeController:
        self.target.steps.step("listen")
        if socket is not None:
            Path(socket).touch()
        self.controllers.append(FakeController(self, socket, fd, options))
        return self.controllers[-1]


class FakeNamespace:
    def __init__(self, subsystem: FakeSubsystem, opened: Any, nsid: int, options: dict[str, Any]) -> None:
        self.subsystem, self.opened, self.nsid, self.options = subsystem, opened, nsid, options
        self.enabled: bool = options.get("enabled", True)
        self.write_protected = False
        self.ana_group: int = options.get("ana_group", 1)
        self.hosts = options.get("hosts")
        self.uuid = options.get("uuid") or uuid.uuid5(uuid.NAMESPACE_URL, str(nsid))
        self.size: int = opened.storage.size
        self.block_size: int = opened.block_size
        self.failures: dict[str, int] = {}
        self.registered = True

    def snapshot(self) -> Any:
        return (
            self.nsid,
            self.options,
            self.enabled,
            self.write_protected,
            self.ana_group,
            self.hosts,
            self.size,
            self.registered,
        )

    @property
    def description(self) -> str:
        return str(self.opened.storage.describe())

    def _step(self, what: str) -> None:
        self.subsystem.target.steps.step(what)

    def remove(self, timeout: float = 0.0) -> bool:  # noqa: ARG002
        self._step("remove")
        del self.subsystem.namespaces[self.nsid]
        return True

    def enable(self) -> None:
        self._step("enable")
        self.enabled = True

    def disable(self) -> None:
        self._step("disable")
        self.enabled = False

    def protect(self, on: bool) -> None:
        self._step("protect")
        self.write_protected = on

    def set_ana_group(self, group: int) -> None:
        self._step("set_ana_group")
        self.ana_group = group

    def attach_to(self, hosts: Any) -> None:
        self._step("attach_to")
        self.hosts = hosts

    def resize(self, size: int | None) -> None:
        self._step("resize")
        self.size = size if size is not None else self.size

    def clear_reservation(self) -> None:
        self._step("clear_reservation")
        self.registered = False

    def reservation(self) -> Reservation:
        holder = Registrant(uuid.UUID(int=5), 0xFFFF_FFFF_FFFF_FFFF, True, (1,))
        return Reservation(3, 1 if self.registered else 0, False, (holder,) if self.registered else ())

    def stats(self) -> ControllerStats:
        return ControllerStats(reads=self.nsid)


class FakeController:
    def __init__(
        self, subsystem: FakeSubsystem, socket: str | None, fd: int | None, options: dict[str, Any]
    ) -> None:
        self.subsystem, self.socket, self.fd, self.options = subsystem, socket, fd, options
        nqn = options["hostnqn"] or f"derived:{subsystem.nqn}:{socket}"
        self.host = Host(nqn, options["hostid"] or uuid.uuid5(uuid.NAMESPACE_URL, nqn))
        self.ana: dict[int, str] = dict(options.get("ana", {}))
        self.cntlid: int = options.get("cntlid", len(subsystem.controllers) + 1)
        self.attached = False

    def snapshot(self) -> Any:
        return self.socket, self.fd, self.options, self.host, self.ana

    def close(self) -> None:
        self.subsystem.target.steps.step("close")
        self.subsystem.controllers.remove(self)
        if self.socket is not None:
            Path(self.socket).unlink()

    def set_ana(self, group: int, state: str) -> None:
        self.subsystem.target.steps.step("set_ana")
        self.ana[group] = state

    def stats(self) -> ControllerStats:
        return ControllerStats(reads=10 * self.cntlid)

    def lifetime(self) -> Lifetime:
        return Lifetime(power_cycles=2, error_log_entries=1, error_log=ERROR)
