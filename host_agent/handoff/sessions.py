"""What is known of a guest as the document of a hand-off, and back.

Here the instants of one host become ages and spans, and those of the other host's clock again. What was agreed is in no
document, and neither are the arguments of commands. A member that the guest or an old file made such that no host could
read it is left out: a guest must not be able to keep itself from being handed over.
"""

from __future__ import annotations

import contextlib
import itertools
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, Optional

from common import errors
from common.catalogue import CATALOGUE
from common.handoff import convert, spec1, spec2
from common.handoff.documents import Spec
from common.handoff.members import plain
from common.handoff.spec2 import Count, Spec2
from common.records import fields_of
from common.session import FEATURES_LIMIT, Counters
from host_agent import deadlines
from host_agent.commands import Commands
from host_agent.guest import Guest
from host_agent.known import UNKNOWN_TIME, VERSION_LIMIT, Fact, Frozen, InFlight, VersionChange

#: So many names a counter may have that counts by name, and so long a list of addresses may be, in characters.
NAMES_LIMIT, IPS_LIMIT = 100, 10_000

#: No command is waited for longer, in seconds, whatever a document says.
PATIENCE_LIMIT = deadlines.LIMIT + deadlines.MARGIN


def session_of(guest: Guest, commands: Commands, now: float) -> Spec2:
    """What is known of *guest*, with the ages that it has *now*."""
    session, carried = guest.session, guest.carried or Spec2()
    advertised, frozen = session.negotiation.advertised, guest.frozen_at(now)
    said = session.capabilities
    return _readable(
        uuid=guest.uuid,
        name=guest.name,
        facts={name: _carry_fact(name, fact, now) for name, fact in guest.facts.items()},
        advertised=carried.advertised if advertised is None else advertised,
        agent_id=session.agent_id or carried.agent_id,
        commands=tuple(
            spec1.Command(each.reply_id, each.name, max(0.0, each.deadline - now)) for each in guest.in_flight.values()
        ),
        reply_id_floor=commands.highest(),
        frozen=None if frozen is None else spec1.Frozen(frozen.thaws_at - now, frozen.mountpoints),
        reference=carried.reference,
        capabilities=carried.capabilities if said is None else spec2.Capabilities(said.commands, said.features),
        counters={name: _add(count, carried.counters.get(name)) for name, count in session.counters.as_mapping().items()},
        version_changes=tuple(
            spec2.VersionChange(max(0.0, now - each.at), each.old, each.new, each.reason) for each in guest.history
        ),
    )


def adopt(guest: Guest, spec: Spec, commands: Commands, now: float) -> None:
    """*guest* is this host's, and what *spec* says of it is known here, where nothing newer is.

    :param now: when the document was written, as far as that is known: when it came.
    """
    session = convert(spec)
    assert isinstance(session, Spec2)  # noqa: S101 - the newest there is
    guest.take_over(session.uuid, dict(_facts(session, now)), _history(session, now), _beside(session))
    if session.frozen is not None and guest.frozen_at(now) is None:
        guest.frozen = Frozen(session.frozen.mountpoints, now + session.frozen.thaws_in_s)
    commands.number_above(session.floor)
    commands.adopt(guest, (_in_flight(each, now) for each in session.commands))


def _carry_fact(name: str, fact: Fact, now: float) -> spec1.Fact:
    hidden = spec1.NOT_CARRIED.get(name, frozenset())
    arguments = {wire: value for wire, value in fact.arguments().items() if wire not in hidden}
    return spec1.Fact(arguments, None if fact.heard_at == UNKNOWN_TIME else max(0.0, now - fact.heard_at))


def _readable(**values: Any) -> Spec2:
    """The session with these *values*, without those that could not be read again."""
    return Spec2(**{name: value for name, value in values.items() if value is None or _is_readable(name, value)})


def _is_readable(name: str, value: Any) -> bool:
    try:
        fields_of(Spec2)[name].meaning.kind.check(plain(value))
    except ValueError:
        return False
    return True


def _facts(session: Spec2, now: float) -> Iterator[tuple[str, Fact]]:
    """The facts that a guest can have said: each in a line that it may send."""
    for name, fact in session.facts.items():
        heard_at = UNKNOWN_TIME if fact.age_s is None else now - fact.age_s
        with contextlib.suppress(errors.EncodingError, errors.RemoteProtocolError):
            said = Fact.of(name, fact.arguments, heard_at)
            said.arguments()
            yield name, said


def _history(session: Spec2, now: float) -> Iterator[VersionChange]:
    for each in session.version_changes:
        if max(each.old, each.new) < VERSION_LIMIT:
            yield VersionChange(now - each.ago_s, each.old, each.new, each.reason)


def _in_flight(command: spec1.Command, now: float) -> InFlight:
    return InFlight(command.reply_id, command.name, now, now + min(command.left_s, PATIENCE_LIMIT))


def _beside(session: Spec2) -> Spec2:
    """What *session* says that is no fact, is not in flight and does not count as this host's own; never much of it."""
    offered, counted = session.capabilities, Counters().as_mapping()
    return Spec2(
        advertised=session.advertised,
        agent_id=session.agent_id,
        reference=None if session.reference is None or len(session.reference.guest_ips) > IPS_LIMIT else session.reference,
        capabilities=None if offered is None else _bounded(offered),
        counters={name: _counted(count) for name, count in session.counters.items() if name in counted},
    )


def _bounded(offered: spec2.Capabilities) -> spec2.Capabilities:
    """What of *offered* this host has a word for, and a bounded number of features."""
    commands = {row.name: offered.commands[row.name] for row in CATALOGUE.commands if row.name in offered.commands}
    return spec2.Capabilities(commands, offered.features[:FEATURES_LIMIT])


def _counted(count: Count) -> Count:
    """*count*, and of one by name a bounded number of names."""
    return count if isinstance(count, int) else dict(itertools.islice(count.items(), NAMES_LIMIT))


def _add(count: Count, more: Optional[Count]) -> Count:
    """What this host counted, and what the hosts before it did where that is of the same kind."""
    if isinstance(count, int):
        return count + more if isinstance(more, int) else count
    return Counter(count) + Counter(more) if isinstance(more, Mapping) else count
