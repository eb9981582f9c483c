"""``common.catalogue``"""

from __future__ import annotations

import inspect

import pytest

from common import messages
from common.catalogue import CATALOGUE, Direction
from common.versions import Version

#: The messages of the deployed agents and the version that each came with. This never changes.
DEPLOYED_TO_HOST = {
    0: {"heartbeat", "host-name", "os-version", "network-interfaces", "applications", "disks-usage", "active-user", "fqdn"}
    | {"memory-stats", "session-startup", "session-shutdown", "session-logon", "session-logoff", "session-lock"}
    | {"session-unlock", "uninstalled", "echo"},
    1: {"number-of-cpus"},
    2: {"os-info", "timezone"},
    3: {"containers", "completion"},
}
DEPLOYED_TO_GUEST = {
    0: {"refresh", "api-version", "lock-screen", "log-off", "login", "shutdown", "hibernate", "echo"},
    1: {"set-number-of-cpus"},
    2: set(),
    3: {"lifecycle-event"},
}


#: What we added, and from which version on. This never changes either.
OWN_TO_HOST = {4: {"capabilities", "unsupported"}, 5: set[str]()}
OWN_TO_GUEST = {
    4: set[str](),
    5: {"filesystem-freeze", "filesystem-thaw", "filesystem-status", "filesystem-trim", "set-time", "suspend", "load"}
    | {"users", "exec", "ssh-keys", "set-password", "file-read", "file-write"},
}


@pytest.mark.parametrize(
    ("direction", "deployed"), [(Direction.TO_HOST, DEPLOYED_TO_HOST), (Direction.TO_GUEST, DEPLOYED_TO_GUEST)]
)
def test_the_messages_up_to_version_3_are_those_of_the_deployed_agents(
    direction: Direction, deployed: dict[int, set[str]]
) -> None:
    for since, names in deployed.items():
        assert {row.name for row in CATALOGUE.rows if row.direction is direction and row.since == since} == names


@pytest.mark.parametrize(("direction", "own"), [(Direction.TO_HOST, OWN_TO_HOST), (Direction.TO_GUEST, OWN_TO_GUEST)])
def test_the_messages_of_later_versions_are_our_own(direction: Direction, own: dict[int, set[str]]) -> None:
    for since, names in own.items():
        assert {row.name for row in CATALOGUE.rows if row.direction is direction and row.since == since} == names


def test_commands_are_what_the_host_sends_and_does_not_negotiate_with() -> None:
    to_guest = CATALOGUE.names(Direction.TO_GUEST)
    assert {row.name for row in CATALOGUE.rows if row.is_command} == to_guest.keys() - {"refresh", "api-version"}
    assert not any(row.is_command for row in CATALOGUE.rows if row.direction is Direction.TO_HOST)


def test_every_command_and_nothing_else_is_answered_from_its_own_or_a_later_version_on() -> None:
    for row in CATALOGUE.rows:
        expected = max(row.since, Version.V4) if row.is_command else None
        assert row.answered == (Version.V3 if row.name == "lifecycle-event" else expected), row.name


def test_later_arguments_are_optional_ones_of_their_message() -> None:
    assert {row.name: dict(row.later) for row in CATALOGUE.rows if row.later} == {"completion": {"result": 4, "error": 4}}
    for row in CATALOGUE.rows:
        declared = {each.wire: each for each in messages.declared(row.message_class)}
        assert all(since > row.since and not declared[wire].required for wire, since in row.later.items())


def test_commands_of_version_5_need_a_capability_and_older_ones_do_not() -> None:
    assert {row.name for row in CATALOGUE.rows if row.needs_capability and row.since <= 5} == OWN_TO_GUEST[5]


def test_the_dangerous_commands_are_those_that_give_power_over_everything() -> None:
    dangerous = {row.name for row in CATALOGUE.rows if row.dangerous}
    assert dangerous == {"exec", "ssh-keys", "set-password", "file-read", "file-write"}
    assert all(row.needs_capability for row in CATALOGUE.rows if row.dangerous)


def test_a_name_stands_once_in_each_direction() -> None:
    keys = [(row.direction, row.name) for row in CATALOGUE.rows]
    assert len(set(keys)) == len(keys)


def test_a_class_stands_once_in_each_direction() -> None:
    keys = [(row.direction, row.message_class) for row in CATALOGUE.rows]
    assert len(set(keys)) == len(keys)


def test_every_message_class_stands_in_the_table() -> None:
    classes = {
        found
        for found in vars(messages).values()
        if inspect.isclass(found) and issubclass(found, messages.Message) and found is not messages.Message
    }
    assert {row.message_class for row in CATALOGUE.rows} == classes


def test_a_row_is_found_by_name_in_its_direction_only() -> None:
    row = CATALOGUE.find(Direction.TO_GUEST, "login")
    assert row is not None
    assert row.message_class is messages.Login
    assert CATALOGUE.find(Direction.TO_HOST, "login") is None
    assert CATALOGUE.find(Direction.TO_GUEST, "no-such-message") is None


@pytest.mark.parametrize("direction", list(Direction))
def test_the_rows_of_a_direction_are_known_by_name(direction: Direction) -> None:
    names = CATALOGUE.names(direction)
    assert dict(names) == {row.name: row for row in CATALOGUE.rows if row.direction is direction}
    assert all(CATALOGUE.find(direction, name) is row for name, row in names.items())


def test_a_command_is_found_by_name_and_nothing_else_is() -> None:
    assert [CATALOGUE.command(row.name) for row in CATALOGUE.commands] == list(CATALOGUE.commands)
    for name in ("refresh", "api-version", "heartbeat", "no-such-command"):
        assert CATALOGUE.command(name) is None


def test_an_echo_goes_both_ways() -> None:
    rows = [CATALOGUE.find(direction, "echo") for direction in Direction]
    assert [row.message_class for row in rows if row is not None] == [messages.Echo, messages.Echo]


def test_a_row_is_found_by_its_message_in_its_direction_only() -> None:
    row = CATALOGUE.row_of(Direction.TO_GUEST, messages.LockScreen())
    assert row is not None
    assert row.name == "lock-screen"
    assert CATALOGUE.row_of(Direction.TO_HOST, messages.LockScreen()) is None
    assert CATALOGUE.row_of(Direction.TO_HOST, messages.Message()) is None


def test_only_the_guest_reports_facts() -> None:
    assert {row.direction for row in CATALOGUE.rows if row.is_fact} == {Direction.TO_HOST}


def test_the_facts_of_a_range_of_versions_are_those_that_came_with_them() -> None:
    assert CATALOGUE.facts(above=0, up_to=1) == {"number-of-cpus"}
    assert CATALOGUE.facts(above=1, up_to=3) == {"os-info", "timezone", "containers"}
    assert CATALOGUE.facts(above=3, up_to=3) == set()
    assert CATALOGUE.facts(above=3, up_to=5) == {"capabilities"}


def test_without_a_lower_end_the_range_begins_with_the_first_facts() -> None:
    assert CATALOGUE.facts(up_to=0) == {
        *("host-name", "os-version", "network-interfaces", "applications", "disks-usage", "active-user", "fqdn"),
        "memory-stats",
    }
    assert CATALOGUE.facts(up_to=-1) == set()


def test_the_heartbeat_has_a_rhythm_of_its_own_and_is_never_asked_for_as_a_fact() -> None:
    assert "heartbeat" not in CATALOGUE.facts(up_to=max(Version))


def test_no_message_is_older_than_the_versions() -> None:
    assert {row.since for row in CATALOGUE.rows} == set(Version)
