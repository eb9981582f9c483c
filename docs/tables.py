"""What the pages here print of the tables of the code: versions, messages, codes, settings, exit statuses.

Run this in the top of a source tree after one of these tables has changed; a test says when that was forgotten. Only rows
are written: a page's words, and tables that say more than the code does, are written by hand.
"""

from __future__ import annotations

import pathlib
from collections.abc import Iterable, Sequence
from typing import NamedTuple, Union

from common import catalogue, fields, messages, settings, statuses, versions
from common.handoff import documents, frames, greetings, refusals, steps, window
from common.handoff.members import Member, members_of
from common.session import REPLY_ID
from guest_agent import exits as guest_exits
from guest_agent import options as guest
from host_agent import config as host
from host_agent import exits as host_exits

DIRECTORY = pathlib.Path(__file__).parent


#: How a diagram begins.
_DIAGRAM = "```mermaid"


class Table(NamedTuple):
    """The rows of the first table below *heading* of *page*, without head and rule; or the lines of a diagram."""

    page: str
    heading: str
    rows: Sequence[str]


def tables() -> list[Table]:
    """All tables that are printed."""
    return [
        Table("protocol.md", "## Versions", [f"| {each} | {versions.ADDED[each]} |" for each in versions.Version]),
        *(Table("protocol.md", f"### {each.value}", _messages(each)) for each in catalogue.Direction),
        Table("protocol.md", "### Codes", [f"| `{code.value}` | {meaning} |" for code, meaning in messages.CODES.items()]),
        *_settings("vmaccord-guest", guest.SECTION, guest.SETTINGS),
        *_settings("vmaccord-host", host.SECTION, host.SETTINGS),
        _statuses("vmaccord-guest", guest_exits.Exit),
        _statuses("vmaccord-host and vmaccord", host_exits.Exit),
        *_handoff(),
    ]


def printed(text: str, heading: str) -> list[str]:
    """The rows, without head and rule, of the first table below *heading* of the page *text*.

    :raises ValueError: there is no such heading, or no table between it and the next one.
    """
    lines = text.split("\n")
    first, last = _place(lines, heading)
    return lines[first:last]


def replaced(text: str, table: Table) -> str:
    """The page *text* with the rows of *table*.

    :raises ValueError: there is no place for them.
    """
    lines = text.split("\n")
    first, last = _place(lines, table.heading)
    return "\n".join([*lines[:first], *table.rows, *lines[last:]])


def _place(lines: Sequence[str], heading: str) -> tuple[int, int]:
    """Where the rows of a table, or the lines of a diagram, begin, and where they end."""
    if heading not in lines:
        raise ValueError(f"no heading is {heading!r}")
    head = lines.index(heading) + 1
    while not lines[head].startswith(("|", _DIAGRAM)):
        head += 1
        if head == len(lines) or lines[head].startswith("#"):
            raise ValueError(f"no table stands below {heading!r}")
    if lines[head] == _DIAGRAM:
        return head + 1, lines.index("```", head)
    first = last = head + 2
    while last < len(lines) and lines[last].startswith("|"):
        last += 1
    return first, last


def _messages(direction: catalogue.Direction) -> list[str]:
    return [_message(row) for row in catalogue.CATALOGUE.rows if row.direction is direction]


def _message(row: catalogue.Row) -> str:
    arguments = [_argument(row, each) for each in messages.declared(row.message_class)]
    if row.answered is not None:
        arguments.append(f"`{REPLY_ID}` (str, optional{_later(row, row.answered)})")
    cells = [f"`{row.name}`", str(row.since), ", ".join(arguments) or "none"]
    if row.direction is catalogue.Direction.TO_GUEST:
        cells.insert(2, _offer(row))
    return f"| {' | '.join(cells)} |"


def _argument(row: catalogue.Row, argument: Union[fields.Argument, fields.Rest]) -> str:
    optional = "" if argument.required else ", optional"
    lenient = ", lenient" if argument.lenient else ""
    later = _later(row, row.later.get(argument.wire, row.since))
    return f"`{argument.wire}` ({argument.kind.label}{optional}{lenient}{later})"


def _later(row: catalogue.Row, since: versions.Version) -> str:
    return f", since {since}" if since > row.since else ""


def _offer(row: catalogue.Row) -> str:
    """What a guest must have said before it is sent a command."""
    if not row.needs_capability:
        return "–"
    return "yes; dangerous" if row.dangerous else "yes"


def _settings(program: str, main: str, table: Sequence[settings.Setting]) -> Iterable[Table]:
    for section, members in settings.by_section(table, main).items():
        heading = f"## {program}" if section == main else f"### Section `[{section}]` of {program}"
        yield Table("configuration.md", heading, [_setting(each) for each in members])


def _setting(setting: settings.Setting) -> str:
    if setting.section:
        return f"| `{setting.name}` | {settings.describe(setting)} |"
    repeated = " (repeatable)" if setting.repeated else ""
    return f"| `--{setting.name} {setting.metavar}`{repeated} | {settings.describe(setting)} |"


def _statuses(program: str, table: Iterable[statuses.Status]) -> Table:
    rows = [f"| {each.value} | {each.meaning} |" for each in table]
    return Table("configuration.md", f"### Exit statuses of {program}", rows)


def _handoff() -> Iterable[Table]:
    page = "handoff.md"
    yield Table(page, "## The document", [f"| {number} | {held} |" for number, held in documents.HOLDS.items()])
    for number, spec in documents.SPECS.items():
        yield Table(page, f"### Spec {number}", [_member(each) for each in members_of(spec)])
    yield Table(page, "## The sequence", list(_sequence()))
    yield Table(page, "### Commands", [_command(each) for each in frames.Command])
    yield Table(page, "### Hello", [_member(each) for each in members_of(greetings.Hello)])
    yield Table(page, "### The answer to Hello", [_member(each) for each in members_of(greetings.Welcome)])
    yield Table(page, "### Refusals", [f"| `{code.value}` | {meaning} |" for code, meaning in refusals.MEANINGS.items()])
    rows = [f"| {number} | {brought} |" for number, brought in window.VERSIONS.items()]
    yield Table(page, "### Protocol versions", rows)


def _member(member: Member) -> str:
    return f"| `{member.wire}` | {member.kind.label} | {member.says} |"


def _sequence() -> Iterable[str]:
    """The steps of a hand-off that goes well, and whose the guest is; then the one that gives it up."""
    yield "sequenceDiagram"
    yield "    participant source as source's daemon"
    yield "    participant destination as destination's daemon"
    owner = None
    for step in steps.STEPS:
        if step.command is frames.Command.ABANDON:
            yield "    Note over source,destination: or, instead of Complete:"
        name = step.command.name.capitalize()
        since = f" (since version {step.since})" if step.since else ""
        yield f"    source->>destination: {step.command.value} {name}{since}: {step.asks}"
        yield f"    destination-->>source: OK: {step.answers}"
        if step.leads_to.owner is not owner:
            owner = step.leads_to.owner
            yield f"    Note over {owner.value}: owns the guest"


def _command(command: frames.Command) -> str:
    limit = frames.LIMITS[command]
    size = f"{limit:,} bytes" if limit else "none"
    return f"| {command.value} | {command.name.capitalize()} | {size} | {frames.MEANINGS[command]} |"


if __name__ == "__main__":
    for table in tables():
        path = DIRECTORY / table.page
        path.write_text(replaced(path.read_text(encoding="utf-8"), table), encoding="utf-8")
