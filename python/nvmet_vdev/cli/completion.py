"""Completion in bash of words with colons in them: NQNs, and disks such as `ram:1G`.

bash takes such a word apart (`COMP_WORDBREAKS`), tells the pieces, and replaces only what stands behind the
last colon or equals sign; click knows nothing of that. May know both; must not know commands. Imported only
while a shell completes.
"""

from __future__ import annotations

import os
import re

from click.shell_completion import BashComplete, CompletionItem, add_completion_class, split_arg_string

_BREAK = re.compile("[:=]+")


@add_completion_class
class _Bash(BashComplete):
    """What click has for bash, with words put together again."""

    name = "bash"
    _standing = ""
    """What is before the piece that bash replaces, of the word that is completed."""

    def get_completion_args(self) -> tuple[list[str], str]:
        pieces = split_arg_string(os.environ["COMP_WORDS"])
        at = int(os.environ["COMP_CWORD"])
        # An empty piece at the end is not told.
        current = pieces[at] if at < len(pieces) else ""
        words = _joined([*pieces[:at], current])
        word = words.pop()
        # A word in quotes comes, and is replaced, as a whole.
        if not _BREAK.search(current) or _BREAK.fullmatch(current):
            piece = "" if _BREAK.fullmatch(current) else current
            self._standing = word[: len(word) - len(piece)]
        return words[1:], word

    def format_completion(self, item: CompletionItem) -> str:
        if item.type == "plain":
            # Of --name=value, click completes the value alone.
            for standing in (self._standing, self._standing.partition("=")[2]):
                if standing and item.value.startswith(standing):
                    return f"plain,{item.value[len(standing) :]}"
        return super().format_completion(item)


def _joined(pieces: list[str]) -> list[str]:
    """The words that bash has made `pieces` of."""
    words: list[str] = []
    open_end = False
    for piece in pieces:
        breaks = _BREAK.fullmatch(piece) is not None
        if words and (breaks or open_end):
            words[-1] += piece
        else:
            words.append(piece)
        open_end = breaks
    return words
