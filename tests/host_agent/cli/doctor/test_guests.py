from __future__ import annotations

from typing import Any, Optional

import pytest

from host_agent.cli.doctor import Finding, Level, guests
from tests.host_agent.operators import described


def with_channel(guest: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {**guest, "channel": {**guest["channel"], **changes}}


def handed(state: str) -> dict[str, Any]:
    return {**described(), "handoff": {"state": state, "peer": "host-b"}}


def bad(guest: dict[str, Any]) -> Finding:
    *found, count = guests.examine_all([guest])
    assert count == Finding(Level.OK, "guests", "0 of 1 guests are well")
    (only,) = found
    assert only.guest == "web-1"
    return only


def test_guests_that_are_well_are_counted() -> None:
    known = [described("a"), described("b"), described("c", state="absent")]
    assert list(guests.examine_all(known)) == [Finding(Level.OK, "guests", "2 of 3 guests are well")]


@pytest.mark.parametrize(
    ("guest", "level", "check", "said"),
    [
        (
            described(state="connecting"),
            Level.TROUBLE,
            "refused",
            "nobody has answered on its socket /ports/web-1/port for 1 min",
        ),
        (described(state="connected"), Level.WARNING, "silent", "connected, and nothing was heard for 1 min"),
        (
            described(state="unresponsive"),
            Level.TROUBLE,
            "unresponsive",
            "has been silent for 1 min, though it spoke before",
        ),
        (described(agreed=1, advertised=1), Level.WARNING, "agent-older", "its agent supports API 1, this host API 3"),
        (
            described(agreed=0, advertised=None),
            Level.WARNING,
            "agent-older",
            "its agent supports no versions, this host API 3",
        ),
        (described(agreed=1, supported=1), Level.WARNING, "agent-newer", "this host supports API 1 at most"),
        (described(agreed=0, supported=None), Level.WARNING, "agent-newer", "this host supports no versions"),
        (described(in_use=1), Level.WARNING, "not-following", "API 3 was agreed on, but its agent uses 1"),
        (with_channel(described(), throttled=True), Level.WARNING, "throttled", "sends more than it may"),
        (handed("in-doubt"), Level.TROUBLE, "in-doubt", "whether host-b has taken it is not known"),
        (handed("moved"), Level.WARNING, "moved", "it was handed over to host-b"),
    ],
)
def test_what_is_wrong_with_a_guest_is_found(guest: dict[str, Any], level: Level, check: str, said: str) -> None:
    guest = {**guest, "api": {**guest["api"], "in_use": guest["api"]["in_use"] if check == "not-following" else None}}
    found = bad(guest)
    assert (found.level, found.check) == (level, check)
    assert said in found.text
    assert found.advice


@pytest.mark.parametrize(
    "guest",
    [
        with_channel(described(state="connecting"), since_s=1.0),
        with_channel(described(state="connected"), since_s=1.0),
        described(in_use=1, last_change_s=1.0),
        described(in_use=1, last_change_s=None),
        described(agreed=0, advertised=None, supported=None, in_use=None),
    ],
)
def test_what_may_take_a_moment_is_not_found_at_once(guest: dict[str, Any]) -> None:
    assert [each.check for each in guests.examine_all([guest])] == ["guests"]


# ---- One guest ----


def closely(guest: dict[str, Any], name: Optional[str] = None) -> Finding:
    (found,) = guests.examine_one([described("other"), guest], name or guest["name"])
    return found


def test_one_that_is_well_is_told_to_be() -> None:
    assert closely(described()) == Finding(Level.OK, "guest", "is responsive, agreed on API 3", None, "web-1")
    just = with_channel(described(state="connecting"), since_s=1.0)
    assert closely(just).text == "is connecting"


def test_one_that_is_not_there_is_missed() -> None:
    found = closely(described(state="absent"))
    assert (found.level, found.text) == (Level.TROUBLE, "has had no port on this host for 1 min")


def test_one_that_nobody_knows_is_told_with_what_was_meant() -> None:
    found = closely(described("web-1"), "web1")
    assert (found.level, found.guest) == (Level.TROUBLE, "web1")
    assert found.text == "the daemon knows no guest called web1; did you mean web-1?"
    assert closely(described("web-1"), "xyz").text == "the daemon knows no guest called xyz"


def test_of_one_everything_that_is_wrong_is_told() -> None:
    slow = with_channel(described(agreed=1, advertised=1, in_use=0), throttled=True)
    assert [each.check for each in guests.examine_one([slow], "web-1")] == ["agent-older", "not-following", "throttled"]
