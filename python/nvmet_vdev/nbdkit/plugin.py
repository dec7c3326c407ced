"""A plugin's code: how it is found and run, and how its callbacks are called.

nbdkit runs a script as the program `__main__` of an interpreter of its own. Here many plugins share one, so
each is run in a module object of its own, named `__main__` as it expects, in which `import nbdkit` gives that
plugin's module.
"""

from __future__ import annotations

import builtins
import contextlib
import errno
import importlib.util
import io
import logging
import os
import platform
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any, Final

from nvmet_vdev._nvmet import ConfigError
from nvmet_vdev.errors import one_line
from nvmet_vdev.nbdkit import constants
from nvmet_vdev.nbdkit.module import Server, errors

_log = logging.getLogger(__name__)

_REQUIRED: Final = ("open", "get_size", "pread")
_CALLBACKS: Final = (
    *("dump_plugin", "config", "config_complete", "thread_model", "get_ready", "after_fork", "cleanup"),
    *("preconnect", "list_exports", "default_export", "open", "close", "export_description", "get_size"),
    *("block_size", "can_write", "can_flush", "is_rotational", "can_trim", "can_zero", "can_fast_zero"),
    *("can_extents", "can_fua", "can_multi_conn", "can_cache"),
    *("pread", "pwrite", "flush", "trim", "zero", "extents", "cache"),
)

#: `sys.modules` is everybody's; one plugin is run at a time.
_loading = threading.RLock()


class MissingCallbackError(Exception):
    """A callback that the plugin says it has, and does not."""


class Plugin:
    """A plugin that was loaded: its callbacks, by name.

    Raises ConfigError if the code cannot be found or run, lacks a required callback, or asks for an API
    version that does not exist. `target` is a file's path, or the name of a module that can be imported.
    """

    def __init__(self, target: str) -> None:
        self.path, code, package = _find(target)
        self.name = os.path.basename(self.path)  # noqa: PTH119 - it is only shown
        self.server = Server(self.name)
        self._module = ModuleType("__main__")
        vars(self._module).update(
            __file__=self.path, __package__=package, __builtins__=_builtins_with(self.server.module)
        )
        self._logged: set[tuple[str, str]] = set()
        self._run(code)
        for name in _REQUIRED:
            if not self.has(name):
                raise ConfigError(
                    f"{self.path}: no function {name}(); an nbdkit plugin needs {', '.join(_REQUIRED)}"
                )
        self.api_version = self._api_version()

    def _run(self, code: CodeType) -> None:
        with _loading, _as_main(self._module):
            # Helpers that the plugin imports may import it too, now or later.
            sys.modules["nbdkit"] = self.server.module
            try:
                exec(code, vars(self._module))  # noqa: S102 - running it is what was asked for
            except KeyboardInterrupt:
                raise
            except BaseException as error:
                _log.debug("%s:\n%s", self.path, "".join(traceback.format_exception(error)))
                raise ConfigError(f"{_where(error, self.path)}: {_what(error)}") from error

    def _api_version(self) -> int:
        version = getattr(self._module, "API_VERSION", 1)
        if not isinstance(version, int) or not 1 <= version <= constants.MAX_API_VERSION:
            raise ConfigError(
                f"{self.path}: API_VERSION is {version!r}; use 1 to {constants.MAX_API_VERSION}"
            )
        return int(version)

    def has(self, name: str) -> bool:
        """Whether the plugin defines the callback `name`."""
        return callable(getattr(self._module, name, None))

    def callback(self, name: str) -> Callable[..., Any]:
        """The callback `name`, looked up at every call as nbdkit does: a plugin may replace its own."""
        function: Callable[..., Any] | None = getattr(self._module, name, None)
        if not callable(function):
            raise MissingCallbackError(f"{name}() is not implemented")
        return function

    def ask(self, name: str, *arguments: object, default: Any = None) -> Any:
        """What a callback outside of requests returns, or `default` if it is not defined.

        ConfigError with file and function if it raises.
        """
        if not self.has(name):
            return default
        errors.value = 0
        try:
            return self.callback(name)(*arguments)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            _log.debug("%s: %s:\n%s", self.path, name, "".join(traceback.format_exception(error)))
            raise self.refusal(name, _what(error)) from error

    def refusal(self, name: str, what: str) -> ConfigError:
        """The error for a drive that cannot be: file, function, and what is wrong with it."""
        return ConfigError(f"{self.path}: {name}(): {one_line(what)}")

    def configure(self, options: Sequence[tuple[str, str]]) -> int:
        """Hands over the configuration, and returns the thread model; as nbdkit does before it forks."""
        if options and not self.has("config"):
            raise ConfigError(
                f"{self.path}: takes no options (it has no config()); leave out {options[0][0]}="
            )
        for key, value in options:
            self.ask("config", key, value)
        self.ask("config_complete")
        self.server.configured = True
        return self.thread_model()

    def thread_model(self) -> int:
        """One of nbdkit's THREAD_MODEL constants."""
        model = self.ask("thread_model", default=constants.THREAD_MODEL_SERIALIZE_ALL_REQUESTS)
        if not isinstance(model, int) or not 0 <= model < len(constants.THREAD_MODELS):
            raise self.refusal("thread_model", f"returned {model!r}; use one of nbdkit.THREAD_MODEL_*")
        return model

    def failed(self, name: str, error: BaseException) -> OSError:
        """Logs what a request's callback raised, once for each place, and returns the request's error.

        That is what `nbdkit.set_error` said, or EIO: nbdkit does not ask an exception for its errno.
        """
        place = (name, _where(error, self.path))
        if place not in self._logged:
            self._logged.add(place)
            missing = isinstance(error, MissingCallbackError)
            lines = [str(error)] if missing else ["\n", *traceback.format_exception(error)]
            _log.error("%s: %s: error: %s", self.name, name, "".join(lines).rstrip())
        number = errors.value or errno.EIO
        return OSError(number, os.strerror(number))


