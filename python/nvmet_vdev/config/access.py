"""Who a port's controller belongs to, and whether that host may use the subsystem.

May know the model. Must not know the target.
"""

from __future__ import annotations

from collections.abc import Iterable
from uuid import UUID

from nvmet_vdev.config.model import Host, Port, Subsystem
from nvmet_vdev.config.problems import Path, Problem

__all__ = ["allows_any", "host_of"]


def allows_any(subsystem: Subsystem) -> bool:
    """Whether hosts need not be listed."""
    if subsystem.allow_any_host is None:
        return not subsystem.allowed_hosts
    return subsystem.allow_any_host


def host_of(
    port: Port, subsystem: Subsystem, hosts: Iterable[Host], path: Path
) -> tuple[str | None, UUID | None]:
    """NQN and Host Identifier of the host that the controller belongs to; None: the target derives them.

    `path` is where the port stands. Raises Problem for a host that may not use the subsystem, and where
    several may and the port does not say which.
    """
    allowed = subsystem.allowed_hosts
    name = port.hostnqn
    if name is None and len(allowed) == 1:
        (name,) = allowed
    if name is None and not allows_any(subsystem):
        if not allowed:
            raise Problem(
                (*path, "subsystem"),
                f"{subsystem.nqn} allows no host; add one to its allowed_hosts, or set allow_any_host",
            )
        raise Problem(
            (*path, "hostnqn"),
            f"is missing, and {subsystem.nqn} allows {len(allowed)} hosts; use one of {_some(allowed)}",
        )
    if name is not None and not allows_any(subsystem) and name not in allowed:
        other = f"use one of {_some(allowed)}" if allowed else "set allow_any_host"
        raise Problem(
            (*path, "hostnqn"),
            f"{name} is not among the allowed_hosts of {subsystem.nqn}; add it there, or {other}",
        )
    declared = next((host.hostid for host in hosts if host.nqn == name), None)
    return name, port.hostid if port.hostid is not None else declared


def _some(names: tuple[str, ...]) -> str:
    return ", ".join(names[:4]) + (", …" if len(names) > 4 else "")
