"""What is wrong in a configuration: one line with the key, the value and what would be right."""

# ruff: noqa: E501 - the operator gets each of them on one line

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from nvmet_vdev import ConfigError, config
from tests.config import nvmetcli
from tests.config.nvmetcli import HOST, moved
from tests.config.test_nvmetcli import changed

GOOD = """
[[host]]
nqn = "nqn.2024-01.com.example:host:a"
hostid = "befdec4c-2234-11b2-a85c-ca77c773af36"

[[host]]
nqn = "nqn.2024-01.com.example:host:b"

[[subsystem]]
nqn = "nqn.2024-01.com.example:one"
allowed_hosts = ["nqn.2024-01.com.example:host:a", "nqn.2024-01.com.example:host:b"]

[[subsystem.namespace]]
nsid = 1
backend = "/images/one.img"
uuid = "91fdba0d-f87b-4c25-b80f-db7be1418b9e"

[[subsystem.namespace]]
nsid = 2
backend = "ram:1G"
nguid = "ef90689c-6c46-d44c-89c1-4067801309a8"

[[port]]
portid = 1
traddr = "/run/one.sock"
subsystem = "nqn.2024-01.com.example:one"
hostnqn = "nqn.2024-01.com.example:host:a"
"""

NS = "\n[[subsystem.namespace]]\n"
SUBSYSTEM = '\n[[subsystem]]\nnqn = "nqn.2024-01.com.example:two"\n'
PORT = '\n[[port]]\nportid = 2\ntraddr = "/run/two.sock"\nsubsystem = "nqn.2024-01.com.example:one"\n'
HOST_B = 'hostnqn = "nqn.2024-01.com.example:host:b"\n'
A, B = "nqn.2024-01.com.example:host:a", "nqn.2024-01.com.example:host:b"
OTHER = "91fdba0d-f87b-4c25-b80f-db7be1418b9f"

