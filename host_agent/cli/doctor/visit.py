"""The doctor's visit: asks the daemon, looks at everything in turn, and prints what was found."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Optional

from host_agent import paths, release
from host_agent.cli import terminal, views
from host_agent.cli.looking import print_json
from host_agent.client import Client, ClientError
from host_agent.exits import Exit
from host_agent.text import printable

from . import Finding, Level, control, guests, host, places

#: Of findings that differ by the guest only, so many are printed for people.
SHOWN = 10


def doctor(control_socket: Optional[str], guest: Optional[str], as_json: bool) -> Exit:
    """``vmaccord doctor``; TROUBLE where something does not work.

    :param guest: look at this one closely, and at no other.
    """
    findings = list(examine(control_socket, guest))
    if as_json:
        print_json([{**each._asdict(), "level": each.level.value} for each in findings])
    else:
        for line in _lines(findings):
            print(line)
    return Exit.TROUBLE if any(each.level is Level.TROUBLE for each in findings) else Exit.OK


def examine(control_socket: Optional[str], guest: Optional[str]) -> Iterator[Finding]:
    """Everything that there is to be found."""
    asked_for = control_socket is not None
    where, findings = control.choose([control_socket] if control_socket else paths.places_to_look(), asked_for)
    yield from findings
    if where is None:
        return
    runner, findings = control.probe(where)
    yield from findings
    if runner is None:
        return
    client = Client(where)
    try:
        yield from _examine_daemon(client.host(), client.guests(facts=False), runner, guest)
    except ClientError as error:
        yield Finding(Level.TROUBLE, "daemon", str(error))


def _examine_daemon(
    described: dict[str, Any], known: list[dict[str, Any]], runner: control.Runner, guest: Optional[str]
) -> Iterator[Finding]:
    yield from host.examine(described, release())
    yield from places.examine(described["directories"], runner, guest)
    yield from places.examine_fixed({name: path for name, path in described["fixed"].items() if guest in (None, name)})
    yield from guests.examine_all(known) if guest is None else guests.examine_one(known, guest)


def _lines(findings: Iterable[Finding]) -> Iterator[str]:
    """What people read; of many guests with the same complaint only some are named."""
    width = max(len(level.value) for level in Level)
    for (level, _), alike in itertools.groupby(_together(findings), lambda each: (each.level, each.check)):
        several = list(alike)
        label = terminal.paint(level.value.ljust(width), views.COLOURS[level.value])
        for each in several[:SHOWN]:
            yield f"{label}  {_sentence(each)}"
        if len(several) > SHOWN:
            yield f"{label}  and {len(several) - SHOWN} more like this; --json lists all"


def _together(findings: Iterable[Finding]) -> Sequence[Finding]:
    """The same *findings*, those of one kind behind the first of them."""
    order: dict[tuple[Level, str], list[Finding]] = {}
    for each in findings:
        order.setdefault((each.level, each.check), []).append(each)
    return [each for alike in order.values() for each in alike]


def _sentence(finding: Finding) -> str:
    about = f"{finding.guest}: " if finding.guest is not None else ""
    advice = f": {finding.advice}" if finding.advice else ""
    return printable(f"{about}{finding.text}{advice}")
