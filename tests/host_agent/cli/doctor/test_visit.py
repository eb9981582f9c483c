from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from host_agent import paths
from host_agent.cli.doctor import Finding, Level, visit
from host_agent.exits import Exit
from tests.host_agent.guests import make_socket
from tests.host_agent.operators import EVIL, FakeDaemon, described, described_host, terminal


@pytest.fixture
def daemon(place: Path) -> Iterator[FakeDaemon]:
    with FakeDaemon(place / "control.sock", described("web-1")) as running:
        (place / "ports").mkdir()
        running.host["directories"] = [str(place / "ports")]
        yield running


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return capsys.readouterr().out.splitlines()


def test_where_all_is_well_everything_that_was_looked_at_is_told(
    daemon: FakeDaemon, capsys: pytest.CaptureFixture[str]
) -> None:
    assert visit.doctor(daemon.path, None, as_json=False) is Exit.OK
    told = lines(capsys)
    assert {line.split()[0] for line in told} == {"ok"}
    assert told[-1] == "ok       1 of 1 guests are well"
    assert any("you are root (uid 0), and may command" in line for line in told)


def test_a_warning_is_no_trouble(daemon: FakeDaemon, capsys: pytest.CaptureFixture[str]) -> None:
    daemon.guests = [described(agreed=1, advertised=1, in_use=1)]
    assert visit.doctor(daemon.path, None, as_json=False) is Exit.OK
    text = "web-1: its agent supports API 1, this host API 3: upgrade vmaccord-guest-agent in web-1"
    assert f"warning  {text}" in lines(capsys)


def test_everything_is_looked_at(daemon: FakeDaemon, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_socket(place / "ports" / "db" / "ovirt-guest-agent.1")
    daemon.host = described_host(
        directories=daemon.host["directories"], fixed={"fix": str(place / "none")}, descriptors={"limit": 7}
    )
    daemon.guests = [described(EVIL, state="unresponsive")]
    assert visit.doctor(daemon.path, None, as_json=True) is Exit.TROUBLE
    findings = json.loads(capsys.readouterr().out)
    wrong = {(each["level"], each["check"], each["guest"]) for each in findings if each["level"] != "ok"}
    assert wrong == {
        ("trouble", "descriptors", None),
        ("trouble", "unresponsive", EVIL),
        ("warning", "port-name", "db"),
        ("warning", "fixed", "fix"),
    }
    assert visit.doctor(daemon.path, None, as_json=False) is Exit.TROUBLE
    assert all(line.isprintable() for line in lines(capsys))


def test_one_guest_is_looked_at_closely(daemon: FakeDaemon, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_socket(place / "ports" / "domain-1-db" / "ovirt-guest-agent.1")
    make_socket(place / "ports" / "domain-2-www" / "ovirt-guest-agent.1")
    daemon.host["fixed"] = {"fix": str(place / "none")}
    assert visit.doctor(daemon.path, "web-1", as_json=False) is Exit.OK
    assert lines(capsys)[-1] == "ok       web-1: is responsive, agreed on API 3"
    assert visit.doctor(daemon.path, "db", as_json=False) is Exit.TROUBLE
    told = [line for line in lines(capsys) if not line.startswith("ok")]
    assert [line.split(": ")[0] for line in told] == ["warning  db", "trouble  db"]


def test_a_daemon_that_is_not_there_ends_the_visit(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert visit.doctor(str(place / "none"), None, as_json=True) is Exit.TROUBLE
    assert [each["check"] for each in json.loads(capsys.readouterr().out)] == ["control-socket"]
    make_socket(place / "dead")
    assert visit.doctor(str(place / "dead"), None, as_json=True) is Exit.TROUBLE
    assert "nobody listens there" in capsys.readouterr().out


def test_a_daemon_that_does_not_say_what_it_should_ends_the_visit(
    daemon: FakeDaemon, capsys: pytest.CaptureFixture[str]
) -> None:
    daemon.host = []  # type: ignore[assignment]
    assert visit.doctor(daemon.path, None, as_json=True) is Exit.TROUBLE
    (finding,) = json.loads(capsys.readouterr().out)
    assert (finding["check"], finding["level"]) == ("daemon", "trouble")


def test_without_a_socket_that_is_named_every_default_place_is_looked_at(
    daemon: FakeDaemon, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(paths, "places_to_look", lambda: (str(place / "none"), daemon.path))
    assert visit.doctor(None, None, as_json=False) is Exit.OK
    assert lines(capsys)


def test_of_many_guests_with_the_same_complaint_some_are_named(
    daemon: FakeDaemon, capsys: pytest.CaptureFixture[str]
) -> None:
    daemon.guests = [described(f"g{number}", agreed=1, advertised=1, in_use=1) for number in range(visit.SHOWN + 3)]
    visit.doctor(daemon.path, None, as_json=False)
    told = [line for line in lines(capsys) if line.startswith("warning")]
    assert len(told) == visit.SHOWN + 1
    assert told[-1] == "warning  and 3 more like this; --json lists all"
    visit.doctor(daemon.path, None, as_json=True)
    assert len([each for each in json.loads(capsys.readouterr().out) if each["check"] == "agent-older"]) == visit.SHOWN + 3


def test_levels_have_colours_on_a_terminal_only(daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch) -> None:
    with terminal(monkeypatch) as drawn:
        visit.doctor(daemon.path, None, as_json=False)
        assert "\x1b[32mok     \x1b[0m" in drawn()
    with terminal(monkeypatch, NO_COLOR="1") as drawn:
        visit.doctor(daemon.path, None, as_json=False)
        assert "\x1b[" not in drawn()


def test_findings_of_one_kind_stand_together() -> None:
    mixed = [Finding(Level.OK, check, text) for check, text in (("a", "1"), ("b", "2"), ("a", "3"))]
    assert [line.split()[1] for line in visit._lines(mixed)] == ["1", "3", "2"]
