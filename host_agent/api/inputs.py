"""What clients send, checked: the names in paths, queries, and bodies in JSON. Each error says what is allowed."""

from __future__ import annotations

import json
import math
import urllib.parse
from collections.abc import Iterable, Mapping
from typing import Any, Callable, NoReturn, Optional

from aiohttp import web

from common import codec

from .problems import Problem, quoted

#: How long a body may be, in bytes.
BODY_LIMIT = 1024 * 1024

#: Where the name of a guest stands in a path: ``/v1/guests/{name}``.
_NAME_POSITION = 3

#: What a body of bytes says that it is.
BYTES = "application/octet-stream"

#: Where a parameter is a number, it has so many digits at most.
_SHORT = 9

#: A number with more digits takes longer to read than anybody should have to wait for.
_DIGITS_LIMIT = 4000


def guest_name(request: web.Request) -> str:
    """The guest's name in the path of *request*. Names are those of files: they may be no UTF-8."""
    step = request.rel_url.raw_path.split("/")[_NAME_POSITION]
    return urllib.parse.unquote(step, errors="surrogateescape")


def read_query(request: web.Request, readers: Mapping[str, Callable[[str, str], Any]]) -> dict[str, Any]:
    """The parameters in the query of *request*.

    :param readers: for each parameter that is allowed, what reads it: takes its name and its text.
    :raises Problem: one is unknown, is there twice, or is refused by its reader.
    """
    values: dict[str, Any] = {}
    for name, text in request.query.items():
        if name not in readers:
            raise Problem("bad-request", f"unknown parameter {quoted(name)}; allowed: {', '.join(readers) or 'none'}")
        if name in values:
            raise Problem("bad-request", f"the parameter {name} is there twice; send it once")
        values[name] = readers[name](name, text)
    return values


def yes_or_no(name: str, text: str) -> bool:
    """A parameter that is ``yes`` or ``no``."""
    if text not in ("yes", "no"):
        raise Problem("bad-request", f"{name} is {quoted(text)}; allowed: yes, no")
    return text == "yes"


def number(name: str, text: str) -> int:
    """A parameter that is a number."""
    if not text.isascii() or not text.isdigit() or len(text) > _SHORT:
        raise Problem("bad-request", f"{name} is {quoted(text)}; send a number")
    return int(text)


async def read_bytes(request: web.Request, limit: int) -> bytes:
    """The body of *request*, up to *limit* bytes.

    :raises Problem: it is longer, or it says that it is something else than bytes.
    """
    if request.content_type != BYTES:
        raise Problem("bad-request", f"the body is not said to be bytes; send the header Content-Type: {BYTES}")
    body = bytearray()
    async for piece in request.content.iter_any():
        body += piece
        if len(body) > limit:
            raise Problem("too-large", f"the body is longer than {limit} bytes; send an exported session")
    return bytes(body)


async def read_object(request: web.Request) -> dict[str, Any]:
    """The JSON object in the body of *request*.

    :raises Problem: there is none, or it says that it is something else.
    :raises HTTPRequestEntityTooLarge: it is longer than ``BODY_LIMIT``.
    """
    if request.content_type != "application/json":
        raise Problem("bad-request", "the body is not said to be JSON; send the header Content-Type: application/json")
    body = await request.read()
    try:
        value = json.loads(body.decode("utf-8"), parse_constant=_refuse, parse_float=_read_number, parse_int=_read_integer)
    except (ValueError, RecursionError) as error:
        raise Problem("bad-request", f"the body is no JSON: {_reason(error)}; send one object in UTF-8") from None
    if not isinstance(value, dict):
        raise Problem("bad-request", "the body is no JSON object; send one")
    return value


def check_members(members: Iterable[str], allowed: Iterable[str]) -> None:
    """Look for members that mean nothing.

    :raises Problem: there is one.
    """
    allowed = tuple(allowed)
    for unknown in members:
        if unknown not in allowed:
            raise Problem("bad-request", f"unknown member {quoted(unknown)}; allowed: {', '.join(allowed)}")


def read_text(members: Mapping[str, Any], name: str, limit: int) -> str:
    """The text that the member *name* must be, of up to *limit* characters.

    :raises Problem: it is none.
    """
    value = members.get(name)
    if isinstance(value, str) and 0 < len(value) <= limit:
        return value
    raise Problem("bad-request", f"{name} is no text of 1 to {limit} characters; send one")


def read_choice(members: Mapping[str, Any], name: str, usual: bool) -> bool:
    """What the member *name* says, *usual* where it is left out.

    :raises Problem: it is neither true nor false.
    """
    value = members.get(name, usual)
    if isinstance(value, bool):
        return value
    raise Problem("bad-request", f"{name} is neither true nor false; send one of them, or leave it out")


def read_seconds(members: Mapping[str, Any], name: str, shortest: float, longest: float) -> Optional[float]:
    """The seconds that the member *name* says; None where it is left out.

    :raises Problem: it is no such number.
    """
    if name not in members:
        return None
    value = members[name]
    if isinstance(value, (int, float)) and not isinstance(value, bool) and shortest <= value <= longest:
        return float(value)
    raise Problem("bad-request", f"{name} is no number of seconds from {shortest:g} to {longest:g}; send one")


def check_depth(value: Any) -> None:
    """Look whether *value* nests no deeper than a line to a guest may.

    :raises Problem: it does.
    """
    level, depth = [value], 0
    while level:
        containers = [each for each in level if isinstance(each, (dict, list))]
        depth += bool(containers)
        if depth > codec.DEPTH_LIMIT:
            raise Problem("bad-request", f"the arguments nest deeper than {codec.DEPTH_LIMIT} levels; send fewer")
        level = [member for each in containers for member in (each.values() if isinstance(each, dict) else each)]


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON number")


def _read_number(text: str) -> float:
    """JSON has one kind of number only: ``2.0`` is the integer 2."""
    number = float(text)
    if not math.isfinite(number):
        raise ValueError("a number out of range")
    return int(number) if number.is_integer() else number


def _read_integer(text: str) -> int:
    if len(text) > _DIGITS_LIMIT:
        raise ValueError(f"a number of more than {_DIGITS_LIMIT} digits")
    return int(text)


def _reason(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "nested too deep"
    if isinstance(error, UnicodeDecodeError):
        return f"no UTF-8 at byte {error.start}"
    return str(error)
