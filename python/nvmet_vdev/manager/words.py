"""What people call a part of what runs, and what the command line's options are called elsewhere.

They see no file, so parts have their names and numbers instead of places in lists. May know the model.
"""

from __future__ import annotations

import re

from nvmet_vdev.config import model
from nvmet_vdev.config.problems import Path

__all__ = ["in_keys", "place"]

_OPTIONS = {
    "--create SIZE": "create",
    "--create": "create",
    "--read-only": "read_only",
    "--iopoll": "iopoll",
    "--socket PATH": "traddr",
    "--socket": "traddr",
}


def in_keys(text: str) -> str:
    """`text` with the keys of the configuration instead of the options of `nvmet-vdev run`."""
    return re.sub("|".join(map(re.escape, _OPTIONS)), lambda found: _OPTIONS[found[0]], text)


def place(config: model.Config, path: Path) -> str:
    """What people call the place `path` of `config`."""
    words: list[str] = []
    rest = path
    match path:
        case ("host", int(at), *more) if at < len(config.hosts):
            words, rest = [f"host {config.hosts[at].nqn}"], tuple(more)
        case ("subsystem", int(at), "namespace", int(number), *more) if at < len(config.subsystems):
            subsystem = config.subsystems[at]
            words = [f"{subsystem.nqn} namespace {subsystem.namespaces[number].nsid}"]
            rest = tuple(more)
        case ("subsystem", int(at), *more) if at < len(config.subsystems):
            words, rest = [config.subsystems[at].nqn], tuple(more)
        case ("port", int(at), *more) if at < len(config.ports):
            words, rest = [f"port {config.ports[at].portid}"], tuple(more)
    return " ".join([*words, *(str(step) for step in rest if not isinstance(step, int))])
