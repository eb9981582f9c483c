"""The characters that never cross the wire.

XML 1.1 restricts or forbids them, and management software behind deployed hosts stores what guests say as XML; the
reference host replaces them in every string and key after decoding, the reference guest before writing. Ours do both.
"""

from __future__ import annotations

import re

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"

_FORBIDDEN = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\ud800-\udfff\ufffe\uffff]",
)


def clean(text: str) -> str:
    """*text* with each forbidden character replaced by U+FFFD."""
    return _FORBIDDEN.sub(REPLACEMENT, text)
