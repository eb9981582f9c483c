from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Optional

import pytest

from host_agent import client as client_module
from host_agent import paths
from host_agent.client import (
    Answer,
    Client,
    DaemonUnreachable,
    Handed,
    InDoubt,
    InvalidSession,
    NoSuchGuest,
    NotAllowed,
    TimedOut,
    UnexpectedAnswer,
    VersionTooLow,
    WouldLose,
    failures,
    find_control,
)
from tests.host_agent.guests import make_socket
from tests.host_agent.operators import FakeDaemon, described, problem
from tests.host_agent.parts import NOBODY


@pytest.fixture
def daemon(place: Path) -> Iterator[FakeDaemon]:
    with FakeDaemon(place / "control.sock", described("db"), described("web-1")) as running:
        yield running


# ---- Which daemon ----


def test_the_first_place_with_a_socket_is_used(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    places = [str(place / name) for name in ("runtime", "temporary")]
    monkeypatch.setattr(paths, "places_to_look", lambda: places)
    with pytest.raises(DaemonUnreachable, match=f"no daemon at {places[0]} or {places[1]}: start vmaccord-host"):
        find_control()
    make_socket(Path(places[1]))
    assert find_control() == places[1]
    Path(places[0]).touch()
    assert find_control() == places[1]
    Path(places[0]).unlink()
    make_socket(Path(places[0]))
    assert find_control() == Client().control == places[0]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_socket_that_somebody_else_put_at_a_default_place_is_not_used(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paths, "places_to_look", lambda: [str(place / "socket")])
    make_socket(place / "socket")
    os.chown(place / "socket", NOBODY, NOBODY)
    with pytest.raises(DaemonUnreachable, match="no daemon at"):
        find_control()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_the_socket_of_the_service_is_found(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paths, "places_to_look", lambda: [str(place / "socket")])
    monkeypatch.setattr(paths, "SERVICE_USER", "nobody")
    make_socket(place / "socket")
    os.chown(place / "socket", NOBODY, NOBODY)
    assert find_control() == str(place / "socket")


def test_a_socket_of_root_is_trusted_by_everybody(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_socket(place / "socket")
    owner = os.lstat(place / "socket").st_uid
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    assert client_module.is_trusted_socket(str(place / "socket")) is (owner == 0)


# ---- Looking ----


def test_guests_are_listed_with_or_without_their_facts(daemon: FakeDaemon) -> None:
    client = Client(daemon.path)
    assert client.guests() == [{key: each[key] for key in each if key != "obstacles"} for each in daemon.guests]
    assert "facts" not in client.guests(facts=False)[0]
    assert [path for _, path, _ in daemon.asked] == ["/v1/guests", "/v1/guests?facts=no"]


def test_guests_are_listed_that_can_be_sent_a_command(daemon: FakeDaemon) -> None:
    client = Client(daemon.path)
    daemon.guests[0]["obstacles"]["lifecycle-event"] = {"kind": "disabled", "detail": "it is turned off"}
    assert [each["name"] for each in client.guests(can="lifecycle-event")] == ["web-1"]
    assert client.guests(can="exec", facts=False) == []
    assert [path for _, path, _ in daemon.asked] == ["/v1/guests?can=lifecycle-event", "/v1/guests?facts=no&can=exec"]


def test_one_guest_the_host_the_metrics_and_the_description_are_told(daemon: FakeDaemon) -> None:
    client = Client(daemon.path)
    assert client.guest("db") == daemon.guests[0]
    assert client.host() == daemon.host
    assert client.metrics() == "vmaccord_guests 1\n"
    assert client.openapi() == {"openapi": "3.1.0"}


def test_an_unknown_guest_is_an_error_of_its_own(daemon: FakeDaemon) -> None:
    client = Client(daemon.path)
    daemon.answers = {f"other/{what}": problem("no-such-guest", 404, "over HTTP") for what in ("commands", "refresh")}
    for ask in (client.guest, client.refresh, lambda name: client.send(name, "lock-screen")):
        with pytest.raises(NoSuchGuest, match=r"^no guest is called 'other': 'vmaccord list' shows all$"):
            ask("other")


@pytest.mark.parametrize("name", ["", "a/b", "a\0b"])
def test_a_name_that_no_guest_can_have_is_not_even_asked_for(name: str) -> None:
    with pytest.raises(NoSuchGuest, match="'vmaccord list' shows all"):
        Client("/nonexistent").guest(name)


@pytest.mark.parametrize("name", ["..", ".", "ü?% #", "a&b=c", "x;y"])
def test_any_other_name_is_asked_for_as_it_is(daemon: FakeDaemon, name: str) -> None:
    daemon.guests.append(described(name))
    assert Client(daemon.path).guest(name)["name"] == name


def test_other_documents_than_those_of_a_daemon_are_unexpected(daemon: FakeDaemon) -> None:
    daemon.guests = [["no", "object"]]  # type: ignore[list-item]
    daemon.host = "no object"  # type: ignore[assignment]
    client = Client(daemon.path)
    with pytest.raises(UnexpectedAnswer, match="another form than expected; does vmaccord-host of this release"):
        client.host()
    daemon.answers["web-1/refresh"] = (200, [])
    with pytest.raises(UnexpectedAnswer):
        client.refresh("web-1")
    daemon.answers["web-1/commands"] = (200, {"guest": "web-1"})
    with pytest.raises(UnexpectedAnswer, match="lacks 'name'"):
        client.send("web-1", "echo")


def test_a_list_in_place_of_the_guests_is_needed(daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch) -> None:
    client = Client(daemon.path)
    monkeypatch.setattr(client._transport, "ask", lambda method, path: {})
    for ask in (client.guests, client.handoffs):
        with pytest.raises(UnexpectedAnswer):
            ask()
    monkeypatch.setattr(client._transport, "ask", lambda method, path: [1])
    with pytest.raises(UnexpectedAnswer):
        client.guests()


# ---- Commanding ----


def test_a_command_is_sent_and_its_completion_is_the_answer(daemon: FakeDaemon) -> None:
    answer = Client(daemon.path).send("web-1", "lifecycle-event", {"type": "before_migration"}, timeout=7.5)
    assert answer == Answer("web-1", "lifecycle-event", 3, "run-1-1", {"done": True}, 0.0125)
    assert not answer.failed
    body = {"name": "lifecycle-event", "arguments": {"type": "before_migration"}, "timeout": 7.5, "wait": True}
    assert daemon.asked == [("POST", "/v1/guests/web-1/commands", body)]


def test_a_command_that_is_not_waited_for_has_no_completion(daemon: FakeDaemon) -> None:
    answer = Client(daemon.path).send("web-1", "lifecycle-event", {"type": "x"}, wait=False)
    assert answer.completion is None
    assert not answer.failed
    assert daemon.asked[0][2]["wait"] is False


def test_a_command_without_a_deadline_is_left_to_the_daemon_and_waited_for(daemon: FakeDaemon) -> None:
    waits: list[float] = []
    client = Client(daemon.path)
    ask = client._transport.ask
    client._transport.ask = lambda *words, wait: (waits.append(wait), ask(*words, wait=wait))[1]  # type: ignore
    for arguments in ({}, {"timeout": 600}, {"timeout": 1}, {"timeout": "x"}, {"timeout": 10**400}):
        client.send("web-1", "exec", arguments)
    assert waits == [30.0, 610.0, 11.0, 30.0, 86_410.0]
    assert all("timeout" not in body for _, _, body in daemon.asked)


@pytest.mark.parametrize(
    ("completion", "result", "code"),
    [
        (None, {}, None),
        ({"done": True}, {}, None),
        ({"done": True, "result": {"load": [1]}}, {"load": [1]}, None),
        ({"done": False, "error": {"code": "frozen", "message": "x"}}, {}, "frozen"),
        ({"done": False, "result": "x", "error": {"code": 7}}, {}, None),
        ({"done": False, "error": "x"}, {}, None),
    ],
)
def test_an_answer_says_what_it_came_to_or_why_it_did_not(
    completion: Optional[dict[str, object]], result: dict[str, object], code: Optional[str]
) -> None:
    answer = Answer("web-1", "x", 5, "1", completion, 0.1)
    assert (answer.result, answer.code) == (result, code)


@pytest.mark.parametrize("completion", [{"done": False}, {}, {"done": "yes"}])
def test_a_guest_that_could_not_do_it_is_no_error_but_an_answer(completion: dict[str, object]) -> None:
    assert Answer("web-1", "x", 3, "1", completion, 0.1).failed


def test_each_refusal_is_an_error_with_its_members(daemon: FakeDaemon) -> None:
    daemon.answers["web-1/commands"] = problem("version-too-low", 409, "upgrade it", needed=3, agreed=1, upgrade="guest")
    with pytest.raises(VersionTooLow, match="upgrade it") as refused:
        Client(daemon.path).send("web-1", "lifecycle-event", {"type": "x"})
    assert (refused.value.needed, refused.value.agreed, refused.value.upgrade) == (3, 1, "guest")


def test_the_time_for_which_a_command_waits_is_added_to_that_of_an_answer(place: Path) -> None:
    """The socket answers after longer than the client's own time, and sooner than both together."""
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(place / "x.sock"))
        listening.listen(1)
        gone = threading.Event()

        def serve() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.recv(4096)
                gone.wait(0.1)
                _, document = problem("timed-out", 504, "no answer", reply_id="7")
                body = json.dumps(document).encode()
                connection.sendall(b"HTTP/1.1 504 X\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))

        thread = threading.Thread(target=serve)
        thread.start()
        with pytest.raises(TimedOut) as timed_out:
            Client(str(place / "x.sock"), timeout=0.01).send("web-1", "x", timeout=20.0)
        thread.join()
    assert timed_out.value.reply_id == "7"


def test_a_guest_is_asked_for_everything(daemon: FakeDaemon) -> None:
    assert Client(daemon.path).refresh("db") == {"guest": "db", "agreed": 3}
    daemon.answers["db/refresh"] = problem("not-allowed", 403, "you may only look")
    with pytest.raises(NotAllowed, match="you may only look"):
        Client(daemon.path).refresh("db")


def test_a_command_is_followed_only_where_that_is_said(daemon: FakeDaemon) -> None:
    client = Client(daemon.path)
    client.send("web-1", "lifecycle-event", {"type": "x"}, follow=True)
    client.send("web-1", "lifecycle-event", {"type": "x"})
    # A daemon of an earlier release does not know the member.
    assert [body.get("follow") for _, _, body in daemon.asked] == [True, None]


# ---- Moving to other hosts ----


def test_a_guest_is_handed_over_and_that_can_be_given_up(daemon: FakeDaemon) -> None:
    client = Client(daemon.path)
    assert client.hand_over("web-1") == Handed("web-1", "host-b", 1, 2, [])
    client.hand_over("web-1", "host-c", allow_loss=True)
    assert client.cancel_handoff("web-1")["guest"] == "web-1"
    client.cancel_handoff("web-1", force=True)
    path = "/v1/guests/web-1/handoff"
    assert daemon.asked == [
        ("POST", path, {"to": None, "allow_loss": False}),
        ("POST", path, {"to": "host-c", "allow_loss": True}),
        ("DELETE", path, None),
        ("DELETE", f"{path}?force=yes", None),
    ]


def test_a_hand_off_that_fails_is_an_error_of_its_own(daemon: FakeDaemon) -> None:
    client = Client(daemon.path)
    daemon.answers["web-1/handoff"] = problem("in-doubt", 409, "wait", to="host-b")
    for ask in (client.hand_over, client.cancel_handoff):
        with pytest.raises(InDoubt, match="wait"):
            ask("web-1")
    daemon.answers["web-1/handoff"] = (200, {"guest": "web-1"})
    with pytest.raises(UnexpectedAnswer, match="lacks 'to'"):
        client.hand_over("web-1")


def test_hand_offs_are_listed_and_guests_awaited(daemon: FakeDaemon) -> None:
    client = Client(daemon.path)
    daemon.handoffs = [{"guest": "web-1"}]
    assert client.handoffs() == daemon.handoffs
    assert client.expect("web-1")["patience"] == 600.0
    client.expect("web-1", "u-1", 30.0)
    path = "/v1/handoffs/expected"
    assert daemon.asked == [
        ("POST", path, {"name": "web-1", "uuid": None}),
        ("POST", path, {"name": "web-1", "uuid": "u-1", "patience": 30.0}),
    ]


def test_a_session_goes_out_and_in_as_it_is(daemon: FakeDaemon) -> None:
    client = Client(daemon.path)
    assert client.export("web-1") == daemon.exported
    client.export("web-1", spec=0, allow_loss=True)
    assert client.take_in(daemon.exported) == {"guest": "web-1", "uuid": None}
    assert daemon.asked == [
        ("GET", "/v1/guests/web-1/session", None),
        ("GET", "/v1/guests/web-1/session?spec=0&allow-loss=yes", None),
        ("POST", "/v1/sessions", daemon.exported),
    ]


def test_what_keeps_a_session_from_going_out_or_in_is_an_error(daemon: FakeDaemon) -> None:
    client = Client(daemon.path)
    daemon.answers["web-1/session"] = problem("would-lose", 409, "take a newer spec", names=["commands"])
    with pytest.raises(WouldLose, match="take a newer spec") as caught:
        client.export("web-1", spec=0)
    assert caught.value.names == ("commands",)
    daemon.answers["web-1/session"] = problem("no-such-guest", 404, "over HTTP")
    with pytest.raises(NoSuchGuest, match="'vmaccord list' shows all"):
        client.export("web-1")
    daemon.answers["sessions"] = problem("invalid-session", 422, "it is cut")
    with pytest.raises(InvalidSession, match="it is cut"):
        client.take_in(b"x")


def test_a_guest_is_told_where_its_migration_stands(daemon: FakeDaemon) -> None:
    waits: list[float] = []
    client = Client(daemon.path)
    ask = client._transport.ask
    client._transport.ask = lambda *words, wait: (waits.append(wait), ask(*words, wait=wait))[1]  # type: ignore
    assert client.migrate("web-1", "begin", 2.5)["completion"] == {"done": True}
    assert client.migrate("web-1", "failed")["completion"] is None
    assert waits == [2.5, client_module.HANDOFF]
    path = "/v1/guests/web-1/migration"
    assert daemon.asked == [("POST", path, {"stage": "begin", "timeout": 2.5}), ("POST", path, {"stage": "failed"})]


def test_a_client_may_be_used_by_many_threads(daemon: FakeDaemon) -> None:
    client = Client(daemon.path)
    seen: list[int] = []
    threads = [threading.Thread(target=lambda: seen.append(len(client.guests()))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [2] * 8


def test_everything_that_a_program_needs_is_exported() -> None:
    classes = {name: each for name, each in vars(failures).items() if isinstance(each, type)}
    errors = {name for name, each in classes.items() if issubclass(each, failures.ClientError)}
    assert errors <= set(client_module.__all__)
    assert all(hasattr(client_module, name) for name in client_module.__all__)
