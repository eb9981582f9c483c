"""What is known of guests: of all, in a list that is made piece by piece, or of one."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator

from aiohttp import web

from host_agent.guest import Guest

from .facade import Context, Facade
from .inputs import guest_name, read_query, yes_or_no
from .problems import Problem, quoted
from .streams import head, streaming

CONTENT_TYPE = "application/json; charset=utf-8"

#: A list is made in pieces of about so many characters, which takes some milliseconds each: others want to be served, too.
_PIECE = 64 * 1024


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
    """Everything about one guest."""
    read_query(request, {})
    return web.json_response(find(context.facade, request).describe(context.facade.clock()))


async def tell_all(context: Context, request: web.Request) -> web.StreamResponse:
    """A list of all guests by name, with or without their facts."""
    with_facts = read_query(request, {"facts": yes_or_no}).get("facts", True)
    if request.method == "HEAD":
        return head(CONTENT_TYPE)
    async with streaming(request, CONTENT_TYPE) as response:
        for piece in _pieces(context.facade, with_facts):
            await response.write(piece)
            await asyncio.sleep(0)
    return response


def _pieces(facade: Facade, with_facts: bool) -> Iterator[bytes]:
    """The list as JSON. A guest that is forgotten while it is made is left out."""
    text, mark = "[", ""
    for name in sorted(guest.name for guest in facade.registry):
        guest = facade.registry.find(name)
        if guest is None:
            continue
        text += mark + json.dumps(guest.describe(facade.clock(), with_facts))
        mark = ","
        if len(text) >= _PIECE:
            yield text.encode("ascii")
            text = ""
    yield (text + "]").encode("ascii")
