"""What operators have done: commands to guests, and asking one for everything."""

from __future__ import annotations

import asyncio
import logging
from typing import Any, NamedTuple, Optional

from aiohttp import web

from common.catalogue import CATALOGUE, Direction, Row
from common.errors import Congested, SendRefused
from host_agent import deadlines
from host_agent.commands import Answer, Moved, Sent, Stopping, TimedOut
from host_agent.refusals import Refused, refuse_away
from host_agent.text import printable

from . import access
from .facade import Context
from .guests import find
from .inputs import check_depth, check_members, read_choice, read_object, read_query, read_seconds, read_text
from .problems import Problem
from .waiting import as_problem, outcome, stopping, timed_out, told

_log = logging.getLogger(__name__)

#: No command has a longer name, in characters.
NAME_LIMIT = 100

#: How often it is looked whether the client still waits, in seconds.
LOOK = 1.0


class Wanted(NamedTuple):
    """What a client wants a guest to do.

    :ivar timeout: seconds within which the completion must come; None: as long as such a command has by default.
    :ivar wait: whether to answer when the completion has come, or at once.
    :ivar follow: whether to ask the guest's new host for the completion where the guest moves meanwhile.
    """

    name: str
    arguments: dict[str, Any]
    timeout: Optional[float]
    wait: bool
    follow: bool


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
        raise as_problem(refused) from None
    if who is not None:
        _log.info("%s: %s sent by %s, reply id %s", printable(guest.name), sent.name, who, sent.reply_id)
    deadline = context.facade.clock() + (wanted.timeout or _usual_patience(row, wanted))
    try:
        answer = await _answer(request, sent, wanted, context.ending)
    except Moved as moved:
        if not wanted.follow:
            raise _moved(guest.name, sent, moved) from None
        left = max(deadlines.SHORTEST, deadline - context.facade.clock())
        following = context.facade.handoffs.follow(moved, left)
        answer = await outcome(context, following, sent.name, reply_id=moved.reply_id)
    return web.json_response(
        {
            "guest": guest.name,
            "name": sent.name,
            "agreed": int(sent.agreed),
            "reply_id": sent.reply_id,
            **told(answer),
        }
    )


async def refresh(context: Context, request: web.Request) -> web.StreamResponse:
    """Ask a guest for everything. A body means nothing."""
    guest = find(context.facade, request)
    read_query(request, {})
    away = refuse_away(guest)
    if away is not None:
        raise as_problem(away)
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
    name = read_text(body, "name", NAME_LIMIT)
    arguments = body.get("arguments", {})
    if not isinstance(arguments, dict):
        raise Problem("bad-request", "arguments is no JSON object; send one, or leave it out")
    check_depth(arguments)
    timeout = read_seconds(body, "timeout", deadlines.SHORTEST, deadlines.LONGEST)
    return Wanted(name, arguments, timeout, read_choice(body, "wait", True), read_choice(body, "follow", False))


async def _who_asks(context: Context, request: web.Request) -> str:
    return await access.shown(await context.identify(request))


def _usual_patience(row: Optional[Row], wanted: Wanted) -> float:
    return deadlines.USUAL if row is None else deadlines.by_default(row, wanted.arguments)


def _moved(guest: str, sent: Sent, moved: Moved) -> Problem:
    detail = (
        f"{guest} moved to {moved.to} before it had answered {sent.name}: look for the completion {moved.reply_id} "
        "in the events there; who sends with --follow is told of it here"
    )
    return Problem("moved", detail, to=moved.to, reply_id=moved.reply_id)


async def _answer(request: web.Request, sent: Sent, wanted: Wanted, ending: asyncio.Future[None]) -> Optional[Answer]:
    """The guest's answer; None: it is not waited for.

    :raises Moved: the guest has moved to another host.
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
        raise timed_out(sent.name, error, reply_id=sent.reply_id) from None
    except Stopping:
        pass
    raise stopping(sent.name)
