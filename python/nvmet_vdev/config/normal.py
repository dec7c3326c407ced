"""One form for what can be said in several ways: what was saved is then what is loaded.

May know the model. Must not know formats.
"""

from __future__ import annotations

import msgspec

from nvmet_vdev.config.model import AnaState, Config, Host, Port, Subsystem

__all__ = ["initial_ana", "normal", "normal_port", "normal_subsystem"]


def normal(config: Config) -> Config:
    """`config` with all hosts that are named anywhere among its hosts, without words that change nothing."""
    names = dict.fromkeys(host.nqn for host in config.hosts)
    extra: dict[str, None] = {}
    for subsystem in config.subsystems:
        extra |= dict.fromkeys(subsystem.allowed_hosts)
        for namespace in subsystem.namespaces:
            extra |= dict.fromkeys(namespace.hosts or ())
    extra |= dict.fromkeys(port.hostnqn for port in config.ports if port.hostnqn is not None)
    return msgspec.structs.replace(
        config,
        hosts=(*config.hosts, *(Host(nqn=name) for name in extra if name not in names)),
        subsystems=tuple(normal_subsystem(subsystem) for subsystem in config.subsystems),
        ports=tuple(normal_port(port) for port in config.ports),
    )


def normal_subsystem(subsystem: Subsystem) -> Subsystem:
    """`subsystem` without an `allow_any_host` that says what its list of hosts says."""
    if subsystem.allow_any_host is None or subsystem.allow_any_host == bool(subsystem.allowed_hosts):
        return subsystem
    return msgspec.structs.replace(subsystem, allow_any_host=None)


def normal_port(port: Port) -> Port:
    """`port` without the ANA groups that are in the state which those have that are not listed."""
    return msgspec.structs.replace(
        port, ana={group: state for group, state in sorted(port.ana.items()) if state != initial_ana(group)}
    )


def initial_ana(group: int) -> AnaState:
    """The state of an ANA group that nobody has given one: nvmet's rule."""
    return "optimized" if group == 1 else "inaccessible"
