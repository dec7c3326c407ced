"""NVMe Qualified Names (NVMe Base 2.0, 4.5): which are well-formed, which are only tolerated.

May know text. Must not know who is called so.
"""

from __future__ import annotations

import re
from uuid import UUID

__all__ = ["DISCOVERY", "MAX_BYTES", "is_qualified", "nqn_fault"]

DISCOVERY = "nqn.2014-08.org.nvmexpress.discovery"
MAX_BYTES = 223
"""Of a name; the field has 256 bytes."""

_UUID_FORM = "nqn.2014-08.org.nvmexpress:uuid:"
_DATED = re.compile(r"nqn\.(?P<year>\d{4})-(?P<month>\d{2})\.(?P<domain>[^:]*)(?P<string>:.*)?", re.DOTALL)


def nqn_fault(nqn: str) -> str | None:
    """What is wrong with `nqn`, and what to do; None if it can be used.

    A name that does not begin with ``nqn.`` can be: nvmetcli's users have such names, and nothing in a guest
    minds. One that begins so has to be well-formed.
    """
    try:
        length = len(nqn.encode())
    except UnicodeEncodeError:
        return "is no UTF-8; write it in UTF-8"
    if not nqn:
        return "is empty; write a name such as nqn.2024-01.com.example:name"
    if length > MAX_BYTES:
        return f"has {length} bytes; use at most {MAX_BYTES}"
    if any(ord(character) < 0x20 or 0x7F <= ord(character) < 0xA0 for character in nqn):
        return "has a control character; leave it out"
    if nqn == DISCOVERY:
        return "is the name of the discovery service; use another one"
    return _malformed(nqn) if nqn.startswith("nqn.") else None


def is_qualified(nqn: str) -> bool:
    """Whether a usable name has the form of the specification."""
    return nqn.startswith("nqn.")


def _malformed(nqn: str) -> str | None:
    dated = _DATED.fullmatch(nqn)
    if dated is None:
        return "has no year and month behind nqn.; write it like nqn.2024-01.com.example:name"
    if not 1 <= int(dated["month"]) <= 12:
        return f"has no month {dated['month']}; use 01 to 12"
    if not all(dated["domain"].split(".")):
        return "has no reverse domain name behind its date; write it like nqn.2024-01.com.example:name"
    if nqn.startswith(_UUID_FORM) and not _is_uuid(nqn.removeprefix(_UUID_FORM)):
        return f"has no UUID behind {_UUID_FORM}; write one as 8-4-4-4-12 hexadecimal digits"
    return None


def _is_uuid(text: str) -> bool:
    try:
        return str(UUID(text)) == text.lower()
    except ValueError:
        return False
