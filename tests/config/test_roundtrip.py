"""Load, save, load is the identity: in each format, and from one to the other."""

from __future__ import annotations

import json
from typing import get_args

import pytest
from hypothesis import HealthCheck, given, settings

from nvmet_vdev import config
from tests.config import nvmetcli
from tests.config.strategies import configs, differ

FORMATS = get_args(config.Format)
FEW = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.mark.parametrize("first", FORMATS)
@pytest.mark.parametrize("second", FORMATS)
@FEW
@given(configs().filter(differ))
def test_what_was_saved_is_what_is_loaded(
    first: config.Format, second: config.Format, some: config.Config
) -> None:
    once = config.loads(config.dumps(some, first), first, strict=True).config
    again = config.loads(config.dumps(once, second), second, strict=True).config
    assert once == some
    assert again == some
    assert config.dumps(again, first) == config.dumps(some, first)


@FEW
@given(configs().filter(differ))
def test_what_is_saved_as_json_can_be_read_by_nvmetcli(some: config.Config) -> None:
    text = config.dumps(some, "json")
    document = json.loads(text)
    nvmetcli.assert_readable(document)
    assert text == nvmetcli.text(document)


def test_the_file_of_a_kernel_target_becomes_toml_and_comes_back() -> None:
    found = config.loads(nvmetcli.text(nvmetcli.moved()), "json").config
    for form in FORMATS:
        assert config.loads(config.dumps(found, form), form).config == found


def test_an_empty_configuration_is_one() -> None:
    for form, text in (("toml", ""), ("json", "{}")):
        assert config.loads(text, form).config == config.Config()  # type: ignore[arg-type]
