"""The words for a disk: what is written on the command line, and to `Target.add_namespace`.

::

    PATH, ram:SIZE, null:SIZE                   a file or block device, memory, nothing
    python:MODULE:NAME?key=value&key=value      a class, function or object of a module
    python:./FILE.py:NAME?key=value             the same, of a file
    nbdkit:PLUGIN.py?key=value                  a Python plugin for nbdkit
    NAME:REST?key=value                         a backend that an installed package brings
    NAME?key=value:SPEC                         a filter: what it does stands before the colon,
                                                what it does it to behind it

A word before the first ``:`` or ``?`` counts only if it is known: ``ram``, ``null``, ``python``, ``nbdkit``,
and the entry points that are installed. Anything else is a path, and what has a ``/`` before the first of
them always is: ``./log:1`` is a file. The file system is not asked, so a spec means the same in every
directory.

Options are percent-decoded (``%26`` is ``&``). A leaf's may stand before the colon as well, as a filter's do;
then all that follows the colon is taken as it stands, question marks included:
``fsspec?:https://host/image.raw?version=2``.

`parse` knows the grammar; `nvmet_vdev.spec` makes backends of it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import quote, unquote

from nvmet_vdev._nvmet import ConfigError
from nvmet_vdev.errors import one_line
from nvmet_vdev.registry import installed, kind_of

__all__ = ["Kinds", "Options", "Spec", "as_spec", "is_native", "parse", "schemes"]

Options = tuple[tuple[str, str], ...]
"""Names and values as written, decoded."""
Kinds = Callable[[str], Literal["leaf", "filter"] | None]
"""What a word before a colon is; None: no scheme."""

MAX_FILTERS = 32
MEMORY = ("ram", "null")
BUILT_IN = ("python", "nbdkit")
TRANSPARENT = frozenset({"fault", "log", "rate"})
"""Our own filters that keep nothing: what is on the drive below is what is on theirs."""

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+._-]*)([:?])")


@dataclass(frozen=True)
class Spec:
    """A spec, taken apart; `str()` of it is a spec again, and `parse` of that is equal."""

    scheme: str
    """`ram`, `null`, `python`, `nbdkit`, the name of an entry point; empty for a path."""
    rest: str = ""
    """What a leaf is made of: a path, a size, `module:Class`, a URL. Empty for a filter."""
    options: Options = ()
    inner: Spec | None = None
    """What a filter stands before."""

    @property
    def leaf(self) -> Spec:
        """The spec behind all filters; without filters the spec itself."""
        spec = self
        while spec.inner is not None:
            spec = spec.inner
        return spec

    @property
    def native(self) -> bool:
        """Whether it is served without Python: a path, `ram:` or `null:`."""
        return self.inner is None and (not self.scheme or self.scheme in MEMORY)

    @property
    def memory(self) -> bool:
        """Whether it is `ram:` or `null:`."""
        return self.native and bool(self.scheme)

    @property
    def path(self) -> Path | None:
        """The image file or block device that it is, or that its filters stand before."""
        leaf = self.leaf
        return None if leaf.scheme else Path(leaf.rest)

    @property
    def content(self) -> Spec:
        """The spec without the filters that only pass through what lies below."""
        spec = self
        while spec.inner is not None and spec.scheme in TRANSPARENT:
            spec = spec.inner
        return spec

    def __str__(self) -> str:
        if not self.scheme:
            return self.rest
        options = "&".join(f"{quote_option(name)}={quote_option(value)}" for name, value in self.options)
        if self.inner is not None:
            return f"{self.scheme}{options and '?' + options}:{self.inner}"
        if self.scheme not in MEMORY and "?" in self.rest:
            return f"{self.scheme}?{options}:{self.rest}"
        return f"{self.scheme}:{self.rest}{options and '?' + options}"


def parse(text: str, kinds: Kinds = kind_of) -> Spec:
    """Takes `text` apart. `kinds` says which words are schemes: by default what is installed.

    Raises ConfigError, one line, if no spec is written like that. Whether the file, module or class exists,
    and whether it has the options, is not asked here.
    """
    filters: list[tuple[str, Options]] = []
    tail = _printable(text)
    while True:
        scheme, separator, behind = _split(tail)
        kind = "leaf" if scheme in MEMORY + BUILT_IN else kinds(scheme) if scheme else None
        if kind is None or (scheme in MEMORY and separator != ":"):
            if not tail:
                raise _refusal(
                    f"{text!r} names no disk; write a path, ram:SIZE, null:SIZE, python:MODULE:NAME, "
                    "or one that 'nvmet-vdev backends' lists"
                )
            leaf = Spec("", tail)
            break
        if kind == "leaf":
            leaf = _leaf(text, scheme, separator, behind)
            break
        written, colon, inner = behind.partition(":") if separator == "?" else ("", ":", behind)
        if not colon or not inner:
            start = f"{scheme}{separator}{written}" if separator == "?" else scheme
            raise _refusal(
                f"{text}: {scheme} is a filter; write what it stands before behind a colon, "
                f"such as {start.rstrip('?')}:disk.img"
            )
        filters.append((scheme, _options(text, written)))
        if len(filters) > MAX_FILTERS:
            raise _refusal(f"{text[:40]}…: more than {MAX_FILTERS} filters; leave some out")
        tail = inner
    spec = leaf
    for scheme, options in reversed(filters):
        spec = Spec(scheme, options=options, inner=spec)
    return spec


def as_spec(disk: str | Spec) -> Spec:
    """`disk`, taken apart if it is text."""
    return parse(disk) if isinstance(disk, str) else disk


def is_native(text: str) -> bool:
    """Whether `text` is a path, `ram:SIZE` or `null:SIZE`, which are served without Python."""
    return parse(text).native


def schemes() -> list[str]:
    """What may stand before a colon, colon included, whether it works or not."""
    return [f"{name}:" for name in dict.fromkeys([*MEMORY, *BUILT_IN, *installed()])]


def quote_option(text: str) -> str:
    """`text` as a name or value of an option."""
    return quote(text, safe="/,@", errors="surrogateescape")


def _refusal(message: str) -> ConfigError:
    return ConfigError(one_line(message))


def _printable(text: str) -> str:
    """`text` with what is no UTF-8 in the form that the file system's names have."""
    if "\0" in text:
        raise _refusal(f"{text!r}: a NUL character cannot be part of a disk's name; leave it out")
    try:
        return text.encode(errors="surrogateescape").decode(errors="surrogateescape")
    except UnicodeEncodeError:
        raise _refusal(f"{text!r}: is no text that a file name can have; write it in UTF-8") from None


