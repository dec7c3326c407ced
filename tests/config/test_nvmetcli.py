"""What `nvmetcli save` has written is loaded as it is, and what we write is what nvmetcli reads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from nvmet_vdev import ConfigError, config
from tests.config import nvmetcli
from tests.config.nvmetcli import HOST, KERNEL, moved


def loaded(document: dict[str, Any], *, strict: bool = False) -> config.Loaded:
    return config.loads(nvmetcli.text(document), "json", strict=strict)


def test_the_file_of_a_kernel_target_serves_its_namespaces_once_its_port_is_a_socket() -> None:
    found = loaded(moved()).config
    assert found.hosts == (config.Host(nqn=HOST),)
    (subsystem,) = found.subsystems
    assert (subsystem.nqn, subsystem.serial, subsystem.model) == ("testnqn", "0c74361069d9db6c65ef", "Linux")
    assert (subsystem.firmware, subsystem.cntlid_min, subsystem.cntlid_max) == ("6.12.41", 1, 65519)
    assert (subsystem.ieee_oui, subsystem.qid_max) == (0, 128)
    assert (subsystem.allowed_hosts, subsystem.allow_any_host) == ((HOST,), None)
    one, seven = subsystem.namespaces
    assert (one.nsid, one.backend, one.enable, one.ana_grpid, one.resv) == (1, "/dev/vdb", True, 1, False)
    assert (one.uuid, one.nguid) == (UUID("91fdba0d-f87b-4c25-b80f-db7be1418b9e"), None)
    assert (seven.nsid, seven.enable, seven.ana_grpid, seven.resv) == (7, False, 3, True)
    assert seven.nguid == "ef90689c6c46d44c89c14067801309a8"
    (port,) = found.ports
    assert (port.portid, port.traddr, port.subsystem) == (1, "/run/nvmet-vdev/1.sock", "testnqn")
    # Group 3 is not the port's, so it is inaccessible, as it is in the kernel.
    assert port.ana == {2: "non-optimized"}
    assert port.queue_size == 128


def test_what_does_not_apply_is_named_and_skipped() -> None:
    assert loaded(moved()).notes == [
        "subsystems[0].attr.version: 2.1; the drive says which version it has, skipped",
        "ports[0].param.inline_data_size: 16384; data is never in the command, skipped",
        "subsystems[0].nqn: testnqn is no NQN as NVMe has them (nqn.2024-01.com.example:name); used as it is",
    ]


def test_strict_refuses_what_does_not_apply() -> None:
    with pytest.raises(ConfigError, match=r"^subsystems\[0\]\.attr\.version: 2\.1; .*--strict"):
        loaded(moved(), strict=True)


def test_strict_takes_a_file_in_which_all_applies() -> None:
    document = moved()
    del document["subsystems"][0]["attr"]["version"]
    del document["ports"][0]["param"]["inline_data_size"]
    loaded(document, strict=True)


def test_a_port_of_another_transport_is_skipped_and_its_subsystem_stays() -> None:
    found = loaded(KERNEL)
    assert not found.config.ports
    assert len(found.config.subsystems) == 1
    assert "ports[0].addr.trtype: loop; only vfio-user is served here, skipped" in found.notes


def test_a_queue_size_that_is_left_to_the_transport_is_ours() -> None:
    """What the kernel has for a port that nobody has given one."""
    document = changed(moved(), ("ports", 0, "param", "max_queue_size"), "-1")
    assert loaded(document).config.ports[0].queue_size == 1024


def test_a_namespace_whose_group_no_port_has_is_told() -> None:
    document = changed(moved(), ("subsystems", 0, "namespaces", 0, "ana_grpid"), 7)
    document["subsystems"][0]["namespaces"][0]["ana"] = {"grpid": "7"}
    place = "subsystems[0].namespaces[0].ana_grpid"
    line = f"{place}: 7, which is inaccessible at every port; add it to the ana of one"
    assert line in loaded(document).notes
    document["ports"][0]["ana_groups"].append({"grpid": 7, "ana": {"state": "change"}})
    assert line not in loaded(document).notes


SKIPPED: dict[str, tuple[tuple[str | int, ...], Any, str]] = {
    "authentication": (
        ("hosts", 0, "dhchap", "key"),
        "DHHC-1:00:secret:",
        "hosts[0].dhchap: a socket has no authentication",
    ),
    "protection information": (
        ("subsystems", 0, "attr", "pi_enable"),
        "1",
        "subsystems[0].attr.pi_enable: 1;",
    ),
    "protection information of a port": (
        ("ports", 0, "param", "pi_enable"),
        1,
        "ports[0].param.pi_enable: 1;",
    ),
    "transfer size": (("ports", 0, "param", "mdts"), "5", "ports[0].param.mdts: 5;"),
    "service": (("ports", 0, "addr", "trsvcid"), "4420", "ports[0].addr.trsvcid: 4420;"),
    "family": (("ports", 0, "addr", "adrfam"), "ipv4", "ports[0].addr.adrfam: ipv4;"),
    "vendor": (("subsystems", 0, "attr", "vendor_id"), "0x1af4", "subsystems[0].attr.vendor_id: 0x1af4;"),
    "referral": (
        ("ports", 0, "referrals"),
        [{"name": "a", "addr": {}, "enable": 1}],
        "ports[0].referrals[0]: a socket has no discovery service",
    ),
    "passthru": (
        ("subsystems", 0, "passthru"),
        [{"device": {"path": "/dev/nvme0"}, "enable": 1}],
        "subsystems[0].passthru[0]: a drive cannot be passed through",
    ),
    "discovery": (("discovery",), {"nqn": "nqn.2024-01.com.example:all"}, "discovery: "),
    "unknown attribute": (
        ("subsystems", 0, "attr", "seriel"),
        "x",
        "subsystems[0].attr.seriel: is unknown; did you mean attr.serial?",
    ),
    "unknown group": (("ports", 0, "colour"), {"red": "1"}, "ports[0].colour: is unknown; "),
    "unknown key at the top": (("subsystem",), [], "subsystem: is unknown; did you mean subsystems?"),
    "port without subsystem": (("ports", 0, "subsystems"), [], "ports[0].subsystems: is empty"),
    "namespace that nobody has given a device": (
        ("subsystems", 0, "namespaces", 1, "device", "path"),
        "(null)",
        "subsystems[0].namespaces[1].device.path: is not set",
    ),
}


def changed(document: Any, path: tuple[str | int, ...], value: Any) -> Any:
    inner = document
    for step in path[:-1]:
        inner = inner.setdefault(step, {}) if isinstance(inner, dict) else inner[step]
    inner[path[-1]] = value
    return document


@pytest.mark.parametrize("case", SKIPPED)
def test_every_kind_of_attribute_that_is_not_ours_is_skipped_in_a_line_that_names_it(case: str) -> None:
    path, value, line = SKIPPED[case]
    document = changed(moved(), path, value)
    notes = loaded(document).notes
    (found,) = set(notes) - set(loaded(moved()).notes)
    assert found.startswith(line)
    assert found.endswith(", skipped")
    assert "secret" not in found
    assert (
        loaded(document).config.subsystems[0].namespaces[0]
        == loaded(moved()).config.subsystems[0].namespaces[0]
    )
    with pytest.raises(ConfigError, match="--strict"):
        loaded(document, strict=True)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("subsystems", 0, "attr", "allow_any_host"), False),
        (("subsystems", 0, "attr", "allow_any_host"), 0),
        (("subsystems", 0, "attr", "cntlid_max"), 65519),
        (("subsystems", 0, "namespaces", 0, "enable"), True),
        (("subsystems", 0, "namespaces", 0, "enable"), "1"),
        (("subsystems", 0, "namespaces", 0, "nsid"), "1"),
        (("subsystems", 0, "namespaces", 0, "resv", "enable"), False),
        (("subsystems", 0, "namespaces", 0, "ana_grpid"), None),
        (("subsystems", 0, "attr", "ieee_oui"), 0),
        (("subsystems", 0, "attr", "serial"), "0c74361069d9db6c65ef"),
        (("ports", 0, "portid"), "1"),
    ],
)
def test_numbers_and_bools_may_be_written_as_what_they_are(
    path: tuple[str | int, ...], value: object
) -> None:
    assert loaded(changed(moved(), path, value)).config == loaded(moved()).config


def test_a_path_is_a_path_even_if_it_looks_like_another_disk() -> None:
    document = changed(moved(), ("subsystems", 0, "namespaces", 0, "device", "path"), "ram:1G")
    assert loaded(document).config.subsystems[0].namespaces[0].backend == "./ram:1G"


def test_our_own_groups_stand_beside_those_of_nvmet() -> None:
    document = moved()
    document["vdev"] = {"workers": "2", "cpus": "0,2", "wait": "poll", "state_dir": "/var/lib/nvmet-vdev"}
    document["hosts"][0]["vdev"] = {"hostid": "befdec4c-2234-11b2-a85c-ca77c773af36"}
    subsystem, port = document["subsystems"][0], document["ports"][0]
    subsystem["vdev"] = {"shared": "1", "subsystem_reset": "0"}
    subsystem["health"] = {"temperature": "310", "reliability_degraded": "1"}
    namespace = subsystem["namespaces"][0]
    namespace["backend"] = {"spec": "ram:1G"}
    namespace["device"] = {"eui64": "0123456789abcdef"}
    namespace["hosts"] = [HOST]
    namespace["vdev"] = {"read_only": "1", "protect": "1", "block_size": "4096", "create": "1G"}
    namespace["vdev"] |= {"read_only": "1"}
    port["vdev"] = {"hostnqn": HOST, "doorbells": "mapped", "queues": "8", "cntlid": "5"}
    namespace["vdev"].pop("create")
    found = loaded(document).config
    assert found.target == config.TargetSettings(
        workers=2, cpus=(0, 2), wait="poll", state_dir="/var/lib/nvmet-vdev"
    )
    assert found.hosts[0].hostid == UUID("befdec4c-2234-11b2-a85c-ca77c773af36")
    assert (found.subsystems[0].shared, found.subsystems[0].subsystem_reset) == (True, False)
    assert found.subsystems[0].health == config.Health(temperature=310, reliability_degraded=True)
    assert found.subsystems[0].namespaces[0] == config.Namespace(
        nsid=1,
        backend="ram:1G",
        eui64="0123456789abcdef",
        resv=False,
        hosts=(HOST,),
        read_only=True,
        protect=True,
        block_size=4096,
    )
    ours = found.ports[0]
    assert (ours.hostnqn, ours.doorbells, ours.queues, ours.cntlid) == (HOST, "mapped", 8, 5)


def test_a_kernel_subsystem_that_anybody_may_use_has_no_list() -> None:
    document = changed(moved(), ("subsystems", 0, "attr", "allow_any_host"), "1")
    document["subsystems"][0]["allowed_hosts"] = []
    subsystem = loaded(document).config.subsystems[0]
    assert (subsystem.allow_any_host, subsystem.allowed_hosts) == (None, ())


def test_what_is_saved_can_be_read_by_nvmetcli(tmp_path: Path) -> None:
    config.save(loaded(moved()).config, tmp_path / "saved.json")
    document = json.loads((tmp_path / "saved.json").read_text())
    nvmetcli.assert_readable(document)
    nvmetcli.assert_readable(KERNEL | {"ports": []})
    subsystem, theirs = document["subsystems"][0], KERNEL["subsystems"][0]
    assert {name: subsystem["attr"][name] for name in ("serial", "model", "qid_max", "ieee_oui")} == {
        name: theirs["attr"][name] for name in ("serial", "model", "qid_max", "ieee_oui")
    }
    assert subsystem["namespaces"][1]["device"] == theirs["namespaces"][1]["device"]
    assert document["ports"][0]["ana_groups"] == [
        *KERNEL["ports"][0]["ana_groups"],
        {"grpid": 3, "ana": {"state": "inaccessible"}},
    ]
