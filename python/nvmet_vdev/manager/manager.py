"""Applies a configuration to a target and changes it step by step.

Every method does all of what it says, or raises ConfigError and leaves everything as it was. Any thread may
call any of them: changes come one after the other.

May know the configuration, and parts as they are built. Must not know formats, control sockets, signals.
"""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from nvmet_vdev import seen
from nvmet_vdev._nvmet import ConfigError, DeviceError
from nvmet_vdev.config import access, model
from nvmet_vdev.config.checking import check
from nvmet_vdev.config.normal import normal, normal_port, normal_subsystem
from nvmet_vdev.config.problems import Path as Place
from nvmet_vdev.config.problems import Problem
from nvmet_vdev.config.reading import read_node
from nvmet_vdev.config.toml import tree_of
from nvmet_vdev.manager import candidates, counting
from nvmet_vdev.manager.building import REMOVE_SECONDS, Builder, Guard
from nvmet_vdev.manager.entries import Entries, NamespaceEntry, PortEntry
from nvmet_vdev.manager.reader import Reader
from nvmet_vdev.manager.words import in_keys, place
from nvmet_vdev.target import Target

__all__ = ["Manager"]


class Manager(Reader):
    """Of one target, which has nothing when the manager is made, and is changed by nobody else.

    `state_dir` is a directory with a file for each namespace: reservations and write protection outlive the
    target. With `discard_state` files that cannot be used are thrown away instead of refused.
    """

    def __init__(self, target: Target, *, state_dir: Path | None = None, discard_state: bool = False) -> None:
        self._target = target
        self._builder = Builder(target, state_dir=state_dir, discard_state=discard_state)
        self._entries = Entries()
        self._lock = threading.RLock()
        self._candidate = model.Config()

    def apply(
        self,
        config: model.Config,
        *,
        checked: bool = False,
        guard: Guard = contextlib.nullcontext,
        sockets: Mapping[str, int] | None = None,
        then: Callable[[], None] = lambda: None,
    ) -> list[str]:
        """Makes all that `config` has; what is worth knowing about it, one line each.

        Nothing may be there, unless it is that configuration already. `checked`: whoever calls has seen to it
        that the parts fit together. `guard` is entered while code of others runs; `sockets` are paths of
        `config` that somebody listens at already, and his descriptors. `then` is called when all is there; if
        it raises, nothing is.

        Raises Problem, a ConfigError with the place in `config`; all is undone then.
        """
        with self._lock:
            config = normal(config)
            if self._entries.subsystems or self._entries.hosts or self._entries.ports:
                if config == normal(self.config()):
                    return []
                raise ConfigError("something is configured already; change it step by step, or start again")
            notes = [] if checked else check(config)
            builder = self._builder
            settings = config.target
            with contextlib.ExitStack() as undo:
                if builder.state_dir is None and settings.state_dir is not None:
                    builder.state_dir = Path(settings.state_dir)
                    undo.callback(setattr, builder, "state_dir", None)
                if builder.state_dir is not None:
                    builder.state_dir = _directory(builder.state_dir.absolute(), undo)
                    settings = msgspec.structs.replace(settings, state_dir=str(builder.state_dir))
                    # Late: most targets keep nothing.
                    from nvmet_vdev.manager.ledger import Ledger

                    builder.ledger = Ledger(builder.state_dir, discard=builder.discard_state)
                    undo.callback(setattr, builder, "ledger", None)
                    if not seen.exists(builder.ledger.path):
                        undo.callback(builder.ledger.forget)
                builder.guard, builder.sockets = guard, sockets or {}
                try:
                    entries = self._build(config, undo)
                finally:
                    builder.guard, builder.sockets = contextlib.nullcontext, {}
                entries.settings = settings
                undo.callback(setattr, self, "_entries", self._entries)
                self._entries = entries
                then()
                undo.pop_all()
        return notes

    def _build(self, config: model.Config, undo: contextlib.ExitStack) -> Entries:
        builder = self._builder
        entries = Entries(hosts={host.nqn: host for host in config.hosts})
        targets = [port.subsystem for port in config.ports]
        for at, subsystem in enumerate(config.subsystems):
            path: Place = ("subsystem", at)
            entry = builder.subsystem(subsystem, path, undo, controllers=targets.count(subsystem.nqn))
            for number, namespace in enumerate(subsystem.namespaces):
                spot = (*path, "namespace", number)
                entry.namespaces[namespace.nsid] = builder.namespace(entry, namespace, spot, undo)
            entries.subsystems[subsystem.nqn] = entry
        # Guests come when all is there.
        ports: dict[int, PortEntry] = {}
        # Those that say their controller identifier first: nobody else is to get it.
        for at, port in sorted(enumerate(config.ports), key=lambda one: one[1].cntlid is None):
            entry = entries.subsystem(port.subsystem)
            ports[port.portid] = builder.port(entry, port, entries.hosts, ("port", at), undo)
        entries.ports = {port.portid: ports[port.portid] for port in config.ports}
        return entries

    def host_add(self, nqn: str, *, hostid: object = None) -> None:
        """Makes a host known. `hostid` is a UUID, or text."""
        with self._changing():
            host = read_node(model.Host, {"nqn": nqn, "hostid": hostid})
            if nqn in self._entries.hosts:
                raise ConfigError(f"host {nqn} is known already")
            _, self._entries.hosts = self._check(*candidates.with_host(self.config(), host))

    def host_remove(self, nqn: str) -> None:
        """Forgets a host that nothing names."""
        with self._changing():
            self._entries.host(nqn)
            for subsystem in self._entries.subsystems.values():
                if nqn in subsystem.node.allowed_hosts:
                    raise ConfigError(f"host {nqn} may use {subsystem.node.nqn}; disallow it there first")
                for nsid, namespace in subsystem.namespaces.items():
                    if nqn in (namespace.node.hosts or ()):
                        raise ConfigError(
                            f"namespace {nsid} of {subsystem.node.nqn} is attached to host {nqn}; "
                            "attach it to others first"
                        )
            for portid, port in self._entries.ports.items():
                if port.node.hostnqn == nqn:
                    raise ConfigError(f"port {portid} belongs to host {nqn}; remove the port first")
            self._entries.hosts = {name: one for name, one in self._entries.hosts.items() if name != nqn}

    def subsystem_add(self, nqn: str, **keys: Any) -> None:
        """Adds a subsystem; `keys` are those that it has in a configuration."""
        with self._changing():
            node = read_node(model.Subsystem, {"nqn": nqn, **keys})
            path, hosts = self._check(*candidates.with_subsystem(self.config(), node))
            with contextlib.ExitStack() as undo:
                entry = self._builder.subsystem(normal_subsystem(node), path, undo)
                for at, namespace in enumerate(node.namespaces):
                    spot = (*path, "namespace", at)
                    entry.namespaces[namespace.nsid] = self._builder.namespace(entry, namespace, spot, undo)
                undo.pop_all()
            self._entries.subsystems[nqn] = entry
            self._entries.hosts = hosts

    def subsystem_remove(self, nqn: str) -> None:
        """Removes a subsystem that no port leads to, with its namespaces."""
        with self._changing():
            entry = self._entries.subsystem(nqn)
            ports = [str(one.node.portid) for one in self._ports(nqn)]
            if ports:
                which = "that" if len(ports) == 1 else "those"
                raise ConfigError(f"{nqn} is reached by port {', '.join(ports)}; remove {which} first")
            for namespace in entry.namespaces.values():
                counting.note_namespace(self._builder.ledger, namespace)
            self._target.remove_subsystem(entry.handle)
            del self._entries.subsystems[nqn]

    def subsystem_allow(self, nqn: str, host: str) -> None:
        """Lets a host use a subsystem; if all might, from now on only those that are listed may."""
        with self._changing():
            node = self._entries.subsystem(nqn).node
            if host in node.allowed_hosts:
                raise ConfigError(f"host {host} may use {nqn} already")
            self._allow(node, (*node.allowed_hosts, host), node.allow_any_host)

    def subsystem_disallow(self, nqn: str, host: str) -> None:
        """No longer lets a host use a subsystem; without any listed host nobody may."""
        with self._changing():
            node = self._entries.subsystem(nqn).node
            if host not in node.allowed_hosts:
                raise ConfigError(
                    f"host {host} is not among the allowed_hosts of {nqn}; there are "
                    f"{', '.join(node.allowed_hosts) or 'none'}"
                )
            rest = tuple(one for one in node.allowed_hosts if one != host)
            # The last one gone does not open it to everybody.
            self._allow(node, rest, access.allows_any(node))

    def _allow(self, node: model.Subsystem, hosts: tuple[str, ...], any_host: bool | None) -> None:
        changed = msgspec.structs.replace(node, allowed_hosts=hosts, allow_any_host=any_host)
        unnamed = [port for port in self._ports(node.nqn) if port.node.hostnqn is None]
        if unnamed and not access.allows_any(changed):
            raise ConfigError(
                f"port {unnamed[0].node.portid} belongs to no listed host, and would not be allowed any "
                "more; remove the port first"
            )
        # With one host listed, a port that says nothing is that one's: these stay who they are.
        named = {
            port.node.portid: msgspec.structs.replace(port.node, hostnqn=port.handle.host.nqn)
            for port in (unnamed if len(hosts) == 1 else [])
        }
        config, path = candidates.changed_subsystem(self.config(), changed)
        ports = tuple(named.get(port.portid, port) for port in config.ports)
        _, known = self._check(msgspec.structs.replace(config, ports=ports), path)
        for portid, port_node in named.items():
            self._entries.ports[portid].node = port_node
        self._entries.subsystems[node.nqn].node = normal_subsystem(changed)
        self._entries.hosts = known

    def subsystem_health(self, nqn: str, **figures: Any) -> None:
        """Sets what guests read in the SMART log; what is left out stays."""
        with self._changing():
            entry = self._entries.subsystem(nqn)
            given = tree_of(read_node(model.Health, figures))
            health = read_node(model.Health, tree_of(entry.node.health) | given)
            entry.handle.set_health(**given)
            entry.node = msgspec.structs.replace(entry.node, health=health)

    def namespace_add(self, nqn: str, *, nsid: int | None = None, **keys: Any) -> int:
        """Adds a namespace; `keys` are those that it has in a configuration. Its number."""
        with self._changing():
            entry = self._entries.subsystem(nqn)
            number = nsid if nsid is not None else _free(entry.namespaces, 1)
            node = read_node(model.Namespace, {"nsid": number, **keys})
            path, hosts = self._check(*candidates.with_namespace(self.config(), nqn, node))
            with contextlib.ExitStack() as undo:
                added = self._builder.namespace(entry, node, path, undo)
                undo.pop_all()
            entry.namespaces[number] = added
            self._entries.hosts = hosts
            return number

    def namespace_remove(self, nqn: str, nsid: int) -> None:
        """Removes a namespace; guests are told, and commands in flight end as they will."""
        with self._changing():
            entry = self._entries.subsystem(nqn)
            namespace = entry.namespace(nsid)
            counting.note_namespace(self._builder.ledger, namespace)
            # Whoever adds the same image again is to find it free.
            namespace.handle.remove(REMOVE_SECONDS)
            del entry.namespaces[nsid]

    def namespace_resize(self, nqn: str, nsid: int, size: int | None) -> None:
        """Gives a namespace another size, in bytes; None: the one that its backend has by now."""
        with self._changing():
            self._entries.subsystem(nqn).namespace(nsid).handle.resize(size)

    def namespace_enable(self, nqn: str, nsid: int) -> None:
        """Lets guests see a namespace."""
        with self._changing():
            entry, node = self._changed(nqn, nsid, enable=True)
            entry.handle.enable()
            entry.node = node

    def namespace_disable(self, nqn: str, nsid: int) -> None:
        """Takes a namespace from guests' sight; it keeps all else."""
        with self._changing():
            entry, node = self._changed(nqn, nsid, enable=False)
            try:
                entry.handle.disable()
            except DeviceError:
                # Hidden all the same, while its backend hangs.
                entry.node = node
                raise
            entry.node = node

    def namespace_protect(self, nqn: str, nsid: int, on: bool) -> None:
        """Write protects a namespace against all guests, or no longer."""
        with self._changing():
            entry, node = self._changed(nqn, nsid, protect=on)
            entry.handle.protect(on)
            entry.node = node

    def namespace_ana_group(self, nqn: str, nsid: int, grpid: int) -> None:
        """Puts a namespace into another ANA group."""
        with self._changing():
            entry, node = self._changed(nqn, nsid, ana_grpid=grpid)
            entry.handle.set_ana_group(grpid)
            entry.node = node

    def namespace_attach(self, nqn: str, nsid: int, hosts: Sequence[str] | None) -> None:
        """Says which hosts see a namespace; None: all."""
        with self._changing():
            entry, node = self._changed(nqn, nsid, hosts=None if hosts is None else list(hosts))
            entry.handle.attach_to(node.hosts)
            entry.node = node

    def reservation_clear(self, nqn: str, nsid: int) -> None:
        """Removes a namespace's reservation and all registrants; their hosts are told."""
        with self._changing():
            self._entries.subsystem(nqn).namespace(nsid).handle.clear_reservation()

    def port_add(self, portid: int | None, traddr: str, subsystem: str, **keys: Any) -> int:
        """Makes a controller and its socket; `keys` are those of a port in a configuration. Its number."""
        with self._changing():
            entry = self._entries.subsystem(subsystem)
            number = portid if portid is not None else _free(self._entries.ports, 1)
            tree = {"portid": number, "traddr": traddr, "subsystem": subsystem, **keys}
            node = normal_port(read_node(model.Port, tree))
            path, hosts = self._check(*candidates.with_port(self.config(), node))
            with contextlib.ExitStack() as undo:
                added = self._builder.port(entry, node, hosts, path, undo)
                undo.pop_all()
            self._entries.ports[number] = added
            self._entries.hosts = hosts
            return number

    def port_remove(self, portid: int) -> None:
        """Disconnects a port's guest and removes its socket."""
        with self._changing():
            port = self._entries.port(portid)
            counting.note_port(self._builder.ledger, port)
            port.handle.close()
            del self._entries.ports[portid]

    def ana_set(self, portid: int, grpid: int, state: model.AnaState) -> None:
        """Sets the state of an ANA group at a port; guests are told."""
        with self._changing():
            entry = self._entries.port(portid)
            node = read_node(model.Port, tree_of(entry.node) | {"ana": {**entry.node.ana, grpid: state}})
            entry.handle.set_ana(grpid, state)
            entry.node = normal_port(node)

    @property
    def keeps_counters(self) -> bool:
        """Whether there is a state directory for what SMART counts."""
        return self._builder.ledger is not None

    def keep_counters(self) -> None:
        """Writes what SMART has counted to the state directory, if there is one. Raises ConfigError."""
        # Not behind a change, which may be waiting for code of others.
        if (ledger := self._builder.ledger) is not None:
            counting.keep(ledger, self._entries)

    @contextlib.contextmanager
    def _changing(self) -> Iterator[None]:
        """Alone, and with problems in words for people who see no file."""
        with self._lock:
            self._candidate, hosts = self.config(), self._entries.hosts
            try:
                yield
            except ConfigError as error:
                self._entries.hosts = hosts
                if not isinstance(error, Problem):
                    raise
                told = error.at(lambda path: place(self._candidate, path))
                raise ConfigError(in_keys(str(told))) from None

    def _check(self, candidate: model.Config, path: Place) -> tuple[Place, dict[str, model.Host]]:
        """Whether `candidate` can be; `path`, and the hosts that there are then."""
        self._candidate = normal(candidate)
        check(self._candidate)
        return path, {host.nqn: host for host in self._candidate.hosts}

    def _changed(self, nqn: str, nsid: int, **keys: Any) -> tuple[NamespaceEntry, model.Namespace]:
        """A namespace, and what is to be said of it when it has been changed."""
        entry = self._entries.subsystem(nqn).namespace(nsid)
        node = read_node(model.Namespace, tree_of(entry.node) | keys)
        _, self._entries.hosts = self._check(*candidates.changed_namespace(self.config(), nqn, node))
        return entry, node

    def _ports(self, nqn: str) -> list[PortEntry]:
        return [one for one in self._entries.ports.values() if one.node.subsystem == nqn]


def _free(used: Iterable[int], first: int) -> int:
    """The lowest number that is not used."""
    taken = set(used)
    return next(number for number in itertools.count(first) if number not in taken)


def _directory(path: Path, undo: contextlib.ExitStack) -> Path:
    """The directory at `path`, made if there is none: for its owner alone."""
    try:
        if not path.is_dir():
            path.mkdir(mode=0o700)
            undo.callback(_forget, path)
    except OSError as error:
        raise Problem(
            ("target", "state_dir"), f"{path}: {error.strerror}; make the directory, or use another one"
        ) from error
    return path


def _forget(directory: Path) -> None:
    with contextlib.suppress(OSError):
        directory.rmdir()
