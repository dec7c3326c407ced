"""Options of a spec as arguments of a class or function: converted by its annotations, refused by name.

May know signatures; must not know backends.
"""

from __future__ import annotations

import difflib
import inspect
import math
import types
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from nvmet_vdev._nvmet import ConfigError
from nvmet_vdev.sizes import Size, parse_size

__all__ = ["bind", "takes"]

_SIZE = get_args(Size)[1]
_TRUE = ("true", "yes", "on", "1")
_FALSE = ("false", "no", "off", "0")
_BY_NAME = {"str": str, "int": int, "float": float, "bool": bool, "Path": Path, "Size": Size}
_KEYWORDS = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


def bind(
    factory: Callable[..., Any], given: Sequence[tuple[str, str]], *, what: str, leading: int = 0
) -> dict[str, Any]:
    """Keyword arguments for `factory` from options; the first `leading` parameters are somebody else's.

    Raises ConfigError, one line that begins with `what`, for an option that is unknown, given twice, missing,
    or not of the form that its annotation asks for.
    """
    signature = _signature(factory)
    if signature is None:
        return dict(given)
    known, anything = _parameters(signature, leading, what)
    arguments: dict[str, Any] = {}
    for name, value in given:
        if name in arguments:
            raise ConfigError(f"{what}: option '{name}' is given twice; leave one out")
        parameter = known.get(name, anything)
        if parameter is None:
            raise ConfigError(f"{what}: there is no option '{name}'{_suggest(name, list(known))}")
        arguments[name] = _convert(value, _wanted(parameter, factory), f"{what}: option {name}={value}")
    missing = [
        name
        for name, parameter in known.items()
        if parameter.default is inspect.Parameter.empty and name not in arguments
    ]
    if missing:
        form = "&".join(f"{name}={_example(_wanted(known[name], factory))}" for name in missing)
        listed = ", ".join(f"'{name}'" for name in missing)
        raise ConfigError(f"{what}: {listed} must be given; write {form}")
    return arguments


def takes(factory: Callable[..., Any], name: str, leading: int = 0) -> bool:
    """Whether `factory` has a parameter called `name` that an option could be for."""
    signature = _signature(factory)
    if signature is None:
        return False
    parameters = list(signature.parameters.values())[leading:]
    return any(one.name == name and one.kind in _KEYWORDS for one in parameters)


def _signature(factory: Callable[..., Any]) -> inspect.Signature | None:
    """None for what is written in C and says nothing of itself."""
    try:
        return inspect.signature(factory)
    except (TypeError, ValueError):
        return None


def _parameters(
    signature: inspect.Signature, leading: int, what: str
) -> tuple[dict[str, inspect.Parameter], inspect.Parameter | None]:
    """The parameters that options can be for, by name, and the one that takes any other (`**options`)."""
    parameters = list(signature.parameters.values())
    for _ in range(leading):
        if parameters and parameters[0].kind is inspect.Parameter.VAR_POSITIONAL:
            break
        if not parameters or parameters[0].kind not in (
            inspect.Parameter.POSITIONAL_ONLY,
            inspect.Parameter.POSITIONAL_OR_KEYWORD,
        ):
            raise ConfigError(f"{what}: its backend takes no first argument; give it one in its code")
        del parameters[0]
    for one in parameters:
        if one.kind is inspect.Parameter.POSITIONAL_ONLY and one.default is inspect.Parameter.empty:
            raise ConfigError(f"{what}: no option can be given for its argument '{one.name}'; take the / out")
    anything = next((one for one in parameters if one.kind is inspect.Parameter.VAR_KEYWORD), None)
    return {one.name: one for one in parameters if one.kind in _KEYWORDS}, anything


def _wanted(parameter: inspect.Parameter, factory: Callable[..., Any]) -> Any:
    """The type of a parameter: as annotated, else that of its default, else text."""
    annotation = parameter.annotation
    if annotation is inspect.Parameter.empty:
        default = parameter.default
        return type(default) if type(default) in (int, float, bool) else str
    if not isinstance(annotation, str):
        return annotation
    # One at a time: a name that only the type checker imports does not spoil the others.
    function = inspect.unwrap(factory)
    if inspect.isclass(function):
        function = function.__init__ if "__init__" in dir(function) else function
    scope: Mapping[str, Any] = getattr(function, "__globals__", {})
    try:
        return eval(annotation, dict(scope))  # noqa: S307 - the author's own code
    except Exception:
        return _BY_NAME.get(annotation.rpartition(".")[2], str)


def _convert(value: str, wanted: Any, what: str) -> Any:
    failures = []
    for one in _alternatives(wanted):
        try:
            return _converted(value, one)
        except (ValueError, ConfigError):
            failures.append(_form(one))
    raise ConfigError(f"{what} is not allowed; write {' or '.join(dict.fromkeys(failures))}")


def _alternatives(wanted: Any) -> list[Any]:
    """The types that a value may have, most exact first; text takes everything."""
    if get_origin(wanted) in (Union, types.UnionType):
        parts = [part for whole in get_args(wanted) for part in _alternatives(whole)]
        parts = [part for part in parts if part is not type(None)]
        return sorted(parts, key=lambda part: part in (str, Path)) or [str]
    return [wanted]


def _converted(value: str, wanted: Any) -> Any:
    if get_origin(wanted) is Annotated:
        base, *marks = get_args(wanted)
        return parse_size(value) if _SIZE in marks else _convert(value, base, "")
    if get_origin(wanted) is Literal:
        return _chosen(value, get_args(wanted))
    if wanted is bool:
        if value.lower() not in _TRUE + _FALSE:
            raise ValueError
        return value.lower() in _TRUE
    if wanted is int:
        return int(value, 0)
    if wanted is float:
        number = float(value)
        if not math.isfinite(number):
            raise ValueError
        return number
    if wanted is Path:
        return Path(value)
    # A type of the author's own takes text, and converts it itself.
    return value


def _chosen(value: str, choices: Sequence[Any]) -> Any:
    for choice in choices:
        if str(choice) == value:
            return choice
    raise ValueError


def _form(wanted: Any) -> str:
    if get_origin(wanted) is Annotated:
        base, *marks = get_args(wanted)
        return "a size such as 4096, 64M or 10G" if _SIZE in marks else _form(base)
    if get_origin(wanted) is Literal:
        return " or ".join(str(choice) for choice in get_args(wanted))
    forms = {bool: "true or false", int: "a whole number such as 4096", float: "a number such as 0.5"}
    return forms.get(wanted, "text")


def _example(wanted: Any) -> str:
    first = _alternatives(wanted)[0]
    if get_origin(first) is Annotated:
        return "64M" if _SIZE in get_args(first)[1:] else _example(get_args(first)[0])
    if get_origin(first) is Literal:
        return str(get_args(first)[0])
    return {bool: "true", int: "N", float: "0.5", Path: "FILE"}.get(first, "TEXT")


def _suggest(name: str, known: list[str]) -> str:
    if not known:
        return ", nor any other; leave it out"
    near = difflib.get_close_matches(name, known, n=1)
    there = f"there {'is' if len(known) == 1 else 'are'} {', '.join(known)}"
    return f"; did you mean '{near[0]}'? {there}" if near else f"; {there}"
