"""What a manager makes of a configuration and of changes; each of them is whole or leaves nothing."""

from __future__ import annotations

import functools
import itertools
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast, get_args
from uuid import UUID

import msgspec
import pytest

from nvmet_vdev import ConfigError, Target, config, identity
from nvmet_vdev.config.model import Config, Health, Host, Namespace, Port, Subsystem
from nvmet_vdev.config.normal import normal
from nvmet_vdev.config.problems import Problem
from nvmet_vdev.manager import Manager
from tests.manager.fakes import FakeTarget

MIB = 1 << 20
ONE, TWO = "nqn.2024-01.com.example:one", "nqn.2024-01.com.example:two"
A, B, C = (f"nqn.2024-01.com.example:host:{name}" for name in "abc")
HOSTID = UUID("befdec4c-2234-11b2-a85c-ca77c773af36")


def whole(directory: Path, *, image: bool = True) -> Config:
    """Something of everything."""
    first = Namespace(nsid=1, backend=str(directory / "new.img"), create=MIB, resv=False)
    return Config(
        hosts=(Host(nqn=A, hostid=HOSTID), Host(nqn=B)),
        subsystems=(
            Subsystem(
                nqn=ONE,
                allowed_hosts=(A, B),
                serial="S1",
                health=Health(spare=90),
                qid_max=8,
                namespaces=(
                    first if image else Namespace(nsid=1, backend="ram:1M", resv=False),
                    Namespace(nsid=2, backend="ram:1M", protect=True, ana_grpid=2, hosts=(A,)),
                    Namespace(
                        nsid=9, backend="ram:2M", enable=False, nguid="ef90689c6c46d44c89c14067801309a8"
                    ),
                ),
            ),
            Subsystem(nqn=TWO, namespaces=(Namespace(nsid=1, backend="null:1G", read_only=True),)),
        ),
        ports=(
            Port(portid=1, traddr=str(directory / "1.sock"), subsystem=ONE, hostnqn=A, queues=64),
            Port(portid=2, traddr=str(directory / "2.sock"), subsystem=ONE, hostnqn=B, ana={2: "change"}),
            Port(portid=3, traddr=str(directory / "3.sock"), subsystem=TWO, cntlid=7),
        ),
    )


def files(directory: Path) -> list[str]:
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*"))


def failure(run: Callable[[], Any]) -> ConfigError | None:
    try:
        run()
    except ConfigError as error:
        return error
    return None


def manager_of(target: FakeTarget, **options: Any) -> Manager:
    return Manager(cast(Target, target), **options)


@pytest.fixture
def target() -> FakeTarget:
    return FakeTarget()


@pytest.fixture
def manager(target: FakeTarget, tmp_path: Path) -> Manager:
    """Of a target that serves all of `whole`."""
    manager = manager_of(target)
    manager.apply(whole(tmp_path))
    return manager


def test_a_configuration_is_made_as_it_is_written(target: FakeTarget, tmp_path: Path) -> None:
    manager_of(target).apply(whole(tmp_path))
    one, two = target.subsystems
    assert (one.nqn, one.serial, one.figures) == (ONE, "S1", {"spare": 90})
    # It has two controllers soon, and the first guest may look before that.
    assert one.options == {"shared": True}
    assert (two.nqn, two.serial, two.options) == (TWO, identity.serial(TWO), {})
    image, memory, hidden = one.namespaces.values()
    assert image.options == {"reservations": False}
    assert (tmp_path / "new.img").stat().st_size == MIB
    assert memory.options == {"hosts": (A,), "ana_group": 2, "enabled": False}
    assert (memory.write_protected, memory.enabled) == (True, True)
    assert hidden.options == {"nguid": bytes.fromhex("ef90689c6c46d44c89c14067801309a8"), "enabled": False}
    assert not hidden.enabled
    assert two.namespaces[1].options == {"read_only": True}
    first, second = one.controllers
    assert (first.host.nqn, first.host.id, first.options["queues"]) == (A, HOSTID, 8)
    assert (second.host.nqn, second.options["ana"]) == (B, {2: "change"})
    assert two.controllers[0].options["cntlid"] == 7


def test_what_runs_is_the_configuration_that_was_applied(tmp_path: Path) -> None:
    manager = manager_of(FakeTarget())
    manager.apply(whole(tmp_path, image=False))
    assert manager.config() == whole(tmp_path, image=False)
    again = FakeTarget()
    second = manager_of(again)
    second.apply(manager.config())
    assert second.config() == manager.config()
    # What is there already is not made again.
    assert manager.apply(manager.config()) == []
    with pytest.raises(ConfigError, match="configured already"):
        manager.apply(Config())


