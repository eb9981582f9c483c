"""Completion in shells: the script for each shell, and what the script is answered with while somebody types.

Answers come fast or not at all: a daemon that is slow or away offers no names, and says nothing.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable
from typing import Optional

import click
from click.shell_completion import BashComplete, CompletionItem, FishComplete, ShellComplete, ZshComplete

from common.catalogue import CATALOGUE
from host_agent.exits import Failure

_KINDS: dict[str, type[ShellComplete]] = {"bash": BashComplete, "zsh": ZshComplete, "fish": FishComplete}

SHELLS = tuple(_KINDS)

#: Names come within so many seconds, or do not come.
_TIMEOUT = 1.0

#: What stands for itself in every shell, and in what the scripts and the command say to each other.
_PLAIN = re.compile(r"[\w.@%+-]+")


def script(program: click.Command, name: str, shell: str) -> str:
    """The script by which *shell* completes what is typed behind *name*."""
    made = _KINDS[shell](program, {}, name, f"_{name.upper()}_COMPLETE")
    # The class for bash looks at the bash of this machine first, which need not be the one that gets the script.
    return ShellComplete.source(made).strip() + "\n"


def guests(context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The names of guests that begin with *incomplete*."""
    from host_agent.client import Client

    with contextlib.suppress(Failure):
        client = Client(context.find_root().params.get("control"), _TIMEOUT)
        described = client.guests(facts=False)
        return _items(((each["name"], each["channel"]["state"]) for each in described), incomplete)
    return []


def peers(context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The names of hosts that guests may be handed over to, as far as they begin with *incomplete*."""
    from host_agent.client import Client

    with contextlib.suppress(Failure):
        host = Client(context.find_root().params.get("control"), _TIMEOUT).host()
        return _items(((name, None) for name in host.get("handoff", {}).get("peers", ())), incomplete)
    return []


def specs(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The session specs, with what they hold, whose numbers begin with *incomplete*."""
    from common.handoff import documents

    return _items(((str(number), holds) for number, holds in documents.HOLDS.items()), incomplete)


def words(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """What may come next behind ``send``: a guest, unless the command goes to all, then a command."""
    typed = list(context.params.get("words") or ())
    if not context.params.get("to_all"):
        if not typed:
            return guests(context, parameter, incomplete)
        typed.pop(0)
    return [] if typed else commands(context, parameter, incomplete)


def commands(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The commands that begin with *incomplete*, with their arguments."""
    from . import arguments

    return _items(((row.name, arguments.signature(row)) for row in CATALOGUE.commands), incomplete)


def _items(offered: Iterable[tuple[str, Optional[str]]], incomplete: str) -> list[CompletionItem]:
    return [
        CompletionItem(text, help=help_text or None)
        for text, help_text in offered
        if text.startswith(incomplete) and _PLAIN.fullmatch(text)
    ]
