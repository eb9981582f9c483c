"""What clients send, checked: the names in paths, queries, and bodies in JSON. Each error says what is allowed."""

from __future__ import annotations

import json
import math
import urllib.parse
from collections.abc import Iterable, Mapping
from typing import Any, Callable, NoReturn

from aiohttp import web

from common import codec

from .problems import Problem, quoted

#: How long a body may be, in bytes.
BODY_LIMIT = 1024 * 1024

#: Where the name of a guest stands in a path: ``/v1/guests/{name}``.
_NAME_POSITION = 3

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
