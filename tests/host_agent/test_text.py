from __future__ import annotations

import sys
import unicodedata

import pytest

from host_agent.text import LENGTH_LIMIT, printable


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
        ("a\u3164b\u2800c\u034fd", "a\\u3164b\\u2800c\\u034fd"),
        ("a\ufe0fb\U000e0100", "a\\ufe0fb\\U000e0100"),
        ("\x1b]0;title\x07\x1b[2J", "\\x1b]0;title\\x07\\x1b[2J"),
    ],
)
def test_what_a_terminal_would_obey_is_shown_as_an_escape(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_of_all_characters_none_is_obeyed_or_reorders_text_once_it_is_printable() -> None:
    for start in range(0, sys.maxunicode + 1, LENGTH_LIMIT):
        shown = printable("".join(map(chr, range(start, min(start + LENGTH_LIMIT, sys.maxunicode + 1)))))
        kinds = {unicodedata.category(character)[0] for character in shown if character != " "}
        assert not kinds & {"C", "Z"}


def test_a_string_up_to_the_limit_is_shown_whole() -> None:
    text = "ä" * LENGTH_LIMIT
    assert printable(text) == text


def test_a_longer_string_is_cut_and_what_is_left_out_is_counted() -> None:
    text = "x" * LENGTH_LIMIT + "\x1b[31m" + "y" * 1_000_000
    assert printable(text) == "x" * LENGTH_LIMIT + "… (1000005 more characters)"


def test_however_long_a_string_is_what_is_shown_is_bounded() -> None:
    assert len(printable("\U000e0100" * 1_000_000)) <= 10 * LENGTH_LIMIT + 40
