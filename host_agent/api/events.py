"""What happens, as server-sent events: https://html.spec.whatwg.org/multipage/server-sent-events.html

A stream is a position in the feed, and nothing else: it takes what is newer whenever its client has read what came before.
So a client that does not read costs nothing, and is told how much it missed. An event's id names the daemon's run and the
position after it, so that a stream goes on where another one broke off. A comment says that there is nothing more to tell.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Mapping
from typing import Any, NamedTuple, Optional

from aiohttp import web

from host_agent.feed import LIMIT, Feed, Happening

from .facade import Context
from .inputs import read_query
from .problems import Problem, quoted
from .streams import head, streaming

CONTENT_TYPE = "text/event-stream"

#: A client that hears nothing for much longer can take the connection for dead, in seconds.
KEEP_ALIVE = 15.0

#: The event that stands for those which can't be told, and what it means.
LOST = "lost"
LOST_MEANING = "events are not kept any more, or were of another run of the daemon; details: count (`null`: not known)"

#: How many happenings are looked at in a row: others want to be served, too.
_BATCH = 100

#: An event's id: the identity of the daemon's run, and the event's number.
ID_FORM = re.compile("([0-9A-Za-z]+)-([0-9]{1,18})")

_COUNT_FORM = re.compile("[0-9]{1,5}")


class Wish(NamedTuple):
    """What a client wants to be told.

    :ivar guest: only what happened to this one; None: everything.
    :ivar after: the number of the happening after which to begin.
    :ivar of_another_run: whether the client followed a run of the daemon that is over.
    """

    guest: Optional[str]
    after: int
    of_another_run: bool = False

    def wants(self, happening: Happening) -> bool:
        """Whether *happening* is to be told."""
        return self.guest is None or happening.guest == self.guest


def read_wish(request: web.Request, feed: Feed) -> Wish:
    """What *request* asks for.

    :raises Problem: it says so in no way that is allowed.
    """
    query: dict[str, Any] = read_query(request, {"guest": _text, "recent": _count})
    wish = Wish(query.get("guest"), feed.last)
    last_id = request.headers.get("Last-Event-ID")
    return _resumed(wish, last_id, feed) if last_id else _with_recent(wish, query.get("recent", 0), feed)


async def follow(context: Context, request: web.Request) -> web.StreamResponse:
    """Tell what *request* asks for, until the client goes or the daemon stops."""
    feed = context.facade.feed
    wish = read_wish(request, feed)
    if request.method == "HEAD":
        return head(CONTENT_TYPE)
    async with streaming(request, CONTENT_TYPE) as response:
        await _Stream(response, feed, wish, context.keep_alive).run(context.ending)
    return response


class _Stream:
    """One client's way through the feed."""

    def __init__(self, response: web.StreamResponse, feed: Feed, wish: Wish, keep_alive: float) -> None:
        self._response = response
        self._feed = feed
        self._wish = wish
        self._keep_alive = keep_alive
        self._clock = asyncio.get_running_loop().time
        self._position = wish.after
        self._missed_a_run = wish.of_another_run
        self._mark_due = 0.0

    async def run(self, ending: asyncio.Future[None]) -> None:
        """Tell everything until *ending* is done."""
        await self._catch_up()
        await self._mark()
        while not ending.done():
            await self._wait(ending)
            await self._catch_up()
            if self._clock() >= self._mark_due:
                await self._mark()

    async def _catch_up(self) -> None:
        """Tell what is newer than the position, and move it."""
        while self._missed_a_run or self._position < self._feed.last:
            lost, newer = self._feed.since(self._position)
            if lost or self._missed_a_run:
                await self._tell_lost(lost)
            batch = newer[:_BATCH]
            wanted = [self._write_event(each) for each in batch if self._wish.wants(each)]
            self._position += len(batch)
            if wanted:
                await self._say("".join(wanted))
            await asyncio.sleep(0)

    async def _tell_lost(self, count: int) -> None:
        self._position += count
        known = None if self._missed_a_run else count
        self._missed_a_run = False
        await self._say(self._write(self._position, LOST, {"count": known}))

    async def _mark(self) -> None:
        """Say that there is nothing more, and where to go on."""
        await self._say(f"id: {self._id(self._position)}\n\n:\n\n")

    async def _say(self, text: str) -> None:
        await self._response.write(text.encode("ascii"))
        self._mark_due = self._clock() + self._keep_alive

    async def _wait(self, ending: asyncio.Future[None]) -> None:
        """Until there is news, a mark is due, or *ending* is done."""
        news = asyncio.ensure_future(self._feed.wait(self._position))
        try:
            patience = max(0.0, self._mark_due - self._clock())
            await asyncio.wait({news, ending}, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
        finally:
            news.cancel()

    def _write_event(self, happening: Happening) -> str:
        values = {"at": happening.at, "guest": happening.guest, **happening.details}
        return self._write(happening.number, happening.kind, values)

    def _write(self, number: int, kind: str, values: Mapping[str, Any]) -> str:
        return f"id: {self._id(number)}\nevent: {kind}\ndata: {json.dumps(values)}\n\n"

    def _id(self, number: int) -> str:
        return f"{self._feed.run}-{number}"


def _resumed(wish: Wish, last_id: str, feed: Feed) -> Wish:
    """*wish*, to go on after the event *last_id*."""
    form = ID_FORM.fullmatch(last_id)
    if form is None:
        raise Problem("bad-request", f"Last-Event-ID is {quoted(last_id)}; send the id of an event, or leave it out")
    if form[1] != feed.run:
        return wish._replace(after=0, of_another_run=True)
    number = int(form[2])
    if number > feed.last:
        raise Problem("bad-request", f"Last-Event-ID is {quoted(last_id)}, which no event has yet; leave it out")
    return wish._replace(after=number)


def _with_recent(wish: Wish, count: int, feed: Feed) -> Wish:
    """*wish*, to begin with the latest *count* of what it wants."""
    if not count:
        return wish
    _, kept = feed.since(0)
    wanted = [each.number for each in kept if wish.wants(each)][-count:]
    return wish._replace(after=wanted[0] - 1) if wanted else wish


def _text(_name: str, text: str) -> str:
    return text


def _count(name: str, text: str) -> int:
    if not _COUNT_FORM.fullmatch(text) or int(text) > LIMIT:
        raise Problem("bad-request", f"{name} is {quoted(text)}; allowed: a whole number from 0 to {LIMIT}")
    return int(text)