TOML: dict[str, tuple[str, str]] = {
    "no TOML": ("a = \n", "is no TOML: Invalid value (at line 1, column 5)"),
    "a key twice": (
        "[target]\nwait = 'poll'\nwait = 'event'\n",
        "is no TOML: Cannot overwrite a value (at line 3, column 15)",
    ),
    "unknown key at the top": ("[[subsystems]]", "subsystems: is unknown; did you mean subsystem?"),
    "unknown key": (SUBSYSTEM + "seriel = '1'", "subsystem[0].seriel: is unknown; did you mean serial?"),
    "unknown key of a namespace": (
        SUBSYSTEM + NS + "nsid = 1\npath = 'x'",
        "subsystem[0].namespace[0].path: is unknown; there are nsid, backend, enable, ana_grpid, uuid, nguid, eui64, resv, hosts, read_only, protect, block_size, create, iopoll, fixed_buffers",
    ),
    "unknown key that is like none": (
        "[[host]]\nnqn = 'a'\nx = 1",
        "host[0].x: is unknown; there are nqn, hostid",
    ),
    "a table for a list": ("[host]\nnqn = 'a'", "host: a table; use a list of tables"),
    "a value for a table": ("target = 3", "target: 3; use a table with workers, cpus, wait, state_dir"),
    "no NQN": (
        "[[subsystem]]\nserial = '1'",
        "subsystem[0].nqn: is missing; use 1 to 223 bytes such as nqn.2024-01.com.example:name",
    ),
    "empty NQN": (
        "[[host]]\nnqn = ''",
        "host[0].nqn: '' is empty; write a name such as nqn.2024-01.com.example:name",
    ),
    "long NQN": (
        f"[[host]]\nnqn = '{'ö' * 112}'",
        f"host[0].nqn: {'ö' * 59}… has 224 bytes; use at most 223",
    ),
    "NQN with a control character": (
        '[[host]]\nnqn = "a\\u0007"',
        "host[0].nqn: 'a\\x07' has a control character; leave it out",
    ),
    "NQN with a NUL": (
        '[[host]]\nnqn = "a\\u0000"',
        "host[0].nqn: 'a\\x00' has a control character; leave it out",
    ),
    "NQN without a date": (
        "[[host]]\nnqn = 'nqn.io-1'",
        "host[0].nqn: nqn.io-1 has no year and month behind nqn.; write it like nqn.2024-01.com.example:name",
    ),
    "NQN of no month": (
        "[[host]]\nnqn = 'nqn.2024-13.a:b'",
        "host[0].nqn: nqn.2024-13.a:b has no month 13; use 01 to 12",
    ),
    "NQN without a domain": (
        "[[host]]\nnqn = 'nqn.2024-01.:b'",
        "host[0].nqn: nqn.2024-01.:b has no reverse domain name behind its date; write it like nqn.2024-01.com.example:name",
    ),
    "NQN without its UUID": (
        "[[host]]\nnqn = 'nqn.2014-08.org.nvmexpress:uuid:1'",
        "host[0].nqn: nqn.2014-08.org.nvmexpress:uuid:1 has no UUID behind nqn.2014-08.org.nvmexpress:uuid:; "
        "write one as 8-4-4-4-12 hexadecimal digits",
    ),
    "discovery": (
        "[[subsystem]]\nnqn = 'nqn.2014-08.org.nvmexpress.discovery'",
        "subsystem[0].nqn: nqn.2014-08.org.nvmexpress.discovery is the name of the discovery service; use another one",
    ),
    "host twice": (
        "[[host]]\nnqn = 'a'\n[[host]]\nnqn = 'a'",
        "host[1].nqn: a is host[0].nqn as well; use another one",
    ),
    "host identifier twice": (
        GOOD
        + '\n[[host]]\nnqn = "nqn.2024-01.com.example:host:c"\nhostid = "BEFDEC4C-2234-11b2-a85c-ca77c773af36"',
        "host[2].hostid: befdec4c-2234-11b2-a85c-ca77c773af36 is host[0].hostid as well; use another one",
    ),
    "host identifier of zero": (
        "[[host]]\nnqn = 'a'\nhostid = '00000000-0000-0000-0000-000000000000'",
        "host[0].hostid: is zero, which is no host's; use another UUID, or leave it out",
    ),
    "no UUID": ("[[host]]\nnqn = 'a'\nhostid = '1'", "host[0].hostid: 1; use a UUID that is not zero"),
    "subsystem twice": (
        GOOD + "\n[[subsystem]]\nnqn = 'nqn.2024-01.com.example:one'",
        "subsystem[1].nqn: nqn.2024-01.com.example:one is subsystem[0].nqn as well; use another one",
    ),
    "allowed twice": (
        SUBSYSTEM + "allowed_hosts = ['a', 'a']",
        "subsystem[0].allowed_hosts[1]: a is subsystem[0].allowed_hosts[0] as well; use another one",
    ),
    "malformed host that is allowed": (
        SUBSYSTEM + "allowed_hosts = ['nqn.x']",
        "subsystem[0].allowed_hosts[0]: nqn.x has no year and month behind nqn.; write it like nqn.2024-01.com.example:name",
    ),
    "hosts as text": (SUBSYSTEM + "allowed_hosts = 'a'", "subsystem[0].allowed_hosts: a; use a list of NQNs"),
    "a host as number": (SUBSYSTEM + "allowed_hosts = [1]", "subsystem[0].allowed_hosts[0]: 1; use a text"),
    "long serial": (
        SUBSYSTEM + f"serial = '{'1' * 21}'",
        f"subsystem[0].serial: {'1' * 21}; use 1 to 20 printable ASCII characters",
    ),
    "serial of two lines": (
        SUBSYSTEM + 'serial = "1\\n"',
        "subsystem[0].serial: '1\\n'; use 1 to 20 printable ASCII characters",
    ),
    "serial as number": (
        SUBSYSTEM + "serial = 12",
        "subsystem[0].serial: 12; use 1 to 20 printable ASCII characters",
    ),
    "long model": (
        SUBSYSTEM + f"model = '{'m' * 41}'",
        f"subsystem[0].model: {'m' * 41}; use 1 to 40 printable ASCII characters",
    ),
    "long firmware": (
        SUBSYSTEM + "firmware = '123456789'",
        "subsystem[0].firmware: 123456789; use 1 to 8 printable ASCII characters",
    ),
    "empty model": (
        SUBSYSTEM + "model = ''",
        "subsystem[0].model: ''; use 1 to 40 printable ASCII characters",
    ),
    "OUI": (SUBSYSTEM + "ieee_oui = 0x1000000", "subsystem[0].ieee_oui: 16777216; use 0 to 0xffffff"),
    "controllers": (SUBSYSTEM + "cntlid_min = 0", "subsystem[0].cntlid_min: 0; use 1 to 65519"),
    "no controllers": (
        SUBSYSTEM + "cntlid_min = 3\ncntlid_max = 2",
        "subsystem[0].cntlid_min: 3 is above cntlid_max, 2; use that or less",
    ),
    "queues": (SUBSYSTEM + "qid_max = 0", "subsystem[0].qid_max: 0; use 1 to 65535"),
    "bool as number": (SUBSYSTEM + "shared = 1", "subsystem[0].shared: 1; use true or false"),
    "spare": (SUBSYSTEM + "health.spare = 101", "subsystem[0].health.spare: 101; use 0 to 100"),
    "health": (
        SUBSYSTEM + "health = 1",
        "subsystem[0].health: 1; use a table with temperature, spare, spare_threshold, percentage_used, reliability_degraded",
    ),
    "NSID of zero": (
        SUBSYSTEM + NS + "nsid = 0\nbackend = 'a'",
        "subsystem[0].namespace[0].nsid: 0; use 1 to 1024",
    ),
    "NSID": (
        SUBSYSTEM + NS + "nsid = 1025\nbackend = 'a'",
        "subsystem[0].namespace[0].nsid: 1025; use 1 to 1024",
    ),
    "NSID as text": (
        SUBSYSTEM + NS + "nsid = '1'\nbackend = 'a'",
        "subsystem[0].namespace[0].nsid: 1; use 1 to 1024",
    ),
    "NSID as bool": (
        SUBSYSTEM + NS + "nsid = true\nbackend = 'a'",
        "subsystem[0].namespace[0].nsid: true; use 1 to 1024",
    ),
    "large NSID": (
        SUBSYSTEM + NS + f"nsid = {10**4000}\nbackend = 'a'",
        f"subsystem[0].namespace[0].nsid: 1{'0' * 58}…; use 1 to 1024",
    ),
    "NSID twice": (
        SUBSYSTEM + (NS + "nsid = 3\nbackend = 'ram:1M'") * 2,
        "subsystem[0].namespace[1].nsid: 3 is subsystem[0].namespace[0].nsid as well; use another one",
    ),
    "no backend": (
        SUBSYSTEM + NS + "nsid = 1",
        "subsystem[0].namespace[0].backend: is missing; use a path, or a disk as 'nvmet-vdev backends' lists them",
    ),
    "no such disk": (
        SUBSYSTEM + NS + "nsid = 1\nbackend = 'python:x'",
        "subsystem[0].namespace[0].backend: python:x: python: takes a module or a file and a name in it; write python:MODULE:NAME or python:./FILE.py:NAME",
    ),
    "ANA group": (
        SUBSYSTEM + NS + "nsid = 1\nbackend = 'a'\nana_grpid = 0",
        "subsystem[0].namespace[0].ana_grpid: 0; use 1 to 1024",
    ),
    "UUID": (
        SUBSYSTEM + NS + "nsid = 1\nbackend = 'a'\nuuid = '{91fdba0d-f87b-4c25-b80f-db7be1418b9e}'",
        "subsystem[0].namespace[0].uuid: {91fdba0d-f87b-4c25-b80f-db7be1418b9e}; use a UUID that is not zero",
    ),
    "UUID of zero": (
        SUBSYSTEM + NS + "nsid = 1\nbackend = 'a'\nuuid = '00000000-0000-0000-0000-000000000000'",
        "subsystem[0].namespace[0].uuid: is zero; use another one, or leave it out",
    ),
    "UUID of another subsystem": (
        GOOD + SUBSYSTEM + NS + "nsid = 1\nbackend = 'a'\nuuid = '91fdba0d-f87b-4c25-b80f-db7be1418b9e'",
        "subsystem[1].namespace[0].uuid: 91fdba0d-f87b-4c25-b80f-db7be1418b9e is subsystem[0].namespace[0].uuid as well; use another one",
    ),
    "NGUID twice": (
        GOOD + SUBSYSTEM + NS + "nsid = 1\nbackend = 'a'\nnguid = 'EF90689C6C46D44C89C14067801309A8'",
        "subsystem[1].namespace[0].nguid: ef90689c6c46d44c89c14067801309a8 is subsystem[0].namespace[1].nguid as well; use another one",
    ),
    "NGUID": (
        SUBSYSTEM + NS + "nsid = 1\nbackend = 'a'\nnguid = '12'",
        "subsystem[0].namespace[0].nguid: 12; use 32 hexadecimal digits that are not all zero",
    ),
    "EUI-64": (
        SUBSYSTEM + NS + f"nsid = 1\nbackend = 'a'\neui64 = '{'0' * 16}'",
        "subsystem[0].namespace[0].eui64: 0000000000000000; use 16 hexadecimal digits that are not all zero",
    ),
    "block size": (
        SUBSYSTEM + NS + "nsid = 1\nbackend = 'a'\nblock_size = 1024",
        "subsystem[0].namespace[0].block_size: 1024; use 512 or 4096",
    ),
    "size": (
        SUBSYSTEM + NS + "nsid = 1\nbackend = 'a'\ncreate = '10Q'",
        "subsystem[0].namespace[0].create: 10Q; use a size such as 10G",
    ),
    "size of memory": (
        SUBSYSTEM + NS + "nsid = 1\nbackend = 'ram:1G'\ncreate = '1G'",
        "subsystem[0].namespace[0].create: makes image files, and ram:1G has its size; leave it out",
    ),
    "polling memory": (
        SUBSYSTEM + NS + "nsid = 1\nbackend = 'ram:1G'\niopoll = true",
        "subsystem[0].namespace[0].iopoll: is for block devices, and ram:1G is none; leave it out",
    ),
    "one image twice": (
        GOOD + SUBSYSTEM + NS + "nsid = 1\nbackend = '/images/../images/one.img'\nread_only = true",
        "subsystem[1].namespace[0].backend: /images/../images/one.img is subsystem[0].namespace[0].backend as well; "
        "use another image, or set read_only for both",
    ),
    "one image twice, through a filter": (
        GOOD + SUBSYSTEM + NS + "nsid = 1\nbackend = 'rate?iops=9:/images/one.img'",
        "subsystem[1].namespace[0].backend: rate?iops=9:/images/one.img is subsystem[0].namespace[0].backend as "
        "well; use another image, or set read_only for both",
    ),
    "namespace for a host that may not": (
        SUBSYSTEM + "allowed_hosts = ['a']" + NS + "nsid = 1\nbackend = 'x'\nhosts = ['b']",
        "subsystem[0].namespace[0].hosts[0]: b is not among the allowed_hosts of nqn.2024-01.com.example:two; "
        "add it there, or leave it out",
    ),
    "port number": (
        "[[port]]\nportid = 65536\ntraddr = 's'\nsubsystem = 'x'",
        "port[0].portid: 65536; use 0 to 65535",
    ),
    "port twice": (
        GOOD + PORT.replace("= 2", "= 1") + HOST_B,
        "port[1].portid: 1 is port[0].portid as well; use another one",
    ),
    "two ports on one socket": (
        GOOD + PORT.replace("/run/two.sock", "/run/../run/./one.sock") + HOST_B,
        "port[1].traddr: /run/../run/./one.sock is port[0].traddr as well; use another one",
    ),
    "long socket": (
        GOOD + PORT.replace("two", "t" * 100) + HOST_B,
        f"port[1].traddr: /run/{'t' * 54}… has 110 bytes, and a socket takes 107; use a shorter path",
    ),
    "no socket": (
        "[[port]]\nportid = 1\ntraddr = ''\nsubsystem = 'x'",
        "port[0].traddr: ''; use a path of at most 107 bytes",
    ),
    "socket with a NUL": (
        GOOD + PORT.replace("two", "\\u0000") + HOST_B,
        "port[1].traddr: '/run/\\x00.sock' has a NUL character; leave it out",
    ),
    "no such subsystem": (
        GOOD + PORT.replace("example:one", "example:two"),
        "port[1].subsystem: nqn.2024-01.com.example:two is no subsystem; there are nqn.2024-01.com.example:one",
    ),
    "a host that may not": (
        GOOD + PORT + "hostnqn = 'c'",
        f"port[1].hostnqn: c is not among the allowed_hosts of nqn.2024-01.com.example:one; add it there, or use one of {A}, {A[:-1]}b",
    ),
    "whose port": (
        GOOD + PORT,
        f"port[1].hostnqn: is missing, and nqn.2024-01.com.example:one allows 2 hosts; use one of {A}, {A[:-1]}b",
    ),
    "nobody's port": (
        SUBSYSTEM + "allow_any_host = false" + PORT.replace("example:one", "example:two"),
        "port[0].subsystem: nqn.2024-01.com.example:two allows no host; add one to its allowed_hosts, or set allow_any_host",
    ),
    "another identifier for a host": (
        GOOD + PORT + f"hostnqn = '{A}'\nhostid = '91fdba0d-f87b-4c25-b80f-db7be1418b9e'",
        f"port[1].hostid: 91fdba0d-f87b-4c25-b80f-db7be1418b9e is not the one that {A} has, host[0].hostid; a host has one, leave it out here",
    ),
    "ANA group of a port": (
        GOOD + PORT + HOST_B + "ana = {1025 = 'change'}",
        "port[1].ana: group 1025; use 1 to 1024",
    ),
    "ANA state": (
        GOOD + PORT + HOST_B + "ana = {1 = 'fast'}",
        "port[1].ana.1: fast; use optimized, non-optimized, inaccessible, persistent-loss or change",
    ),
    "ANA group twice": (
        GOOD + PORT + HOST_B + "ana = {1 = 'change', 01 = 'change'}",
        "port[1].ana.01: is there twice; leave one of the two out",
    ),
    "ANA groups as list": (
        GOOD + PORT + HOST_B + "ana = ['change']",
        "port[1].ana: a list of 1; use ANA groups with a state each",
    ),
    "controller": (GOOD + PORT + HOST_B + "cntlid = 65520", "port[1].cntlid: 65520; use 1 to 65519"),
    "controller twice": (
        (GOOD + "cntlid = 7\n" + PORT + HOST_B + "cntlid = 7"),
        "port[1].cntlid: 7 is port[0].cntlid as well; use another one",
    ),
    "controller out of range": (
        GOOD.replace('example:one"\nallowed', 'example:one"\ncntlid_min = 9\nallowed') + "cntlid = 7",
        "port[0].cntlid: 7; nqn.2024-01.com.example:one has 9 to 65519",
    ),
    "doorbells": (GOOD + "doorbells = 'loud'", "port[0].doorbells: loud; use auto, trapped or mapped"),
    "number of queues": (GOOD + "queues = 512", "port[0].queues: 512; use 1 to 511"),
    "size of queues": (GOOD + "queue_size = 1", "port[0].queue_size: 1; use 2 to 65536"),
    "one identifier for two hosts, at ports": (
        GOOD + PORT + HOST_B + "hostid = 'befdec4c-2234-11b2-a85c-ca77c773af36'",
        f"port[1].hostid: befdec4c-2234-11b2-a85c-ca77c773af36 is that of {A}, host[0].hostid; use another one",
    ),
    "an identifier at one port of a host alone": (
        GOOD
        + PORT
        + HOST_B
        + f"hostid = '{OTHER}'"
        + PORT.replace("portid = 2", "portid = 3").replace("two", "three")
        + HOST_B,
        f"port[2].hostid: is missing, and {B} has {OTHER}, port[1].hostid; set it",
    ),
    "an identifier at the second port of a host": (
        GOOD
        + PORT
        + HOST_B
        + PORT.replace("portid = 2", "portid = 3").replace("two", "three")
        + HOST_B
        + f"hostid = '{OTHER}'",
        f"port[2].hostid: {OTHER} is not the one that is made of its name that {B} has, port[1].hostid; a host has one, leave it out here",
    ),
    "one image twice to be read, and so one UUID": (
        GOOD
        + SUBSYSTEM
        + "".join(f"{NS}nsid = {nsid}\nbackend = '/i'\nread_only = true\n" for nsid in (1, 2)),
        "subsystem[1].namespace[1].uuid: 38930119-f9c3-895e-ae09-27f4ced021e1 is subsystem[1].namespace[0].uuid as well; it is made of the path, set another one",
    ),
    "workers": ("[target]\nworkers = 0", "target.workers: 0; use 1 to 1024"),
    "wait": ("[target]\nwait = 'long'", "target.wait: long; use adaptive, event or poll"),
    "a CPU": ("[target]\ncpus = [0, 8192]", "target.cpus[1]: 8192; use numbers of CPUs, 0 to 8191"),
    "CPUs as text": ("[target]\ncpus = '0-3'", "target.cpus: 0-3; use numbers of CPUs, 0 to 8191"),
    "directory with a NUL": (
        '[target]\nstate_dir = "\\u0000"',
        "target.state_dir: '\\x00' has a NUL character; leave it out",
    ),
    "a date": ("[target]\nworkers = 2024-01-01", "target.workers: 2024-01-01; use 1 to 1024"),
}


