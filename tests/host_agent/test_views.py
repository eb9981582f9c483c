from __future__ import annotations

from typing import Any

import pytest

from host_agent import views

from .parts import make_guest


def described(**changes: Any) -> dict[str, Any]:
    guest = make_guest().describe(0.0)
    guest["channel"] = {"path": "/ports/web-1", "state": "responsive", "since_s": 75.0}
    guest["api"].update(agreed=3, advertised=3, in_use=2, changes=1, last_reason="first heartbeat", last_change_s=7200.0)
    guest["heard_s"] = 1.4
    return {**guest, **changes}


def test_a_guest_is_one_row() -> None:
    row = ("web-1", "responsive", "3", "3", "2", "1 s ago", "2 h ago: first heartbeat")
    assert views.overview([described()]) == [row]


def test_of_a_reason_the_row_has_the_first_clause_and_the_details_the_sentence() -> None:
    guest = described()
    guest["api"]["last_reason"] = "the guest sends no version: it supports no versions, this host up to API 3"
    assert views.overview([guest])[0][-1] == "2 h ago: the guest sends no version"
    assert f"2 h ago: {guest['api']['last_reason']}" in views.details(guest)


def test_what_is_unknown_is_a_dash() -> None:
    assert views.overview([make_guest().describe(0.0)]) == [("web-1", "absent", "-", "-", "-", "-", "-")]


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
    assert views.overview([described(heard_s=seconds)])[0][5] == text


def test_all_of_one_guest_is_readable() -> None:
    guest = described(
        facts={
            "network-interfaces": {
                "age_s": 3.0,
                "value": {"interfaces": [{"name": "eth0", "inet": ["10.0.0.1", "10.0.0.2"], "inet6": []}]},
            },
            "active-user": {"age_s": 61.0, "value": {"name": ""}},
            "echo": {"age_s": 1.0, "value": {"yes": True, "no": False, "nothing": None, "number": 1.5}},
        },
        counters={"lines": 3, "dropped": {"unknown": 1}, "dropped_names": {}},
    )
    assert views.details(guest).splitlines() == [
        "web-1",
        "",
        "Channel",
        "  state  responsive for 1 min",
        "  path   /ports/web-1",
        "  heard  1 s ago",
        "",
        "API version",
        "  agreed                    3",
        "  in use                    2",
        "  the guest supports up to  3",
        "  this host supports up to  3",
        "  changes                   1",
        "  last change               2 h ago: first heartbeat",
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
    lines = views.details(make_guest().describe(0.0)).splitlines()
    assert "  path   -" in lines
    assert "  agreed                    -" in lines
    assert lines[lines.index("Facts") + 1] == "  -"


def test_no_string_of_a_guest_reaches_the_terminal_as_it_is() -> None:
    evil = "\x1b]0;owned\x07\u202e\n[bold]"
    guest = described(
        name=evil,
        facts={"host-name": {"age_s": 1.0, "value": {evil: [evil, {evil: evil}]}}},
        counters={"dropped_names": {evil: 1}},
    )
    guest["api"]["last_reason"] = guest["channel"]["path"] = evil
    for text in (views.details(guest), views.columns(views.overview([guest]))):
        assert text.replace("\n", "").isprintable()
        assert "\\x1b]0;owned\\x07\\u202e\\n[bold]" in text
