"""What the operator's commands print: the control API's JSON as text for people. Pure.

Every string of a guest passes ``printable``; what is unknown is a ``-``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Optional

from .text import printable

UNKNOWN = "-"

HEADERS = ("GUEST", "STATE", "AGREED", "ADVERTISED", "IN USE", "HEARD", "LAST CHANGE")

#: A version above this is shown as such: a guest may announce one of thousands of digits.
_VERSION_LIMIT = 9999


def overview(guests: Iterable[dict[str, Any]]) -> list[tuple[str, ...]]:
    """One row for each guest, under ``HEADERS``."""
    return [
        (
            printable(guest["name"]),
            guest["channel"]["state"],
            _version(guest["api"]["agreed"]),
            _version(guest["api"]["advertised"]),
            _version(guest["api"]["in_use"]),
            _ago(guest["heard_s"]),
            _last_change(guest["api"], sentence=False),
        )
        for guest in guests
    ]


def nobody(host: dict[str, Any]) -> str:
    """The line in place of an empty list; *host* is the daemon."""
    return f"no guests found in {', '.join(map(printable, host['directories']))}"


def columns(rows: Sequence[tuple[str, ...]]) -> str:
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
                ("state", f"{channel['state']} for {_duration(channel['since_s'])}"),
                ("path", _scalar(channel["path"])),
                ("heard", _ago(guest["heard_s"])),
            ]
        ),
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
        "",
        "Facts",
        *_facts(guest["facts"]),
        "",
        "Counters",
        *_tree(guest["counters"], "  "),
    ]
    return "\n".join(lines)


def _facts(facts: dict[str, Any]) -> Iterator[str]:
    if not facts:
        yield f"  {UNKNOWN}"
    for name in sorted(facts):
        yield f"  {printable(name)} ({_ago(facts[name]['age_s'])})"
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
    return UNKNOWN if seconds is None else f"{_duration(seconds)} ago"


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.0f} s"
    if seconds < 3600:
        return f"{seconds // 60:.0f} min"
    if seconds < 48 * 3600:
        return f"{seconds // 3600:.0f} h"
    return f"{seconds // 86400:.0f} d"
