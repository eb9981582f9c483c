from __future__ import annotations

import os
import time
from typing import Any, Optional

import pytest

from common import catalogue
from host_agent.cli import views
from host_agent.client import Answer, Event
from host_agent.guest import State
from tests.host_agent.operators import EVIL, described


def test_a_guest_is_one_row() -> None:
    row = ("web-1", "responsive", "3", "3", "2", "1 s ago", "2 h ago: first agreement of this connection")
    assert views.overview([described(in_use=2)]) == [row]


def test_a_guest_that_is_slowed_down_shows_as_such() -> None:
    guest = described()
    guest["channel"]["throttled"] = True
    assert views.overview([guest])[0][1] == "responsive, throttled"


@pytest.mark.parametrize(
    ("state", "peer", "row", "line"),
    [
        ("moving", "host-b", "moving to host-b", "moving to host-b: it is sent no commands meanwhile"),
        ("moving", None, "moving", "moving: it is sent no commands meanwhile"),
        ("moved", "host-b\x1b", "moved to host-b\\x1b", "moved to host-b\\x1b: send it commands there"),
        (
            "in-doubt",
            "host-b",
            "perhaps moved to host-b",
            "perhaps moved to host-b: that host is asked until it answers; nobody here sends it commands meanwhile",
        ),
    ],
)
def test_a_guest_that_moves_shows_as_such(state: str, peer: Optional[str], row: str, line: str) -> None:
    guest = {**described(), "handoff": {"state": state, "peer": peer}}
    assert views.overview([guest])[0][1] == f"responsive, {row}"
    assert f"  responsive, {row}  " in views.standing(guest)
    lines = views.details(guest).splitlines()
    assert lines[lines.index("Hand-off") + 1] == f"  {line}"


def test_a_guest_that_is_frozen_shows_for_how_long() -> None:
    guest = {**described(), "frozen": {"mountpoints": ["/", "/srv\x1b"], "thaws_in_s": 12.2}}
    assert views.overview([guest])[0][1] == "responsive, frozen for 12 s more"
    lines = views.details(guest).splitlines()
    assert lines[lines.index("Frozen") + 1] == "  /, /srv\\x1b: thaws by itself in 12 s at the latest"
    guest["frozen"]["mountpoints"] = []
    assert "  all that can be: thaws by itself in 12 s at the latest" in views.details(guest).splitlines()


def test_a_guest_that_is_here_shows_neither() -> None:
    guest = described()
    assert not {"Hand-off", "Frozen"} & set(views.details(guest).splitlines())
    # As of a daemon of an earlier release.
    del guest["handoff"], guest["frozen"]
    assert views.overview([guest])[0][1] == "responsive"
    assert views.details(guest)


def test_facts_are_shown_with_their_age_also_where_nothing_is_agreed() -> None:
    guest: dict[str, Any] = {
        **described(state="absent"),
        "facts": {"fqdn": {"age_s": 61.0, "value": {"fqdn": "a"}}, "timezone": {"age_s": None, "value": {"zone": "b"}}},
        "capabilities": {"commands": {"exec": True}, "features": []},
    }
    lines = views.details(guest).splitlines()
    heading = lines.index("Facts, from before: nothing is agreed now")
    assert lines[heading + 1 : heading + 5] == [
        "  fqdn (1 min ago)",
        "    fqdn: a",
        "  timezone (age unknown)",
        "    zone: b",
    ]
    assert "Capabilities, from before: nothing is agreed now" in lines
    guest["api"]["agreed"] = 0
    assert {"Facts", "Capabilities"} <= set(views.details(guest).splitlines())


def test_of_a_reason_the_row_has_the_first_clause_and_the_details_the_sentence() -> None:
    guest = described()
    guest["api"]["last_reason"] = "the guest sends no version: it supports no versions, this host up to API 3"
    assert views.overview([guest])[0][-1] == "2 h ago: the guest sends no version"
    assert f"2 h ago: {guest['api']['last_reason']}" in views.details(guest)


