"""Session spec 1: what negotiation can't bring back.

Commands in flight without their arguments, which can be secrets; the floor of reply ids; file systems that are frozen; and
the facts with their age, so that the destination knows the guest from the first second. Never what was agreed: a heartbeat
is carried without what it says of versions and of the agent's run, of which the document has members of its own.

**Reply ids never repeat.** An id is the run of a daemon, a hyphen, and a number that this run gives once. The *floor* is
the highest number that any daemon gave to a command for this guest. A destination gives only numbers above the floors of
all guests that it took over, whatever its run: so the numbers that one guest sees rise from host to host, and even two
daemons that take themselves for the same run (a host's memory that was cloned) can't give the same id to it twice. A daemon
that is restarted is another run, and counts from the beginning.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Optional

from common import errors, messages
from common.catalogue import CATALOGUE, Direction
from common.fields import NATURAL, TEXT, Kind, list_of
from common.session import REPLY_ID_LENGTH

from .members import AGE, SPAN, UUID, Members, check_object, member, nested, text

#: No host gives so many reply ids, and any JSON parser reads the number exactly.
FLOOR_LIMIT = 2**53 - 1

#: What a fact of that name says of the negotiation and is not carried.
NOT_CARRIED: Mapping[str, frozenset[str]] = {"heartbeat": frozenset({"apiVersion", "apiVersionInUse", "agentId"})}

REPLY_ID = text(REPLY_ID_LENGTH)

#: A reply id as hosts make them: their run, and a number that can lie below the floor's limit.
_REPLY_ID = re.compile(r"[0-9a-f]{16}-([0-9]{1,15})")


class Fact(Members):
    """What the guest said last in one message.

    :ivar arguments: the message's, as the wire has them.
    :ivar age_s: how long ago, in seconds; None where nobody knows.
    """

    arguments: Mapping[str, Any] = member("arguments", Kind("object of any", check_object))
    age_s: Optional[float] = member("age_s", AGE, default=None)


class Command(Members):
    """A command whose completion is awaited, for *left_s* more seconds."""

    reply_id: str = member("reply_id", REPLY_ID)
    name: str = member("name", text(100))
    left_s: float = member("left_s", SPAN)


class Frozen(Members):
    """File systems that are frozen; *thaws_in_s* seconds from now the guest thaws them by itself.

    :ivar mountpoints: empty: all that can be frozen.
    """

    thaws_in_s: float = member("thaws_in_s", SPAN)
    mountpoints: tuple[str, ...] = member("mountpoints", list_of(TEXT), default=())


class Reference(Members):
    """What only reference hosts carry, kept so that the next one gets it as it was; see ``spec0``."""

    api_version_hint: Optional[int] = member("api_version_hint", NATURAL, default=None)
    guest_ips: str = member("guest_ips", TEXT, default="")


def _check_facts(value: Any) -> dict[str, Fact]:
    facts = {}
    for name, members in check_object(value).items():
        row = CATALOGUE.find(Direction.TO_HOST, name)
        if row is not None and issubclass(row.message_class, messages.Fact):
            facts[name] = _read_fact(name, members, row.message_class)
    return facts


def _read_fact(name: str, members: Any, message_class: type[messages.Message]) -> Fact:
    try:
        fact = Fact.from_members(check_object(members))
        message, _ = message_class.from_arguments(fact.arguments)
    except (ValueError, errors.InvalidArguments) as error:
        raise ValueError(f"{name}: {error}") from None
    hidden = NOT_CARRIED.get(name, frozenset())
    arguments = {wire: value for wire, value in message.to_arguments().items() if wire not in hidden}
    return Fact(arguments, fact.age_s)


def _check_commands(value: Any) -> tuple[Command, ...]:
    commands: tuple[Command, ...] = list_of(nested(Command)).check(value)
    if len({each.reply_id for each in commands}) < len(commands):
        raise ValueError("two of the same reply_id")
    return commands


def _check_floor(value: Any) -> int:
    if type(value) is int and 0 <= value <= FLOOR_LIMIT:
        return value
    raise ValueError(f"no integer from 0 to {FLOOR_LIMIT}")


#: Of the facts, those that are not in the table are left out: a newer release knows more.
_FACTS = Kind(f"object of {nested(Fact).label}", _check_facts)
_COMMANDS = Kind(list_of(nested(Command)).label, _check_commands)


class Carried(Members):
    """What spec 1 brought and later specs keep."""

    uuid: Optional[str] = member("uuid", UUID, "the VM's UUID, in lower case; from libvirt", default=None)
    name: str = member("name", text(255), "what the source calls the guest", default="")
    facts: Mapping[str, Fact] = member(
        "facts",
        _FACTS,
        "what the guest said last in each message, and how many seconds before the document was written (left out: "
        "unknown); from the guest; a `heartbeat` without `apiVersion`, `apiVersionInUse` and `agentId`",
        factory=dict,
    )
    advertised: Optional[int] = member(
        "advertised", NATURAL, "the highest version that the guest announced; from its heartbeats; a hint", default=None
    )
    agent_id: Optional[str] = member(
        "agent_id", text(200), "the run of the guest's agent; from its heartbeats", default=None
    )
    commands: tuple[Command, ...] = member(
        "commands",
        _COMMANDS,
        "commands in flight, with the seconds that their completion is still waited for, and never their arguments; "
        "from the source",
        default=(),
    )
    reply_id_floor: int = member(
        "reply_id_floor",
        Kind(f"int from 0 to {FLOOR_LIMIT}", _check_floor),
        "the highest number that any host gave in a reply id to this guest; the destination numbers above it",
        default=0,
    )
    frozen: Optional[Frozen] = member(
        "frozen",
        nested(Frozen),
        "which file systems are frozen (none listed: all that can be) and in how many seconds the guest thaws them by "
        "itself; from the source's freeze; left out: none is",
        default=None,
    )
    reference: Optional[Reference] = member(
        "reference",
        nested(Reference),
        "what only reference hosts carry, kept for the next one; from spec 0",
        default=None,
    )

    @property
    def floor(self) -> int:
        """The highest number given to this guest, also where a document's floor is missing or too low."""
        return max(self.reply_id_floor, *_numbers(each.reply_id for each in self.commands), 0)


class Spec1(Carried):
    """A session with what negotiation can't bring back."""


def _numbers(reply_ids: Iterable[str]) -> Iterable[int]:
    """The numbers in those *reply_ids* that a host can have made."""
    matches = map(_REPLY_ID.fullmatch, reply_ids)
    return (int(match[1]) for match in matches if match is not None)
