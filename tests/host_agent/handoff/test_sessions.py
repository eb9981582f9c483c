from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from typing import Any, Optional

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some

from common import codec
from common.handoff import Spec0, Spec1, Spec2, convert, documents, spec1, spec2
from common.handoff.members import Members
from common.handoff.spec1 import FLOOR_LIMIT
from common.messages import Capabilities
from host_agent import deadlines
from host_agent.commands import NUMBERS_LIMIT
from host_agent.guest import HISTORY, Guest
from host_agent.handoff.sessions import adopt, session_of
from host_agent.known import UNKNOWN_TIME, Fact, Frozen, InFlight, VersionChange
from tests.common.handoff.sessions import ANY_SPEC, FACTS
from tests.host_agent.commanding import Bench, play
from tests.host_agent.guests import CAPABILITIES
from tests.host_agent.parts import NEWEST, ManualLoop

UUID = "6b6f3c1e-8a53-4d51-9a51-5a4e7d3f0c11"
PASSWORD = "correct horse battery staple"

#: How far the other host's clock is from this one's.
APART = 123_456.0


def carried(spec: Members) -> Spec2:
    """What comes over the wire of *spec*."""
    assert isinstance(spec, (Spec0, Spec1, Spec2))
    read = convert(documents.read(documents.write(spec)))
    assert isinstance(read, Spec2)
    return read


@contextlib.contextmanager
def another_host() -> Iterator[Bench]:
    loop = ManualLoop()
    loop.now += APART
    yield Bench(loop)
    loop.close()


def move(bench: Bench, guest: Guest, other: Bench, name: str = "web-1") -> Guest:
    """*guest* comes to the *other* host."""
    moved = other.absent(name)
    adopt(moved, carried(session_of(guest, bench.commands, bench.loop.now)), other.commands, other.loop.now)
    return moved


# ---- Any guest on any host ----

_AGES = some.floats(0.0, 1e6)
_FACTS = some.dictionaries(some.sampled_from(sorted(FACTS)), some.one_of(some.none(), _AGES))
_IN_FLIGHT = some.dictionaries(some.integers(1, 50), some.tuples(_AGES, some.floats(1.0, 1e4)), max_size=4)
_HISTORY = some.lists(some.tuples(_AGES, some.integers(0, 5), some.sampled_from(["first", "why"])), max_size=HISTORY + 5)
_FROZEN = some.one_of(some.none(), some.tuples(some.lists(some.sampled_from(["/", "/srv"])), some.floats(0.1, 900.0)))


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(_FACTS, _IN_FLIGHT, _HISTORY, _FROZEN, some.integers(0, NUMBERS_LIMIT - 1))
def test_on_another_host_a_guest_shows_what_it_showed(
    facts: dict[str, Optional[float]],
    in_flight: dict[int, tuple[float, float]],
    history: list[tuple[float, int, str]],
    frozen: Optional[tuple[list[str], float]],
    floor: int,
) -> None:
    async def scenario(bench: Bench) -> None:
        now, guest = bench.loop.now, bench.absent()
        guest.uuid = UUID
        guest.restore(
            {name: Fact.of(name, FACTS[name], UNKNOWN_TIME if age is None else now - age) for name, age in facts.items()},
            sorted((VersionChange(now - age, 0, new, why) for age, new, why in history), key=lambda each: each.at),
            [
                InFlight(f"{number:016x}-{number}", "exec", now - age, now + left)
                for number, (age, left) in in_flight.items()
            ],
        )
        guest.frozen = None if frozen is None else Frozen(tuple(frozen[0]), now + frozen[1])
        bench.commands.number_above(floor)
        with another_host() as other:
            shown, there = guest.describe(now), move(bench, guest, other).describe(other.loop.now)
            for fact, same in zip(shown["facts"].values(), there["facts"].values()):
                for hidden in ("apiVersion", "apiVersionInUse", "agentId"):
                    fact["value"].pop(hidden, None)
                assert same == {"value": fact["value"], "age_s": fact["age_s"] and pytest.approx(fact["age_s"], abs=0.01)}
            assert list(there["facts"]) == list(shown["facts"])
            for command, same in zip(shown["commands"], there["commands"]):
                assert (same["reply_id"], same["name"]) == (command["reply_id"], command["name"])
                assert same["left_s"] == pytest.approx(command["left_s"], abs=0.01)
            assert len(there["commands"]) == len(shown["commands"]) == len(other.notes.kept)
            assert [each["new"] for each in there["history"]] == [each["new"] for each in shown["history"]]
            assert (there["frozen"] is None) == (frozen is None)
            if frozen is not None:
                assert there["frozen"]["mountpoints"] == shown["frozen"]["mountpoints"]
                assert there["frozen"]["thaws_in_s"] == pytest.approx(shown["frozen"]["thaws_in_s"], abs=0.01)
            assert other.commands.highest() >= max(bench.commands.highest(), *in_flight, 0)
            assert (there["name"], there["uuid"]) == (shown["name"], shown["uuid"])
            assert there["api"]["agreed"] is None

    play(scenario)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(ANY_SPEC)
