"""The module `nbdkit` that a plugin imports.

Each plugin has a module object of its own, so that two drives of one plugin do not mix. What belongs to the
request alone, `set_error`, is kept for each thread, as nbdkit keeps it.
"""

from __future__ import annotations

import errno
import logging
import operator
import os
import threading
from collections.abc import Callable
from types import ModuleType
from typing import NoReturn

from nvmet_vdev.nbdkit import constants, parsing

_log = logging.getLogger(__name__)

_INT_MAX = (1 << 31) - 1


class Errors(threading.local):
    """What `set_error` of this thread's request said; 0 if nothing."""

    value: int = 0


#: One for all plugins: a thread is in one request at a time, whichever module object its code found.
errors = Errors()


#: What `shutdown` calls for plugins that nobody has given a hook of their own.
_stop: Callable[[], None] | None = None


def stop_with(stop: Callable[[], None] | None) -> None:
    """Makes `nbdkit.shutdown()` of any plugin call `stop`, in its thread, unless it has `on_shutdown`.

    For programs that serve plugins and end with them; None undoes it.
    """
    global _stop
    _stop = stop


class Server:
    """What nbdkit is to one plugin: its functions, and the state that they tell of.

    `name` stands before what is logged; `on_shutdown` is called when the plugin asks for the end of the
    server, in the thread that asked.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.export: str | None = None
        """The export's name, between `open` and the end; None when there is no connection."""
        self.configured = False
        self.on_shutdown: Callable[[], None] | None = None
        self._stopping = threading.Event()
        self.module = self._module()

    def _module(self) -> ModuleType:
        """The module object; no subclass with methods, so that `from nbdkit import *` finds them."""
        module = ModuleType("nbdkit", "nbdkit's API for Python plugins, as nvmet-vdev has it")
        names = {name: value for name, value in vars(constants).items() if name.isupper()}
        del names["THREAD_MODELS"], names["MAX_API_VERSION"]
        functions = (
            *(self.debug, self.set_error, self.export_name, self.shutdown, self.disconnect, self.is_tls),
            *(self.stdio_safe, self.nanosleep, absolute_path),
            *(parsing.parse_size, parsing.parse_bool, parsing.parse_probability, parsing.parse_delay),
        )
        vars(module).update(names, **{function.__name__: function for function in functions})
        for name in ("name", "pid", "uid", "gid", "security_context", "tls_dn", "tls_issuer_dn"):
            vars(module)[f"peer_{name}"] = _no_peer(f"peer_{name}")
        return module

    def debug(self, message: str, /) -> None:
        """A line in the log, at level DEBUG."""
        _log.debug("%s: debug: %s", self.name, parsing.text(message, "debug"))

    def set_error(self, error: int, /) -> None:
        """The errno of this request, if it fails: the exception's own is not asked."""
        value = operator.index(error)
        if not -_INT_MAX - 1 <= value <= _INT_MAX:
            raise OverflowError(f"nbdkit.set_error: {value} is no errno")
        errors.value = value

    def export_name(self) -> str:
        """The name from `default_export`, or "": the drive's user cannot choose one."""
        if self.export is None:
            raise RuntimeError("nbdkit.export_name failed: there is no connection")
        return self.export

    def is_tls(self) -> bool:
        """No: vfio-user has no TLS."""
        if self.export is None:
            raise RuntimeError("nbdkit.is_tls failed: there is no connection")
        return False

    def stdio_safe(self) -> bool:
        """Whether the plugin may use standard input: while it is configured."""
        return not self.configured

    def shutdown(self) -> None:
        """Asks the target to stop; returns at once."""
        self._stopping.set()
        if (stop := self.on_shutdown or _stop) is None:
            _log.warning("%s: asks for a shutdown, and nobody here can stop the target", self.name)
        else:
            stop()

    def disconnect(self, force: bool, /) -> None:
        """Nothing but a line in the log: a virtual machine cannot be parted from its drive."""
        _log.warning("%s: disconnect(%r) does nothing: a drive stays", self.name, bool(force))

    def nanosleep(self, seconds: int, nanoseconds: int, /) -> None:
        """Sleeps; `shutdown` ends it early, which is a RuntimeError and ESHUTDOWN."""
        if seconds < 0 or nanoseconds < 0 or seconds + nanoseconds // 10**9 > _INT_MAX:
            raise ValueError(f"nbdkit.nanosleep({seconds}, {nanoseconds}): use 0 to 2^31 - 1 seconds")
        if self._stopping.wait(seconds + nanoseconds / 1e9):
            errors.value = errno.ESHUTDOWN
            raise RuntimeError("nbdkit.nanosleep was ended by a shutdown")


def absolute_path(path: str, /) -> str:
    """`path` from the root; it need not exist, and is not simplified."""
    if not parsing.text(path, "absolute_path"):
        raise ValueError("cannot convert an empty path to an absolute path")
    return os.path.join(os.getcwd(), path)  # noqa: PTH109, PTH118 - a string in, a string out


def _no_peer(name: str) -> Callable[[], NoReturn]:
    """A function that fails as nbdkit's does where it does not know the client: commands come from a VM."""

    def unknown() -> NoReturn:
        raise RuntimeError(f"nbdkit.{name} failed: a drive does not know its client")

    unknown.__name__ = name
    return unknown