def test_what_is_saved_is_what_runs(manager: Manager, tmp_path: Path) -> None:
    for name in ("saved.toml", "saved.json"):
        manager.save(tmp_path / name)
        assert config.load(tmp_path / name).config == manager.config()


def test_paths_mean_the_same_in_every_directory_once_they_are_saved(
    target: FakeTarget, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "d.img").write_bytes(bytes(MIB))
    manager = manager_of(target)
    namespaces = (
        Namespace(nsid=1, backend="d.img"),
        Namespace(nsid=2, backend="rate?iops=9:ram:1M"),
    )
    manager.apply(
        Config(
            subsystems=(Subsystem(nqn=ONE, namespaces=namespaces),),
            ports=(Port(portid=1, traddr="s", subsystem=ONE),),
        )
    )
    found = manager.config()
    assert [one.backend for one in found.subsystems[0].namespaces] == [
        str(tmp_path / "d.img"),
        "rate?iops=9:ram:1M",
    ]
    assert found.ports[0].traddr == str(tmp_path / "s")
    # To the target and its messages they are as they were written.
    assert target.subsystems[0].controllers[0].socket == "s"


def test_a_configuration_that_fails_at_any_step_leaves_nothing(tmp_path: Path) -> None:
    state = tmp_path / "state"
    for step in itertools.count(1):
        target = FakeTarget()
        target.steps.fails = step
        manager = manager_of(target, state_dir=state)
        problem = failure(functools.partial(manager.apply, whole(tmp_path)))
        if problem is None:
            break
        assert isinstance(problem, Problem)
        assert "refused" in problem.what
        assert problem.path[0] in ("subsystem", "port")
        assert target.subsystems == []
        assert files(tmp_path) == [], step
        assert manager.config() == Config()
    # Two subsystems, a health, four namespaces, one of them protected and enabled after that, three ports.
    assert step == 2 + 1 + 4 + 2 + 3 + 1


def test_a_backend_that_cannot_be_opened_leaves_nothing(target: FakeTarget, tmp_path: Path) -> None:
    base = whole(tmp_path)
    last = msgspec.structs.replace(
        base.subsystems[1], namespaces=(Namespace(nsid=1, backend=str(tmp_path / "none.img")),)
    )
    manager = manager_of(target)
    with pytest.raises(Problem, match=r"^subsystem\[1\]\.namespace\[0\]\.backend: .*none\.img"):
        manager.apply(msgspec.structs.replace(base, subsystems=(base.subsystems[0], last)))
    assert (target.subsystems, files(tmp_path)) == ([], [])