def _split(text: str) -> tuple[str, str, str]:
    """The word before the first `:` or `?`, which of them, and what comes behind it."""
    found = _SCHEME.match(text)
    return (found[1], found[2], text[found.end() :]) if found else ("", "", text)


def _leaf(text: str, scheme: str, separator: str, behind: str) -> Spec:
    if scheme in MEMORY:
        return Spec(scheme, behind)
    if separator == "?":
        written, _, rest = behind.partition(":")
    else:
        rest, _, written = behind.partition("?")
    spec = Spec(scheme, rest, _options(text, written))
    if scheme == "python" and not all(rest.rpartition(":")[::2]):
        raise _refusal(
            f"{text}: python: takes a module or a file and a name in it; "
            "write python:MODULE:NAME or python:./FILE.py:NAME"
        )
    if scheme == "nbdkit" and not rest:
        raise _refusal(f"{text}: nbdkit: takes a plugin's file; write nbdkit:PLUGIN.py?key=value")
    return spec


def _options(text: str, written: str) -> Options:
    found: list[tuple[str, str]] = []
    for one in written.split("&") if written else ():
        name, equals, value = one.partition("=")
        if not name or not equals:
            lacks = "value" if name else "name"
            raise _refusal(f"{text}: option '{one}' has no {lacks}; write name=value")
        found.append((_decode(name), _decode(value)))
    return tuple(found)


def _decode(text: str) -> str:
    return _printable(unquote(text, errors="surrogateescape"))