def test_whatever_a_document_says_the_guest_can_be_shown_and_handed_on(spec: Members) -> None:
    async def scenario(bench: Bench) -> None:
        assert isinstance(spec, (Spec0, Spec1, Spec2))
        guest = bench.absent()
        adopt(guest, spec, bench.commands, bench.loop.now)
        json.dumps(guest.describe(bench.loop.now), allow_nan=False)
        session = carried(session_of(guest, bench.commands, bench.loop.now))
        assert (session.advertised, session.reference) == (carried(spec).advertised, carried(spec).reference)
        await bench.loop.advance()

    play(scenario)


# ---- What is carried ----


def test_no_argument_of_a_command_and_nothing_that_was_agreed_is_carried() -> None:
    async def scenario(bench: Bench) -> None:
        guest = bench.guest(capabilities=Capabilities({"set-password": True, "exec": True, "load": False}, ("f",)))
        bench.commands.send(guest, "set-password", {"user": "root", "password": PASSWORD})
        bench.commands.send(guest, "exec", {"argv": ["login", PASSWORD], "timeout": 90})
        session = session_of(guest, bench.commands, bench.loop.now)
        assert PASSWORD.encode() not in documents.write(session)
        assert [(each.name, each.left_s) for each in session.commands] == [("set-password", 30.0), ("exec", 100.0)]
        assert session.reply_id_floor == 2
        assert session.facts["heartbeat"].arguments == {}
        assert (session.advertised, session.agent_id) == (NEWEST, "agent-1")
        assert session.capabilities == spec2.Capabilities({"set-password": True, "exec": True, "load": False}, ("f",))

    play(scenario)


def test_what_the_guest_made_such_that_no_host_could_read_it_is_left_out() -> None:
    async def scenario(bench: Bench) -> None:
        guest = bench.silent()
        bench.beat(guest, 3, agent_id="x" * 201)
        bench.hear(guest, "fqdn", fqdn="web.example.org")
        guest.uuid = "no uuid"
        session = session_of(guest, bench.commands, bench.loop.now)
        assert (session.agent_id, session.uuid) == (None, None)
        assert carried(session).facts["fqdn"].arguments == {"fqdn": "web.example.org"}

    play(scenario)


def test_what_was_overdue_is_carried_as_if_it_were_just_due() -> None:
    async def scenario(bench: Bench) -> None:
        guest = bench.absent()
        guest.restore({}, [VersionChange(2000.0, 0, 3, "ahead")], [InFlight("a", "users", 0.0, 900.0)])
        guest.frozen = Frozen((), 1000.0)
        session = session_of(guest, bench.commands, bench.loop.now)
        assert (session.commands[0].left_s, session.version_changes[0].ago_s, session.frozen) == (0.0, 0.0, None)

    play(scenario)