CHANGES: dict[str, Callable[[Manager, Path], Any]] = {
    "host_add": lambda manager, _: manager.host_add(C, hostid="91fdba0d-f87b-4c25-b80f-db7be1418b9e"),
    "subsystem_add": lambda manager, _: manager.subsystem_add(
        "three", serial="S3", health={"spare": 1}, namespace=[{"nsid": 1, "backend": "ram:1M"}]
    ),
    "subsystem_remove": lambda manager, _: manager.subsystem_remove("three"),
    "subsystem_allow": lambda manager, _: manager.subsystem_allow(ONE, C),
    "subsystem_health": lambda manager, _: manager.subsystem_health(ONE, temperature=300),
    "namespace_add": lambda manager, place: manager.namespace_add(
        ONE, backend=str(place / "n.img"), create="2M", protect=True
    ),
    "namespace_remove": lambda manager, _: manager.namespace_remove(ONE, 1),
    "namespace_resize": lambda manager, _: manager.namespace_resize(ONE, 2, 4 * MIB),
    "namespace_enable": lambda manager, _: manager.namespace_enable(ONE, 9),
    "namespace_disable": lambda manager, _: manager.namespace_disable(ONE, 1),
    "namespace_protect": lambda manager, _: manager.namespace_protect(ONE, 1, True),
    "namespace_ana_group": lambda manager, _: manager.namespace_ana_group(ONE, 1, 3),
    "namespace_attach": lambda manager, _: manager.namespace_attach(ONE, 1, [B]),
    "port_add": lambda manager, place: manager.port_add(None, str(place / "4.sock"), ONE, hostnqn=A),
    "port_remove": lambda manager, _: manager.port_remove(1),
    "ana_set": lambda manager, _: manager.ana_set(1, 1, "change"),
    "reservation_clear": lambda manager, _: manager.reservation_clear(ONE, 2),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_that_fails_leaves_all_as_it_was(
    change: str, target: FakeTarget, manager: Manager, tmp_path: Path
) -> None:
    if change == "subsystem_remove":
        CHANGES["subsystem_add"](manager, tmp_path)
    before = (target.snapshot(), manager.config(), files(tmp_path))
    for step in itertools.count(1):
        target.steps.count, target.steps.fails = 0, step
        found = failure(lambda: CHANGES[change](manager, tmp_path))
        if found is None:
            break
        assert not isinstance(found, Problem)
        assert "refused" in str(found)
        assert (target.snapshot(), manager.config(), files(tmp_path)) == before, step
    assert (target.snapshot(), manager.config(), files(tmp_path)) != before


def test_changes_are_seen_by_the_target_and_in_the_configuration(
    target: FakeTarget, manager: Manager, tmp_path: Path
) -> None:
    # What takes part 1 away comes last.
    for name in sorted(CHANGES, key=lambda name: name.endswith("remove")):
        CHANGES[name](manager, tmp_path)
    one, two = target.subsystems
    assert (one.nqn, two.nqn) == (ONE, TWO)
    assert one.figures == {"spare": 90, "temperature": 300}
    assert sorted(one.namespaces) == [2, 3, 9]
    added = one.namespaces[3]
    assert added.write_protected
    assert added.enabled
    assert (tmp_path / "n.img").stat().st_size == 2 * MIB


def test_the_configuration_after_changes_makes_the_same_again(target: FakeTarget, tmp_path: Path) -> None:
    manager = manager_of(target)
    manager.apply(whole(tmp_path, image=False))
    manager.namespace_disable(ONE, 1)
    manager.namespace_enable(ONE, 9)
    manager.namespace_protect(ONE, 1, True)
    manager.namespace_protect(ONE, 2, False)
    manager.namespace_ana_group(ONE, 9, 3)
    manager.namespace_attach(ONE, 2, None)
    manager.namespace_attach(ONE, 9, [A, B])
    manager.ana_set(2, 2, "inaccessible")
    manager.ana_set(2, 3, "persistent-loss")
    manager.subsystem_allow(ONE, C)
    manager.subsystem_health(ONE, temperature=300)
    manager.subsystem_add("three")
    manager.port_add(8, str(tmp_path / "8.sock"), "three", doorbells="mapped")
    found = manager.config()
    assert found == normal(found)
    for form in get_args(config.Format):
        assert config.loads(config.dumps(found, form), form).config == found
    one = found.subsystems[0]
    assert [namespace.enable for namespace in one.namespaces] == [False, True, True]
    assert [namespace.protect for namespace in one.namespaces] == [True, False, False]
    assert [namespace.ana_grpid for namespace in one.namespaces] == [1, 2, 3]
    assert [namespace.hosts for namespace in one.namespaces] == [None, None, (A, B)]
    assert found.ports[1].ana == {3: "persistent-loss"}
    assert [host.nqn for host in found.hosts] == [A, B, C]
    again = FakeTarget()
    manager_of(again).apply(found)

    def effects(target: FakeTarget) -> Any:
        return [
            [
                (one.nsid, one.enabled, one.write_protected, one.ana_group, one.hosts, one.size)
                for _, one in sorted(subsystem.namespaces.items())
            ]
            for subsystem in target.subsystems
        ]

    assert effects(again) == effects(target)


def without_port(manager: Manager) -> Manager:
    manager.port_remove(1)
    return manager


REFUSED: dict[str, tuple[Callable[[Manager], Any], str]] = {
    "host that is there": (lambda manager: manager.host_add(A), f"host {A} is known already"),
    "host of another's identifier": (
        lambda manager: manager.host_add(C, hostid=HOSTID),
        f"host {C} hostid: {HOSTID} is host {A} hostid as well; use another one",
    ),
    "malformed host": (
        lambda manager: manager.host_add("nqn.x"),
        "host nqn.x nqn: nqn.x has no year and month behind nqn.; write it like nqn.2024-01.com.example:name",
    ),
    "host that may use something": (
        lambda manager: manager.host_remove(A),
        f"host {A} may use {ONE}; disallow it there first",
    ),
    "no such host": (lambda manager: manager.host_remove(C), f"no host {C}; there are {A}, {B}"),
    "subsystem that is there": (
        lambda manager: manager.subsystem_add(ONE),
        f"{ONE} nqn: {ONE} is {ONE} nqn as well; use another one",
    ),
    "long serial": (
        lambda manager: manager.subsystem_add("x", serial="S" * 21),
        f"serial: {'S' * 21}; use 1 to 20 printable ASCII characters",
    ),
    "unknown key": (
        lambda manager: manager.subsystem_add("x", seriel="S"),
        "seriel: is unknown; did you mean serial?",
    ),
    "subsystem with ports": (
        lambda manager: manager.subsystem_remove(ONE),
        f"{ONE} is reached by port 1, 2; remove those first",
    ),
    "no such subsystem": (
        lambda manager: manager.namespace_add("x", backend="ram:1M"),
        f"no subsystem x; there are {ONE}, {TWO}",
    ),
    "host that has a port": (
        lambda manager: manager.subsystem_disallow(ONE, B),
        f"port 2 hostnqn: {B} is not among the allowed_hosts of {ONE}; add it there, or use one of {A}",
    ),
    "host that a namespace is attached to": (
        lambda manager: without_port(manager).subsystem_disallow(ONE, A),
        f"{ONE} namespace 2 hosts: {A} is not among the allowed_hosts of {ONE}; "
        "add it there, or leave it out",
    ),
    "host that is not listed": (
        lambda manager: manager.subsystem_disallow(ONE, C),
        f"host {C} is not among the allowed_hosts of {ONE}; there are {A}, {B}",
    ),
    "host that is listed": (
        lambda manager: manager.subsystem_allow(ONE, A),
        f"host {A} may use {ONE} already",
    ),
    "closing a subsystem to a port without a host": (
        lambda manager: manager.subsystem_allow(TWO, A),
        "port 3 belongs to no listed host, and would not be allowed any more; remove the port first",
    ),
    "health": (lambda manager: manager.subsystem_health(ONE, spare=101), "spare: 101; use 0 to 100"),
    "NSID that is there": (
        lambda manager: manager.namespace_add(ONE, nsid=2, backend="ram:1M"),
        f"{ONE} namespace 2 nsid: 2 is {ONE} namespace 2 nsid as well; use another one",
    ),
    "NSID": (
        lambda manager: manager.namespace_add(ONE, nsid=1025, backend="ram:1M"),
        "nsid: 1025; use 1 to 1024",
    ),
    "NGUID that is there": (
        lambda manager: manager.namespace_add(
            TWO, backend="ram:1M", nguid="ef90689c-6c46-d44c-89c1-4067801309a8"
        ),
        f"{TWO} namespace 2 nguid: ef90689c6c46d44c89c14067801309a8 is {ONE} namespace 9 nguid as well; "
        "use another one",
    ),
    "missing image": (
        lambda manager: manager.namespace_add(ONE, backend="/none.img"),
        f"{ONE} namespace 3 backend: /none.img: no such file: check the path, or create it with create",
    ),
    "no such namespace": (
        lambda manager: manager.namespace_resize(ONE, 5, MIB),
        f"{ONE} has no namespace 5; it has 1, 2, 9",
    ),
    "ANA group": (lambda manager: manager.namespace_ana_group(ONE, 1, 0), "ana_grpid: 0; use 1 to 1024"),
    "attached to a host that may not": (
        lambda manager: manager.namespace_attach(ONE, 1, [C]),
        f"{ONE} namespace 1 hosts: {C} is not among the allowed_hosts of {ONE}; "
        "add it there, or leave it out",
    ),
    "no such port": (lambda manager: manager.port_remove(5), "no port 5; there are 1, 2, 3"),
    "port that is there": (
        lambda manager: manager.port_add(1, "/s", ONE, hostnqn=A),
        "port 1 portid: 1 is port 1 portid as well; use another one",
    ),
    "port without a host": (
        lambda manager: manager.port_add(4, "/s", ONE),
        f"port 4 hostnqn: is missing, and {ONE} allows 2 hosts; use one of {A}, {B}",
    ),
    "ANA state": (
        lambda manager: manager.ana_set(1, 1, cast(Any, "good")),
        "ana 1: good; use optimized, non-optimized, inaccessible, persistent-loss or change",
    ),
    "ANA group of a port": (lambda manager: manager.ana_set(1, 0, "change"), "ana: group 0; use 1 to 1024"),
    "kind": (
        lambda manager: manager.show(cast(Any, "drive"), nqn=ONE),
        "no kind 'drive'; use subsystem, namespace, port or host",
    ),
    "which": (lambda manager: manager.show("namespace", nqn=ONE), "nsid is missing; say which one"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_is_refused_by_names_and_numbers(
    case: str, target: FakeTarget, manager: Manager
) -> None:
    call, line = REFUSED[case]
    with pytest.raises(ConfigError) as caught:
        call(manager)
    assert str(caught.value) == line
    if "host that a namespace" not in case:
        assert target.steps.count == 12


def test_the_last_host_that_is_disallowed_does_not_open_a_subsystem_to_all(target: FakeTarget) -> None:
    manager = manager_of(target)
    manager.subsystem_add(ONE, allowed_hosts=[A])
    manager.subsystem_disallow(ONE, A)
    assert manager.config().subsystems[0].allow_any_host is False
    with pytest.raises(ConfigError, match="or set allow_any_host"):
        manager.port_add(1, "/s", ONE, hostnqn=A)
    manager.subsystem_allow(ONE, B)
    assert manager.config().subsystems[0].allow_any_host is None
    manager.host_remove(A)
    assert [host.nqn for host in manager.config().hosts] == [B]


def test_a_port_stays_with_its_host_when_a_second_one_is_allowed(target: FakeTarget, tmp_path: Path) -> None:
    manager = manager_of(target)
    manager.subsystem_add(ONE, allowed_hosts=[A])
    manager.port_add(1, str(tmp_path / "s"), ONE)
    manager.subsystem_allow(ONE, B)
    assert manager.config().ports[0].hostnqn == A


def test_each_namespace_has_a_state_file_called_by_its_uuid(target: FakeTarget, tmp_path: Path) -> None:
    manager = manager_of(target, state_dir=tmp_path / "state", discard_state=True)
    manager.apply(Config())
    manager.subsystem_add(ONE)
    manager.namespace_add(ONE, backend="ram:1M", uuid=HOSTID)
    manager.namespace_add(ONE, backend="ram:1M")
    first, second = target.subsystems[0].namespaces.values()
    assert first.options["state"] == tmp_path / "state" / f"{HOSTID}.state"
    assert second.options["state"] == tmp_path / "state" / f"{identity.namespace(None, ONE, 2)}.state"
    assert first.options["discard_state"]
    assert (tmp_path / "state").stat().st_mode & 0o777 == 0o700
    assert manager.config().target.state_dir == str(tmp_path / "state")
    # What it says outlives the namespace too: it may come back.
    manager.namespace_remove(ONE, 1)
    assert first.options["state"].exists()


def test_the_directory_for_state_may_come_from_the_configuration(target: FakeTarget, tmp_path: Path) -> None:
    manager = manager_of(target)
    namespaces = (Namespace(nsid=1, backend="ram:1M"),)
    settings = config.TargetSettings(state_dir=str(tmp_path))
    manager.apply(Config(target=settings, subsystems=(Subsystem(nqn=ONE, namespaces=namespaces),)))
    assert target.subsystems[0].namespaces[1].options["state"].parent == tmp_path
    with pytest.raises(Problem, match=r"^target\.state_dir: .*/none/none: No such file"):
        manager_of(FakeTarget()).apply(Config(target=config.TargetSettings(state_dir="/none/none")))


def test_sockets_that_listen_already_are_used(target: FakeTarget) -> None:
    manager = manager_of(target)
    wanted = Config(subsystems=(Subsystem(nqn=ONE),), ports=(Port(portid=1, traddr="/s", subsystem=ONE),))
    manager.apply(wanted, sockets={"/s": 7})
    controller = target.subsystems[0].controllers[0]
    assert (controller.socket, controller.fd) == (None, 7)
    assert manager.config() == wanted


def test_everything_can_be_listed_and_is_plain_data(manager: Manager) -> None:
    tree = json.loads(json.dumps(manager.list()))
    assert [one["nqn"] for one in tree["hosts"]] == [A, B]
    assert tree["hosts"][0] == {"nqn": A, "hostid": str(HOSTID), "subsystems": [ONE], "ports": [1]}
    one, two = tree["subsystems"]
    assert (one["serial"], one["allowed_hosts"], one["allow_any_host"], one["ports"]) == (
        "S1",
        [A, B],
        False,
        [1, 2],
    )
    assert two["allow_any_host"]
    assert [namespace["nsid"] for namespace in one["namespaces"]] == [1, 2, 9]
    memory = one["namespaces"][1]
    assert (memory["size"], memory["block_size"], memory["write_protected"]) == (MIB, 512, True)
    assert memory["reservation"] == "write exclusive"
    assert one["namespaces"][0]["reservation"] is None
    assert tree["ports"][0]["ana"] == {"1": "optimized", "2": "inaccessible"}
    assert tree["ports"][1]["ana"] == {"1": "optimized", "2": "change"}
    assert tree["ports"][0]["hostid"] == str(HOSTID)
    for kind, name in (("subsystem", {"nqn": ONE}), ("port", {"portid": 1}), ("host", {"nqn": A})):
        assert manager.show(cast(Any, kind), **cast(Any, name)) in (*manager.list()[f"{kind}s"],)
    assert manager.show("namespace", nqn=ONE, nsid=2) == memory


def test_a_reservation_is_shown_with_keys_that_every_reader_of_json_keeps(manager: Manager) -> None:
    assert manager.reservation_show(ONE, 2) == {
        "generation": 3,
        "type": "write exclusive",
        "ptpl": False,
        "registrants": [
            {
                "hostid": "00000000-0000-0000-0000-000000000005",
                "key": "0xffffffffffffffff",
                "holder": True,
                "controllers": [1],
            }
        ],
    }


def test_counters_are_those_of_ports_and_namespaces_and_their_sum(manager: Manager) -> None:
    counted = json.loads(json.dumps(manager.stats()))
    assert [(one["portid"], one["reads"]) for one in counted["controllers"]] == [(1, 10), (2, 20), (3, 70)]
    assert counted["total"]["reads"] == 100
    assert [(one["subsystem"], one["nsid"], one["reads"]) for one in counted["namespaces"]] == [
        (ONE, 1, 1),
        (ONE, 2, 2),
        (ONE, 9, 9),
        (TWO, 1, 1),
    ]


def test_health_has_what_smart_says_and_the_log_of_errors(manager: Manager) -> None:
    found = json.loads(json.dumps(manager.health()))
    assert [(one["nqn"], one["spare"], one["temperature"]) for one in found["subsystems"]] == [
        (ONE, 90, 313),
        (TWO, 100, 313),
    ]
    first = found["controllers"][0]
    assert (first["portid"], first["subsystem"], first["power_cycles"]) == (1, ONE, 2)
    assert first["errors"] == [{"count": 1, "sqid": 2, "cid": 3, "status": 0x4281, "lba": 4096, "nsid": 1}]
    first = found["namespaces"][0]
    assert (first["subsystem"], first["nsid"], first["failures"]) == (ONE, 1, {})


def test_who_reads_does_not_wait_for_a_change(target: FakeTarget, manager: Manager) -> None:
    begun, may_end = threading.Event(), threading.Event()

    def slow(_size: int | None) -> None:
        begun.set()
        assert may_end.wait(60)

    target.subsystems[0].namespaces[2].resize = slow  # type: ignore[assignment, method-assign]
    thread = threading.Thread(target=manager.namespace_resize, args=(ONE, 2, MIB))
    thread.start()
    assert begun.wait(60)
    before = manager.config()
    assert manager.list()["subsystems"]
    assert manager.stats()["total"]["reads"] == 100
    may_end.set()
    thread.join()
    assert manager.config().hosts == before.hosts


def test_what_has_to_be_there_as_well_is_part_of_the_whole(target: FakeTarget, tmp_path: Path) -> None:
    manager = manager_of(target)
    seen: list[Config] = []

    def fails() -> None:
        seen.append(manager.config())
        raise ConfigError("no more descriptors")

    with pytest.raises(ConfigError, match="no more descriptors"):
        manager.apply(whole(tmp_path), then=fails)
    assert seen == [whole(tmp_path)]
    assert (target.subsystems, files(tmp_path), manager.config()) == ([], [], Config())


def test_a_host_that_only_a_refused_change_named_is_not_known(target: FakeTarget, manager: Manager) -> None:
    target.steps.count, target.steps.fails = 0, 1
    with pytest.raises(ConfigError, match="refused"):
        manager.namespace_attach(TWO, 1, [C])
    assert [host.nqn for host in manager.config().hosts] == [A, B]
    manager.namespace_attach(TWO, 1, [C])
    assert [host.nqn for host in manager.config().hosts] == [A, B, C]
