"""JSON-RPC 2.0: a line becomes requests, results and errors become a line.

May know the specification (jsonrpc.org) and what makes a request valid; must not know methods, sockets or
threads. Parameters go by name here; those by position are refused.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Literal

import msgspec
from msgspec import UNSET, UnsetType

from nvmet_vdev.control import strict
from nvmet_vdev.errors import one_line

__all__ = ["Fault", "Kind", "Message", "Refused", "Request", "answer", "batch", "clip", "parse", "refusal"]

Id = int | str | None
Kind = Literal["parse", "request", "method", "params", "internal", "config", "device", "access", "limit"]

CODES: dict[Kind, int] = {
    "parse": -32700,
    "request": -32600,
    "method": -32601,
    "params": -32602,
    "internal": -32603,
    "config": -32000,
    "device": -32001,
    "access": -32002,
    "limit": -32003,
}
"""Codes by kind: the specification's own (5.1), then ours in the range that it leaves to servers."""

MAX_BATCH = 64
"""Requests of one batch."""


class Fault(Exception):  # noqa: N818 - as SOAP and XML-RPC call it
    """What is wrong with a request, or with what it asked for; `str()` is one line."""

    def __init__(self, kind: Kind, message: str) -> None:
        super().__init__(clip(message, 500))
        self.kind: Kind = kind


@dataclass(frozen=True, slots=True)
class Request:
    """A valid request; a method and parameters that nobody has looked at yet."""

    method: str
    params: dict[str, Any]
    id: Id | UnsetType
    """`UNSET` for a notification, which gets no answer."""


@dataclass(frozen=True, slots=True)
class Refused:
    """What was no valid request; it gets an answer."""

    id: Id
    fault: Fault


@dataclass(frozen=True, slots=True)
class Message:
    """A line: one request, or a batch of them."""

    items: tuple[Request | Refused, ...]
    batch: bool = False


class _Wire(msgspec.Struct, forbid_unknown_fields=True):
    jsonrpc: Literal["2.0"]
    method: str
    params: dict[str, Any] | list[Any] | UnsetType = UNSET
    id: int | str | UnsetType | None = UNSET


def parse(line: bytes) -> Message:
    """The requests of a line. Never raises: what is wrong is part of the message."""
    try:
        value = strict.loads(line)
    except strict.NotJsonError as error:
        return Message((Refused(None, Fault("parse", f"no JSON: {error}")),))
    if not isinstance(value, list):
        return Message((_request(value),))
    if not value:
        return Message((Refused(None, Fault("request", "a batch of no requests")),))
    if len(value) > MAX_BATCH:
        text = f"a batch of {len(value)} requests; at most {MAX_BATCH} may be in one"
        return Message((Refused(None, Fault("limit", text)),))
    return Message(tuple(_request(item) for item in value), batch=True)


def _request(value: Any) -> Request | Refused:
    try:
        wire = msgspec.convert(value, _Wire, strict=True)
    except msgspec.ValidationError as error:
        # An answer with the request's own id is found again by who waits for it.
        known = value.get("id") if isinstance(value, dict) else None
        number = known if isinstance(known, int | str) and not isinstance(known, bool) else None
        return Refused(number, Fault("request", f"no JSON-RPC 2.0 request: {error}"))
    if not isinstance(wire.params, list):
        return Request(wire.method, wire.params if wire.params is not UNSET else {}, wire.id)
    if not wire.params:
        return Request(wire.method, {}, wire.id)
    fault = Fault("params", f"{wire.method}: parameters go by name: an object, not a list")
    # A notification is not answered, whatever is wrong with its parameters (4.1).
    return Refused(wire.id, fault) if wire.id is not UNSET else Request("", {}, UNSET)


def answer(number: Id, result: Any) -> bytes:
    """The answer to a request that was carried out; msgspec's kinds of values, and `str()` of others."""
    envelope = {"jsonrpc": "2.0", "id": number, "result": result}
    try:
        return msgspec.json.encode(envelope, enc_hook=str)
    except UnicodeEncodeError:
        # A file name that is no text.
        plain = msgspec.to_builtins(envelope, enc_hook=str, str_keys=True)
        return json.dumps(plain, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")


def refusal(number: Id, fault: Fault) -> bytes:
    """The answer to a request that was not carried out."""
    error = {"code": CODES[fault.kind], "message": str(fault), "data": {"kind": fault.kind}}
    return msgspec.json.encode({"jsonrpc": "2.0", "id": number, "error": error})


def batch(answers: list[bytes]) -> bytes:
    """The answers of a batch as one."""
    return b"[" + b",".join(answers) + b"]"


def clip(text: str, length: int) -> str:
    """`text` on one line of at most `length` characters, with nothing that UTF-8 cannot say."""
    # Whoever sends a megabyte of text must not keep us busy with it.
    line = one_line(text[: 4 * length])
    return line if len(line) <= length and len(text) <= 4 * length else line[: length - 1] + "…"
