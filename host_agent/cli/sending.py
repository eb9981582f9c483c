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
    return arguments.read(row, words, _read_secret, _ask)


def send(
    client: Client,
    guest: str,
    command: str,
    words: Sequence[str],
    timeout: Optional[float],
    wait: bool,
    as_json: bool,
    follow: bool = False,
) -> None:
    """``vmaccord send GUEST COMMAND``.

    :param follow: where the guest moves to another host meanwhile, have that asked for the completion.
    :raises ClientError: it was not carried out.
    :raises GuestFailed: the guest says that it could not do it.
    """
    row = arguments.find_command(command)
    tell(client.send(guest, row.name, read_arguments(row, words), timeout, wait, follow), views.answer, as_json)


def tell(answer: Answer, text: Callable[[Answer], str], as_json: bool) -> None:
    """Print what became of a command: as JSON, or the *text* that is made of it.

    :raises GuestFailed: the guest says that it could not do it.
    """
    if as_json:
        print_json(answer._asdict())
    elif not answer.failed:
        print(text(answer))
    if answer.failed:
        raise failure(answer)


def failure(answer: Answer) -> GuestFailed:
    """The error where a guest says that it could not do it."""
    return GuestFailed(f"{views.name(answer.guest)}: {answer.name} {views.outcome(answer)}")


def send_to_all(
    client: Client,
    command: str,
    words: Sequence[str],
    timeout: Optional[float],
    wait: bool,
    as_json: bool,
    follow: bool = False,
) -> Exit:
    """``vmaccord send --all COMMAND``; the status that all guests have in common, or SEVERAL."""
    row = arguments.find_command(command)
    given = read_arguments(row, words)

    def ask(guest: str) -> Answer:
        return client.send(guest, row.name, given, timeout, wait, follow)

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


# ---- Files ----


def read_bytes(name: str, limit: int) -> bytes:
    """All of the file called *name*, or of standard input for ``-``.

    :raises BadArgument: it can't be read, or is longer than *limit* bytes.
    """
    try:
        with contextlib.nullcontext(sys.stdin.buffer) if name == "-" else open(name, "rb") as file:
            content = file.read(limit + 1)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "no file can be called so"
        raise BadArgument(f"{called(name)}: {why}; name a readable file") from None
    if len(content) > limit:
        raise BadArgument(f"{called(name)}: longer than {limit} bytes; name a shorter file")
    return content


def read_text(name: str, limit: int) -> str:
    """As ``read_bytes``, as text.

    :raises BadArgument: it is no text, too.
    """
    try:
        return read_bytes(name, limit).decode("utf-8")
    except UnicodeDecodeError:
        raise BadArgument(f"{called(name)}: not UTF-8 text; save it as UTF-8") from None


def called(name: str) -> str:
    """The file called *name* as people are told of it."""
    return "standard input" if name == "-" else printable(name)


def _read_secret(name: str) -> str:
    typed = _ask("secret") if name == "-" else None
    return read_text(name, SECRET_LIMIT) if typed is None else typed


def _ask(name: str) -> Optional[str]:
    if not sys.stdin.isatty():
        return None
    import getpass  # only here: few commands have a secret

    return getpass.getpass(f"{name}: ", sys.stderr)
