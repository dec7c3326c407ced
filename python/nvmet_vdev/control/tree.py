"""What `list` gives, taken apart: hosts, subsystems with namespaces, ports.

May know the tree's form; must not know who asks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Node = Mapping[str, Any]


def hosts(tree: Node) -> Sequence[Node]:
    """The hosts, each with `nqn`."""
    found: Sequence[Node] = tree.get("hosts", ())
    return found


def subsystems(tree: Node) -> Sequence[Node]:
    """The subsystems, each with `nqn` and `namespaces`."""
    found: Sequence[Node] = tree.get("subsystems", ())
    return found


def ports(tree: Node) -> Sequence[Node]:
    """The ports, each with `portid` and `traddr`."""
    found: Sequence[Node] = tree.get("ports", ())
    return found
