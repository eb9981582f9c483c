"""Commands of the operator that make a guest do something, or many guests."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Callable, NamedTuple, Optional, TypeVar

from common import catalogue
from host_agent.client import Answer, Client
from host_agent.client.failures import CommandRefused, Problem
from host_agent.exits import Exit, Failure
from host_agent.text import printable

from . import arguments, many, terminal, views
from .arguments import BadArgument
from .looking import print_json

T = TypeVar("T")

#: A secret is not longer, in bytes.
SECRET_LIMIT = 64 * 1024


class GuestFailed(Failure):
    """The guest says that it could not do it."""

    status = Exit.GUEST_FAILED


class _Outcome(NamedTuple):
    """What became of the question to one of many guests; *answer* is the JSON of it, or of the problem."""

    guest: str
    status: Exit
    word: str
    text: str
    answer: Optional[Mapping[str, Any]]


def read_arguments(row: catalogue.Row, words: Iterable[str]) -> dict[str, Any]:
    """The arguments that *words* give, with secrets read from files or asked for.

    :raises BadArgument: they are not such as the command takes.
    """
    return arguments.read(row, words, _read_file, _ask)


def send(client: Client, guest: str, command: str, words: Sequence[str], timeout: float, wait: bool, as_json: bool) -> None:
    """``vmaccord send GUEST COMMAND``.

    :raises ClientError: it was not carried out.
    :raises GuestFailed: the guest says that it could not do it.
    """
    row = arguments.find_command(command)
    answer = client.send(guest, row.name, read_arguments(row, words), timeout, wait)
    if as_json:
        print_json(answer._asdict())
    elif not answer.failed:
        print(views.answer(answer))
    if answer.failed:
        raise GuestFailed(f"{views.name(guest)}: {row.name} {views.outcome(answer)}")


def send_to_all(client: Client, command: str, words: Sequence[str], timeout: float, wait: bool, as_json: bool) -> Exit:
    """``vmaccord send --all COMMAND``; the status that all guests have in common, or SEVERAL."""
    row = arguments.find_command(command)
    given = read_arguments(row, words)

    def ask(guest: str) -> Answer:
        return client.send(guest, row.name, given, timeout, wait)

    return _tell(_ask_all(client, ask, _sent), as_json)


def refresh(client: Client, guest: str, as_json: bool) -> None:
    """``vmaccord refresh GUEST``."""
    document = client.refresh(guest)
    if as_json:
        print_json(document)
    else:
        print(f"{views.name(guest)}: asked, at API {document['agreed']}")


def refresh_all(client: Client, as_json: bool) -> Exit:
    """``vmaccord refresh --all``; see ``send_to_all``."""
    return _tell(_ask_all(client, client.refresh, _refreshed), as_json)


# ---- Many guests ----


def _ask_all(client: Client, ask: Callable[[str], T], judge: Callable[[str, T], _Outcome]) -> list[_Outcome]:
    """The outcome for each guest that has a port, by name."""
    names = [guest["name"] for guest in client.guests(facts=False) if guest["channel"]["state"] != "absent"]
    outcomes = []
    with _progress(len(names)) as advance:
        for name, answer in many.ask_all(names, ask):
            outcomes.append(_failed(name, answer) if isinstance(answer, Exception) else judge(name, answer))
            advance()
    return sorted(outcomes)


def _sent(guest: str, answer: Answer) -> _Outcome:
    if answer.failed:
        return _Outcome(guest, Exit.GUEST_FAILED, "failed", views.reason(answer), answer._asdict())
    return _Outcome(guest, Exit.OK, views.outcome(answer), views.said(answer), answer._asdict())


def _refreshed(guest: str, document: Mapping[str, Any]) -> _Outcome:
    return _Outcome(guest, Exit.OK, "sent", f"at API {document['agreed']}", document)


def _failed(guest: str, error: Exception) -> _Outcome:
    if not isinstance(error, Failure):
        raise error
    word = "refused" if isinstance(error, CommandRefused) else "failed"
    return _Outcome(guest, error.status, word, str(error), error.document if isinstance(error, Problem) else None)


def _tell(outcomes: Sequence[_Outcome], as_json: bool) -> Exit:
    if as_json:
        print_json([{"guest": each.guest, "exit_status": each.status, "answer": each.answer} for each in outcomes])
    elif outcomes:
        rows = [(views.name(each.guest), each.word, each.text) for each in outcomes]
        terminal.print_table(views.RESULT_HEADERS, rows, marked=1)
    else:
        print("no guest has a port: nothing was sent", file=sys.stderr)
    statuses = {each.status for each in outcomes}
    return Exit.SEVERAL if len(statuses) > 1 else statuses.pop() if statuses else Exit.OK


@contextlib.contextmanager
def _progress(total: int) -> Iterator[Callable[[], None]]:
    """A bar on a terminal; gives what moves it on."""
    if not terminal.is_terminal(sys.stderr):
        yield lambda: None
        return
    from rich import progress

    columns = progress.BarColumn(), progress.MofNCompleteColumn(), progress.TimeElapsedColumn()
    with progress.Progress(*columns, console=terminal.console(on_errors=True), transient=True) as bar:
        task = bar.add_task("", total=total)
        yield lambda: bar.advance(task)


# ---- Secrets ----


def _read_file(name: str) -> str:
    if name == "-":
        typed = _ask("secret")
        return _decode("standard input", sys.stdin.buffer.read(SECRET_LIMIT + 1)) if typed is None else typed
    try:
        with open(name, "rb") as file:
            return _decode(name, file.read(SECRET_LIMIT + 1))
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "no file can be called so"
        raise BadArgument(f"{printable(name)}: {why}; name a readable file behind the @") from None


def _decode(name: str, content: bytes) -> str:
    if len(content) > SECRET_LIMIT:
        raise BadArgument(f"{printable(name)}: longer than {SECRET_LIMIT} bytes; that is no secret")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        raise BadArgument(f"{printable(name)}: not UTF-8 text; save it as UTF-8") from None


def _ask(name: str) -> Optional[str]:
    if not sys.stdin.isatty():
        return None
    import getpass  # only here: few commands have a secret

    return getpass.getpass(f"{name}: ", sys.stderr)
