"""``vmaccord exec``: a program in a guest, as if it ran here.

Bytes go both ways as they are, for they travel as base64; only a terminal, which would obey them, is shown escapes. What
the program printed comes when it has ended.
"""

from __future__ import annotations

import base64
import os
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Optional, TextIO

from common.messages import Code
from host_agent.client import Answer, Client
from host_agent.exits import Exit, Failure
from host_agent.text import printable

from . import sending, views
from .arguments import BadArgument
from .looking import print_json
from .sending import GuestFailed

#: How much may be given to a program to read, in bytes; as base64 and with all else it must fit on one line.
INPUT_LIMIT = 512 * 1024

#: A program that a signal ended has this plus the signal's number as its status, as in shells.
SIGNALLED = 128

_COMMAND = "exec"

#: What a terminal may obey of what a program printed.
_LAYOUT = re.compile("([\n\t])")

_STATUSES, _SIGNALS = range(256), range(1, 65)


class ProgramTimedOut(Failure):
    """The program took longer than it might, and the guest ended it."""

    status = Exit.TIMED_OUT


class _Ended(NamedTuple):
    """How a program ended in a guest.

    :ivar status: None: it was ended because its time was over.
    :ivar truncated: whether the guest returns only the beginning of what it printed.
    """

    status: Optional[int]
    output: bytes
    error_output: bytes
    truncated: bool
    timed_out: bool


#: What there is to say of a program of which nothing is known.
_NOTHING = _Ended(None, b"", b"", truncated=False, timed_out=False)


def read_environment(words: Iterable[str]) -> dict[str, str]:
    """The variables that *words* set, each ``NAME=VALUE``, or ``NAME`` for what this program has under that name.

    :raises BadArgument: one does not.
    """
    environment: dict[str, str] = {}
    for word in words:
        name, sign, value = word.partition("=")
        if not name or not (sign or name in os.environ):
            # Not quoted: it can be a secret.
            raise BadArgument(
                "a variable is neither NAME=VALUE nor the NAME of one that is set here; write --env NAME=VALUE"
            )
        environment[name] = value if sign else os.environ[name]
    return environment


def execute(
    client: Client,
    guest: str,
    argv: Sequence[str],
    timeout: float,
    environment: Mapping[str, str],
    input_file: Optional[str],
    follow: bool,
    as_json: bool,
) -> int:
    """Run *argv* in *guest*; the exit status that the program would have had here.

    :param timeout: seconds after which the guest ends it.
    :param input_file: what it reads from standard input; ``-`` is that of this program. None: nothing.
    :param follow: where the guest moves to another host meanwhile, have that asked how it ended.
    :raises BadArgument: the input can't be read.
    :raises ClientError: it was not carried out.
    :raises GuestFailed: the guest says that it could not run it.
    :raises ProgramTimedOut: the guest ended it; what it had printed is printed.
    """
    arguments: dict[str, Any] = {"argv": list(argv), "timeout": timeout, "encoding": "base64"}
    if environment:
        arguments["environment"] = dict(environment)
    if input_file is not None:
        arguments["input"] = base64.b64encode(sending.read_bytes(input_file, INPUT_LIMIT)).decode("ascii")
    try:
        answer = client.send(guest, _COMMAND, arguments, follow=follow)
        ended = _read(answer)
    except Failure as error:
        if as_json:
            print_json(_document(guest, {}, _NOTHING, str(error)))
        raise
    problem = None
    if ended.status is None:
        problem = f"{views.name(guest)}: {printable(argv[0])} was ended: {views.reason(answer)}"
    if as_json:
        print_json(_document(guest, answer.result, ended, problem))
    else:
        _print(ended)
    if ended.truncated:
        print(f"{views.name(guest)}: it printed more than the guest returns; the rest is lost", file=sys.stderr)
    if ended.status is None:
        raise ProgramTimedOut(problem)
    return ended.status


def _read(answer: Answer) -> _Ended:
    """What *answer* says.

    :raises GuestFailed: the program did not run, or the answer makes no sense.
    """
    said = answer.result
    timed_out = answer.failed and answer.code == Code.TIMED_OUT.value
    if answer.failed and not timed_out:
        raise sending.failure(answer)
    status = None if timed_out else _status(said.get("exit_status"), said.get("signal"))
    printed = [_decode(said.get(name, "" if timed_out else None)) for name in ("output", "error_output")]
    if (status is None and not timed_out) or None in printed:
        raise GuestFailed(f"{views.name(answer.guest)}: how {answer.name} ended is not known: its answer makes no sense")
    return _Ended(status, printed[0] or b"", printed[1] or b"", said.get("truncated") is True, timed_out)


def _status(exit_status: Any, signal: Any) -> Optional[int]:
    if type(exit_status) is int and exit_status in _STATUSES:
        return exit_status
    return SIGNALLED + signal if type(signal) is int and signal in _SIGNALS else None


def _decode(text: Any) -> Optional[bytes]:
    try:
        return base64.b64decode(text, validate=True) if isinstance(text, str) else None
    except ValueError:
        return None


def _print(ended: _Ended) -> None:
    _write(sys.stdout, ended.output)
    _write(sys.stderr, ended.error_output)


def _write(stream: TextIO, content: bytes) -> None:
    if stream.isatty():
        text = content.decode("utf-8", "replace")
        stream.write("".join(part if _LAYOUT.fullmatch(part) else views.whole(part) for part in _LAYOUT.split(text)))
    else:
        stream.buffer.write(content)
    stream.flush()


def _document(guest: str, said: Mapping[str, Any], ended: _Ended, problem: Optional[str]) -> dict[str, Any]:
    return {
        "guest": guest,
        "exit_status": said.get("exit_status"),
        "signal": said.get("signal"),
        "timed_out": ended.timed_out,
        "output": ended.output.decode("utf-8", "replace"),
        "error_output": ended.error_output.decode("utf-8", "replace"),
        "truncated": ended.truncated,
        "problem": problem,
    }
