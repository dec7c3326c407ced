"""The configuration as nvmetcli writes it: JSON, a group for each kind of attribute, text for all values.

What `nvmetcli save` writes of a kernel target loads as it is. What a drive on a vfio-user socket has no use
for is skipped and named, unless it asks for nothing. Our own keys stand beside nvmet's, in groups of their
own, which nvmetcli does not look at.

May know the table of keys, and nvmet's attributes. Must not know files.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

import msgspec

from nvmet_vdev._nvmet import ConfigError
from nvmet_vdev.config.fields import NODES, Field, fields
from nvmet_vdev.config.model import Config
from nvmet_vdev.config.names import DISCOVERY
from nvmet_vdev.config.normal import initial_ana
from nvmet_vdev.config.problems import Path, Problem, nearest, shown
from nvmet_vdev.config.reading import read
from nvmet_vdev.grammar import parse as parse_spec

__all__ = ["Document"]

TRANSPORT = "vfio-user"

NO_USE: Mapping[str, tuple[str, frozenset[str]]] = {
    "attr.version": ("the drive says which version it has", frozenset()),
    "attr.pi_enable": ("there is no protection information", frozenset({"0"})),
    "attr.vendor_id": ("the PCI identifiers are fixed", frozenset({"0x0", "0"})),
    "attr.subsys_vendor_id": ("the PCI identifiers are fixed", frozenset({"0x0", "0"})),
    "addr.adrfam": ("a socket has no address family", frozenset({""})),
    "addr.trsvcid": ("a socket has no service", frozenset({"", "none"})),
    "addr.treq": ("a socket has no secure channel", frozenset({"", "not specified"})),
    "addr.tsas": ("a socket has no secure channel", frozenset({"", "none"})),
    "param.inline_data_size": ("data is never in the command", frozenset({"-1", "0"})),
    "param.pi_enable": ("there is no protection information", frozenset({"0"})),
    "param.mdts": ("the transfer size is fixed", frozenset({"-1", "0"})),
    "device.p2pmem": ("there is no peer-to-peer memory", frozenset({"0"})),
    "buffered_io": ("files are opened as they are best", frozenset({"0"})),
}
"""Attributes of nvmet's that are not for us: why, and the values that ask for nothing."""

NO_PATH = frozenset({"", "(null)"})
"""What nvmet has for a namespace without a device."""
ON, OFF = frozenset({"1", "y", "yes", "on", "true"}), frozenset({"0", "n", "no", "off", "false"})
"""As the kernel reads them (kstrtobool)."""


