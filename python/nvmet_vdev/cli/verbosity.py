"""`-v`: what the target logs, to standard error. Nothing is set up at import."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from nvmet_vdev import _nvmet

_F = TypeVar("_F", bound=Callable[..., Any])
_level = 0


def level() -> int:
    """How many times `-v` was given."""
    return _level


def option(command: _F) -> _F:
    """Adds `-v` to a command."""
    return click.option(
        "-v",
        "--verbose",
        count=True,
        expose_value=False,
        is_eager=True,
        callback=_set,
        help="Log to standard error: -v what happens, -vv every command.",
    )(command)


def _set(_ctx: click.Context, _param: click.Parameter, value: int) -> None:
    global _level
    _level = value
    _nvmet.init_logging(value)
