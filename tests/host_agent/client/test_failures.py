from __future__ import annotations

import pytest

from host_agent.client import failures
from host_agent.client.failures import Problem, VersionTooLow, read_problem
from host_agent.exits import Exit


def document(kind: str, **members: object) -> dict[str, object]:
    return {"type": f"about:vmaccord/{kind}", "detail": "a sentence", **members}


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        ("no-such-guest", Exit.NO_SUCH_GUEST),
        ("no-such-command", Exit.USAGE),
        ("invalid-arguments", Exit.USAGE),
        ("version-too-low", Exit.REFUSED_BY_VERSION),
        ("disabled", Exit.REFUSED_BY_CAPABILITY),
        ("not-connected", Exit.UNRESPONSIVE),
        ("unresponsive", Exit.UNRESPONSIVE),
        ("congested", Exit.UNRESPONSIVE),
        ("busy", Exit.UNRESPONSIVE),
        ("timed-out", Exit.TIMED_OUT),
        ("not-allowed", Exit.NOT_ALLOWED),
        ("stopping", Exit.UNREACHABLE),
        ("moving", Exit.MOVED),
        ("moved", Exit.MOVED),
        ("handoff-off", Exit.HANDOFF_FAILED),
        ("no-such-peer", Exit.HANDOFF_FAILED),
        ("unreachable-peer", Exit.HANDOFF_FAILED),
        ("refused-by-peer", Exit.HANDOFF_FAILED),
        ("would-lose", Exit.WOULD_LOSE),
        ("in-doubt", Exit.HANDOFF_FAILED),
        ("not-awaited", Exit.HANDOFF_FAILED),
        ("not-moving", Exit.HANDOFF_FAILED),
        ("invalid-session", Exit.HANDOFF_FAILED),
        ("name-taken", Exit.HANDOFF_FAILED),
        ("not-saved", Exit.HANDOFF_FAILED),
    ],
)
def test_each_problem_is_an_error_of_its_own_with_a_status(kind: str, status: Exit) -> None:
    error = read_problem(document(kind))
    assert isinstance(error, Problem)
    assert (error.kind, error.status, str(error)) == (kind, status, "a sentence")
    assert error.document == document(kind)


def test_every_class_of_the_tree_is_in_its_picture() -> None:
    pictured = failures.__doc__ or ""
    for name, each in vars(failures).items():
        if isinstance(each, type) and issubclass(each, failures.ClientError):
            assert name in pictured


@pytest.mark.parametrize(
    "other", [None, [], "x", {}, {"type": "about:blank", "detail": "x"}, {"type": 7}, document("unexpected"), {"type": ""}]
)
def test_what_a_client_can_do_nothing_with_is_no_problem(other: object) -> None:
    assert read_problem(other) is None


def test_a_problem_without_a_sentence_is_none() -> None:
    assert read_problem({"type": "about:vmaccord/disabled"}) is None


def test_a_sentence_is_safe_for_a_terminal() -> None:
    error = read_problem({"type": "about:vmaccord/disabled", "detail": "\x1b[31m"})
    assert str(error) == "\\x1b[31m"


def test_a_version_that_is_too_low_says_who_must_be_upgraded() -> None:
    members = {"needed": 3, "agreed": 1, "guest_supports": 1, "host_supports": 3, "upgrade": "guest"}
    error = read_problem(document("version-too-low", **members))
    assert isinstance(error, VersionTooLow)
    assert {name: getattr(error, name) for name in members} == members


def test_a_command_that_the_guest_does_not_carry_out_says_what_is_missing() -> None:
    error = read_problem(document("disabled", want="not-offered"))
    assert isinstance(error, failures.Disabled)
    assert error.want == "not-offered"


def test_a_command_that_timed_out_can_be_known_again() -> None:
    error = read_problem(document("timed-out", reply_id="run-7"))
    assert isinstance(error, failures.TimedOut)
    assert error.reply_id == "run-7"


def test_a_command_to_a_guest_that_has_moved_says_whether_it_was_sent() -> None:
    for members in ({"to": "host-b", "reply_id": "run-7"}, {"to": "host-b"}):
        error = read_problem(document("moved", **members))
        assert isinstance(error, failures.Moved)
        assert (error.to, error.reply_id) == ("host-b", members.get("reply_id"))
        assert not isinstance(error, failures.CommandRefused)
    assert isinstance(read_problem(document("moving")), failures.CommandRefused)


def test_a_hand_off_that_failed_says_why_to_programs() -> None:
    error = read_problem(document("refused-by-peer", code="unknown-session-spec", supported=[0, 1]))
    assert isinstance(error, failures.RefusedByPeer)
    assert (error.code, error.supported) == ("unknown-session-spec", (0, 1))
    error = read_problem(document("would-lose", names=["commands"]))
    assert isinstance(error, failures.WouldLose)
    assert error.names == ("commands",)
    error = read_problem(document("in-doubt", to="host-b"))
    assert isinstance(error, failures.InDoubt)
    assert error.to == "host-b"
    assert isinstance(error, failures.HandoffFailed)


def test_an_error_made_here_has_a_document_too() -> None:
    assert failures.NoSuchGuest("gone").document == {"type": "about:vmaccord/no-such-guest", "detail": "gone"}
