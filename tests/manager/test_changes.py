"""Any changes in any order, on a real target: what is saved is what runs, guests see what the configuration
says, and what is refused changes nothing.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from nvmet_vdev import ConfigError, Drive, Target, attach, config
from nvmet_vdev.config.model import Config, Namespace, Port, Subsystem
from nvmet_vdev.config.normal import initial_ana, normal
from nvmet_vdev.manager import Manager
from tests.config.strategies import STATES

KIB = 1024
ANA = 1 << 3
SUBSYSTEMS = tuple(f"nqn.2024-01.com.example:{name}" for name in ("one", "two"))
HOSTS = tuple(f"nqn.2024-01.com.example:host:{name}" for name in "abc")
IDENTIFIERS = tuple(f"{digit * 8}-0000-4000-8000-000000000000" for digit in "12")
UUIDS = tuple(f"{digit * 8}-0000-4000-8000-00000000000f" for digit in "34")

nqns = st.sampled_from(SUBSYSTEMS)
hosts = st.sampled_from(HOSTS)
numbers = st.integers(1, 3)
groups = st.integers(1, 3)
flags = st.booleans()


def maybe(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | strategy


class Changes(RuleBasedStateMachine):
    """A manager of a target, and a guest on each port that looks after every change."""

    @initialize(persistent=flags)
    def begin(self, persistent: bool) -> None:
        self.stack = contextlib.ExitStack()
        self.directory = Path(self.stack.enter_context(tempfile.TemporaryDirectory(prefix="nvmet-")))
        self.persistent = persistent
        self.guests: dict[int, Drive] = {}
        one = Subsystem(nqn=SUBSYSTEMS[0], namespaces=(Namespace(nsid=1, backend="ram:64K"),))
        port = Port(portid=1, traddr=str(self.directory / "s"), subsystem=one.nqn)
        self.start(Config(subsystems=(one,), ports=(port,)))

    def start(self, wanted: Config) -> None:
        self.target = self.stack.enter_context(Target())
        self.manager = Manager(self.target, state_dir=self.directory / "state" if self.persistent else None)
        self.manager.apply(wanted)

    def leave(self) -> None:
        for guest in self.guests.values():
            guest.close()
        self.guests.clear()

    def teardown(self) -> None:
        self.leave()
        self.stack.close()

    def change(self, call: Callable[[], object]) -> None:
        """Makes a change, or finds that nothing has changed."""
        before = self.state()
        refused = None
        try:
            call()
        except ConfigError as error:
            refused = str(error)
        if refused is not None:
            assert "\n" not in refused
            assert self.state() == before, refused

    def state(self) -> Any:
        files = sorted(str(path) for path in self.directory.rglob("*"))
        return self.manager.config(), self.manager.list(), files

    # Changes, of which many cannot be

    @rule(nqn=hosts, hostid=maybe(st.sampled_from(IDENTIFIERS)))
    def host_add(self, nqn: str, hostid: str | None) -> None:
        self.change(lambda: self.manager.host_add(nqn, hostid=hostid))

    @rule(nqn=hosts)
    def host_remove(self, nqn: str) -> None:
        self.change(lambda: self.manager.host_remove(nqn))

    @rule(
        nqn=nqns,
        keys=st.fixed_dictionaries(
            {},
            optional={
                "allowed_hosts": st.lists(hosts, max_size=2),
                "allow_any_host": flags,
                "serial": st.sampled_from(["S1", "S2"]),
                "model": st.just("Drive"),
                "cntlid_max": st.sampled_from([2, 3]),
                "qid_max": st.just(2),
                "shared": flags,
            },
        ),
    )
    def subsystem_add(self, nqn: str, keys: dict[str, Any]) -> None:
        self.change(lambda: self.manager.subsystem_add(nqn, **keys))

    @rule(nqn=nqns)
    def subsystem_remove(self, nqn: str) -> None:
        self.change(lambda: self.manager.subsystem_remove(nqn))

    @rule(nqn=nqns, host=hosts)
    def subsystem_allow(self, nqn: str, host: str) -> None:
        self.change(lambda: self.manager.subsystem_allow(nqn, host))

    @rule(nqn=nqns, host=hosts)
    def subsystem_disallow(self, nqn: str, host: str) -> None:
        self.change(lambda: self.manager.subsystem_disallow(nqn, host))

    @rule(nqn=nqns, spare=st.integers(0, 101))
    def subsystem_health(self, nqn: str, spare: int) -> None:
        self.change(lambda: self.manager.subsystem_health(nqn, spare=spare))

    @rule(
        nqn=nqns,
        nsid=maybe(numbers),
        image=maybe(st.sampled_from(["a.img", "b.img", "nowhere/c.img"])),
        keys=st.fixed_dictionaries(
            {},
            optional={
                "enable": flags,
                "protect": flags,
                "read_only": flags,
                "ana_grpid": groups,
                "resv": flags,
                "block_size": st.sampled_from([512, 4096]),
                "uuid": st.sampled_from(UUIDS),
                "nguid": st.just("ef90689c6c46d44c89c14067801309a8"),
                "hosts": st.lists(hosts, max_size=2),
            },
        ),
        create=maybe(st.sampled_from([64 * KIB, 1000])),
    )
    def namespace_add(
        self, nqn: str, nsid: int | None, image: str | None, keys: dict[str, Any], create: int | None
    ) -> None:
        backend = "ram:64K" if image is None else str(self.directory / image)
        self.change(
            lambda: self.manager.namespace_add(nqn, nsid=nsid, backend=backend, create=create, **keys)
        )

    @rule(nqn=nqns, nsid=numbers)
    def namespace_remove(self, nqn: str, nsid: int) -> None:
        self.change(lambda: self.manager.namespace_remove(nqn, nsid))

    @rule(nqn=nqns, nsid=numbers, size=maybe(st.sampled_from([32 * KIB, 96 * KIB, 1000])))
    def namespace_resize(self, nqn: str, nsid: int, size: int | None) -> None:
        self.change(lambda: self.manager.namespace_resize(nqn, nsid, size))

    @rule(nqn=nqns, nsid=numbers, on=flags)
    def namespace_enable(self, nqn: str, nsid: int, on: bool) -> None:
        call = self.manager.namespace_enable if on else self.manager.namespace_disable
        self.change(lambda: call(nqn, nsid))

    @rule(nqn=nqns, nsid=numbers, on=flags)
    def namespace_protect(self, nqn: str, nsid: int, on: bool) -> None:
        self.change(lambda: self.manager.namespace_protect(nqn, nsid, on))

    @rule(nqn=nqns, nsid=numbers, grpid=st.integers(0, 3))
    def namespace_ana_group(self, nqn: str, nsid: int, grpid: int) -> None:
        self.change(lambda: self.manager.namespace_ana_group(nqn, nsid, grpid))

    @rule(nqn=nqns, nsid=numbers, those=maybe(st.lists(hosts, max_size=2)))
    def namespace_attach(self, nqn: str, nsid: int, those: list[str] | None) -> None:
        self.change(lambda: self.manager.namespace_attach(nqn, nsid, those))

    @rule(
        portid=maybe(numbers),
        nqn=nqns,
        name=st.sampled_from(["s", "t", "u", "nowhere/v"]),
        keys=st.fixed_dictionaries(
            {},
            optional={
                "hostnqn": hosts,
                "hostid": st.sampled_from(IDENTIFIERS),
                "cntlid": numbers,
                "ana": st.dictionaries(groups, st.sampled_from(STATES)),
                "queues": st.just(4),
            },
        ),
    )
    def port_add(self, portid: int | None, nqn: str, name: str, keys: dict[str, Any]) -> None:
        self.change(lambda: self.manager.port_add(portid, str(self.directory / name), nqn, **keys))

    @rule(portid=numbers)
    def port_remove(self, portid: int) -> None:
        self.change(lambda: self.manager.port_remove(portid))
        if not any(port.portid == portid for port in self.manager.config().ports):
            self.guests.pop(portid, None)

    @rule(portid=numbers, grpid=st.integers(0, 3), state=st.sampled_from(STATES))
    def ana_set(self, portid: int, grpid: int, state: Any) -> None:
        self.change(lambda: self.manager.ana_set(portid, grpid, state))

    @precondition(lambda self: self.manager.config().subsystems)
    @rule(form=st.sampled_from(["toml", "json"]))
    def restart(self, form: config.Format) -> None:
        """The target ends, and the next one has what was saved: hosts, names and sizes are the same."""
        file = self.directory / f"saved.{form}"
        self.manager.save(file)
        before = self.told()
        self.leave()
        self.target.shutdown()
        self.start(config.load(file).config)
        file.unlink()
        assert self.told() == before

    def told(self) -> Any:
        """What `list` says, without what a restart may change."""
        tree = self.manager.list()
        fixed = {port.portid for port in self.manager.config().ports if port.cntlid is not None}
        for port in tree["ports"]:
            del port["attached"]
            # A group that was put where it was anyway is named until then.
            port["ana"] = {
                group: state for group, state in port["ana"].items() if state != initial_ana(int(group))
            }
            if port["portid"] not in fixed:
                del port["cntlid"]
        return tree

    # What holds after each of them

    @invariant()
    def what_runs_is_a_configuration_in_both_formats(self) -> None:
        found = self.manager.config()
        assert normal(found) == found
        for form in ("toml", "json"):
            assert config.loads(config.dumps(found, form), form).config == found

    @invariant()
    def the_target_has_what_the_configuration_has(self) -> None:
        found = self.manager.config()
        assert [one.nqn for one in self.target.subsystems] == [one.nqn for one in found.subsystems]
        for subsystem in self.target.subsystems:
            (node,) = (one for one in found.subsystems if one.nqn == subsystem.nqn)
            assert [one.nsid for one in subsystem.namespaces] == [one.nsid for one in node.namespaces]
            ports = [port for port in found.ports if port.subsystem == node.nqn]
            assert {one.socket for one in subsystem.controllers} == {port.traddr for port in ports}

    @invariant()
    def guests_see_what_the_configuration_says(self) -> None:
        found = self.manager.config()
        for port in found.ports:
            (subsystem,) = (one for one in found.subsystems if one.nqn == port.subsystem)
            self.look(port, subsystem)

    def look(self, port: Port, subsystem: Subsystem) -> None:
        guest = self.guests.get(port.portid)
        if guest is None:
            guest = self.guests[port.portid] = attach(port.traddr, memory=1 << 20, depth=4)
        told = self.manager.show("port", portid=port.portid)
        drive = guest.identify_controller()
        assert (drive.subnqn, drive.model, drive.controller_id) == (
            subsystem.nqn,
            subsystem.model,
            told["cntlid"],
        )
        assert port.cntlid in (None, drive.controller_id)
        assert subsystem.serial in (None, drive.serial)
        assert guest.host_identifier().hex() == told["hostid"].replace("-", "")
        assert port.hostnqn in (None, told["hostnqn"])
        seen = {one.nsid: one for one in guest.rescan()}
        mine = [one for one in subsystem.namespaces if one.hosts is None or told["hostnqn"] in one.hosts]
        assert sorted(seen) == [one.nsid for one in mine if one.enable]
        # A drive that is not shared says nothing of ANA.
        groups = guest.ana_log() if drive.cmic & ANA else None
        for namespace in subsystem.namespaces:
            if (one := seen.get(namespace.nsid)) is None:
                continue
            shown = self.manager.show("namespace", nqn=subsystem.nqn, nsid=namespace.nsid)
            assert (one.size, one.block_size, one.uuid) == (shown["size"], shown["block_size"], shown["uuid"])
            assert one.nguid == namespace.nguid
            assert one.write_protected == (namespace.protect or namespace.read_only)
            assert bool(one.rescap) == namespace.resv
            if groups is None:
                continue
            assert one.ana_group == namespace.ana_grpid
            state = port.ana.get(namespace.ana_grpid, initial_ana(namespace.ana_grpid))
            assert groups.state(namespace.nsid) == state


Changes.TestCase.settings = settings(
    max_examples=20,
    stateful_step_count=30,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
TestChanges = Changes.TestCase