def test_what_is_unknown_is_a_dash() -> None:
    guest = {**described(state="absent", last_reason=None, last_change_s=None), "heard_s": None}
    assert views.overview([guest]) == [("web-1", "absent", "-", "-", "-", "-", "-")]


def test_columns_are_aligned_and_nothing_is_cut() -> None:
    long = "x" * 300
    text = views.columns([("A", "B", "C"), (long, "1", ""), ("y", "2", "z")])
    assert text.splitlines() == ["A" + " " * 301 + "B  C", long + "  1", "y" + " " * 301 + "2  z"]


def test_an_absurd_version_does_not_fill_the_screen() -> None:
    guest = described()
    guest["api"]["advertised"] = 10**4000
    assert views.overview([guest])[0][3] == ">9999"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0 s ago"),
        (59.4, "59 s ago"),
        (60.0, "1 min ago"),
        (3599.0, "59 min ago"),
        (86400.0, "24 h ago"),
        (2e5, "2 d ago"),
    ],
)
def test_ages_are_in_units_for_people(seconds: float, text: str) -> None:
    assert views.overview([{**described(), "heard_s": seconds}])[0][5] == text


def test_all_of_one_guest_is_readable() -> None:
    guest = {
        **described(),
        "history": [{"old": 0, "new": 3, "reason": "first agreement", "ago_s": 7200.0}],
        "commands": [{"reply_id": "r-1", "name": "lifecycle-event", "sent_s": 2.0, "left_s": 28.0}],
        "facts": {
            "network-interfaces": {
                "age_s": 3.0,
                "value": {"interfaces": [{"name": "eth0", "inet": ["10.0.0.1", "10.0.0.2"], "inet6": []}]},
            },
            "active-user": {"age_s": 61.0, "value": {"name": ""}},
            "echo": {"age_s": 1.0, "value": {"yes": True, "no": False, "nothing": None, "number": 1.5}},
        },
        "counters": {"lines": 3, "dropped": {"unknown": 1}, "dropped_names": {}},
    }
    assert views.details(guest).splitlines() == [
        "web-1",
        "",
        "Channel",
        "  state  responsive for 1 min",
        "  path   /ports/web-1/port",
        "  uuid   -",
        "  heard  1 s ago",
        "",
        "API version",
        "  agreed                    3",
        "  in use                    3",
        "  the guest supports up to  3",
        "  this host supports up to  3",
        "  changes                   1",
        "  last change               2 h ago: first agreement of this connection",
        "",
        "Version history",
        "  2 h ago: 0 → 3: first agreement",
        "",
        "Commands that it has not answered yet",
        "  lifecycle-event (r-1): sent 2 s ago, 28 s left",
        "",
        "Facts",
        "  active-user (1 min ago)",
        '    name: ""',
        "  echo (1 s ago)",
        "    yes: true",
        "    no: false",
        "    nothing: -",
        "    number: 1.5",
        "  network-interfaces (3 s ago)",
        "    interfaces:",
        "      -",
        "        name: eth0",
        "        inet:",
        "          - 10.0.0.1",
        "          - 10.0.0.2",
        "        inet6: none",
        "",
        "Counters",
        "  lines: 3",
        "  dropped:",
        "    unknown: 1",
        "  dropped_names: none",
    ]


def test_a_guest_of_which_nothing_is_known_is_dashes() -> None:
    lines = views.details(described(state="absent")).splitlines()
    assert "  path   -" in lines
    assert "  agreed                    -" in lines
    assert lines[lines.index("Facts") + 1] == "  -"


