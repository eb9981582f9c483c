"""What is known of guests: of all, in a list that is made piece by piece, or of one."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any, Optional

from aiohttp import web

from common.catalogue import CATALOGUE, Row
from host_agent.guest import Guest
from host_agent.refusals import refuse

from .facade import Context, Facade
from .inputs import guest_name, read_query, yes_or_no
from .problems import Problem, quoted
from .streams import head, streaming

CONTENT_TYPE = "application/json; charset=utf-8"

#: A list is made in pieces of about so many characters, which takes some milliseconds each: others want to be served, too.
_PIECE = 64 * 1024

#: … and of so many guests at most, of which not all may be told.
_BATCH = 500


def find(facade: Facade, request: web.Request) -> Guest:
    """The guest that the path of *request* names.

    :raises Problem: there is none.
    """
    name = guest_name(request)
    found = facade.registry.find(name)
    if found is None:
        raise Problem("no-such-guest", f"no guest is called {quoted(name)}; /v1/guests lists all")
    return found


async def tell_one(context: Context, request: web.Request) -> web.StreamResponse:
    """Everything about one guest, and for each command why it can't be sent to it now."""
    read_query(request, {})
    guest = find(context.facade, request)
    return web.json_response({**guest.describe(context.facade.clock()), "obstacles": obstacles(guest)})


async def tell_all(context: Context, request: web.Request) -> web.StreamResponse:
    """A list of all guests by name, with or without their facts; or of those only that can be sent a command now."""

    query = read_query(request, {"facts": yes_or_no, "can": _command})
    if request.method == "HEAD":
        return head(CONTENT_TYPE)
    async with streaming(request, CONTENT_TYPE) as response:
        for piece in _pieces(context.facade, query.get("facts", True), query.get("can")):
            if piece:
                await response.write(piece)
            await asyncio.sleep(0)
    return response


def obstacles(guest: Guest) -> dict[str, Any]:
    """For each command why *guest* can't be sent it now, as a kind of problem and a sentence; None: it can."""
    refusals = ((row.name, refuse(guest, row)) for row in CATALOGUE.commands)
    return {name: refusal and {"kind": refusal.kind, "detail": str(refusal)} for name, refusal in refusals}


def _pieces(facade: Facade, with_facts: bool, can: Optional[Row]) -> Iterator[bytes]:
    """The list as JSON. A guest that is forgotten while it is made is left out.

    :param can: the command that a guest must be able to be sent; None: each guest is told.
    """
    text, mark = "[", ""
    for number, name in enumerate(sorted(guest.name for guest in facade.registry), 1):
        guest = facade.registry.find(name)
        if guest is not None and (can is None or refuse(guest, can) is None):
            text += mark + json.dumps(guest.describe(facade.clock(), with_facts))
            mark = ","
        if len(text) >= _PIECE or number % _BATCH == 0:
            yield text.encode("ascii")
            text = ""
    yield (text + "]").encode("ascii")


def _command(name: str, text: str) -> Row:
    row = CATALOGUE.command(text)
    if row is None:
        raise Problem("bad-request", f"{name} is {quoted(text)}; allowed: a command, as in /openapi.json")
    return row
