from __future__ import annotations

import pytest

from host_agent.text import printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("web-1", "web-1"),
        ("Zürich 東京 [b]x[/b]", "Zürich 東京 [b]x[/b]"),
        ("a\x1b[31mb", "a\\x1b[31mb"),
        ("a\nb\r\tc\0", "a\\nb\\r\\tc\\x00"),
        ("a\x9bb", "a\\x9bb"),
        ("\u202eevil\u2066", "\\u202eevil\\u2066"),
        ("a\u200bb\u2028c", "a\\u200bb\\u2028c"),
        ("\udc80", "\\udc80"),
    ],
)
def test_what_a_terminal_would_obey_is_shown_as_an_escape(text: str, shown: str) -> None:
    assert printable(text) == shown
