"""Options of a spec as arguments: converted by annotations, refused by name."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nvmet_vdev import ConfigError
from nvmet_vdev.arguments import bind
from nvmet_vdev.sizes import Size


def takes_all(  # type: ignore[no-untyped-def]
    text: str,
    count: int,
    share: float,
    flag: bool,
    size: Size,
    path: Path,
    mode: Literal["fast", "slow"],
    maybe: int | None = None,
    either: int | str = 0,
    later: Nowhere = None,  # type: ignore[name-defined] # noqa: F821
    bare=None,
    number=3,
    **more: float,
) -> None: ...


GIVEN = {
    "text": ("a b", "a b"),
    "count": ("0x10", 16),
    "share": ("1e-3", 0.001),
    "flag": ("off", False),
    "size": ("64M", 64 << 20),
    "path": ("/x", Path("/x")),
    "mode": ("slow", "slow"),
    "maybe": ("7", 7),
    "either": ("seven", "seven"),
    "later": ("x", "x"),
    "bare": ("1", "1"),
    "number": ("4", 4),
    "other": ("0.5", 0.5),
}


def test_options_have_the_types_of_the_annotations() -> None:
    found = bind(takes_all, [(name, text) for name, (text, _) in GIVEN.items()], what="it")
    assert found == {name: value for name, (_, value) in GIVEN.items()}
    assert {name: type(value) for name, value in found.items()} == {
        name: type(value) for name, (_, value) in GIVEN.items()
    }


@pytest.mark.parametrize(
    ("name", "value", "form"),
    [
        ("count", "1.5", "whole number"),
        ("count", "64M", "whole number"),
        ("share", "half", "number such as 0.5"),
        ("share", "nan", "number such as 0.5"),
        ("flag", "maybe", "true or false"),
        ("size", "10Q", "64M"),
        ("size", "-1", "64M"),
        ("mode", "Fast", "fast or slow"),
        ("maybe", "none", "whole number"),
        ("number", "x", "whole number"),
        ("other", "x", "number such as 0.5"),
    ],
)
def test_a_value_of_another_form_is_refused_with_option_value_and_form(
    name: str, value: str, form: str
) -> None:
    options = [(known, text) for known, (text, _) in GIVEN.items() if known != name]
    with pytest.raises(ConfigError, match=re.escape(f"it: option {name}={value} ")) as caught:
        bind(takes_all, [*options, (name, value)], what="it")
    assert form in str(caught.value)


def few(size: Size, *, mode: Literal["fast", "slow"], name: str = "") -> None: ...


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ([], ("'size', 'mode' must be given", "size=64M&mode=fast")),
        ([("size", "1M")], ("'mode' must be given", "mode=fast")),
        ([("sise", "1M")], ("no option 'sise'", "'size'?", "size, mode, name")),
        ([("xyz", "1")], ("no option 'xyz'", "size, mode, name")),
        ([("size", "1M"), ("size", "2M")], ("'size' is given twice",)),
    ],
)
def test_unknown_missing_and_repeated_options_are_refused(
    options: list[tuple[str, str]], says: tuple[str, ...]
) -> None:
    with pytest.raises(ConfigError) as caught:
        bind(few, options, what="it")
    for word in says:
        assert word in str(caught.value)


def test_what_takes_no_option_says_so() -> None:
    with pytest.raises(ConfigError, match="no option 'a', nor any other"):
        bind(lambda: None, [("a", "1")], what="it")


@settings(deadline=None, database=None)
@given(
    st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.booleans(), st.integers(0, 2**63 - 1)
)
def test_any_value_that_python_writes_is_read_as_the_same(
    count: int, share: float, flag: bool, size: int
) -> None:
    def some(count: int, share: float, flag: bool, size: Size) -> None: ...

    values = {"count": count, "share": share, "flag": flag, "size": size}
    assert bind(some, [(name, str(value)) for name, value in values.items()], what="it") == values
