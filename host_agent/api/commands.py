"""What operators have done: commands to guests, and asking one for everything."""

from __future__ import annotations

import asyncio
import logging
from typing import Any, NamedTuple, Optional

from aiohttp import web

from common.catalogue import CATALOGUE, Direction
from common.errors import Congested, SendRefused
from host_agent import deadlines
from host_agent.commands import Answer, Sent, Stopping, TimedOut
from host_agent.refusals import Refused
from host_agent.text import printable

from . import access
from .facade import Context
from .guests import find
from .inputs import check_depth, check_members, read_object, read_query
from .problems import Problem

_log = logging.getLogger(__name__)

#: No command has a longer name, in characters.
NAME_LIMIT = 100

#: How often it is looked whether the client still waits, in seconds.
LOOK = 1.0


class Wanted(NamedTuple):
    """What a client wants a guest to do.

    :ivar timeout: seconds within which the completion must come; None: as long as such a command has by default.
    :ivar wait: whether to answer when the completion has come, or at once.
    """

    name: str
    arguments: dict[str, Any]
    timeout: Optional[float]
    wait: bool


async def send(context: Context, request: web.Request) -> web.StreamResponse:
    """Send a command. A client that hangs up does not wait any longer, but the command goes on.

    The log says who gave a command that gives power over everything in a guest, and never what that command says.
    """
    find(context.facade, request)
    read_query(request, {})
    wanted = read_wanted(await read_object(request))
    row = CATALOGUE.find(Direction.TO_GUEST, wanted.name)
    who = await _who_asks(context, request) if row is not None and row.dangerous else None
    guest = find(context.facade, request)
    try:
        sent = context.facade.commands.send(guest, wanted.name, wanted.arguments, wanted.timeout)
    except Refused as refused:
        raise Problem(refused.kind, str(refused), **refused.members) from None
    if who is not None:
        _log.info("%s: %s sent by %s, reply id %s", printable(guest.name), sent.name, who, sent.reply_id)
    answer = await _answer(request, sent, wanted, context.ending)
    return web.json_response(
        {
            "guest": guest.name,
            "name": sent.name,
            "agreed": int(sent.agreed),
            "reply_id": sent.reply_id,
            "completion": None if answer is None else {"done": answer.done, **answer.more},
            "round_trip_s": None if answer is None else round(answer.after, 6),
        }
    )


async def refresh(context: Context, request: web.Request) -> web.StreamResponse:
    """Ask a guest for everything. A body means nothing."""
    guest = find(context.facade, request)
    read_query(request, {})
    try:
        guest.refresh(context.facade.clock())
    except Congested:
        raise Problem("congested", f"{guest.name} does not read what was sent before: try again when it does") from None
    except SendRefused:
        raise Problem("not-connected", f"{guest.name} is not connected: try again when it is") from None
    return web.json_response({"guest": guest.name, "agreed": int(guest.session.negotiation.agreed)})


def read_wanted(body: dict[str, Any]) -> Wanted:
    """What *body* says.

    :raises Problem: it says it in no way that is allowed.
    """
    check_members(body, Wanted._fields)
    name = body.get("name")
    if not isinstance(name, str) or not 0 < len(name) <= NAME_LIMIT:
        raise Problem("bad-request", f"name is no text of 1 to {NAME_LIMIT} characters; send the name of a command")
    arguments = body.get("arguments", {})
    if not isinstance(arguments, dict):
        raise Problem("bad-request", "arguments is no JSON object; send one, or leave it out")
    check_depth(arguments)
    wait = body.get("wait", True)
    if not isinstance(wait, bool):
        raise Problem("bad-request", "wait is neither true nor false; send one of them, or leave it out")
    return Wanted(name, arguments, _read_timeout(body["timeout"]) if "timeout" in body else None, wait)


def _read_timeout(value: object) -> float:
    shortest, longest = deadlines.SHORTEST, deadlines.LONGEST
    if isinstance(value, (int, float)) and not isinstance(value, bool) and shortest <= value <= longest:
        return float(value)
    raise Problem("bad-request", f"timeout is no number of seconds from {shortest:g} to {longest:g}; send one")


async def _who_asks(context: Context, request: web.Request) -> str:
    peer = await context.identify(request)
    name = await asyncio.get_running_loop().run_in_executor(None, access.name_of, peer.uid)
    return f"user {peer.uid}" if name is None else f"user {peer.uid} ({printable(name)})"


async def _answer(request: web.Request, sent: Sent, wanted: Wanted, ending: asyncio.Future[None]) -> Optional[Answer]:
    """The guest's answer; None: it is not waited for.

    :raises Problem: it does not come, or the daemon ends.
    """
    if sent.answer is None or not wanted.wait:
        return None
    ends: list[asyncio.Future[Any]] = [sent.answer, ending]
    while request.transport is not None and not any(each.done() for each in ends):
        await asyncio.wait(ends, timeout=LOOK, return_when=asyncio.FIRST_COMPLETED)
    try:
        if sent.answer.done():
            return sent.answer.result()
    except TimedOut as error:
        detail = f"no answer to {sent.name} within {error.patience:g} s; it may still come: the events will tell"
        raise Problem("timed-out", detail, reply_id=sent.reply_id) from None
    except Stopping:
        pass
    raise Problem("stopping", f"the daemon stops; whether {sent.name} was carried out is not known: look at the guest")
