"""``common.characters``"""

from __future__ import annotations

from common import characters

#: The ranges that XML 1.1 restricts or forbids, both ends inclusive.
FORBIDDEN = [
    (0x0000, 0x0008),
    (0x000B, 0x000C),
    (0x000E, 0x001F),
    (0x007F, 0x0084),
    (0x0086, 0x009F),
    (0xD800, 0xDFFF),
    (0xFFFE, 0xFFFF),
]


#: All of the first plane, and of each other plane its first, last and some characters.
CODES = [
    *range(0x10000),
    *range(0x10000, 0x110000, 0x111),
    *(last - at for last in range(0x1FFFF, 0x110000, 0x10000) for at in range(16)),
]


def test_exactly_the_characters_that_xml_1_1_restricts_or_forbids_are_replaced() -> None:
    forbidden = {code for first, last in FORBIDDEN for code in range(first, last + 1)}
    expected = "".join("\ufffd" if code in forbidden else chr(code) for code in CODES)
    assert characters.clean("".join(map(chr, CODES))) == expected


def test_each_forbidden_character_is_replaced_by_one_replacement_character() -> None:
    assert characters.clean("a\x00\x00b") == "a\ufffd\ufffdb"


def test_cleaning_twice_changes_nothing_more() -> None:
    once = characters.clean("\ud83d\x7f\ufffe plain")
    assert characters.clean(once) == once
