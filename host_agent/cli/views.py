"""What the operator's commands print: the control API's JSON as text for people. Pure.

Every string of a guest passes ``printable``; what is unknown is a ``-``.
"""

from __future__ import annotations

import datetime
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Optional

from common import catalogue
from host_agent.client import Answer, Event
from host_agent.text import LENGTH_LIMIT, printable

from . import arguments

UNKNOWN = "-"

HEADERS = ("GUEST", "STATE", "AGREED", "ADVERTISED", "IN USE", "HEARD", "LAST CHANGE")
MESSAGE_HEADERS = ("MESSAGE", "DIRECTION", "SINCE", "DANGEROUS", "ARGUMENTS")
COMMAND_HEADERS = ("COMMAND", "SINCE", "NOW", "DANGEROUS", "ARGUMENTS, OR WHY NOT")
RESULT_HEADERS = ("GUEST", "RESULT", "WHAT IT SAYS")
HANDOFF_HEADERS = ("GUEST", "THIS HOST IS", "PEER", "PHASE", "FOR")

#: The colours of words by which people see at a glance how things are.
COLOURS = {
    "responsive": "green",
    "connecting": "yellow",
    "connected": "yellow",
    "unresponsive": "red",
    "yes": "green",
    "no": "yellow",
    "done": "green",
    "sent": "green",
    "failed": "red",
    "refused": "red",
    "ok": "green",
    "warning": "yellow",
    "trouble": "red",
}

#: In which order states are worth looking at.
_WORST_FIRST = {"unresponsive": 0, "connecting": 1, "connected": 2, "absent": 3, "responsive": 4}

#: What is said of a hand-off by its state, and what follows from that; nothing of a guest that is here.
_HANDOFFS = {
    "moving": ("moving", "it is sent no commands meanwhile"),
    "in-doubt": ("perhaps moved", "that host is asked until it answers; nobody here sends it commands meanwhile"),
    "moved": ("moved", "send it commands there"),
}

#: What a session says, by how much it matters; what is not named here comes between the last two.
_WEIGHTIEST_FIRST = {"commands": 0, "frozen": 1, "facts": 2, "capabilities": 3, "counters": 5}

#: What was heard on another channel, by an earlier run of the daemon, or on another host.
_EARLIER = ", from before: nothing is agreed now"

#: So many names are listed for people.
_LISTED = 10

#: A version above this is shown as such: a guest may announce one of thousands of digits.
_VERSION_LIMIT = 9999


def name(guest: Optional[str]) -> str:
    """A guest's name."""
    return UNKNOWN if guest is None else printable(guest)


def whole(text: str) -> str:
    """*text* as it is shown where nothing of it may be cut, because it is meant to be read or copied as a whole."""
    return "".join(printable(text[start : start + LENGTH_LIMIT]) for start in range(0, len(text), LENGTH_LIMIT))


def overview(guests: Iterable[dict[str, Any]]) -> list[tuple[str, ...]]:
    """One row for each guest, under ``HEADERS``."""
    return [
        (
            name(guest["name"]),
            _state(guest),
            _version(guest["api"]["agreed"]),
            _version(guest["api"]["advertised"]),
            _version(guest["api"]["in_use"]),
            _ago(guest["heard_s"]),
            _last_change(guest["api"], sentence=False),
        )
        for guest in guests
    ]


def totals(guests: Iterable[dict[str, Any]]) -> str:
    """How many guests there are, and in which states."""
    states = Counter(guest["channel"]["state"] for guest in guests)
    number = sum(states.values())
    parts = ", ".join(f"{count} {state}" for state, count in sorted(states.items()))
    return f"{number} {'guest' if number == 1 else 'guests'}{f': {parts}' if parts else ''}"


def worst(guests: Sequence[dict[str, Any]], room: int) -> list[dict[str, Any]]:
    """As many of *guests* as there is *room* for, in their order: those that are not well come first into it."""
    by_need = sorted(guests, key=lambda guest: _WORST_FIRST.get(guest["channel"]["state"], 0))
    chosen = {guest["name"] for guest in by_need[:room]}
    return [guest for guest in guests if guest["name"] in chosen]


def standing(guest: dict[str, Any]) -> str:
    """How one guest stands, on one line."""
    api = guest["api"]
    versions = " ".join(f"{key}={_version(api[key])}" for key in ("agreed", "advertised", "in_use"))
    return "  ".join((name(guest["name"]), _state(guest), versions, _scalar(api["last_reason"])))