def test_no_string_of_a_guest_reaches_the_terminal_as_it_is() -> None:
    evil = "\x1b]0;owned\x07\u202e\n[bold]"
    guest: dict[str, Any] = {
        **described(evil, last_reason=evil, agreed=1, advertised=1),
        "uuid": evil,
        "history": [{"old": 0, "new": 3, "reason": evil, "ago_s": 7200.0}],
        "commands": [{"reply_id": evil, "name": evil, "sent_s": 2.0, "left_s": 28.0}],
        "facts": {"host-name": {"age_s": 1.0, "value": {evil: [evil, {evil: evil}]}}},
        "counters": {"dropped_names": {evil: 1}},
    }
    guest["channel"]["path"] = evil
    guest["handoff"] = {"state": "moving", "peer": evil}
    guest["frozen"] = {"mountpoints": [evil], "thaws_in_s": 1.0}
    exported = {
        "name": evil,
        "uuid": evil,
        "agent_id": evil,
        "facts": {evil: {"arguments": {evil: [evil]}}},
        "commands": [{"reply_id": evil, "name": evil, "left_s": 1.0}],
        "frozen": guest["frozen"],
        "reference": {"guest_ips": evil},
        "capabilities": {"commands": {evil: True}, "features": [evil]},
        "counters": {evil: {evil: 1}},
        "version_changes": [{"old": 0, "new": 3, "reason": evil, "ago_s": 1.0}],
    }
    answer = Answer(evil, "echo", 3, "1", {"done": False, "reason": evil, evil: {evil: evil}}, 0.1)
    texts = [
        views.details(guest),
        views.columns(views.overview([guest])),
        views.standing(guest),
        views.columns(views.commands(catalogue.CATALOGUE.commands, guest)),
        views.event_line(Event("1", evil, 0.0, evil, {evil: evil, "b": [evil]})),
        views.answer(answer),
        views.said(answer),
        views.reason(answer),
        views.session(2, exported),
        views.columns(views.handoffs([{"guest": evil, "role": "source", "peer": evil, "phase": evil, "since_s": 1.0}])),
        views.listed([evil]),
    ]
    for text in texts:
        assert text.replace("\n", "").isprintable()
        assert "x1b]0;owned" in text


# ---- All guests ----


def test_how_many_there_are_is_told() -> None:
    assert views.totals([]) == "0 guests"
    assert views.totals([described()]) == "1 guest: 1 responsive"
    assert views.totals([described(), described(state="absent"), described()]) == "3 guests: 1 absent, 2 responsive"


def test_where_there_is_not_room_for_all_those_that_are_well_are_left_out() -> None:
    states = ["responsive", "unresponsive", "absent", "responsive", "connecting"]
    guests = [described(f"g{number}", state=state) for number, state in enumerate(states)]
    assert [each["name"] for each in views.worst(guests, 3)] == ["g1", "g2", "g4"]
    assert [each["name"] for each in views.worst(guests, 4)] == ["g0", "g1", "g2", "g4"]
    assert views.worst(guests, 9) == guests


def test_how_a_guest_stands_is_one_line() -> None:
    line = "web-1  responsive  agreed=3 advertised=3 in_use=2  first agreement of this connection"
    assert views.standing(described(in_use=2)) == line


def test_without_guests_every_place_that_is_looked_at_is_named() -> None:
    host = {"directories": ["/a", "/b\x1b"], "libvirt": [{"uri": "qemu:///system"}]}
    assert views.nobody(host) == "no guests found in /a, /b\\x1b, qemu:///system; see 'vmaccord doctor'"


# ---- Hand-offs ----


def test_an_exported_session_is_readable() -> None:
    said = {
        "name": "web-1",
        "uuid": "3f2a1b4c-0000-4000-8000-0123456789ab",
        "advertised": 5,
        "agent_id": "a-1",
        "reply_id_floor": 17,
        "frozen": {"thaws_in_s": 12.0, "mountpoints": ["/"]},
        "facts": {"fqdn": {"arguments": {"fqdn": "a"}, "age_s": 3.0}, "timezone": {"arguments": {"offset": 60}}},
        "commands": [{"reply_id": "r-17", "name": "exec", "left_s": 28.0}],
        "capabilities": {"commands": {"exec": True, "load": False}, "features": ["x"]},
        "counters": {"lines": 3},
        "version_changes": [
            {"ago_s": 90.0, "old": 0, "new": 3, "reason": "first agreement"},
            {"ago_s": 5.0, "old": 3, "new": 5, "reason": "the agent was upgraded"},
        ],
        "reference": {"api_version_hint": 3, "guest_ips": "10.0.0.1"},
    }
    assert views.session(2, said).splitlines() == [
        "web-1 (session spec 2)",
        "Ages, and times that are left, are those of the moment when this was written.",
        "",
        "Guest",
        "  uuid                        3f2a1b4c-0000-4000-8000-0123456789ab",
        "  the guest supports up to    5",
        "  run of its agent            a-1",
        "  reply ids number above      17",
        "  a reference host agreed on  3",
        "  its addresses there         10.0.0.1",
        "",
        "Frozen",
        "  /: thaws by itself in 12 s at the latest",
        "",
        "Version history",
        "  5 s ago: 3 → 5: the agent was upgraded",
        "  1 min ago: 0 → 3: first agreement",
        "",
        "Commands that it has not answered yet",
        "  exec (r-17): 28 s left",
        "",
        "Capabilities",
        "  commands    exec",
        "  turned off  load",
        "  features    x",
        "",
        "Facts",
        "  fqdn (3 s ago)",
        "    fqdn: a",
        "  timezone (age unknown)",
        "    offset: 60",
        "",
        "Counters",
        "  lines: 3",
    ]


