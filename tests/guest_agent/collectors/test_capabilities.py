"""What the agent says that it lets its host do."""

from __future__ import annotations

from guest_agent.collectors.capabilities import FEATURES, capabilities
from guest_agent.commands import COMMANDS, dangerous, permitted


def test_every_command_is_listed_with_whether_the_host_may_give_it() -> None:
    said = capabilities({"echo", "exec"}).commands
    assert said == {name: name in {"echo", "exec"} for name in COMMANDS}


def test_dangerous_commands_are_off_until_they_are_enabled() -> None:
    said = capabilities(permitted((), ())).commands
    assert {name for name, enabled in said.items() if not enabled} == dangerous()


def test_what_a_host_may_rely_on_has_a_name() -> None:
    assert capabilities(()).features == FEATURES == ("repeated-completions", "self-thawing")