def test_what_hosts_counted_is_counted_on() -> None:
    async def scenario(bench: Bench) -> None:
        with another_host() as other, another_host() as third:
            guest = bench.silent()
            bench.hear(guest, "fqdn", fqdn="web")
            bench.hear(guest, "no-such-message")
            moved = move(bench, guest, other)
            moved.found("/port", other.loop.now)
            other.connect(moved)
            other.hear(moved, "no-such-message")
            other.beat(moved, 3)
            assert moved.describe(other.loop.now)["counters"]["lines"] == 2
            counters = session_of(move(other, moved, third), third.commands, third.loop.now).counters
            assert (counters["lines"], counters["dropped"]) == (4, {"unknown": 2})
            assert counters["pushes"] == moved.session.counters.pushes

    play(scenario)


@pytest.mark.parametrize("count", [{"lines": {"a": 1}}, {"dropped": 7}, {"of-tomorrow": 7}])
def test_counts_of_another_kind_do_not_count(count: Any) -> None:
    async def scenario(bench: Bench) -> None:
        guest = bench.absent()
        adopt(guest, Spec2(counters=count), bench.commands, bench.loop.now)
        counters = session_of(guest, bench.commands, bench.loop.now).counters
        assert (counters["lines"], counters["dropped"], "of-tomorrow" in counters) == (0, {}, False)

    play(scenario)


def test_what_a_guest_said_of_its_agent_is_handed_on_until_it_has_said_it_here() -> None:
    async def scenario(bench: Bench) -> None:
        with another_host() as other:
            guest = bench.guest()
            moved = move(bench, guest, other)
            assert moved.carried_capabilities is not None
            session = session_of(moved, other.commands, other.loop.now)
            assert (session.advertised, session.agent_id) == (NEWEST, "agent-1")
            assert session.capabilities == moved.carried_capabilities
            moved.found("/port", other.loop.now)
            other.connect(moved)
            other.beat(moved, 3, "agent-2")
            session = session_of(moved, other.commands, other.loop.now)
            assert (session.advertised, session.agent_id, session.capabilities) == (3, "agent-2", None)

    play(scenario)


def test_what_only_reference_hosts_know_is_kept_for_the_next_one() -> None:
    async def scenario(bench: Bench) -> None:
        guest = bench.absent()
        old = Spec0(api_version_hint=3, username="root", guest_ips="192.0.2.7 ", guest_fqdn="web.example.org")
        adopt(guest, old, bench.commands, bench.loop.now)
        assert {name: fact.heard_at for name, fact in guest.facts.items()} == dict.fromkeys(
            ("active-user", "fqdn"), UNKNOWN_TIME
        )
        assert guest.describe(bench.loop.now)["api"]["agreed"] is None
        assert convert(session_of(guest, bench.commands, bench.loop.now), 0, allow_loss=True) == old

    play(scenario)


# ---- What is taken ----


def test_a_guest_that_spoke_here_before_its_session_came_is_believed_most() -> None:
    async def scenario(bench: Bench) -> None:
        guest = bench.guest()
        bench.hear(guest, "fqdn", fqdn="here")
        guest.frozen = Frozen(("/",), 1500.0)
        facts = {"fqdn": spec1.Fact({"fqdn": "there"}, 0.1), "host-name": spec1.Fact({"name": "web"}, None)}
        spec = Spec2(
            uuid=UUID,
            facts=facts,
            advertised=3,
            frozen=spec1.Frozen(900.0),
            capabilities=spec2.Capabilities({"exec": True}, ()),
        )
        adopt(guest, spec, bench.commands, bench.loop.now)
        assert guest.facts["fqdn"].arguments() == {"fqdn": "here"}
        assert guest.facts["host-name"].arguments() == {"name": "web"}
        assert guest.frozen == Frozen(("/",), 1500.0)
        assert guest.session.capabilities == CAPABILITIES
        assert guest.carried_capabilities is None
        assert guest.session.negotiation.agreed == NEWEST
        assert guest.uuid == UUID

    play(scenario)


