"""Lines to requests, and what is no request."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import UNSET

from nvmet_vdev.control import protocol, strict
from nvmet_vdev.control.protocol import Fault, Refused, Request

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


def only(line: bytes) -> Request | Refused:
    message = protocol.parse(line)
    assert not message.batch
    (item,) = message.items
    return item


@settings(deadline=None)
@given(st.binary(max_size=200) | JSON.map(lambda value: json.dumps(value).encode()))
def test_every_line_is_requests_or_faults_and_never_raises(line: bytes) -> None:
    message = protocol.parse(line)
    assert message.items
    for item in message.items:
        if isinstance(item, Refused):
            answer = json.loads(protocol.refusal(item.id, item.fault))
            assert answer["jsonrpc"] == "2.0"
            assert "\n" not in answer["error"]["message"]


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (b'{"a": 1, "a": 2}', "'a' stands twice"),
        (b'{"x": {"a": 1, "a": 1}}', "'a' stands twice"),
        (b"NaN", "NaN"),
        (b"[-Infinity]", "-Infinity"),
        (b"1e999", "out of range"),
        (b"9" * 30, "out of range"),
        (b"-" + b"9" * 30, "out of range"),
        (b"9" * 100_000, "out of range"),
        (b'"\xff"', "UTF-8 at byte 1"),
        (b'"\\ud800"', "surrogate"),
        (b'{"\\udc00": 1}', "surrogate"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"a":' * 100_000, "nested too deeply"),
        (b"\xef\xbb\xbf{}", "character 0"),
        (b"{", "character 1"),
        (b'"a\x01"', "character 2"),
        (b"{} {}", "extra data"),
        ("\ufeff{}".encode("utf-16"), "UTF-8"),
    ],
)
def test_what_two_readers_could_take_for_two_things_is_no_json(line: bytes, why: str) -> None:
    with pytest.raises(strict.NotJsonError, match=why):
        strict.loads(line)
    item = only(line)
    assert isinstance(item, Refused)
    assert item.id is None
    assert item.fault.kind == "parse"
    assert len(str(item.fault)) < 200


@pytest.mark.parametrize("value", [0, -(1 << 63), (1 << 64) - 1, 0.5, "\U0001f600", "é", None, [], {}])
def test_what_is_json_is_read(value: Any) -> None:
    assert strict.loads(json.dumps(value).encode()) == value
    assert strict.loads(json.dumps(value, ensure_ascii=False).encode()) == value


def test_a_request_has_what_was_sent() -> None:
    line = b'{"jsonrpc": "2.0", "method": "m", "params": {"a": [1]}, "id": "x"}'
    assert only(line) == Request("m", {"a": [1]}, "x")
    assert only(b'{"jsonrpc": "2.0", "method": "m", "id": null}') == Request("m", {}, None)
    assert only(b'{"jsonrpc": "2.0", "method": "m", "params": [], "id": 1}') == Request("m", {}, 1)
    assert only(b'{"jsonrpc": "2.0", "method": "m"}') == Request("m", {}, UNSET)


@pytest.mark.parametrize(
    ("line", "number", "kind"),
    [
        (b"1", None, "request"),
        (b"{}", None, "request"),
        (b'{"jsonrpc": "1.0", "method": "m", "id": 7}', 7, "request"),
        (b'{"method": "m", "id": 7}', 7, "request"),
        (b'{"jsonrpc": "2.0", "id": 7}', 7, "request"),
        (b'{"jsonrpc": "2.0", "method": 1, "id": "x"}', "x", "request"),
        (b'{"jsonrpc": "2.0", "method": "m", "params": 1, "id": 7}', 7, "request"),
        (b'{"jsonrpc": "2.0", "method": "m", "id": 1.5}', None, "request"),
        (b'{"jsonrpc": "2.0", "method": "m", "id": true}', None, "request"),
        (b'{"jsonrpc": "2.0", "method": "m", "id": []}', None, "request"),
        (b'{"jsonrpc": "2.0", "method": "m", "parms": {}, "id": 7}', 7, "request"),
        (b'{"jsonrpc": "2.0", "method": "m", "params": [1], "id": 7}', 7, "params"),
        (b"[]", None, "request"),
        (b"[" + b"1," * 64 + b"1]", None, "limit"),
    ],
)
def test_an_invalid_request_is_answered_with_its_id_if_it_has_one(
    line: bytes, number: Any, kind: str
) -> None:
    item = only(line)
    assert isinstance(item, Refused)
    assert (item.id, item.fault.kind) == (number, kind)


def test_a_batch_is_its_requests_in_order_valid_or_not() -> None:
    message = protocol.parse(
        b'[{"jsonrpc": "2.0", "method": "a", "id": 1}, 1, {"jsonrpc": "2.0", "method": "b"}]'
    )
    assert message.batch
    assert [type(item) for item in message.items] == [Request, Refused, Request]


def test_an_answer_is_one_line_of_json_whatever_it_is_about() -> None:
    from pathlib import Path
    from uuid import UUID

    value = {
        "path": Path("/x"),
        1: UUID(int=5),
        "text": "a\nb",
        "odd": b"\xff/".decode("utf-8", "surrogateescape"),
    }
    data = protocol.answer(3, value)
    assert b"\n" not in data
    assert strict.loads(data)["result"] == {
        "path": "/x",
        "1": "00000000-0000-0000-0000-000000000005",
        "text": "a\nb",
        "odd": "?/",
    }


def test_an_error_is_one_short_line_without_control_characters() -> None:
    data = json.loads(protocol.refusal(None, Fault("config", "a\nb\x1b[1m\udc80" + "x" * 1000)))
    assert data["error"]["message"].startswith("a b [1m x")
    assert len(data["error"]["message"]) == 500
    assert data["error"]["code"] == -32000
    assert data["error"]["data"] == {"kind": "config"}