@pytest.mark.parametrize("case", TOML)
def test_what_is_wrong_in_toml_is_named_with_what_would_be_right(case: str) -> None:
    text, line = TOML[case]
    with pytest.raises(ConfigError) as caught:
        config.loads(text, "toml", name="drives.toml")
    assert str(caught.value) == f"drives.toml: {line}"


def test_the_good_one_is_good() -> None:
    loaded = config.loads(GOOD, "toml", strict=True)
    assert loaded.notes == []
    assert len(loaded.config.hosts) == 2


ZERO = ("subsystems", 0, "namespaces", 0)
JSON: dict[str, tuple[tuple[str | int, ...], Any, str]] = {
    "ANA group": ((*ZERO, "ana_grpid"), 0, "subsystems[0].namespaces[0].ana_grpid: 0; use 1 to 1024"),
    "NSID": ((*ZERO, "nsid"), "1025", "subsystems[0].namespaces[0].nsid: 1025; use 1 to 1024"),
    "NSID twice": (
        (*ZERO, "nsid"),
        7,
        "subsystems[0].namespaces[1].nsid: 7 is subsystems[0].namespaces[0].nsid as well; use another one",
    ),
    "UUID": (
        (*ZERO, "device", "uuid"),
        "x",
        "subsystems[0].namespaces[0].device.uuid: x; use a UUID that is not zero",
    ),
    "no device": (
        (*ZERO, "device", "path"),
        "",
        "subsystems[0].namespaces[0].device.path: is missing; use a path, or a disk as 'nvmet-vdev backends' lists them",
    ),
    "backend": (
        (*ZERO, "backend"),
        {"spec": ""},
        "subsystems[0].namespaces[0].backend.spec: ''; use a path, or a disk as 'nvmet-vdev backends' lists them",
    ),
    "bool": (
        (*ZERO, "resv", "enable"),
        "maybe",
        "subsystems[0].namespaces[0].resv.enable: maybe; use true or false",
    ),
    "enable": ((*ZERO, "enable"), 2, "subsystems[0].namespaces[0].enable: 2; use true or false"),
    "serial": (
        ("subsystems", 0, "attr", "serial"),
        "1" * 21,
        f"subsystems[0].attr.serial: {'1' * 21}; use 1 to 20 printable ASCII characters",
    ),
    "NQN": (
        ("subsystems", 0, "nqn"),
        "nqn.1",
        "subsystems[0].nqn: nqn.1 has no year and month behind nqn.; write it like nqn.2024-01.com.example:name",
    ),
    "not even text": (
        ("subsystems", 0, "nqn"),
        ["a"],
        "subsystems[0].nqn: a list of 1; use 1 to 223 bytes such as nqn.2024-01.com.example:name",
    ),
    "surrogate": (
        ("subsystems", 0, "nqn"),
        "\ud800",
        "subsystems[0].nqn: '\\ud800' is no UTF-8; write it in UTF-8",
    ),
    "surrogate in a socket": (
        ("ports", 0, "addr", "traddr"),
        "\ud800",
        "ports[0].addr.traddr: '\\ud800' is no UTF-8; write it in UTF-8",
    ),
    "two subsystems": (
        ("ports", 0, "subsystems"),
        ["a", "b"],
        "ports[0].subsystems: 2 of them, and a vfio-user port leads to one; make a port for each",
    ),
    "no such subsystem": (
        ("ports", 0, "subsystems"),
        ["a"],
        "ports[0].subsystems: a is no subsystem; there are testnqn",
    ),
    "no socket": (
        ("ports", 0, "addr"),
        {"trtype": "vfio-user"},
        "ports[0].addr.traddr: is missing; use a path of at most 107 bytes",
    ),
    "port": (("ports", 0, "portid"), -1, "ports[0].portid: -1; use 0 to 65535"),
    "ANA state": (
        ("ports", 0, "ana_groups", 1, "ana", "state"),
        "good",
        "ports[0].ana_groups[1].ana.state: good; use optimized, non-optimized, inaccessible, persistent-loss or change",
    ),
    "ANA group of a port": (
        ("ports", 0, "ana_groups", 1, "grpid"),
        1025,
        "ports[0].ana_groups[1].grpid: group 1025; use 1 to 1024",
    ),
    "ANA group twice": (
        ("ports", 0, "ana_groups", 1, "grpid"),
        "1",
        "ports[0].ana_groups[1].grpid: 1; use another one",
    ),
    "ANA group of no number": (
        ("ports", 0, "ana_groups", 1),
        {},
        "ports[0].ana_groups[1].grpid: is missing; use 1 to 1024",
    ),
    "a host that may not": (
        ("ports", 0, "vdev"),
        {"hostnqn": "x"},
        f"ports[0].vdev.hostnqn: x is not among the allowed_hosts of testnqn; add it there, or use one of {HOST}",
    ),
    "a list for an object": (("subsystems", 0), [], "subsystems[0]: a list of 0; use an object"),
    "an object for a list": (("ports",), {}, "ports: a table; use a list"),
    "a text for a list": ((*ZERO[:2], "namespaces"), "1", "subsystems[0].namespaces: 1; use a list"),
    "a text for a list of texts": (
        (*ZERO[:2], "allowed_hosts"),
        "1",
        "subsystems[0].allowed_hosts: 1; use a list of NQNs",
    ),
    "a CPU": (("vdev",), {"cpus": "0,x"}, "vdev.cpus[1]: x; use a number"),
    "workers": (("vdev",), {"workers": "0x401"}, "vdev.workers: 1025; use 1 to 1024"),
}


