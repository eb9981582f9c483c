"""``vmaccord watch``: the list of guests as it changes; a live table on a terminal, a line for each change elsewhere.

What happens (the stream of events) is only a reason to look again; what counts is what the daemon says then. It is looked
now and then in any case, and never so often that the daemon has much to do with it.
"""

from __future__ import annotations

import contextlib
import json
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Any, Callable, Optional, Protocol

from host_agent.client import PATIENCE, Client, ClientError, DaemonUnreachable, Stopping

from . import terminal, views

Guests = list[dict[str, Any]]

#: After so many seconds without news it is looked all the same: ages grow by themselves.
PERIOD = 2.0

#: The shortest pause between two looks, in seconds, and by how much longer it is than the last look took.
PAUSE, PAUSE_BY_COST = 0.25, 4.0

#: Who just waits for a daemon that does not answer is not waited for longer than this, in seconds.
_FAREWELL = 1.0

#: What makes a difference that is worth a line, beside the state: all but ages.
_TELLING = ("agreed", "supported", "advertised", "in_use", "changes", "last_reason")

#: Lines that a table needs beside its rows.
_FRAME = 6


class Screen(Protocol):
    """Where guests are shown."""

    def show(self, guests: Guests) -> None:
        """Show what was just seen."""

    def wait(self, why: str) -> None:
        """The daemon can't be asked for the time being."""


class Lines:
    """Prints a line for each guest, and another one whenever something has changed.

    :param told: makes the line of a guest.
    :param forgotten: makes the line of a name whose guest is not known any longer.
    """

    def __init__(self, told: Callable[[dict[str, Any]], str], forgotten: Callable[[str], str]) -> None:
        self._told = told
        self._forgotten = forgotten
        self._shown: dict[str, object] = {}
        self._waits = False

    def show(self, guests: Guests) -> None:
        """Print what has changed."""
        self._waits = False
        seen = {guest["name"]: guest for guest in guests}
        for name, guest in seen.items():
            if self._shown.get(name) != _gist(guest):
                print(self._told(guest), flush=True)
        for name in self._shown.keys() - seen.keys():
            print(self._forgotten(name), flush=True)
        self._shown = {name: _gist(guest) for name, guest in seen.items()}

    def wait(self, why: str) -> None:
        """Say so, once."""
        if not self._waits:
            print(f"{why}; waiting", file=sys.stderr, flush=True)
        self._waits = True


class Table:
    """Draws a table, again and again in the same place."""

    def __init__(self) -> None:
        from rich.live import Live

        self._console = terminal.console()
        self._live = Live(console=self._console, auto_refresh=False)
        self._guests: Guests = []

    def __enter__(self) -> Table:
        self._live.start()
        return self

    def __exit__(
        self, kind: Optional[type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self._live.stop()

    def show(self, guests: Guests) -> None:
        """Draw *guests*, as many as there is room for."""
        self._guests = guests
        self._draw(views.totals(guests))

    def wait(self, why: str) -> None:
        """Say so below what was seen last."""
        self._draw(f"{why}; waiting")

    def _draw(self, line: str) -> None:
        shown = views.worst(self._guests, max(1, self._console.height - _FRAME))
        missing = len(self._guests) - len(shown)
        if missing:
            line = f"{line}; {missing} of them have no room here"
        table = terminal.table(views.HEADERS, views.overview(shown), marked=1)
        self._live.update(terminal.above(table, line), refresh=True)


def watch(client: Client, as_json: bool) -> None:
    """Show the guests until Ctrl-C.

    :raises ClientError: the daemon can't be asked, or has been away for too long.
    """
    with contextlib.suppress(KeyboardInterrupt):
        if as_json:
            follow(client, Lines(json.dumps, lambda name: json.dumps({"name": name, "forgotten": True})))
        elif not terminal.is_terminal():
            follow(client, Lines(views.standing, lambda name: f"{views.name(name)}  forgotten"))
        else:
            with Table() as table:
                follow(client, table)


def follow(client: Client, screen: Screen, patience: float = PATIENCE) -> None:
    """Show the guests on *screen* until interrupted.

    :param patience: seconds for which a daemon that went away is waited for.
    :raises ClientError: the daemon can't be asked, or has been away for longer.
    """
    with _news(client) as news:
        screen.show(client.guests(facts=False))
        seen_at = time.monotonic()
        while True:
            news.wait(PERIOD)
            news.clear()
            began = time.monotonic()
            try:
                guests = client.guests(facts=False)
            except (DaemonUnreachable, Stopping) as error:
                if began - seen_at > patience:
                    raise
                screen.wait(str(error))
            else:
                seen_at = time.monotonic()
                screen.show(guests)
            time.sleep(max(PAUSE, PAUSE_BY_COST * (time.monotonic() - began)))


@contextlib.contextmanager
def _news(client: Client) -> Iterator[threading.Event]:
    """Set whenever something has happened."""
    news = threading.Event()
    events = client.events()

    def listen() -> None:
        # Whoever looks is told of it, too.
        with contextlib.suppress(ClientError):
            _set_for_each(news, events)

    thread = threading.Thread(target=listen, daemon=True)
    thread.start()
    try:
        yield news
    finally:
        events.close()
        thread.join(_FAREWELL)


def _set_for_each(news: threading.Event, events: Iterable[object]) -> None:
    for _ in events:
        news.set()


def _gist(guest: dict[str, Any]) -> object:
    channel, api = guest["channel"], guest["api"]
    moves = guest.get("handoff"), guest.get("frozen") is not None
    return channel["state"], channel.get("throttled"), channel["path"], moves, [api[name] for name in _TELLING]
