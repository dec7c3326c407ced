"""What goes wrong in the rig, each with a message that a person can act on."""

from __future__ import annotations


class RigError(Exception):
    """The rig cannot be prepared or used on this machine; the message is one line and says what to do."""


class GuestError(AssertionError):
    """A guest died, ran out of time, or a script in it failed: a failure of the test that asked for it."""
