"""Commands of the operator that change nothing: each prints what the daemon says."""

from __future__ import annotations

import contextlib
import json
import sys
from typing import Optional

from common import catalogue
from host_agent.client import Client

from . import arguments, terminal, views

#: So many of the latest events are told where nobody says how many and nobody follows.
RECENT = 20


def list_guests(client: Client, can: Optional[str], as_json: bool) -> None:
    """``vmaccord list``; with *can* only those that may be sent the command of that name now."""
    command = None if can is None else arguments.find_command(can).name
    guests = client.guests(facts=as_json, can=command)
    if as_json:
        print_json(guests)
    elif guests:
        terminal.print_table(views.HEADERS, views.overview(guests), marked=1)
    elif command is not None:
        print(f"no guest may be sent {command} now; 'vmaccord messages --guest GUEST' says why not", file=sys.stderr)
    else:
        print(views.nobody(client.host()), file=sys.stderr)


def show(client: Client, guest: str, as_json: bool) -> None:
    """``vmaccord show``."""
    description = client.guest(guest)
    if as_json:
        print_json(description)
    else:
        print(views.details(description))


def events(client: Client, follow: bool, guest: Optional[str], recent: Optional[int], as_json: bool) -> None:
    """``vmaccord events``; Ctrl-C ends it."""
    if recent is None and not follow:
        recent = RECENT
    with contextlib.suppress(KeyboardInterrupt), client.events(follow, guest=guest, recent=recent) as happening:
        for event in happening:
            print(json.dumps(views.event_document(event)) if as_json else views.event_line(event), flush=True)


def messages(client: Optional[Client], guest: Optional[str], as_json: bool) -> None:
    """``vmaccord messages``; of *guest* the daemon is asked, else nobody is."""
    described = client.guest(guest) if client is not None and guest is not None else None
    rows = catalogue.CATALOGUE.commands if described else catalogue.CATALOGUE.rows
    if as_json:
        print_json(views.message_documents(rows, described))
    elif described:
        terminal.print_table(views.COMMAND_HEADERS, views.commands(rows, described), marked=2)
    else:
        terminal.print_table(views.MESSAGE_HEADERS, views.messages(rows))


def print_json(value: object) -> None:
    """Print *value* as JSON, all of it in ASCII."""
    print(json.dumps(value, indent=2))
