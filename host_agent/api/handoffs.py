"""What operators have done around the move of a guest from host to host, and what they see of it.

The log says who handed a guest over, gave that up, or took one in from a file.
"""

from __future__ import annotations

import logging
from typing import Any, Optional

from aiohttp import web

from common.handoff import documents, files
from common.handoff.members import UUID
from host_agent import deadlines
from host_agent.handoff.outcomes import HandoffFailed
from host_agent.text import printable

from . import access, inputs
from .facade import Context
from .guests import find
from .inputs import BYTES, check_members, read_query, yes_or_no
from .problems import Problem
from .waiting import as_problem, outcome, told

_log = logging.getLogger(__name__)

#: No guest and no peer has a longer name, in characters.
NAME_LIMIT = 255

#: How long a guest may be awaited, and how long it is where nobody says, in seconds.
SHORTEST, LONGEST, USUAL = 1.0, 86_400.0, 600.0

#: What may be said of the migration of a guest.
STAGES = ("begin", "failed", "arrived")


async def send(context: Context, request: web.Request) -> web.StreamResponse:
    """Hand a guest over to another host. A client that hangs up does not wait any longer, but the hand-off goes on."""
    find(context.facade, request)
    read_query(request, {})
    body = await inputs.read_object(request)
    check_members(body, ("to", "allow_loss"))
    to = None if body.get("to") is None else inputs.read_text(body, "to", NAME_LIMIT)
    allow_loss = inputs.read_choice(body, "allow_loss", False)
    who = await _who_asks(context, request)
    guest = find(context.facade, request)
    where = "the peer that awaits it" if to is None else printable(to)
    _log.info("%s: hand-off to %s asked for by %s", printable(guest.name), where, who)
    handed = await outcome(context, context.facade.handoffs.send(guest, to, allow_loss), "the hand-off")
    return web.json_response({"guest": guest.name, **handed._asdict()})


async def cancel(context: Context, request: web.Request) -> web.StreamResponse:
    """Give up a hand-off, by force also where nobody knows who owns the guest. A body means nothing."""
    find(context.facade, request)
    force = read_query(request, {"force": yes_or_no}).get("force", False)
    who = await _who_asks(context, request)
    guest = find(context.facade, request)
    _log.info("%s: end of its hand-off asked for by %s%s", printable(guest.name), who, ", by force" if force else "")
    await outcome(context, context.facade.handoffs.cancel(guest, force), "the end of the hand-off")
    return web.json_response({"guest": guest.name})


async def tell_all(context: Context, request: web.Request) -> web.StreamResponse:
    """The hand-offs that are under way."""
    read_query(request, {})
    return web.json_response(context.facade.handoffs.status())


async def expect(context: Context, request: web.Request) -> web.StreamResponse:
    """Await a guest from another host."""
    read_query(request, {})
    body = await inputs.read_object(request)
    check_members(body, ("name", "uuid", "patience"))
    name = inputs.read_text(body, "name", NAME_LIMIT)
    uuid = _read_uuid(body.get("uuid"))
    patience = inputs.read_seconds(body, "patience", SHORTEST, LONGEST) or USUAL
    try:
        context.facade.handoffs.expect(name, uuid, patience)
    except HandoffFailed as failure:
        raise as_problem(failure) from None
    return web.json_response({"name": name, "uuid": uuid, "patience": patience})


async def export(context: Context, request: web.Request) -> web.StreamResponse:
    """The file of what is known of a guest."""
    query = read_query(request, {"spec": _read_spec, "allow-loss": yes_or_no})
    guest = find(context.facade, request)
    spec, allow_loss = query.get("spec", documents.NEWEST), query.get("allow-loss", False)
    try:
        content = context.facade.handoffs.export(guest, spec, allow_loss)
    except HandoffFailed as failure:
        raise as_problem(failure) from None
    return web.Response(body=content, content_type=BYTES)


async def take_in(context: Context, request: web.Request) -> web.StreamResponse:
    """Take the guest that a file tells of."""
    read_query(request, {})
    content = await inputs.read_bytes(request, files.FILE_LIMIT)
    who = await _who_asks(context, request)
    guest = await outcome(context, context.facade.handoffs.take_in(content), "the import")
    _log.info("%s: taken in from a file by %s", printable(guest.name), who)
    return web.json_response({"guest": guest.name, "uuid": guest.uuid})


async def migrate(context: Context, request: web.Request) -> web.StreamResponse:
    """Tell a guest where its migration stands, and wait for its answer before it begins."""
    find(context.facade, request)
    read_query(request, {})
    body = await inputs.read_object(request)
    check_members(body, ("stage", "timeout"))
    stage = body.get("stage")
    if stage not in STAGES:
        raise Problem("bad-request", f"stage is none of {', '.join(STAGES)}; send one of them")
    patience = inputs.read_seconds(body, "timeout", deadlines.SHORTEST, deadlines.LONGEST)
    guest, handoffs, answer = find(context.facade, request), context.facade.handoffs, None
    if stage == "begin":
        answer = await outcome(context, handoffs.begin(guest, patience), "before_migration")
    elif stage == "failed":
        handoffs.failed(guest)
    else:
        handoffs.arrived(guest)
    return web.json_response({"guest": guest.name, "stage": stage, **told(answer)})


async def _who_asks(context: Context, request: web.Request) -> str:
    return await access.shown(await context.identify(request))


def _read_spec(name: str, text: str) -> int:
    spec = inputs.number(name, text)
    if spec not in documents.SPECS:
        known = ", ".join(map(str, documents.SPECS))
        raise Problem("bad-request", f"{name} {spec} of a session is not known here; allowed: {known}")
    return spec


def _read_uuid(value: Any) -> Optional[str]:
    try:
        return None if value is None else str(UUID.check(value))
    except ValueError:
        raise Problem("bad-request", "uuid is no UUID; send one, or leave it out") from None
