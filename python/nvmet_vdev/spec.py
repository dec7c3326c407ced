"""From a spec to a backend: modules are imported, classes called with their options, filters put on top.

What `open_backend` makes is not open yet; `open_storage` has it opened and is what a namespace is added with.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nvmet_vdev import loading, registry
from nvmet_vdev._nvmet import ConfigError, Storage, open_disk
from nvmet_vdev.arguments import bind, takes
from nvmet_vdev.grammar import Spec, as_spec, is_native, parse
from nvmet_vdev.sizes import parse_size

__all__ = ["Spec", "is_native", "open_backend", "open_storage", "parse"]


def open_storage(
    spec: str | Spec,
    *,
    block_size: int | None = None,
    read_only: bool = False,
    create: int | None = None,
    iopoll: bool = False,
    fixed_buffers: bool = True,
) -> tuple[Storage, int]:
    """What `spec` describes, open, and the block size of a namespace of it.

    `block_size` is 512 or 4096 bytes; None: what a backend in Python says, else 512. With `create` an image
    file that does not exist is made, that many bytes large; served natively, it must not exist. `iopoll` and
    `fixed_buffers` are for files that are served natively.

    Raises ConfigError, one line, if it cannot be opened.
    """
    found = as_spec(spec)
    if found.native:
        size = block_size if block_size is not None else 512
        native = open_disk(
            str(found),
            block_size=size,
            read_only=read_only,
            create=create,
            # Memory is done at once: there is nothing to wait for.
            iopoll=iopoll and not found.memory,
            fixed_buffers=fixed_buffers,
        )
        return native, size
    backend = open_backend(found, read_only=read_only, create=create)
    # Imported late: most drives are files.
    from nvmet_vdev import bridge

    storage = bridge.open_storage(backend, name=str(found), read_only=read_only)
    own: int = getattr(backend, "block_size", None) or 512
    return storage, block_size if block_size is not None else own


def open_backend(spec: str | Spec, *, read_only: bool = False, create: int | None = None) -> Any:
    """The backend that `spec` describes; its `open` has not been called.

    A path or `ram:SIZE`, as filters have below them, is a `File` or `Ram` of `nvmet_vdev.backends`. `create`:
    such a file is made when it is opened, that many bytes large. `read_only` is handed to every part of the
    chain that has a parameter of that name; that nothing is written is up to the one who serves the backend.
    Below a filter that says `opens_read_only` all is read-only and nothing is created.

    Raises ConfigError, one line that names the part of the spec, the file and the line, if there is no such
    backend, its options do not fit, or its code raises, be it SystemExit.
    """
    found = as_spec(spec)
    chain: list[tuple[Spec, Callable[..., Any], bool]] = []
    while found.inner is not None:
        factory = registry.load(found.scheme)
        chain.append((found, factory, read_only))
        if getattr(factory, "opens_read_only", False):
            read_only, create = True, None
        found = found.inner
    backend = _leaf(found, chain[-1][0].scheme if chain else "", read_only, create)
    for one, factory, only in reversed(chain):
        backend = _make(factory, one, only, backend)
    return backend


def _leaf(spec: Spec, above: str, read_only: bool, create: int | None) -> Any:
    match spec.scheme:
        case "":
            return _file(spec, above, read_only, create)
        case "ram":
            from nvmet_vdev.backends import Ram

            return Ram(_size(spec))
        case "null":
            raise ConfigError(f"{spec}: has no data that a filter could be put on; use ram:{spec.rest}")
        case "python":
            thing = loading.load(spec.rest)
            if getattr(thing, "wraps", False) is True:
                raise ConfigError(
                    f"{spec}: is a filter, which stands before another drive; "
                    "name a function that puts it on one, or declare it as an entry point"
                )
            return _make(thing, spec, read_only)
        case "nbdkit":
            from nvmet_vdev.nbdkit import open_plugin

            with loading.guarded(f"nbdkit:{spec.rest}: cannot be loaded"):
                return open_plugin(spec.rest, list(spec.options), read_only=read_only)
        case name:
            return _make(registry.load(name), spec, read_only, *([spec.rest] if spec.rest else []))


def _file(spec: Spec, above: str, read_only: bool, create: int | None) -> Any:
    path = spec.path
    assert path is not None  # noqa: S101 - the caller looked
    missing = _missing(path)
    if missing and create is None and above and "?" in spec.rest:
        start, _, options = spec.rest.partition("?")
        raise ConfigError(
            f"{spec.rest}: no such file; the options of {above} stand before its colon: "
            f"{above}?{options}:{start}"
        )
    from nvmet_vdev.backends import File

    return File(path, read_only=read_only, create=create if missing else None)


def _missing(path: Path) -> bool:
    """Whether there is certainly nothing; what else is wrong is found out by opening it."""
    try:
        path.stat()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return False


def _size(spec: Spec) -> int:
    try:
        return parse_size(spec.rest)
    except ConfigError as error:
        raise ConfigError(f"{spec}: {error}") from None


def _make(thing: Any, spec: Spec, read_only: bool, *leading: Any) -> Any:
    """A backend of a class or function, called with the spec's options; or the object itself if it is one."""
    what = f"python:{spec.rest}" if spec.scheme == "python" else spec.scheme
    if not inspect.isclass(thing) and _is_backend(thing):
        if spec.options:
            raise ConfigError(f"{what}: is an object that is made already; leave its options out")
        return thing
    if inspect.ismodule(thing) or not callable(thing):
        raise ConfigError(
            f"{what}: {_article(thing)} is no backend; name a class, or a function that returns a backend"
        )
    options = bind(thing, spec.options, what=what, leading=len(leading))
    if read_only and "read_only" not in options and takes(thing, "read_only", len(leading)):
        options["read_only"] = True
    with loading.guarded(f"{what}: {getattr(thing, '__name__', 'it')}()"):
        made = thing(*leading, **options)
    if inspect.iscoroutine(made):
        made.close()
        raise ConfigError(f"{what}: is async, and a backend is made by a plain function; take the async out")
    if not _is_backend(made):
        kind = f"its class {type(made).__name__}" if made is not None else "what it returns, None,"
        raise ConfigError(
            f"{what}: {kind} has no method read(offset, buf), so it is no backend; see nvmet_vdev.Backend"
        )
    return made


def _is_backend(thing: object) -> bool:
    return any(callable(getattr(thing, name, None)) for name in ("read", "submit"))


def _article(thing: object) -> str:
    return "a module" if inspect.ismodule(thing) else f"{type(thing).__name__} {thing!r:.40}"
