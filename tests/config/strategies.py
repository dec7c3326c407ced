"""Configurations that can be, at random."""

from __future__ import annotations

import uuid
from typing import Any

from hypothesis import strategies as st

from nvmet_vdev.config.model import (
    AnaState,
    Config,
    Health,
    Host,
    Namespace,
    Port,
    Subsystem,
    TargetSettings,
)
from nvmet_vdev.config.normal import initial_ana

STATES: tuple[AnaState, ...] = ("optimized", "non-optimized", "inaccessible", "persistent-loss", "change")

TEXT = st.text(st.characters(min_codepoint=0x21, exclude_categories=("C", "Z")), min_size=1, max_size=20)
NQNS = st.one_of(
    TEXT.filter(lambda text: not text.startswith("nqn.")),
    st.uuids().map(lambda one: f"nqn.2014-08.org.nvmexpress:uuid:{one}"),
    TEXT.map(lambda text: f"nqn.2024-01.com.example:{text}"),
)
ASCII = st.characters(min_codepoint=0x20, max_codepoint=0x7E)
FILES = TEXT.map(lambda text: "/images/" + text.replace("/", "_").replace(".", "_"))
UUIDS = st.uuids(allow_nil=False)


def maybe(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | strategy


@st.composite
def namespaces(draw: st.DrawFn, nsid: int, names: set[str], allowed: tuple[str, ...]) -> Namespace:
    path = draw(FILES.filter(lambda text: text not in names))
    names.add(path)
    memory = draw(st.booleans())
    backend = draw(
        st.sampled_from(["ram:1M", "null:4k", "python:./drive.py:Drive?size=1G&a=%26", "log?file=x:ram:1M"])
    )
    return Namespace(
        nsid=nsid,
        backend=backend if memory else path,
        enable=draw(st.booleans()),
        ana_grpid=draw(st.integers(1, 4)),
        uuid=draw(maybe(UUIDS)),
        nguid=draw(maybe(UUIDS.map(lambda one: one.hex))),
        eui64=draw(maybe(st.integers(1, (1 << 64) - 1).map(lambda one: f"{one:016x}"))),
        resv=draw(st.booleans()),
        hosts=draw(maybe(st.lists(st.sampled_from(allowed), unique=True).map(tuple))) if allowed else None,
        read_only=draw(st.booleans()),
        protect=draw(st.booleans()),
        block_size=draw(st.sampled_from([None, 512, 4096])),
        create=None if memory else draw(maybe(st.integers(1, (1 << 63) - 1))),
        iopoll=not memory and draw(st.booleans()),
        fixed_buffers=draw(st.booleans()),
    )


@st.composite
def subsystems(draw: st.DrawFn, nqn: str, names: set[str], hosts: list[str]) -> Subsystem:
    allowed = tuple(draw(st.lists(st.sampled_from(hosts), unique=True))) if hosts else ()
    low, high = sorted(draw(st.tuples(st.integers(1, 65519), st.integers(1, 65519))))
    percent = maybe(st.integers(0, 100))
    return Subsystem(
        nqn=nqn,
        allowed_hosts=allowed,
        # What the list says already is left out.
        allow_any_host=draw(st.sampled_from([None, bool(allowed)])),
        serial=draw(maybe(st.text(ASCII, min_size=1, max_size=20))),
        model=draw(st.just("nvmet-vdev") | st.text(ASCII, min_size=1, max_size=40)),
        firmware=draw(maybe(st.text(ASCII, min_size=1, max_size=8))),
        ieee_oui=draw(st.integers(0, 0xFFFFFF)),
        cntlid_min=low,
        cntlid_max=high,
        qid_max=draw(maybe(st.integers(1, 65535))),
        shared=draw(maybe(st.booleans())),
        subsystem_reset=draw(maybe(st.booleans())),
        health=Health(
            temperature=draw(maybe(st.integers(0, 65535))),
            spare=draw(percent),
            spare_threshold=draw(percent),
            percentage_used=draw(percent),
            reliability_degraded=draw(maybe(st.booleans())),
        ),
        namespaces=tuple(
            draw(namespaces(nsid, names, allowed))
            for nsid in draw(st.lists(st.integers(1, 1024), unique=True, max_size=3))
        ),
    )


@st.composite
def ports(draw: st.DrawFn, portid: int, subsystem: Subsystem) -> Port:
    everybody = subsystem.allow_any_host or not subsystem.allowed_hosts
    names = st.sampled_from(subsystem.allowed_hosts) if subsystem.allowed_hosts else st.nothing()
    return Port(
        portid=portid,
        traddr=f"/run/nvmet-vdev/{portid}.sock",
        subsystem=subsystem.nqn,
        hostnqn=draw(maybe(names) if everybody or len(subsystem.allowed_hosts) == 1 else names),
        ana={
            group: state
            for group, state in draw(
                st.dictionaries(st.integers(1, 1024), st.sampled_from(STATES), max_size=3)
            ).items()
            if state != initial_ana(group)
        },
        queues=draw(st.integers(1, 511)),
        queue_size=draw(st.integers(2, 65536)),
        doorbells=draw(st.sampled_from(["auto", "trapped", "mapped"])),
    )


@st.composite
def configs(draw: st.DrawFn) -> Config:
    hosts = draw(st.lists(NQNS, unique=True, max_size=3))
    names: set[str] = set()
    groups = [draw(subsystems(nqn, names, hosts)) for nqn in draw(st.lists(NQNS, unique=True, max_size=3))]
    linked = [one for one in groups if one.allow_any_host is not False or one.allowed_hosts]
    return Config(
        target=TargetSettings(
            workers=draw(st.integers(1, 1024)),
            cpus=tuple(draw(st.lists(st.integers(0, 8191), max_size=3))),
            wait=draw(st.sampled_from(["adaptive", "event", "poll"])),
            state_dir=draw(maybe(FILES)),
        ),
        hosts=tuple(Host(nqn=nqn, hostid=draw(maybe(UUIDS))) for nqn in hosts),
        subsystems=tuple(groups),
        ports=tuple(
            draw(ports(portid, draw(st.sampled_from(linked))))
            for portid in draw(st.lists(st.integers(0, 65535), unique=True, max_size=3))
        )
        if linked
        else (),
    )


def differ(config: Config) -> bool:
    """Whether what has to be unique is."""
    names = [
        value
        for subsystem in config.subsystems
        for namespace in subsystem.namespaces
        for value in (namespace.uuid, namespace.nguid, namespace.eui64)
        if value is not None
    ]
    identifiers: list[uuid.UUID] = [host.hostid for host in config.hosts if host.hostid is not None]
    return len(set(names)) == len(names) and len(set(identifiers)) == len(identifiers)
