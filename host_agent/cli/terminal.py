"""Where the operator's output goes: tables and colours on a terminal, plain text in which nothing is cut elsewhere.

Colours are for terminals only, and never where the environment says NO_COLOR. Texts are shown as they are: nothing in them
is markup. Import costs nothing: what draws is imported when something is drawn.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Optional, TextIO

from . import views

if TYPE_CHECKING:
    from rich.console import Console, Group
    from rich.table import Table

#: The number by which a terminal knows each colour.
_CODES = {"red": 31, "green": 32, "yellow": 33}


def is_terminal(stream: Optional[TextIO] = None) -> bool:
    """Whether *stream*, standard output if not said, is a terminal that can draw."""
    return (stream or sys.stdout).isatty() and os.environ.get("TERM") != "dumb"


def paint(text: str, colour: Optional[str]) -> str:
    """*text* in *colour*, where standard output shows colours."""
    if colour is None or os.environ.get("NO_COLOR") or not is_terminal():
        return text
    return f"\x1b[{_CODES[colour]}m{text}\x1b[0m"


def console(on_errors: bool = False) -> Console:
    """What draws on the terminal: on standard output, or on standard error."""
    from rich import console

    return console.Console(stderr=on_errors, markup=False, highlight=False, emoji=False)


def table(headers: Sequence[str], rows: Iterable[Sequence[str]], marked: Optional[int] = None) -> Table:
    """A table to be drawn; the column *marked* is coloured by the first word of each cell."""
    from rich import box, text
    from rich import table as tables

    drawn = tables.Table(box=box.SIMPLE_HEAD)
    for header in headers:
        drawn.add_column(header, overflow="fold")
    for row in rows:
        drawn.add_row(*(text.Text(cell, _colour(cell) if n == marked else "") for n, cell in enumerate(row)))
    return drawn


def above(drawn: Table, line: str) -> Group:
    """The table with a *line* below it."""
    from rich import console, text

    return console.Group(drawn, text.Text(line))


def print_table(headers: Sequence[str], rows: Sequence[Sequence[str]], marked: Optional[int] = None) -> None:
    """Print *rows* under *headers*; see ``table``."""
    if is_terminal():
        console().print(table(headers, rows, marked))
    else:
        print(views.columns([headers, *rows]))


def _colour(cell: str) -> str:
    return views.COLOURS.get(cell.replace(",", " ").partition(" ")[0], "")