@pytest.mark.parametrize("case", JSON)
def test_what_is_wrong_in_json_is_named_by_its_place_in_json(case: str) -> None:
    path, value, line = JSON[case]
    with pytest.raises(ConfigError) as caught:
        config.loads(nvmetcli.text(changed(moved(), path, value)), "json", name="kernel.json")
    assert str(caught.value) == f"kernel.json: {line}"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", "is no JSON: Expecting value: line 1 column 1 (char 0)"),
        ("[]", "a list of 0; use an object"),
        (
            '{"hosts": [], "hosts": []}',
            "is no JSON: key 'hosts' is there twice in one object; leave one of the two out",
        ),
        ('{"ports": [{"portid": NaN}]}', "is no JSON: NaN is no number"),
        ("[" * 100_000, "is nested too deep"),
        ('{"hosts": ' + "[" * 500 + "]" * 500 + "}", "hosts[0]: a list of 1; use an object"),
    ],
)
def test_what_is_no_json_is_told(text: str, line: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config.loads(text, "json", name="kernel.json")
    assert str(caught.value) == f"kernel.json: {line}"


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    (tmp_path / "directory.toml").mkdir()
    (tmp_path / "latin.toml").write_bytes(b'[[host]]\nnqn = "\xe4"')
    (tmp_path / "large.toml").touch()
    os.truncate(tmp_path / "large.toml", (64 << 20) + 1)
    os.mkfifo(tmp_path / "pipe.toml")
    for name, words in (
        ("missing.toml", "No such file"),
        ("directory.toml", "Is a directory"),
        ("pipe.toml", "is no file"),
        ("latin.toml", "no UTF-8 at byte 16"),
        ("large.toml", "more than 64 MiB"),
        ("drives.yaml", "use .toml or .json"),
    ):
        with pytest.raises(ConfigError, match=words) as caught:
            config.load(tmp_path / name)
        assert str(caught.value).startswith(str(tmp_path / name))
        assert "\n" not in str(caught.value)
