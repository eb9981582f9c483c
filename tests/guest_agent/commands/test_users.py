"""users: logind answers over a real socket, in real D-Bus messages; or the C library tells who is at a terminal."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, NamedTuple, Optional

import psutil
import pytest

from common import codec
from common.framing import LINE_LIMIT
from common.messages import Users
from guest_agent.answers import Answer, Outcome
from guest_agent.commands import CommandFailed, Machine, users
from guest_agent.logind import SEATS

from .peer import Bus, Call

ALICE = {
    "Id": "c1",
    "Name": "alice",
    "Class": "user",
    "State": "active",
    "TTY": "tty2",
    "RemoteHost": "",
    "Timestamp": 1_700_000_000_500_000,
}

#: Signatures of what is neither a string.
_SIGNATURES = {"Timestamp": "t"}


class Terminal(NamedTuple):
    """What the C library says of a login."""

    name: str
    terminal: Optional[str]
    host: Optional[str]
    started: float
    pid: int


def has_sessions(bus: Bus, *sessions: dict[str, Any]) -> None:
    """These are the sessions; one without properties has ended by the time that it is asked about."""
    by_path = {f"/s{number}": session for number, session in enumerate(sessions)}

    def asked(call: Call) -> Any:
        session = by_path[call.path]
        name = call.arguments[1]
        if name not in session:
            return "org.freedesktop.login1.NoSuchSession"
        return "v", ((_SIGNATURES.get(name, "s"), session[name]),)

    rows = [(each["Id"], 0, each["Name"], "", path) for path, each in by_path.items()]
    bus.answers["ListSessions"] = lambda _: ("a(susso)", (rows,))
    bus.answers["Get"] = asked


def told(machine: Machine) -> list[dict[str, Any]]:
    result = users.run(machine, Users())
    assert not result["truncated"]
    found: list[dict[str, Any]] = result["users"]
    return found


def failure(machine: Machine) -> str:
    with pytest.raises(CommandFailed) as raised:
        users.run(machine, Users())
    return str(raised.value)


# ---- Logind ----


def test_sessions_are_as_logind_tells_of_them(machine: Machine, bus: Bus) -> None:
    bob = {"Id": "7", "Name": "bob", "Class": "user-early", "TTY": "", "RemoteHost": "10.0.0.1", "Timestamp": 0}
    has_sessions(bus, ALICE, {**ALICE, **bob})
    assert told(machine) == [
        {
            "name": "alice",
            "session": "c1",
            "since_s": 1_700_000_000.5,
            "terminal": "tty2",
            "host": None,
            "kind": "logind",
        },
        {"name": "bob", "session": "7", "since_s": None, "terminal": None, "host": "10.0.0.1", "kind": "logind"},
    ]


@pytest.mark.parametrize("other", [{"Class": "greeter"}, {"Class": "manager"}, {"State": "closing"}], ids=str)
def test_what_is_no_session_of_a_user_is_left_out(machine: Machine, bus: Bus, other: dict[str, Any]) -> None:
    has_sessions(bus, {**ALICE, **other})
    assert told(machine) == []


@pytest.mark.parametrize("missing", ["Class", "RemoteHost"])
def test_a_session_that_ended_meanwhile_is_left_out(machine: Machine, bus: Bus, missing: str) -> None:
    gone = {name: value for name, value in ALICE.items() if name != missing}
    has_sessions(bus, gone, {**ALICE, "Id": "2"})
    assert [each["session"] for each in told(machine)] == ["2"]


def test_names_are_made_fit_for_an_answer(machine: Machine, bus: Bus) -> None:
    has_sessions(bus, {**ALICE, "RemoteHost": "a\x1b[31m\nb" + "x" * 1000, "TTY": "\x07"})
    (session,) = told(machine)
    assert session["host"] == "a [31m b" + "x" * 247
    assert session["terminal"] is None


def test_a_logind_that_is_not_there_is_said_so(machine: Machine, bus: Bus) -> None:
    bus.answers["ListSessions"] = lambda _: "org.freedesktop.DBus.Error.ServiceUnknown"
    assert failure(machine) == "logind refuses ListSessions: no means no"


def test_a_session_that_can_not_be_asked_about_is_said_so(machine: Machine, bus: Bus) -> None:
    has_sessions(bus, ALICE)
    bus.answers["Get"] = lambda _: "org.example.No"
    assert failure(machine) == "logind refuses Get: no means no"


def test_a_bus_that_does_not_answer_is_given_up(machine: Machine, bus: Bus) -> None:
    bus.silent_on.add("ListSessions")
    assert "no answer in time" in failure(machine._replace(deadline=0.1))


@pytest.mark.parametrize(
    "answer",
    [("s", ("no list",)), ("a(ss)", ([("c1", "alice")],)), ("ss", ("two", "values")), (None, ())],
    ids=str,
)
def test_a_list_that_makes_no_sense_is_said_so(machine: Machine, bus: Bus, answer: Any) -> None:
    bus.answers["ListSessions"] = lambda _: answer
    assert failure(machine) == "logind describes a session otherwise than it should; restart systemd-logind"


@pytest.mark.parametrize("answer", [("v", (("u", 7),)), ("s", ("user",))], ids=str)
def test_a_session_that_makes_no_sense_is_said_so(machine: Machine, bus: Bus, answer: Any) -> None:
    has_sessions(bus, ALICE)
    bus.answers["Get"] = lambda _: answer
    assert "describes a session otherwise" in failure(machine)


# ---- Terminals ----


@pytest.fixture
def terminals(monkeypatch: pytest.MonkeyPatch) -> None:
    logins = [Terminal("alice", "pts/0", "10.0.0.1", 100.0, 7), Terminal("bob", None, None, 0.0, 8)]
    monkeypatch.setattr(psutil, "users", lambda: logins)


AT_TERMINALS = [
    {"name": "alice", "session": "7", "since_s": 100.0, "terminal": "pts/0", "host": "10.0.0.1", "kind": "utmp"},
    {"name": "bob", "session": "8", "since_s": None, "terminal": None, "host": None, "kind": "utmp"},
]


@pytest.mark.usefixtures("terminals")
def test_without_logind_those_count_who_logged_in_at_a_terminal(machine: Machine, root: Path) -> None:
    assert told(machine) == AT_TERMINALS


@pytest.mark.usefixtures("terminals")
def test_a_bus_without_logind_is_not_asked(machine: Machine, root: Path, bus: Bus) -> None:
    (root / SEATS).rmdir()
    assert told(machine) == AT_TERMINALS


@pytest.mark.usefixtures("terminals", "bus")
def test_without_jeepney_it_is_the_same(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "guest_agent.commands.logind", raising=False)
    monkeypatch.setitem(sys.modules, "guest_agent.bus", None)
    monkeypatch.delattr("guest_agent.bus", raising=False)
    monkeypatch.delattr("guest_agent.commands.logind", raising=False)
    assert told(machine) == AT_TERMINALS


def test_this_machine_can_be_asked(machine: Machine) -> None:
    assert all(each["kind"] == "utmp" for each in told(machine))


def test_it_is_available_everywhere(machine: Machine) -> None:
    assert users.available(machine) is None


# ---- What fits into an answer ----


@pytest.mark.parametrize(("text", "number", "told"), [("alice", 3001, 3000), ("😀" * 300, 200, 97)], ids=["usual", "worst"])
def test_of_more_sessions_than_fit_the_first_ones_are_told_and_that_there_are_more(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, text: str, number: int, told: int
) -> None:
    monkeypatch.setattr(psutil, "users", lambda: [Terminal(text, text, text, 1.5, pid) for pid in range(number)])
    result = users.run(machine, Users())
    assert result["truncated"]
    assert [each["session"] for each in result["users"]] == [*map(str, range(len(result["users"])))]
    assert len(result["users"]) == told
    completion = Answer("users", "r" * 64, Outcome(None, result)).completion(in_full=True)
    line = codec.encode("completion", completion.to_arguments())
    assert len(line) < LINE_LIMIT
    assert codec.decode(line)[1]["result"] == result
