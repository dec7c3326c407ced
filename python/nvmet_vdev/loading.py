"""Other people's modules: importing them, finding a name in them, and saying in one line why that failed.

A module is somebody's program: it may raise anything, SystemExit included, while it is imported. All of it
becomes a ConfigError that names the file and the line.
"""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import importlib
import importlib.util
import inspect
import os
import sys
import sysconfig
import traceback
from collections.abc import Iterator
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType

from nvmet_vdev._nvmet import ConfigError
from nvmet_vdev.errors import one_line

__all__ = ["explain", "find", "guarded", "import_file", "import_module", "is_file", "load"]

_CHECK_NAME = "looked for in the current directory and where packages are; check the name, or write ./FILE.py"
_OURS = Path(__file__).parent
_LIBRARIES = tuple({sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")})


def load(target: str) -> object:
    """What `MODULE:NAME` or `./FILE.py:NAME` stands for; NAME may have dots.

    Raises ConfigError, one line, if the module cannot be imported or has no such name.
    """
    module, _, name = target.rpartition(":")
    what = f"python:{target}"
    if is_file(module):
        return find(import_file(Path(module), what), name, what)
    _look_in_current_directory()
    return find(import_module(module, what), name, what)


def is_file(module: str) -> bool:
    """Whether the first part of a target is a file, not a module that is looked for."""
    return "/" in module or module.endswith(".py")


def import_module(name: str, what: str, advice: str = _CHECK_NAME) -> ModuleType:
    """Imports the module `name`.

    ConfigError if that fails: `what` begins it, `advice` is for a module that is missing.
    """
    if not all(name.split(".")):
        raise ConfigError(f"{what}: '{name}' is no name of a module; a file is written ./FILE.py")
    importlib.invalidate_caches()
    with guarded(f"{what}: cannot be imported", (name, advice)):
        return importlib.import_module(name)


def import_file(path: Path, what: str) -> ModuleType:
    """Imports a file as a module of its own, once for each file; modules beside it can be imported by it."""
    with guarded(f"{what}: cannot be read"):
        if not path.is_file():
            why = "is not a file" if path.exists() else "no such file"
            raise ConfigError(f"{what}: {path}: {why}; check the path")
        place = path.resolve()
    digest = hashlib.blake2b(os.fsencode(place), digest_size=6).hexdigest()
    # Only the place makes the name: pickles of its classes can be read at the next start.
    name = f"nvmet_vdev_file_{digest}"
    if (there := sys.modules.get(name)) is not None:
        return there
    found = importlib.util.spec_from_file_location(name, place, loader=_Uncached(name, str(place)))
    assert found is not None  # noqa: S101 - a loader was given
    assert found.loader is not None  # noqa: S101
    # Behind all others: a file there called like one of the standard library must not take its place.
    if str(place.parent) not in sys.path:
        sys.path.append(str(place.parent))
    module = importlib.util.module_from_spec(found)
    sys.modules[name] = module
    try:
        with guarded(f"{what}: cannot be imported"):
            found.loader.exec_module(module)
    except ConfigError:
        del sys.modules[name]
        raise
    return module


def find(module: ModuleType, name: str, what: str) -> object:
    """The object called `name`, or `Outer.inner`, in `module`."""
    found: object = module
    for part in name.split("."):
        with guarded(f"{what}: '{part}' cannot be looked up"):
            try:
                found = getattr(found, part)
            except AttributeError:
                where = getattr(module, "__file__", None) or module.__name__
                raise ConfigError(f"{what}: {where} has no '{part}'{_instead(found, part)}") from None
    return found


@contextlib.contextmanager
def guarded(what: str, missing: tuple[str, str] | None = None) -> Iterator[None]:
    """Turns whatever the body raises into a ConfigError: `what`, and where and why.

    `missing` is the module that is being imported, and what to do if there is none.
    """
    try:
        yield
    except ConfigError:
        raise
    except BaseException as error:
        raise ConfigError(f"{what}: {explain(error, missing)}") from error


def explain(error: BaseException, missing: tuple[str, str] | None = None) -> str:
    """What somebody's code has raised, where, and what to do: the end of a line. `missing`: see `guarded`."""
    if isinstance(error, ConfigError):
        return _text(error)
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}: {type(error).__name__}: {error.msg}; correct it there"
    where = _where(error)
    if isinstance(error, ModuleNotFoundError) and error.name:
        if missing is not None and f"{missing[0]}.".startswith(f"{error.name}."):
            return f"there is no module '{error.name}'; {missing[1]}"
        return f"{where}there is no module '{error.name}'; install it, or correct the import"
    text = f"{where}{type(error).__name__}: {_text(error)}".rstrip(": ")
    if isinstance(error, SystemExit):
        return f"{text}; a backend must not end the program"
    return f"{text}; correct it there" if where else text


def _text(error: BaseException) -> str:
    try:
        return one_line(str(error))
    except Exception:
        return "(its message cannot be shown)"


def _where(error: BaseException) -> str:
    """`FILE:LINE: ` of the author's own line that failed; that of a library where there is no other."""
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith("<frozen") and Path(frame.filename).parent != _OURS
    ]
    own = [frame for frame in frames if not frame.filename.startswith(_LIBRARIES)]
    return next((f"{frame.filename}:{frame.lineno}: " for frame in reversed(own or frames)), "")


def _instead(holder: object, name: str) -> str:
    """What the author may have meant: a name like it, else the backends that are there."""
    names = [known for known in dir(holder) if not known.startswith("_")]
    near = difflib.get_close_matches(name, names, n=1)
    if near:
        return f"; did you mean '{near[0]}'?"
    own = getattr(holder, "__name__", None)
    classes = [
        known
        for known in names
        if inspect.isclass(one := getattr(holder, known, None))
        and one.__module__ == own
        and (hasattr(one, "read") or hasattr(one, "submit"))
    ]
    return f"; its backends are {', '.join(classes)}" if classes else "; check the name"


def _look_in_current_directory() -> None:
    """As `python -m` does, unless Python was told not to (-P, PYTHONSAFEPATH)."""
    try:
        here = str(Path.cwd())
    except OSError:
        # It was removed; what is installed can be found all the same.
        return
    if not sys.flags.safe_path and here not in sys.path and "" not in sys.path:
        sys.path.insert(0, here)


class _Uncached(SourceFileLoader):
    """Leaves no `__pycache__` beside the file, as for a script."""

    def set_data(self, path: str, data: object, *, _mode: int = 0o666) -> None:  # noqa: ARG002
        return