def nobody(host: dict[str, Any]) -> str:
    """The line in place of a list without guests; *host* is the daemon."""
    sources = [*host["directories"], *(each["uri"] for each in host.get("libvirt", ()))]
    return f"no guests found in {', '.join(map(printable, sources))}; see 'vmaccord doctor'"


def duration(seconds: float) -> str:
    """So many seconds, in the unit that suits people."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    if seconds < 3600:
        return f"{seconds // 60:.0f} min"
    if seconds < 48 * 3600:
        return f"{seconds // 3600:.0f} h"
    return f"{seconds // 86400:.0f} d"


def columns(rows: Sequence[Sequence[str]]) -> str:
    """*rows* as aligned columns; nothing is cut."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows)


def details(guest: dict[str, Any]) -> str:
    """Everything about one guest."""
    channel, api = guest["channel"], guest["api"]
    lines = [
        printable(guest["name"]),
        "",
        "Channel",
        *_aligned(
            [
                ("state", f"{_channel_state(channel)} for {duration(channel['since_s'])}"),
                ("path", _scalar(channel["path"])),
                ("uuid", _scalar(guest.get("uuid"))),
                ("heard", _ago(guest["heard_s"])),
            ]
        ),
        *_whereabouts(guest),
        "",
        "API version",
        *_aligned(
            [
                ("agreed", _version(api["agreed"])),
                ("in use", _version(api["in_use"])),
                ("the guest supports up to", _version(api["advertised"])),
                ("this host supports up to", _version(api["supported"])),
                ("changes", str(api["changes"])),
                ("last change", _last_change(api, sentence=True)),
            ]
        ),
        *_history(guest.get("history", ())),
        *_commands(guest.get("commands", ())),
        *_capabilities(guest.get("capabilities"), _EARLIER if api["agreed"] is None else ""),
        "",
        f"Facts{_EARLIER if guest['facts'] and api['agreed'] is None else ''}",
        *_facts(guest["facts"]),
        "",
        "Counters",
        *_tree(guest["counters"], "  "),
    ]
    return "\n".join(lines)


def handoffs(documents: Iterable[Mapping[str, Any]]) -> list[tuple[str, ...]]:
    """One row for each hand-off, under ``HANDOFF_HEADERS``."""
    return [
        (
            name(each["guest"] or None),
            each["role"],
            name(each["peer"]),
            printable(each["phase"]),
            UNKNOWN if each["since_s"] is None else duration(each["since_s"]),
        )
        for each in documents
    ]


def session(number: int, said: Mapping[str, Any]) -> str:
    """An exported session, written in the session spec *number*, of which *said* are the members in the newest one."""
    reference = said.get("reference") or {}
    known = [
        ("uuid", said.get("uuid")),
        ("the guest supports up to", said.get("advertised")),
        ("run of its agent", said.get("agent_id")),
        ("reply ids number above", said.get("reply_id_floor") or None),
        ("a reference host agreed on", reference.get("api_version_hint")),
        ("its addresses there", reference.get("guest_ips")),
    ]
    facts = {each: {"age_s": fact.get("age_s"), "value": fact["arguments"]} for each, fact in said.get("facts", {}).items()}
    lines = [
        f"{printable(said.get('name') or 'a guest without a name')} (session spec {number})",
        "Ages, and times that are left, are those of the moment when this was written.",
        "",
        "Guest",
        *_aligned([(label, _scalar(value)) for label, value in known if value is not None] or [("uuid", UNKNOWN)]),
        *_frozen(said.get("frozen")),
        *_history(list(reversed(said.get("version_changes", ())))),
        *_commands(said.get("commands", ())),
        *_capabilities(said.get("capabilities")),
        "",
        "Facts",
        *_facts(facts),
    ]
    if said.get("counters"):
        lines += ["", "Counters", *_tree(said["counters"], "  ")]
    return "\n".join(lines)


def by_weight(names: Iterable[str]) -> list[str]:
    """The dotted *names* of what a session says, what matters most first."""
    return sorted(names, key=lambda each: _WEIGHTIEST_FIRST.get(each.partition(".")[0], 4))


def listed(names: Sequence[str]) -> str:
    """*names*, and of very many the first ones."""
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(map(printable, names[:_LISTED])) + more


