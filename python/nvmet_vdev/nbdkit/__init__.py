"""Plugins written for nbdkit's Python plugin, unmodified, as drives (nbdkit-python-plugin(3)).

`open_plugin` makes a Backend of a plugin's file; `dump` says what a plugin has, as ``nbdkit --dump-plugin``
does.
"""

from __future__ import annotations

from nvmet_vdev.nbdkit.backend import Capabilities, PluginBackend, open_plugin
from nvmet_vdev.nbdkit.module import stop_with
from nvmet_vdev.nbdkit.plugin import dump

__all__ = ["Capabilities", "PluginBackend", "dump", "open_plugin", "stop_with"]