def test_spans_count_from_when_the_document_came() -> None:
    async def scenario(bench: Bench) -> None:
        guest = bench.absent()
        spec = Spec2(
            facts={"fqdn": spec1.Fact({"fqdn": "web"}, 5.0)},
            commands=(spec1.Command("a", "filesystem-freeze", 30.0),),
            frozen=spec1.Frozen(60.0, ("/",)),
            version_changes=(spec2.VersionChange(7.0, 0, 3, "why"),),
        )
        adopt(guest, spec, bench.commands, bench.loop.now - 10.0)
        assert guest.facts["fqdn"].heard_at == 985.0
        assert guest.in_flight == {"a": InFlight("a", "filesystem-freeze", 990.0, 1020.0)}
        assert guest.frozen == Frozen(("/",), 1050.0)
        assert guest.history == (VersionChange(983.0, 0, 3, "why"),)

    play(scenario)


def test_a_freeze_that_has_thawed_here_does_not_hide_what_is_frozen() -> None:
    async def scenario(bench: Bench) -> None:
        guest = bench.absent()
        guest.frozen = Frozen(("/old",), 999.0)
        adopt(guest, Spec2(frozen=spec1.Frozen(60.0)), bench.commands, bench.loop.now)
        assert guest.frozen == Frozen((), 1060.0)

    play(scenario)


def test_numbers_go_on_above_those_of_all_hosts_before() -> None:
    async def scenario(bench: Bench) -> None:
        guest = bench.guest()
        command = spec1.Command("ffffffffffffffff-50", "users", 30.0)
        adopt(guest, Spec2(reply_id_floor=41, commands=(command,)), bench.commands, bench.loop.now)
        sent = bench.commands.send(guest, "users", {})
        assert str(sent.reply_id).endswith("-51")
        adopt(guest, Spec2(reply_id_floor=FLOOR_LIMIT), bench.commands, bench.loop.now)
        assert bench.commands.highest() == 51

    play(scenario)


def test_no_document_makes_a_host_wait_for_ever_or_believe_in_versions_that_never_will_be() -> None:
    async def scenario(bench: Bench) -> None:
        guest = bench.absent()
        year, longest = 365 * 86400.0, deadlines.LIMIT + deadlines.MARGIN
        changes = (spec2.VersionChange(1.0, 0, 10**20, ""), spec2.VersionChange(1.0, 3, 5, ""))
        spec = Spec2(commands=(spec1.Command("a", "users", year),), version_changes=changes)
        adopt(guest, spec, bench.commands, bench.loop.now)
        assert guest.in_flight["a"].deadline == 1000.0 + longest
        assert [each.new for each in guest.history] == [5]

    play(scenario)


@pytest.mark.parametrize(
    "arguments",
    [{"applications": ("x" * 1024 * 1024,)}, {"applications": ("",) * (codec.MEMBERS_LIMIT + 2)}],
)
def test_what_a_guest_can_not_have_said_on_a_line_is_no_fact(arguments: Any) -> None:
    async def scenario(bench: Bench) -> None:
        guest = bench.absent()
        spec = Spec2(facts={"applications": spec1.Fact(arguments, 1.0), "fqdn": spec1.Fact({"fqdn": "web"}, 1.0)})
        adopt(guest, spec, bench.commands, bench.loop.now)
        assert list(guest.facts) == ["fqdn"]
        guest.describe(bench.loop.now)

    play(scenario)


def test_a_session_that_comes_back_changes_nothing() -> None:
    async def scenario(bench: Bench) -> None:
        guest = bench.guest()
        bench.hear(guest, "fqdn", fqdn="web")
        bench.commands.send(guest, "users", {})
        before = guest.describe(bench.loop.now)
        adopt(guest, carried(session_of(guest, bench.commands, bench.loop.now)), bench.commands, bench.loop.now)
        assert guest.describe(bench.loop.now) == before

    play(scenario)