def event_line(event: Event) -> str:
    """One event: when, to which guest, what, and its details as ``key=value``."""
    details = " ".join(f"{printable(key)}={_quoted(value)}" for key, value in event.details.items() if value is not None)
    when = UNKNOWN if event.at is None else _clock(event.at)
    return "  ".join(part for part in (when, name(event.guest), printable(event.kind), details) if part)


def event_document(event: Event) -> dict[str, Any]:
    """One event as a JSON object on a level with its details."""
    return {"id": event.id, "kind": event.kind, "at": event.at, "guest": event.guest, **event.details}


def messages(rows: Iterable[catalogue.Row]) -> list[tuple[str, ...]]:
    """The table of messages, under ``MESSAGE_HEADERS``."""
    return [(row.name, row.direction.value, str(row.since), _danger(row), arguments.signature(row)) for row in rows]


def obstacle(guest: Mapping[str, Any], command: str) -> Optional[str]:
    """Why *command* can't be sent to *guest* now, as the daemon says it; None: it can."""
    obstacles: Mapping[str, Optional[Mapping[str, Any]]] = guest.get("obstacles", {})
    if command not in obstacles:
        return f"vmaccord-host does not know {command}: restart it, it is older than this program"
    found = obstacles[command]
    return None if found is None else str(found["detail"])


def commands(rows: Iterable[catalogue.Row], guest: dict[str, Any]) -> list[tuple[str, ...]]:
    """Which commands *guest* may be sent now, and why not, under ``COMMAND_HEADERS``."""
    found = ((row, obstacle(guest, row.name)) for row in rows)
    return [
        (row.name, str(row.since), "no" if why else "yes", _danger(row), printable(why or arguments.signature(row)))
        for row, why in found
    ]


def message_documents(rows: Iterable[catalogue.Row], guest: Optional[dict[str, Any]] = None) -> list[dict[str, Any]]:
    """The table of messages as JSON has it; with *guest*, whether each may be sent to it now, and why not."""
    documents = []
    for row in rows:
        document: dict[str, Any] = {
            "name": row.name,
            "direction": row.direction.name.lower().replace("_", "-"),
            "since": int(row.since),
            "arguments": arguments.documents(row),
            "dangerous": row.dangerous,
        }
        if guest is not None:
            document["obstacle"] = obstacle(guest, row.name)
            document["sendable"] = document["obstacle"] is None
        documents.append(document)
    return documents


def answer(given: Answer) -> str:
    """What became of a command, and what the guest says of it."""
    return "\n".join((f"{name(given.guest)}: {given.name} {outcome(given)}", *_tree(_said(given), "  ")))


def outcome(given: Answer) -> str:
    """What became of a command, in one or a few words."""
    if given.completion is None:
        return f"sent at API {given.agreed}"
    took = f" in {given.round_trip_s * 1000:.0f} ms" if given.round_trip_s is not None else ""
    return f"failed: {reason(given)}" if given.failed else f"done{took}"


def reason(given: Answer) -> str:
    """Why the guest could not do it, as it says itself."""
    said = given.completion or {}
    error = said.get("error")
    text = error.get("message") if isinstance(error, dict) else said.get("reason")
    return printable(text) if isinstance(text, str) and text else "it does not say why"


def said(given: Answer) -> str:
    """What the guest says beside that it is done, on one line."""
    return " ".join(f"{printable(key)}={_quoted(value)}" for key, value in _said(given).items())


def _said(given: Answer) -> dict[str, Any]:
    return {key: value for key, value in (given.completion or {}).items() if key not in ("done", "reply_id")}


def _danger(row: catalogue.Row) -> str:
    return "yes" if row.dangerous else "no"


