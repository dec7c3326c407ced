"""What a method is: a name, parameters with types, and what it may do; and the check of parameters.

May know types of parameters and faults; must not know which methods there are, nor who carries them out.
"""

from __future__ import annotations

import enum
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from nvmet_vdev.control import values
from nvmet_vdev.control.protocol import Fault, clip

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


class Lane(enum.IntEnum):
    """Who carries a method out. A batch goes where its highest method goes."""

    HERE = 0
    """The thread of the sockets: it is done at once and asks nobody."""
    QUERY = 1
    """The thread of questions: may wait for the manager, changes nothing."""
    CHANGE = 2
    """The thread of changes: one after the other, in the order in which they came."""


@dataclass(frozen=True)
class Param:
    """A parameter."""

    name: str
    kind: Any
    """A type that msgspec can check."""
    doc: str
    required: bool = False
    default: Any = msgspec.NODEFAULT
    """What the manager takes if nothing is given, where that is a value."""
    use: str = ""
    """What it may be, in words; by default those of `kind`."""

    @property
    def words(self) -> str:
        """What it may be, in words."""
        return self.use or values.words(values.schema(self.kind))

    def check(self, value: Any) -> Any:
        """`value` as the parameter's type; raises Fault."""
        try:
            return values.convert(value, self.kind)
        except msgspec.ValidationError as error:
            # Where inside of it, for lists and objects.
            _, _, place = str(error).rpartition(" - at `$")
            where = self.name + (place.rstrip("`") if place.startswith(("[", ".")) else "")
            raise Fault("params", f"{where}: {_shown(value)} is not {self.words}") from None

    def describe(self) -> dict[str, Any]:
        """As `rpc.methods` tells it."""
        found = {
            "name": self.name,
            "doc": self.doc,
            "required": self.required,
            "use": self.words,
            "schema": values.schema(self.kind),
        }
        if self.default is not msgspec.NODEFAULT:
            found["default"] = msgspec.json.decode(msgspec.json.encode(self.default))
        return found


@dataclass(frozen=True)
class Method:
    """A method of the control socket."""

    name: str
    doc: str
    params: tuple[Param, ...] = ()
    lane: Lane = Lane.CHANGE
    call: str = field(default="")
    """The manager's method; by default the name with underscores."""
    unsaid: Mapping[str, Any] = field(default_factory=dict)
    """What the manager is told where nothing is given, of what it wants to be told."""

    def __post_init__(self) -> None:
        if not self.call:
            object.__setattr__(self, "call", self.name.replace(".", "_"))

    def check(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments that `given` stands for; raises Fault with what is wrong first."""
        known = {param.name: param for param in self.params}
        try:
            if unknown := next((name for name in given if name not in known), None):
                has = f"it has {', '.join(known)}" if known else "it has none"
                raise Fault("params", f"there is no parameter {clip(unknown, 60)!r}; {has}")
            for name, param in known.items():
                if param.required and name not in given:
                    raise Fault("params", f"{name} is missing: {param.words}")
            found = {name: known[name].check(value) for name, value in given.items()}
            for name, value in found.items():
                if _CONTROL.search(_texts(value)):
                    raise Fault("params", f"{name}: {_shown(value)} has a control character")
        except Fault as fault:
            raise Fault(fault.kind, f"{self.name}: {fault}") from None
        return {**self.unsaid, **found}

    def describe(self) -> dict[str, Any]:
        """As `rpc.methods` tells it."""
        return {
            "name": self.name,
            "doc": self.doc,
            "changes": self.lane is Lane.CHANGE,
            "params": [param.describe() for param in self.params],
        }


def _texts(value: Any) -> str:
    """All text in `value`."""
    if isinstance(value, str):
        return value
    if isinstance(value, dict):
        return "".join(_texts(part) for pair in value.items() for part in pair)
    if isinstance(value, list):
        return "".join(map(_texts, value))
    return ""


def _shown(value: Any) -> str:
    return clip(json.dumps(value, ensure_ascii=False, default=str), 60)
