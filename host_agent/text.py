"""Strings of guests, made safe for terminals and logs.

A guest chooses what its facts, its interfaces and its users are called. A terminal obeys control characters, people are
misled by characters that reorder, hide or pad text, and nobody reads a string without end. Whatever is not seen as what it
is gets shown as its escape, and what is too long is cut.

Neither a web page nor a metric's label ever holds a word of a guest; where JSON does, JSON has its own escapes.
"""

from __future__ import annotations

import re

#: So much of a string is shown, in characters; only programs, which get it as JSON, get all of a longer one.
LENGTH_LIMIT = 1000

#: What Python calls printable though nothing of it is seen: fillers, variation selectors, vowels without a form.
_UNSEEN = re.compile("[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]")


def printable(text: str) -> str:
    """*text* with each control, format, unassigned, unseen or line-breaking character as a backslash escape.

    Of more than ``LENGTH_LIMIT`` characters the rest is left out, and it is said how many these are.
    """
    shown = text[:LENGTH_LIMIT]
    if not (shown.isprintable() and (shown.isascii() or not _UNSEEN.search(shown))):
        shown = "".join(each if _is_seen(each) else each.encode("unicode_escape").decode("ascii") for each in shown)
    left_out = len(text) - LENGTH_LIMIT
    return f"{shown}… ({left_out} more characters)" if left_out > 0 else shown


def _is_seen(character: str) -> bool:
    return character.isprintable() and not _UNSEEN.match(character)