def _history(changes: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    if changes:
        yield from ("", "Version history")
        for change in changes:
            yield f"  {_ago(change['ago_s'])}: {change['old']} → {change['new']}: {printable(change['reason'])}"


def _commands(sent: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    if sent:
        yield from ("", "Commands that it has not answered yet")
        for each in sent:
            sent_at = f"sent {_ago(each['sent_s'])}, " if "sent_s" in each else ""
            yield f"  {printable(each['name'])} ({printable(each['reply_id'])}): {sent_at}{duration(each['left_s'])} left"


def _capabilities(capabilities: Optional[Mapping[str, Any]], when: str = "") -> Iterator[str]:
    if capabilities is not None:
        commands: Mapping[str, bool] = capabilities["commands"]
        kinds = {
            "commands": [command for command, enabled in commands.items() if enabled],
            "turned off": [command for command, enabled in commands.items() if not enabled],
            "features": capabilities["features"],
        }
        named = [(kind, ", ".join(map(printable, sorted(names))) or UNKNOWN) for kind, names in kinds.items()]
        yield from ("", f"Capabilities{when}", *_aligned(named))


def _facts(facts: dict[str, Any]) -> Iterator[str]:
    if not facts:
        yield f"  {UNKNOWN}"
    for name in sorted(facts):
        age = facts[name]["age_s"]
        yield f"  {printable(name)} ({'age unknown' if age is None else _ago(age)})"
        yield from _tree(facts[name]["value"], "    ")


def _tree(value: Any, indent: str) -> Iterator[str]:
    """*value* as lines: a member a line, nested ones further in."""
    members: Iterable[tuple[str, Any]] = (
        ((f"{printable(key)}:", member) for key, member in value.items())
        if isinstance(value, dict)
        else (("-", member) for member in value)
    )
    for label, member in members:
        if isinstance(member, (dict, list)) and member:
            yield f"{indent}{label}"
            yield from _tree(member, indent + "  ")
        else:
            yield f"{indent}{label} {_scalar(member)}"


def _whereabouts(guest: Mapping[str, Any]) -> Iterator[str]:
    """What moves, and what is frozen."""
    text = _handoff(guest)
    if text is not None:
        _, advice = _HANDOFFS[guest["handoff"]["state"]]
        yield from ("", "Hand-off", f"  {text}: {advice}")
    yield from _frozen(guest.get("frozen"))


def _handoff(guest: Mapping[str, Any]) -> Optional[str]:
    """Where *guest* goes, or went; None: nowhere."""
    handoff = guest.get("handoff") or {}
    if handoff.get("state") not in _HANDOFFS:
        return None
    words, _ = _HANDOFFS[handoff["state"]]
    return words if handoff["peer"] is None else f"{words} to {printable(handoff['peer'])}"


def _frozen(frozen: Optional[Mapping[str, Any]]) -> Iterator[str]:
    if frozen is not None:
        mountpoints = ", ".join(map(printable, frozen.get("mountpoints", ()))) or "all that can be"
        yield from ("", "Frozen", f"  {mountpoints}: thaws by itself in {duration(frozen['thaws_in_s'])} at the latest")


def _state(guest: Mapping[str, Any]) -> str:
    """How *guest* stands, in a few words."""
    frozen = guest.get("frozen")
    freeze = None if frozen is None else f"frozen for {duration(frozen['thaws_in_s'])} more"
    return ", ".join(part for part in (_channel_state(guest["channel"]), _handoff(guest), freeze) if part)


def _channel_state(channel: Mapping[str, Any]) -> str:
    return f"{channel['state']}, throttled" if channel.get("throttled") else str(channel["state"])


def _clock(at: float) -> str:
    moment = datetime.datetime.fromtimestamp(at, datetime.timezone.utc)
    return moment.astimezone().isoformat(sep=" ", timespec="seconds")


def _quoted(value: object) -> str:
    """*value* as one word."""
    if isinstance(value, str) and value and not any(each.isspace() or each in '"=' for each in value):
        return printable(value)
    return printable(json.dumps(value, ensure_ascii=False))


def _scalar(value: Any) -> str:
    if value is None:
        return UNKNOWN
    if isinstance(value, str):
        return printable(value) or '""'
    if isinstance(value, bool):
        return "true" if value else "false"
    return "none" if isinstance(value, (dict, list)) else str(value)


def _aligned(pairs: Sequence[tuple[str, str]]) -> list[str]:
    width = max(len(label) for label, _ in pairs)
    return [f"  {label.ljust(width)}  {value}" for label, value in pairs]


def _version(value: Optional[int]) -> str:
    if value is None:
        return UNKNOWN
    return str(value) if value <= _VERSION_LIMIT else f">{_VERSION_LIMIT}"


def _last_change(api: dict[str, Any], sentence: bool) -> str:
    reason: Optional[str] = api["last_reason"]
    if reason is None:
        return UNKNOWN
    return f"{_ago(api['last_change_s'])}: {printable(reason if sentence else reason.split(':')[0])}"


def _ago(seconds: Optional[float]) -> str:
    return UNKNOWN if seconds is None else f"{duration(seconds)} ago"
