"""The declarations, and the check of parameters against them."""

from __future__ import annotations

import inspect
from typing import Any, get_type_hints

import jsonschema
import pytest

from nvmet_vdev.control import calls
from nvmet_vdev.control.method import Lane
from nvmet_vdev.control.methods import METHODS
from nvmet_vdev.control.protocol import Fault
from tests.control.fakes import NQN

OPTIONS = {
    "subsystem.add": calls.SubsystemOptions,
    "subsystem.health": calls.HealthFigures,
    "namespace.add": calls.NamespaceOptions,
    "port.add": calls.PortOptions,
}


@pytest.mark.parametrize("name", METHODS)
def test_the_client_has_every_method_with_all_its_parameters(name: str) -> None:
    python = "methods" if name == "rpc.methods" else name.replace(".", "_")
    signature = inspect.signature(getattr(calls.Calls, python))
    named = [one for one in signature.parameters.values() if one.kind is not inspect.Parameter.VAR_KEYWORD]
    found = [one.name for one in named if one.name != "self"]
    if name in OPTIONS:
        found += get_type_hints(OPTIONS[name])
    assert sorted(found) == sorted(param.name for param in METHODS[name].params)


@pytest.mark.parametrize("name", METHODS)
def test_a_method_says_what_it_is_and_takes(name: str) -> None:
    told = METHODS[name].describe()
    assert told["doc"].endswith(".")
    assert told["changes"] == (METHODS[name].lane is Lane.CHANGE)
    for param in told["params"]:
        assert param["doc"]
        assert param["use"]
        jsonschema.Draft202012Validator.check_schema(param["schema"])
        if "default" in param:
            jsonschema.validate(param["default"], param["schema"])


def checked(name: str, **given: Any) -> dict[str, Any]:
    return METHODS[name].check(given)


def test_parameters_arrive_as_their_types_and_what_is_not_given_does_not() -> None:
    found = checked("namespace.add", nqn=NQN, backend="ram:1M", create="10G", hosts=[NQN])
    assert found == {"nqn": NQN, "backend": "ram:1M", "create": 10 << 30, "hosts": (NQN,)}
    assert checked("namespace.resize", nqn=NQN, nsid=1, size=None)["size"] is None
    assert checked("namespace.resize", nqn=NQN, nsid=1, size=4096)["size"] == 4096
    added = checked("port.add", portid=1, traddr="/s", subsystem=NQN, ana={"2": "inaccessible"})
    assert added["ana"] == {2: "inaccessible"}


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("host.remove", {}, "host.remove: nqn is missing: an NQN"),
        ("host.remove", {"nqn": 5}, "host.remove: nqn: 5 is not an NQN"),
        ("host.remove", {"nqn": ""}, 'host.remove: nqn: "" is not an NQN'),
        ("host.remove", {"nqn": "a\0b"}, 'host.remove: nqn: "a\\u0000b" has a control character'),
        (
            "host.remove",
            {"nqn": "a", "name": 1},
            "host.remove: there is no parameter 'name'; it has nqn",
        ),
        ("version", {"a": 1}, "version: there is no parameter 'a'; it has none"),
        (
            "namespace.enable",
            {"nqn": "a", "nsid": True},
            "namespace.enable: nsid: true is not a namespace's number, from 1",
        ),
        (
            "namespace.enable",
            {"nqn": "a", "nsid": 0},
            "namespace.enable: nsid: 0 is not a namespace's number, from 1",
        ),
        (
            "namespace.resize",
            {"nqn": "a", "nsid": 1, "size": "ten"},
            'namespace.resize: size: "ten" is not a size like 4096 or 10G or null',
        ),
        (
            "namespace.resize",
            {"nqn": "a", "nsid": 1, "size": -1},
            "namespace.resize: size: -1 is not a size like 4096 or 10G or null",
        ),
        (
            "namespace.protect",
            {"nqn": "a", "nsid": 1, "on": 1},
            "namespace.protect: on: 1 is not true or false",
        ),
        (
            "ana.set",
            {"portid": 1, "grpid": 1, "state": "gone"},
            'ana.set: state: "gone" is not change, inaccessible, non-optimized, optimized or persistent-loss',
        ),
        (
            "config.save",
            {"path": "here"},
            'config.save: path: "here" is not an absolute path',
        ),
    ],
)
def test_a_wrong_parameter_is_named_with_its_value_and_what_is_allowed(
    name: str, given: dict[str, Any], message: str
) -> None:
    with pytest.raises(Fault) as raised:
        METHODS[name].check(given)
    assert raised.value.kind == "params"
    assert str(raised.value) == message


def test_a_wrong_element_is_found_in_its_list() -> None:
    with pytest.raises(Fault, match=r"hosts\[1\]"):
        checked("namespace.attach", nqn=NQN, nsid=1, hosts=[NQN, 5])


def test_a_long_value_is_shown_short() -> None:
    with pytest.raises(Fault) as raised:
        checked("host.remove", nqn="x" * 100_000)
    assert len(str(raised.value)) < 200