def test_a_session_that_says_nothing_is_dashes() -> None:
    lines = ["a guest without a name (session spec 0)", "Guest", "  uuid  -", "Facts", "  -"]
    for said in ({}, {"reply_id_floor": 0}):
        assert [line for line in views.session(0, said).splitlines() if line and "moment" not in line] == lines


def test_what_matters_most_comes_first() -> None:
    names = ["counters.lines", "uuid", "capabilities", "facts.fqdn", "facts.apps.age_s", "frozen", "commands"]
    weighty = ["commands", "frozen", "facts.fqdn", "facts.apps.age_s", "capabilities", "uuid", "counters.lines"]
    assert views.by_weight(names) == weighty


def test_hand_offs_are_rows() -> None:
    source = {"guest": "web-1", "role": "source", "peer": "host-b", "phase": "moving", "since_s": 90.0}
    awaited = {"guest": "", "role": "destination", "peer": None, "phase": "awaited", "since_s": None}
    assert views.handoffs([source, awaited]) == [
        ("web-1", "source", "host-b", "moving", "1 min"),
        ("-", "destination", "-", "awaited", "-"),
    ]
    assert len(views.HANDOFF_HEADERS) == 5


def test_of_many_names_the_first_are_listed() -> None:
    assert views.listed(["a", "b"]) == "a, b"
    assert views.listed([str(number) for number in range(12)]) == "0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 2 more"


# ---- Events ----


def test_an_event_is_a_line_with_its_details(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "TZ", "UTC-1")
    time.tzset()
    event = Event("r-1", "version", 1_700_000_000.9, "web-1", {"old": 0, "new": 3, "reason": "first agreement", "why": None})
    line = '2023-11-14 23:13:20+01:00  web-1  version  old=0 new=3 reason="first agreement"'
    assert views.event_line(event) == line
    monkeypatch.undo()
    time.tzset()


def test_an_event_of_no_guest_and_without_details_is_a_line() -> None:
    assert views.event_line(Event(None, "lost", None, None, {"count": None})) == "-  -  lost"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("x", "x"),
        ("", '""'),
        ("a b", '"a b"'),
        ('a"b', '"a\\"b"'),
        ("a=b", '"a=b"'),
        (True, "true"),
        ([1], "[1]"),
        ("ü", "ü"),
    ],
)
def test_a_detail_is_one_word(value: object, text: str) -> None:
    assert views.event_line(Event(None, "k", None, "g", {"x": value})) == f"-  g  k  x={text}"


def test_an_event_as_json_is_flat() -> None:
    document = views.event_document(Event("r-1", "state", 1.5, "web-1", {"state": "absent"}))
    assert document == {"id": "r-1", "kind": "state", "at": 1.5, "guest": "web-1", "state": "absent"}


# ---- Messages ----


