"""Strings of guests, made safe for terminals and logs.

A guest chooses what its facts, its interfaces and its users are called. A terminal obeys control characters, and people
are misled by characters that reorder or hide text. Whatever is not printable is shown as its escape.
"""

from __future__ import annotations


def printable(text: str) -> str:
    """*text* with each control, format, unassigned or line-breaking character as a backslash escape."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode("ascii") for each in text)
