from __future__ import annotations

import io
import sys

import pytest

from host_agent.cli import terminal
from tests.host_agent.operators import EVIL
from tests.host_agent.operators import terminal as a_terminal

ROWS = [("web-1", "responsive, throttled"), ("x" * 200, "absent"), (EVIL, "no")]


def test_a_pipe_gets_plain_columns_in_which_nothing_is_cut(capsys: pytest.CaptureFixture[str]) -> None:
    terminal.print_table(("GUEST", "STATE"), ROWS, marked=1)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[0] for line in lines] == ["GUEST", "web-1", "x" * 200, EVIL]
    assert "rich" not in str(terminal.__dict__.keys())


def test_a_terminal_gets_a_table_in_which_nothing_is_markup_or_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    with a_terminal(monkeypatch) as drawn:
        terminal.print_table(("GUEST", "STATE"), [*ROWS, ("[bold]b[/bold]", ":smile:")], marked=1)
        shown = drawn()
    assert "[bold]b[/bold]" in shown
    assert ":smile:" in shown
    assert shown.count("x") >= 200
    assert "…" not in shown


def test_states_have_colours_on_a_terminal_only(monkeypatch: pytest.MonkeyPatch) -> None:
    with a_terminal(monkeypatch) as drawn:
        terminal.print_table(("GUEST", "STATE"), ROWS, marked=1)
        assert "\x1b[32mresponsive, throttled" in drawn()
        assert terminal.paint("x", "red") == "\x1b[31mx\x1b[0m"
        assert terminal.paint("x", None) == "x"
    assert terminal.paint("x", "red") == "x"


@pytest.mark.parametrize("environment", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_colours_can_be_unwanted(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]) -> None:
    with a_terminal(monkeypatch, **environment) as drawn:
        terminal.print_table(("GUEST", "STATE"), ROWS, marked=1)
        print(terminal.paint("x", "red"))
        shown = drawn()
    assert "\x1b[32m" not in shown
    assert "\x1b[31mx" not in shown
    assert "responsive, throttled" in shown


def test_a_terminal_that_can_not_draw_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    with a_terminal(monkeypatch):
        assert terminal.is_terminal()
        assert not terminal.is_terminal(io.StringIO())
        monkeypatch.setenv("TERM", "dumb")
        assert not terminal.is_terminal()


def test_a_line_stands_below_a_table(monkeypatch: pytest.MonkeyPatch) -> None:
    with a_terminal(monkeypatch) as drawn:
        terminal.console().print(terminal.above(terminal.table(("A",), [("1",)]), "[bold]two[/bold]"))
        assert drawn().endswith("[bold]two[/bold]\r\n")


def test_errors_can_be_drawn_beside(monkeypatch: pytest.MonkeyPatch) -> None:
    assert terminal.console(on_errors=True).file is sys.stderr