def test_the_table_of_messages_has_them_all() -> None:
    rows = views.messages(catalogue.CATALOGUE.rows)
    assert len(rows) == len(catalogue.CATALOGUE.rows)
    assert ("hibernate", "host → guest", "0", "no", "[state=disk|mem]") in rows
    assert [row[0] for row in rows if row[3] == "yes"] == [row.name for row in catalogue.CATALOGUE.rows if row.dangerous]
    documents = views.message_documents(catalogue.CATALOGUE.rows)
    assert [each["name"] for each in documents] == [row[0] for row in rows]
    (event,) = (each for each in documents if each["name"] == "lifecycle-event")
    assert event == {
        "name": "lifecycle-event",
        "direction": "to-guest",
        "since": 3,
        "arguments": [
            {"name": "type", "type": "str", "required": True, "secret": False},
            {"name": "failure", "type": "bool", "required": False, "secret": False},
        ],
        "dangerous": False,
    }


def test_the_commands_of_a_guest_are_marked() -> None:
    guest = described(agreed=1, advertised=1)
    rows = {row[0]: row for row in views.commands(catalogue.CATALOGUE.commands, guest)}
    assert rows["hibernate"] == ("hibernate", "0", "yes", "no", "[state=disk|mem]")
    assert rows["lifecycle-event"][1:3] == ("3", "no")
    assert rows["lifecycle-event"][4] == "web-1 can't be sent lifecycle-event: version-too-low"
    documents = {each["name"]: each for each in views.message_documents(catalogue.CATALOGUE.commands, guest)}
    assert (documents["hibernate"]["sendable"], documents["hibernate"]["obstacle"]) == (True, None)
    assert documents["lifecycle-event"]["sendable"] is False
    assert documents["lifecycle-event"]["obstacle"] == rows["lifecycle-event"][4]


def test_a_command_that_the_daemon_does_not_know_yet_is_said_to_need_a_restart_of_it() -> None:
    guest = described()
    del guest["obstacles"]["load"]
    said = "vmaccord-host does not know load: restart it, it is older than this program"
    assert views.obstacle(guest, "load") == said
    del guest["obstacles"]
    assert views.obstacle(guest, "load") == said


def test_what_a_guest_says_that_it_carries_out_is_told() -> None:
    capabilities = {"commands": {"load": True, "exec": False, EVIL: False}, "features": ["self-thawing"]}
    lines = views.details({**described(), "capabilities": capabilities}).splitlines()
    start = lines.index("Capabilities")
    assert lines[start : start + 4] == [
        "Capabilities",
        "  commands    load",
        "  turned off  \\x1b[31m\\u202e[bold], exec",
        "  features    self-thawing",
    ]
    nothing = views.details({**described(), "capabilities": {"commands": {}, "features": []}})
    assert "  commands    -\n  turned off  -\n  features    -\n" in nothing
    assert "Capabilities" not in views.details(described())


# ---- Answers ----


def answer(completion: object = None, took: object = None) -> Answer:
    return Answer("web-1", "lifecycle-event", 3, "r-1", completion, took)  # type: ignore[arg-type]


def test_what_became_of_a_command_is_told() -> None:
    assert views.answer(answer()) == "web-1: lifecycle-event sent at API 3"
    assert views.answer(answer({"done": True}, 0.0125)) == "web-1: lifecycle-event done in 12 ms"
    said = answer({"done": True, "reply_id": "r-1", "result": {"a": [1]}, "b": "x y"})
    assert views.answer(said).splitlines()[1:] == ["  result:", "    a:", "      - 1", "  b: x y"]
    assert views.said(said) == 'result={"a": [1]} b="x y"'


@pytest.mark.parametrize(
    ("completion", "why"),
    [
        ({"done": False}, "it does not say why"),
        ({"done": False, "reason": "2 hooks failed"}, "2 hooks failed"),
        ({"done": False, "reason": 7}, "it does not say why"),
        ({"done": False, "error": {"code": "busy", "message": "too much to do"}}, "too much to do"),
        ({"done": False, "error": "x"}, "it does not say why"),
    ],
)
def test_why_a_guest_could_not_do_it_is_told(completion: dict[str, object], why: str) -> None:
    assert views.reason(answer(completion)) == why
    assert views.outcome(answer(completion)) == f"failed: {why}"


def test_every_state_of_a_guest_has_its_rank() -> None:
    assert set(views._WORST_FIRST) == {state.value for state in State}
