from __future__ import annotations

import errno
import os
import socket
from pathlib import Path

import pytest

from host_agent.cli.doctor import Level, control
from host_agent.cli.doctor.control import Runner
from tests.host_agent.guests import make_socket
from tests.host_agent.operators import FakeDaemon
from tests.host_agent.parts import NOBODY, another_user


def stat_of(mode: int, uid: int = 1, gid: int = 2) -> os.stat_result:
    return os.stat_result((mode, 0, 0, 0, uid, gid, 0, 0, 0, 0))


# ---- Which socket ----


def test_the_first_place_with_a_socket_is_chosen(place: Path) -> None:
    make_socket(place / "b")
    assert control.choose([str(place / "a"), str(place / "b")], asked_for=False) == (str(place / "b"), [])


def test_where_nothing_is_no_daemon_runs(place: Path) -> None:
    chosen, (finding,) = control.choose([str(place / "a"), str(place / "b")], asked_for=False)
    assert chosen is None
    assert (finding.level, finding.text) == (Level.TROUBLE, f"no daemon runs: nothing is at {place}/a or {place}/b")
    assert "systemctl start vmaccord-host-agent" in str(finding.advice)


def test_something_else_in_its_place_is_trouble(place: Path) -> None:
    (place / "a").touch()
    chosen, (finding,) = control.choose([str(place / "a")], asked_for=True)
    assert chosen is None
    assert (finding.level, finding.text) == (Level.TROUBLE, f"{place}/a: something else than a socket is there")


def test_a_link_is_followed_where_it_was_asked_for_only(place: Path) -> None:
    make_socket(place / "real")
    (place / "link").symlink_to(place / "real")
    assert control.choose([str(place / "link")], asked_for=True)[0] == str(place / "link")
    assert control.choose([str(place / "link")], asked_for=False)[0] is None


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_socket_of_a_stranger_is_used_where_it_was_asked_for_only(place: Path) -> None:
    make_socket(place / "a")
    os.chown(place / "a", NOBODY, NOBODY)
    chosen, (finding,) = control.choose([str(place / "a")], asked_for=False)
    assert chosen is None
    assert finding.level is Level.WARNING
    assert finding.text.endswith(f"belongs to user {NOBODY}, who is neither you nor the service; it is not used")
    assert control.choose([str(place / "a")], asked_for=True) == (str(place / "a"), [])


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_a_place_that_may_not_be_looked_at_is_trouble(place: Path) -> None:
    make_socket(place / "a")
    with another_user():
        chosen, (finding,) = control.choose([str(place / "a")], asked_for=True)
    assert (chosen, finding.text) == (None, f"{place}/a: you may not even look there")


# ---- Who listens ----


def test_who_runs_the_daemon_is_told_by_the_kernel(place: Path) -> None:
    with FakeDaemon(place / "control.sock") as daemon:
        runner, findings = control.probe(daemon.path)
    assert findings == []
    assert runner is not None
    assert runner.uid == os.geteuid()
    assert runner.groups >= {os.getegid(), *os.getgroups()}


def test_a_socket_that_was_left_behind_is_told(place: Path) -> None:
    make_socket(place / "a")
    runner, (finding,) = control.probe(str(place / "a"))
    assert runner is None
    assert finding.text == f"{place}/a: left behind by a daemon that ended without tidying up; nobody listens there"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_a_socket_that_this_user_may_not_open_is_told(place: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(place / "a"))
        listening.listen(1)
        (place / "a").chmod(0o600)
        place.chmod(0o755)
        with another_user():
            runner, (finding,) = control.probe(str(place / "a"))
    assert runner is None
    assert finding.text == f"{place}/a: you, user {NOBODY}, may not open it"
    assert "operator-group = GROUP" in str(finding.advice)


def test_a_daemon_that_takes_no_connection_is_told(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "_PATIENCE", 0.01)
    with socket.socket(socket.AF_UNIX) as listening, socket.socket(socket.AF_UNIX) as first:
        listening.bind(str(place / "a"))
        listening.listen(0)
        first.connect(str(place / "a"))
        runner, (finding,) = control.probe(str(place / "a"))
    assert runner is None
    assert "takes no connection: it hangs" in finding.text


def test_any_other_error_is_told(place: Path) -> None:
    runner, (finding,) = control.probe(str(place / "a"))
    assert runner is None
    assert finding.text == f"{place}/a: {os.strerror(errno.ENOENT)}"


# ---- What the daemon may ----


@pytest.mark.parametrize(
    ("mode", "runner", "may"),
    [
        (0o500, Runner(1, frozenset()), True),
        (0o050, Runner(1, frozenset({2})), False),
        (0o050, Runner(3, frozenset({2})), True),
        (0o040, Runner(3, frozenset({2})), False),
        (0o005, Runner(3, frozenset({4})), True),
        (0o550, Runner(3, frozenset({4})), False),
        (0o000, Runner(0, frozenset()), True),
    ],
)
def test_permissions_are_those_of_owner_group_or_others(mode: int, runner: Runner, may: bool) -> None:
    assert runner.may(stat_of(mode), 5) is may


def test_the_groups_of_a_process_that_is_gone_are_none() -> None:
    assert list(control._groups_of(0)) == []
