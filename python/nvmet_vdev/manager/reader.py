"""What a manager answers without changing anything.

May know entries and how they are told. Nothing here waits for a change that another thread makes.
"""

from __future__ import annotations

import os
from typing import Any, Literal, TypeVar

from nvmet_vdev._nvmet import ConfigError
from nvmet_vdev.config import model
from nvmet_vdev.manager import views
from nvmet_vdev.manager.entries import Entries

__all__ = ["Reader"]


class Reader:
    """The half of a manager that only reads."""

    _entries: Entries

    def config(self) -> model.Config:
        """The configuration of what runs: applied to another target, it makes the same."""
        return self._entries.config()

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes that to a file, TOML or JSON by its suffix, whole or not at all."""
        # Late, as all that who serves without a file does without.
        from nvmet_vdev.config import files

        files.save(self.config(), path)

    def list(self) -> dict[str, Any]:
        """All that there is, as a tree."""
        return views.everything(self._entries)

    def show(
        self,
        kind: Literal["subsystem", "namespace", "port", "host"],
        *,
        nqn: str | None = None,
        nsid: int | None = None,
        portid: int | None = None,
    ) -> dict[str, Any]:
        """One part: a subsystem or host by `nqn`, a namespace by `nqn` and `nsid`, a port by `portid`."""
        if kind == "port":
            return views.port(self._entries, self._entries.port(_given(portid, "portid")))
        name = _given(nqn, "nqn")
        if kind == "host":
            return views.host(self._entries, self._entries.host(name))
        entry = self._entries.subsystem(name)
        if kind == "subsystem":
            return views.subsystem(self._entries, entry)
        if kind == "namespace":
            return views.namespace(entry.namespace(_given(nsid, "nsid")))
        raise ConfigError(f"no kind {kind!r}; use subsystem, namespace, port or host")

    def reservation_show(self, nqn: str, nsid: int) -> dict[str, Any]:
        """The reservation of a namespace, and who is registered."""
        return views.reservation(self._entries.subsystem(nqn).namespace(nsid).handle)

    def stats(self) -> dict[str, Any]:
        """The counters of controllers and namespaces."""
        return views.stats(self._entries)

    def health(self) -> dict[str, Any]:
        """The health of subsystems, controllers and namespaces."""
        return views.health(self._entries)


_Value = TypeVar("_Value")


def _given(value: _Value | None, name: str) -> _Value:
    if value is None:
        raise ConfigError(f"{name} is missing; say which one")
    return value
