"""A line to a message's name and arguments, and back.

One message is one JSON object on one line; the member ``__name__`` is its name, all others are its arguments.
Read: UTF-8 with replacement, JSON as RFC 8259 has it, nesting bounded, forbidden characters replaced after decoding.
Write: ASCII-only JSON, so that no peer's UTF-8 policy matters.

ujson is fast but lenient; what it lets pass and JSON does not have stays in here: NaN and infinities, raw control
characters, ``-``, ``01`` and ``1.`` as numbers. A line that could hold one of these gets a second opinion from the
standard library's strict parser. Of equal member names the last one counts, with both.

Nearly every line of a good peer is *plain*: nothing in it could be forbidden, nest too deep or be such a number. That is
seen at its bytes, at a tenth of the price of looking through what was read from it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any, NoReturn

import ujson

from . import characters, errors, framing

NAME = "__name__"

#: How deep arrays and objects may nest; the deepest message of the table needs 4.
DEPTH_LIMIT = 32

#: How many commas a line may have outside of its strings. A line of nothing but members costs many times what its size
#: costs otherwise, and whoever reads it has others to serve; a list of all packages of a large machine has a few thousand.
MEMBERS_LIMIT = 20_000

_SUSPICIOUS = re.compile(
    r"[\x00-\x1f]"  # a raw control character (white space around tokens is one too)
    r"|NaN|Infinity"
    r"|(?<![A-Za-z0-9_])-(?![0-9])"  # a minus without a number
    r"|(?<![0-9.eE+-])-?0[0-9]"  # a leading zero
    r"|[0-9]\.(?![0-9])"  # a point without a fraction
)


#: What outside of strings could be a number too large for a float.
_EXPONENT = re.compile(rb"[09]e")


def _shape_of(byte: str) -> str:
    """A byte as what it could be a sign of."""
    if not " " <= byte <= "~" or byte == "\\":
        return "\0"  # what may have to be replaced, or hides something that may
    if byte in ":,":
        return " "  # what stands before a number, as a space or an opening bracket does
    return "9" if byte in "123456789" else byte


#: For each byte, what it could be a sign of.
_SHAPES = "".join(map(_shape_of, map(chr, range(256)))).encode("ascii")


def decode(line: bytes) -> tuple[str, dict[str, Any]]:
    """Read one line.

    :returns: the message's name and its arguments.
    :raises MalformedLine: the line is not one JSON object with a name that is a non-empty string, or it has too much in it.
    """
    if line.count(b",") > MEMBERS_LIMIT and _count_members(line) > MEMBERS_LIMIT:
        raise errors.MalformedLine(f"more than {MEMBERS_LIMIT} members", line)
    try:
        value = ujson.loads(line) if _is_plain(line) else _read_with_care(line.decode("utf-8", "replace"))
    except (ValueError, RecursionError) as error:
        raise errors.MalformedLine(f"not JSON: {_brief(error)}", line) from None
    if not isinstance(value, dict):
        raise errors.MalformedLine("not a JSON object", line)
    name = value.pop(NAME, None)
    if not isinstance(name, str) or not name:
        raise errors.MalformedLine(f"{NAME} is missing or no string", line)
    return name, value


def encode(name: str, arguments: Mapping[str, object]) -> bytes:
    """Write one line, its newline included.

    :raises EncodingError: a value has no JSON form, nests too deep, or the line would reach the peer's limit.
    """
    try:
        value = _clean({NAME: "", **arguments} | {NAME: name}, DEPTH_LIMIT)
        line = ujson.dumps(value, ensure_ascii=True, escape_forward_slashes=False, allow_nan=False).encode("ascii")
    except (ValueError, TypeError, OverflowError):
        # Without the cause: its text would quote the value, and values can be secrets.
        raise errors.EncodingError(f"{name}: a value has no JSON form, or is nested too deep") from None
    if len(line) >= framing.LINE_LIMIT:
        raise errors.EncodingError(f"{name}: {len(line)} bytes, a line must stay below {framing.LINE_LIMIT}")
    return line + b"\n"


def _count_members(line: bytes) -> int:
    """How many commas stand outside of strings."""
    without_escapes = line.replace(rb"\\", b"").replace(rb"\"", b"")
    return b"".join(without_escapes.split(b'"')[::2]).count(b",")


def _is_plain(line: bytes) -> bool:
    """Whether *line* can hold nothing that must be replaced, counted or read strictly."""
    marked = line.translate(_SHAPES)
    if b"\0" in marked:
        return False
    # Without escapes, every second piece between quotation marks is outside of all strings.
    shape = b"".join(marked.split(b'"')[::2])
    return not (
        b"-" in shape
        or b"." in shape
        or b"E" in shape
        or b"N" in shape
        or b"I" in shape
        or b" 00" in shape
        or b" 09" in shape
        or b"[0" in shape
        or (b"e" in shape and _EXPONENT.search(shape))
        or shape.count(b"{") + shape.count(b"[") > DEPTH_LIMIT
    )


def _read_with_care(text: str) -> Any:
    """What *text* says, clean.

    :raises ValueError: it is no JSON, or nests too deep.
    """
    value = _clean(ujson.loads(text), DEPTH_LIMIT)
    if _SUSPICIOUS.search(text):
        _read_strictly(text)
    return value


def _clean(value: Any, depth: int) -> Any:
    """*value* with forbidden characters replaced in every string and key.

    :raises ValueError: it nests deeper than *depth* or holds a float that is no number.
    """
    if isinstance(value, str):
        return characters.clean(value)
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("a number out of range")
    if isinstance(value, (dict, list, tuple)):
        if depth == 0:
            raise ValueError(f"nested deeper than {DEPTH_LIMIT} levels")
        if isinstance(value, dict):
            return {characters.clean(key): _clean(member, depth - 1) for key, member in value.items()}
        return [_clean(member, depth - 1) for member in value]
    return value


def _read_strictly(text: str) -> None:
    """The second opinion.

    :raises ValueError: it is no JSON.
    """
    import json  # only here: it is large, and peers that write such lines are rare

    json.loads(text, parse_constant=_refuse_constant)


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")


def _brief(error: Exception) -> str:
    return str(error)[: errors.EVIDENCE_LIMIT] or type(error).__name__