class Document:
    """A document that is read: what was skipped, and what it calls its places."""

    def __init__(self) -> None:
        self.skipped: list[str] = []
        """One line each."""
        self._places: dict[Path, str] = {(): ""}

    def where(self, path: Path) -> str:
        """What the document calls the place `path` of the tree."""
        head = path
        while head not in self._places:
            head = head[:-1]
        text = self._places[head]
        node: type[msgspec.Struct] | None = _node_of(head)
        for step in path[len(head) :]:
            if isinstance(step, int):
                text += f"[{step}]"
                continue
            field = fields(node).get(step) if node is not None else None
            name = field.json if field is not None else step
            text += f".{name}" if text else name
            node = field.node if field is not None else None
        return text

    def parse(self, text: str) -> Config:
        """The configuration that `text` is. Raises Problem."""
        try:
            tree = json.loads(text, object_pairs_hook=_unambiguous, parse_constant=_no_number)
        except RecursionError:
            raise Problem((), "is nested too deep") from None
        except ValueError as error:
            raise Problem((), f"is no JSON: {error}") from None
        return read(self._tree(tree))

    def _tree(self, document: object) -> dict[str, Any]:
        top = self._object(document, (), "")
        tree: dict[str, Any] = {"host": [], "subsystem": [], "port": []}
        if "vdev" in top:
            self._places["target",] = "vdev"
            tree["target"] = self._node({"vdev": top["vdev"]}, ("target",), "")
        for name, key in (("hosts", "host"), ("subsystems", "subsystem"), ("ports", "port")):
            for at, one in enumerate(self._list(top.get(name), name)):
                self._add(tree[key], key, one, f"{name}[{at}]")
        discovery = top.get("discovery")
        for name in top:
            if name not in ("hosts", "subsystems", "ports", "vdev", "discovery"):
                self._skip(name, f"is unknown; {nearest(name, ('hosts', 'subsystems', 'ports', 'vdev'))}")
        if isinstance(discovery, dict) and discovery.get("nqn") not in (None, DISCOVERY):
            self._skip("discovery", "a socket has no discovery service")
        return tree

    def _add(self, nodes: list[Any], key: str, raw: object, place: str) -> None:
        """Adds what `raw` is to `nodes`, unless it is nothing for us."""
        path: Path = (key, len(nodes))
        self._places[path] = place
        node = self._object(raw, path, place)
        if key == "host":
            nodes.append(self._host(node, path, place))
        elif key == "subsystem":
            nodes.append(self._subsystem(node, path, place))
        elif (port := self._port(node, path, place)) is not None:
            nodes.append(port)

    def _host(self, raw: dict[str, Any], path: Path, place: str) -> dict[str, Any]:
        raw = dict(raw)
        keys = raw.pop("dhchap", None)
        if isinstance(keys, dict) and (keys.get("key") or keys.get("ctrl_key")):
            self._skip(f"{place}.dhchap", "a socket has no authentication; its mode says who may connect")
        return self._node(raw, path, place)

    def _subsystem(self, raw: dict[str, Any], path: Path, place: str) -> dict[str, Any]:
        raw = dict(raw)
        namespaces = self._list(raw.pop("namespaces", None), f"{place}.namespaces")
        passthru = raw.pop("passthru", None)
        for at, one in enumerate(passthru if isinstance(passthru, list) else [passthru] if passthru else []):
            device = one.get("device") if isinstance(one, dict) else None
            if not isinstance(device, dict) or device.get("path", "") not in NO_PATH:
                self._skip(f"{place}.passthru[{at}]", "a drive cannot be passed through")
        node = self._node(raw, path, place)
        node["namespace"] = []
        for at, one in enumerate(namespaces):
            inner, spot = (*path, "namespace", len(node["namespace"])), f"{place}.namespaces[{at}]"
            self._places[inner] = spot
            namespace = self._namespace(self._object(one, inner, spot), inner, spot)
            if namespace is not None:
                node["namespace"].append(namespace)
        return node

    def _namespace(self, raw: dict[str, Any], path: Path, place: str) -> dict[str, Any] | None:
        raw = dict(raw)
        groups = {name: dict(raw[name]) for name in ("device", "ana") if isinstance(raw.get(name), dict)}
        device, ana = groups.get("device", {}), groups.get("ana", {})
        file = device.pop("path", None)
        for name in ("uuid", "nguid", "eui64"):
            # nvmet's way to say that there is none.
            if isinstance(device.get(name), str) and not device[name].strip("0-"):
                del device[name]
        # The older place of the number, which nvmetcli writes beside the newer one and reads last.
        group = ana.pop("grpid", None)
        if group is not None:
            raw.setdefault("ana_grpid", group)
            self._places[*path, "ana_grpid"] = f"{place}.ana_grpid"
        raw |= groups
        if not ana:
            raw.pop("ana", None)
        node = self._node(raw, path, place)
        if "backend" not in node:
            self._places[*path, "backend"] = f"{place}.device.path"
            if file not in (None, *NO_PATH):
                node["backend"] = _path(file)
            elif node.get("enable") is False:
                self._skip(f"{place}.device.path", "is not set")
                return None
        elif file not in (None, *NO_PATH):
            self._skip(f"{place}.device.path", f"{shown(file)}; backend.spec is there and is what is served")
        return node

    def _port(self, raw: dict[str, Any], path: Path, place: str) -> dict[str, Any] | None:
        raw = dict(raw)
        address = dict(raw["addr"]) if isinstance(raw.get("addr"), dict) else {}
        kind = address.pop("trtype", "")
        if kind != TRANSPORT:
            self._skip(f"{place}.addr.trtype", f"{shown(kind)}; only {TRANSPORT} is served here")
            return None
        for at, _ in enumerate(self._list(raw.pop("referrals", None), f"{place}.referrals")):
            self._skip(f"{place}.referrals[{at}]", "a socket has no discovery service")
        subsystems = self._list(raw.pop("subsystems", None), f"{place}.subsystems")
        if not subsystems:
            self._skip(f"{place}.subsystems", "is empty, nothing would be served there")
            return None
        if len(subsystems) > 1:
            raise Problem(
                (*path, "subsystem"),
                f"{len(subsystems)} of them, and a {TRANSPORT} port leads to one; make a port for each",
            )
        states = self._states(self._list(raw.pop("ana_groups", None), f"{place}.ana_groups"), path, place)
        # nvmet's words for whether it is linked anywhere.
        raw.pop("enable", None)
        param = dict(raw["param"]) if isinstance(raw.get("param"), dict) else {}
        if _number(param.get("max_queue_size")) == -1:
            # nvmet's way to leave it to the transport.
            del param["max_queue_size"]
            raw["param"] = param
        node = self._node(raw | {"addr": address}, path, place)
        node["ana"] = states
        node["subsystem"] = _text(subsystems[0])
        return node

    def _states(self, groups: list[Any], path: Path, place: str) -> dict[Any, Any]:
        states: dict[Any, Any] = {}
        for at, one in enumerate(groups):
            spot = f"{place}.ana_groups[{at}]"
            group = self._object(one, (*path, "ana"), spot)
            number = _number(group.get("grpid"))
            self._places[*path, "ana", str(number)] = f"{spot}.ana.state"
            if not isinstance(number, int) or number in states:
                self._places[*path, "ana"] = f"{spot}.grpid"
                what = "is missing; use 1 to 1024" if number is None else f"{shown(number)}; use another one"
                raise Problem((*path, "ana"), what)
            if not 1 <= number <= 1024:
                self._places[*path, "ana"] = f"{spot}.grpid"
            ana = group.get("ana")
            states[number] = ana["state"] if isinstance(ana, dict) and "state" in ana else initial_ana(number)
        return states

    def _node(self, raw: dict[str, Any], path: Path, place: str) -> dict[str, Any]:
        """The keys of `raw` as the tree has them; groups are taken apart."""
        node = _node_of(path)
        assert node is not None  # noqa: S101 - the caller named it
        known: dict[str, tuple[Path, Field]] = {}
        for field in fields(node).values():
            if field.kind == "node" and field.node is not None:
                inner = fields(field.node).values()
                known |= {one.json: ((*path, field.name, one.name), one) for one in inner}
            elif field.kind != "nodes":
                known[field.json] = ((*path, field.name), field)
        groups = {name.partition(".")[0] for name in (*known, *NO_USE) if "." in name}
        tree: dict[str, Any] = {}
        for name, value in raw.items():
            if name in groups and isinstance(value, dict):
                members = {f"{name}.{key}": one for key, one in value.items()}
            else:
                members = {name: value}
            for key, one in members.items():
                if key in known:
                    spot, field = known[key]
                    self._places.setdefault(spot, f"{place}.{key}" if place else key)
                    at = tree if len(spot) == len(path) + 1 else tree.setdefault(str(spot[-2]), {})
                    at[field.name] = _natural(field, one)
                elif key not in NO_USE:
                    self._skip(f"{place}.{key}", f"is unknown; {nearest(key, known)}")
                elif _text(one) not in NO_USE[key][1]:
                    self._skip(f"{place}.{key}", f"{shown(one)}; {NO_USE[key][0]}")
        return tree

    def _object(self, raw: object, path: Path, place: str) -> dict[str, Any]:
        if not isinstance(raw, dict):
            self._places[path] = place
            raise Problem(path, f"{shown(raw)}; use an object")
        return raw

    def _list(self, raw: object, place: str) -> list[Any]:
        if raw is not None and not isinstance(raw, list):
            self._places[()] = place
            raise Problem((), f"{shown(raw)}; use a list")
        return raw or []

    def _skip(self, place: str, why: str) -> None:
        self.skipped.append(f"{place.lstrip('.')}: {why}")


