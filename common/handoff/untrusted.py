"""JSON that somebody else wrote: read strictly, with a bounded cost, before anybody asks what it means.

Bounded are its size, how many members it has, how deep it nests and how long its numbers are; the first two before a parser
sees it, since members cost many times what their text does. Forbidden characters are replaced, as on the wire. Of equal
member names the last one counts.
"""

from __future__ import annotations

import json
import math
from typing import Any, NoReturn, Union

from common import characters

#: How many members, and arrays and objects, there may be: ten times what one line of a guest may have.
PARTS_LIMIT = 200_000

#: How deep arrays and objects may nest. A document around the deepest line that a guest may write stays below.
DEPTH_LIMIT = 40

#: The longest integer, in digits: the interpreter's own limit, where it has one.
DIGITS_LIMIT = 4300


def read_object(text: Union[str, bytes], size_limit: int) -> dict[str, Any]:
    """The object that *text* is.

    :param size_limit: in bytes, or characters of a string.
    :raises ValueError: it is none, or there is too much in it; a clause says what is wrong.
    """
    if len(text) > size_limit:
        raise ValueError(f"larger than {size_limit} bytes")
    decoded = _decode(text) if isinstance(text, bytes) else text
    if _has_too_many_parts(decoded):
        raise ValueError(f"more than {PARTS_LIMIT} members")
    value = _clean(_parse(decoded), DEPTH_LIMIT)
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")
    return value


def write_object(value: Any, size_limit: int) -> bytes:
    """*value* as ``read_object`` reads it again: ASCII only, on one line.

    :raises ValueError: it is too large, or has no JSON form; a clause says what is wrong.
    """
    try:
        text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        # Without the cause, which may quote a value.
        raise ValueError("a value has no JSON form") from None
    read_object(text, size_limit)
    return text.encode("ascii")


def _decode(text: bytes) -> str:
    try:
        return text.decode("utf-8")
    except UnicodeDecodeError:
        raise ValueError("not UTF-8") from None


def _has_too_many_parts(text: str) -> bool:
    without_escapes = text.replace("\\\\", "").replace('\\"', "")
    # Each member has two strings at most.
    if without_escapes.count('"') > 4 * (PARTS_LIMIT + 1):
        return True
    outside = without_escapes.split('"')[::2]
    return sum(piece.count(",") + piece.count("[") + piece.count("{") for piece in outside) > PARTS_LIMIT


def _parse(text: str) -> Any:
    try:
        return json.loads(text, parse_int=_read_integer, parse_float=_read_float, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error}") from None
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None


def _read_integer(digits: str) -> int:
    if len(digits) > DIGITS_LIMIT:
        raise ValueError(f"a number of more than {DIGITS_LIMIT} digits")
    return int(digits)


def _read_float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError("a number out of range")
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")


def _clean(value: Any, depth: int) -> Any:
    if isinstance(value, str):
        return characters.clean(value)
    if isinstance(value, (dict, list)):
        if depth == 0:
            raise ValueError(_TOO_DEEP)
        if isinstance(value, dict):
            return {characters.clean(key): _clean(member, depth - 1) for key, member in value.items()}
        return [_clean(member, depth - 1) for member in value]
    return value


_TOO_DEEP = f"nested deeper than {DEPTH_LIMIT} levels"
