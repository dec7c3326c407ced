"""Specs: their grammar, and the names that are made of them."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nvmet_vdev import ConfigError, identity, sockets
from nvmet_vdev.grammar import MAX_FILTERS, Spec, parse
from nvmet_vdev.spec import is_native

KINDS: dict[str, Literal["leaf", "filter"]] = {
    "fault": "filter",
    "overlay": "filter",
    "log": "filter",
    "fsspec": "leaf",
}

unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow], database=None)
"""What is said of any text does not depend on how busy the machine is."""


def taken_apart(text: str) -> Spec:
    return parse(text, KINDS.get)


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("disk.img", Spec("", "disk.img")),
        ("a:b", Spec("", "a:b")),
        ("a?b=c", Spec("", "a?b=c")),
        ("./ram:1G", Spec("", "./ram:1G")),
        ("./python:m:C", Spec("", "./python:m:C")),
        ("/dev/disk/by-path/pci-0000:00:1f.2", Spec("", "/dev/disk/by-path/pci-0000:00:1f.2")),
        ("fault", Spec("", "fault")),
        ("ram", Spec("", "ram")),
        ("ram?1G", Spec("", "ram?1G")),
        ("RAM:1G", Spec("", "RAM:1G")),
        ("ram:1G", Spec("ram", "1G")),
        ("null:1T", Spec("null", "1T")),
        ("python:m:C", Spec("python", "m:C")),
        ("python:./a:b.py:C", Spec("python", "./a:b.py:C")),
        (
            "python:m:C?a=1&b=x%26y&url=s3://b/k",
            Spec("python", "m:C", (("a", "1"), ("b", "x&y"), ("url", "s3://b/k"))),
        ),
        ("python?a=1:./a?b.py:C", Spec("python", "./a?b.py:C", (("a", "1"),))),
        ("nbdkit:p.py?a=1&a=2", Spec("nbdkit", "p.py", (("a", "1"), ("a", "2")))),
        ("fsspec:https://host/i.raw?block=1M", Spec("fsspec", "https://host/i.raw", (("block", "1M"),))),
        ("fsspec?:https://host/i.raw?v=2", Spec("fsspec", "https://host/i.raw?v=2")),
        ("fault:disk.img", Spec("fault", inner=Spec("", "disk.img"))),
        ("fault:a:b", Spec("fault", inner=Spec("", "a:b"))),
        ("fault:disk.img?x", Spec("fault", inner=Spec("", "disk.img?x"))),
        (
            "overlay?file=cow.img:fault?read=0.01&lba=0-7:python:m:C?a=b",
            Spec(
                "overlay",
                options=(("file", "cow.img"),),
                inner=Spec(
                    "fault",
                    options=(("read", "0.01"), ("lba", "0-7")),
                    inner=Spec("python", "m:C", (("a", "b"),)),
                ),
            ),
        ),
    ],
)
def test_a_spec_is_taken_apart(text: str, spec: Spec) -> None:
    assert taken_apart(text) == spec


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", ("names no disk", "ram:SIZE", "backends")),
        ("a\0b", ("NUL",)),
        ("python:", ("python:MODULE:NAME",)),
        ("python:m", ("python:m:", "python:MODULE:NAME")),
        ("python::C", ("python:MODULE:NAME",)),
        ("python:m:", ("python:MODULE:NAME",)),
        ("python?a=1", ("python:MODULE:NAME",)),
        ("nbdkit:", ("nbdkit:PLUGIN.py",)),
        ("nbdkit:?a=1", ("nbdkit:PLUGIN.py",)),
        ("fault:", ("fault is a filter", "fault:disk.img")),
        ("fault?read=1", ("fault is a filter", "fault?read=1:disk.img")),
        ("fault:log:", ("log is a filter", "log:disk.img")),
        ("fault?read:disk.img", ("'read'", "no value", "name=value")),
        ("fault?=1:disk.img", ("'=1'", "no name")),
        ("python:m:C?a=1&", ("''", "name=value")),
        ("log:" * (MAX_FILTERS + 1) + "disk.img", (f"more than {MAX_FILTERS}",)),
    ],
)
def test_what_is_no_spec_is_refused_in_one_line(text: str, says: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError) as caught:
        taken_apart(text)
    message = str(caught.value)
    assert "\n" not in message
    for word in says:
        assert word in message


letters = st.characters(codec="utf-8", exclude_characters="\0")
words = st.text(letters, min_size=1)
options = st.lists(st.tuples(words, st.text(letters))).map(tuple)
leaves = st.one_of(
    words.filter(lambda text: not re.match(r"[A-Za-z][A-Za-z0-9+._-]*[:?]", text)).map(
        lambda text: Spec("", text)
    ),
    st.builds(
        lambda scheme, size: Spec(scheme, f"{size}K"), st.sampled_from(["ram", "null"]), st.integers(1)
    ),
    st.builds(
        lambda module, name, given: Spec("python", f"{module}:{name.replace(':', '.')}", given),
        words,
        words,
        options,
    ),
    st.builds(lambda rest, given: Spec("nbdkit", rest, given), words, options),
    st.builds(lambda rest, given: Spec("fsspec", rest, given), words, options),
)
specs = st.builds(
    lambda leaf, filters: _on_top(leaf, filters),
    leaves,
    st.lists(st.tuples(st.sampled_from(["fault", "overlay", "log"]), options), max_size=4),
)


def _on_top(spec: Spec, filters: list[tuple[str, Any]]) -> Spec:
    for scheme, given_options in filters:
        spec = Spec(scheme, options=given_options, inner=spec)
    return spec


@unhurried
@given(specs)
def test_any_spec_is_written_so_that_it_is_read_as_the_same(spec: Spec) -> None:
    assert taken_apart(str(spec)) == spec


@unhurried
@given(
    st.text()
    | st.from_regex(r"((fault|overlay|log|fsspec|python|nbdkit|ram|null)[:?].{0,8}){1,4}", fullmatch=True)
    | st.binary().map(lambda raw: raw.decode(errors="surrogateescape"))
)
def test_any_text_is_a_spec_that_can_be_written_or_an_error_of_one_line(text: str) -> None:
    spec = None
    with contextlib.suppress(ConfigError):
        spec = taken_apart(text)
    if spec is None:
        with pytest.raises(ConfigError, match=r"\A.*\Z"):
            taken_apart(text)
    else:
        assert taken_apart(str(spec)) == spec


@unhurried
@given(words)
def test_what_begins_with_a_dot_and_a_slash_is_a_path(text: str) -> None:
    assert taken_apart(f"./{text}") == Spec("", f"./{text}")


def test_only_paths_and_memory_are_native() -> None:
    for text in ("disk.img", "a:b", "ram:1G", "null:1G"):
        assert is_native(text)
    for text in ("python:m:C", "nbdkit:p.py"):
        assert not is_native(text)
    assert not taken_apart("fault:disk.img").native


def test_the_path_behind_filters_and_the_content_are_known() -> None:
    spec = taken_apart("fault:overlay?file=c:log:disk.img")
    assert spec.path == Path("disk.img")
    assert spec.content == spec.inner
    assert taken_apart("fault:log:ram:1M").content.memory
    assert taken_apart("fault:python:m:C").path is None


@pytest.mark.parametrize(
    ("disk", "name"),
    [
        ("python:./drive.py:Drive?size=1G", "Drive"),
        ("python:drives.ram:Outer.Inner", "Inner"),
        ("nbdkit:./plugin.py?a=b", "plugin"),
        ("fsspec:https://host/image.raw?block=512", "image"),
        ("fsspec?:https://host/image.raw?v=2", "image"),
        ("fault:/images/vm1.img", "vm1"),
        ("fault:ram:1G", "ram"),
    ],
)
def test_the_default_socket_of_a_backend_in_python_is_named_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, disk: str, name: str
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert sockets.default_path(taken_apart(disk)) == tmp_path / "nvmet-vdev" / f"{name}.sock"


def test_a_backend_in_python_keeps_its_names_and_shares_them_with_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    here = identity.derive(["python:./drive.py:Drive"], Path("one"))
    assert here == identity.derive([f"python:{tmp_path}/drive.py:Drive"], Path("one"))
    others = [
        identity.derive(["python:./drive.py:Drive"], Path("two")),
        identity.derive(["python:./drive.py:Drive?size=1M"], Path("one")),
        identity.derive(["python:./drive.py:Other"], Path("one")),
        identity.derive(["python:drive:Drive"], Path("one")),
        identity.derive(["nbdkit:./drive.py"], Path("one")),
    ]
    assert len({here.nqn, *(other.nqn for other in others)}) == 6
    twice = identity.derive(["python:./drive.py:Drive"] * 2, Path("one"))
    assert len(set(twice.uuids)) == 2


def test_filters_that_pass_everything_through_leave_a_file_its_names(tmp_path: Path) -> None:
    def names(spec: Spec) -> identity.Identity:
        return identity.derive([spec], tmp_path / "s")

    plain = names(taken_apart("disk.img"))
    assert names(taken_apart("fault?read=0.1:log:disk.img")) == plain
    assert names(taken_apart("overlay?file=a:disk.img")) != plain
    assert names(taken_apart("overlay?file=a:disk.img")) != names(taken_apart("overlay?file=b:disk.img"))