def dump(target: str, options: Sequence[tuple[str, str]] = ()) -> str:
    """What `target` has, as the ``key=value`` lines of ``nbdkit --dump-plugin``.

    What its `dump_plugin` prints comes last. `config` gets `options`; nothing is opened. ConfigError if the
    plugin cannot be loaded.
    """
    plugin = Plugin(target)
    for key, value in options:
        plugin.ask("config", key, value)
    lines = [
        f"path={os.path.realpath(plugin.path)}",
        f"name={Path(plugin.name).stem}",
        f"api_version={plugin.api_version}",
        f"thread_model={constants.THREAD_MODELS[plugin.thread_model()]}",
        *(f"has_{name}=1" for name in _CALLBACKS if plugin.has(name)),
        f"python_version={platform.python_version()}",
        f"nbdkit_python_maximum_api_version={constants.MAX_API_VERSION}",
    ]
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        plugin.ask("dump_plugin")
    return "\n".join(lines) + "\n" + printed.getvalue()


def _find(target: str) -> tuple[str, CodeType, str | None]:
    """The path and the code of `target`, and the package that its relative imports start from."""
    if os.sep in target or target.endswith(".py") or Path(target).exists():
        try:
            source = Path(target).read_bytes()
        except OSError as error:
            raise ConfigError(f"{target}: cannot read the plugin: {error.strerror}") from error
        try:
            return target, compile(source, target, "exec", dont_inherit=True), None
        except (SyntaxError, ValueError) as error:
            raise ConfigError(f"{_where(error, target)}: {_what(error)}") from error
    try:
        spec = importlib.util.find_spec(target)
        code = getattr(spec.loader, "get_code", lambda _: None)(target) if spec is not None else None
    except (Exception, SystemExit) as error:
        raise ConfigError(f"nbdkit plugin {target}: {_what(error)}") from error
    if spec is None or code is None or spec.origin is None:
        raise ConfigError(f"nbdkit plugin {target}: no such file, and no module of that name")
    return spec.origin, code, spec.parent


def _builtins_with(nbdkit: ModuleType) -> dict[str, Any]:
    """The builtins for a plugin, in which `import nbdkit` gives `nbdkit`."""

    def import_(
        name: str, scope: Any = None, local: Any = None, names: Any = (), level: int = 0
    ) -> ModuleType:
        if name == "nbdkit" and level == 0:
            return nbdkit
        return builtins.__import__(name, scope, local, names, level)

    return {**vars(builtins), "__import__": import_}


@contextlib.contextmanager
def _as_main(module: ModuleType) -> Iterator[None]:
    """While it runs, a plugin finds itself as `__main__`: dataclasses look there, and runpy does the same."""
    before = sys.modules["__main__"]
    sys.modules["__main__"] = module
    try:
        yield
    finally:
        sys.modules["__main__"] = before


def _where(error: BaseException, path: str) -> str:
    """`path`, with the line of it that `error` came from last, if one is known."""
    if isinstance(error, SyntaxError) and error.filename == path:
        return f"{path}:{error.lineno}"
    lines = [
        line for frame, line in traceback.walk_tb(error.__traceback__) if frame.f_code.co_filename == path
    ]
    return f"{path}:{lines[-1]}" if lines else path


def _what(error: BaseException) -> str:
    """An exception in one line."""
    if isinstance(error, SystemExit):
        return one_line(f"it exits: {error}")
    return one_line(f"{type(error).__name__}: {error}" if str(error) else type(error).__name__)
