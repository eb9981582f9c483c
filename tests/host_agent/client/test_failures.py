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


def test_an_error_made_here_has_a_document_too() -> None:
    assert failures.NoSuchGuest("gone").document == {"type": "about:vmaccord/no-such-guest", "detail": "gone"}