def _node_of(path: Path) -> type[msgspec.Struct] | None:
    """The class of the node at `path`."""
    if not path:
        return Config
    return NODES.get(str(path[-2] if isinstance(path[-1], int) else path[-1]))


def _natural(field: Field, value: Any) -> Any:
    """`value` as what the key is, where the text can be read so; else as it is, for the message."""
    match field.kind:
        case "bool":
            text = _text(value).lower()
            return True if text in ON else False if text in OFF else value
        case "int":
            return _number(value)
        case "text" | "words" | "size" | "hex" | "uuid":
            return _text(value) if isinstance(value, int) and not isinstance(value, bool) else value
        case "ints":
            if isinstance(value, str):
                return [_number(one.strip()) for one in value.split(",")] if value else []
            return value
        case _:
            return value


def _number(value: Any) -> Any:
    if isinstance(value, str) and re.fullmatch(r"-?[0-9]{1,20}|0[xX][0-9a-fA-F]{1,16}", value):
        return int(value, 16 if value[1:2] in "xX" and len(value) > 1 else 10)
    return value


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return str(int(value))
    return value if isinstance(value, str) else shown(value)


def _path(value: Any) -> Any:
    """A path in words that cannot be taken for another disk."""
    if not isinstance(value, str):
        return value
    try:
        literal = not parse_spec(value).scheme
    except ConfigError:
        literal = True
    return value if literal else f"./{value}"


def _unambiguous(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        (name, _), *_ = Counter(name for name, _ in pairs).most_common()
        raise ValueError(f"key {name!r} is there twice in one object; leave one of the two out")
    return found


def _no_number(text: str) -> Any:
    raise ValueError(f"{text} is no number")
