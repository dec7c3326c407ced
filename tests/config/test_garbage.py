"""Whatever stands in a file, it is a configuration or one line of error: no traceback, no half of it."""

from __future__ import annotations

import copy
import json
from typing import Any

import tomli_w
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nvmet_vdev import ConfigError, config
from nvmet_vdev.config import model
from nvmet_vdev.config.fields import fields
from tests.config import nvmetcli, page

SOME = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))

WORDS = st.sampled_from(
    [
        "",
        "0",
        "1",
        "-1",
        "0x",
        "0x10",
        "true",
        "vfio-user",
        "optimized",
        "(null)",
        "ram:1M",
        "nqn.",
        "a\nb",
        "\0",
    ]
    + [
        field.name
        for node in (model.Subsystem, model.Namespace, model.Port)
        for field in fields(node).values()
    ]
)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([0, 1, 1024, 1025, 1 << 63, 10**30])
    | st.floats(allow_nan=False, allow_infinity=False)
    | WORDS
    | st.text(max_size=5)
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=5,
)


def places(document: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """All places in `document`."""
    found = [path]
    if isinstance(document, dict | list):
        inner = document.items() if isinstance(document, dict) else enumerate(document)
        for key, value in inner:
            found += places(value, (*path, key))
    return found


def spoiled(document: Any, draw: st.DrawFn) -> Any:
    """`document` with something else in one or two places."""
    document = copy.deepcopy(document)
    for _ in range(draw(st.integers(1, 2))):
        path = draw(st.sampled_from(places(document)))
        value = draw(VALUES)
        if not path:
            return value
        inner = document
        for step in path[:-1]:
            inner = inner[step]
        if isinstance(inner, dict) and draw(st.booleans()):
            inner[draw(WORDS)] = inner.pop(path[-1])
        else:
            inner[path[-1]] = value
    return document


@st.composite
def documents(draw: st.DrawFn) -> Any:
    return spoiled(nvmetcli.moved(), draw)


@st.composite
def trees(draw: st.DrawFn) -> Any:
    return spoiled(_example(), draw)


def _example() -> Any:
    import tomllib

    return tomllib.loads(page.example("everything.toml"))


def loads_or_says_why(text: str, form: config.Format) -> None:
    try:
        loaded = config.loads(text, form, name="file")
    except ConfigError as error:
        line = str(error)
        assert line.startswith("file: ")
        assert line.isprintable()
        assert len(line) < 2000
        return
    for again in ("toml", "json"):
        form = "toml" if again == "toml" else "json"
        assert config.loads(config.dumps(loaded.config, form), form).config == loaded.config


@SOME
@given(documents())
def test_json_that_was_spoiled(document: Any) -> None:
    loads_or_says_why(json.dumps(document), "json")


@SOME
@given(trees())
def test_toml_that_was_spoiled(tree: Any) -> None:
    try:
        text = tomli_w.dumps(tree)
    except (TypeError, ValueError, AttributeError):
        # TOML has no null, and is a table.
        return
    loads_or_says_why(text, "toml")


@SOME
@given(st.text(max_size=40))
def test_text_of_any_kind(text: str) -> None:
    loads_or_says_why(text, "json")
    loads_or_says_why(text, "toml")
