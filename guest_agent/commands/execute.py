"""exec: a program of the host's choice is run, and its exit status and what it printed are the answer.

It gets the argument list as it is, with no shell between, a small environment, ``/`` as its directory and no terminal. After
the time that the host gives it, it is ended with its whole process group, and what it had printed until then goes into the
answer all the same. A program that ends with another status than 0 has been carried out.

Arguments, environment, input and output may be secrets: errors name only the program, and only the result has its output.
"""

from __future__ import annotations

import binascii
import codecs
from collections.abc import Mapping
from typing import Any, Optional

from common import fields
from common.messages import Code, Exec
from guest_agent import processes

from . import CommandFailed, Machine

#: Seconds that a program may be given.
TIMEOUT_LIMIT = 24 * 3600

#: How much of what a program prints is kept of each stream, in bytes, by how it travels. An answer must fit into one line,
#: where a byte takes six characters when it is text and can't be printed, and one and a third in base64.
OUTPUT_LIMITS = {"text": 80 * 1024, "base64": 128 * 1024}

#: What every program gets beside what ``processes`` gives it.
ENVIRONMENT = {"HOME": "/root", "LOGNAME": "root", "SHELL": "/bin/sh", "USER": "root"}


def available(machine: Machine) -> Optional[str]:
    """Programs can be run everywhere."""
    return None


def run(machine: Machine, message: Exec) -> Mapping[str, Any]:
    """Run the program.

    :raises CommandFailed: what is asked for makes no sense, or the program had not ended in time.
    :raises ProgramError: it can't be started.
    """
    _check(message)
    limit = OUTPUT_LIMITS[message.encoding]
    try:
        finished = machine.run(
            message.argv,
            deadline=message.timeout,
            input=_bytes(message.input or "", message.encoding),
            environment={**ENVIRONMENT, **(message.environment or {})},
            output_limit=limit + 1,
            errors_apart=True,
        )
    except processes.ArgumentsUnfit as error:
        raise CommandFailed.invalid(str(error)) from None
    except processes.ProgramTimedOut as error:
        said = _said(error.output, error.errors, message.encoding)
        raise CommandFailed(str(error), {"exit_status": None, "signal": None, **said}, code=Code.TIMED_OUT) from None
    return {**_end(finished.status), **_said(finished.output, finished.errors, message.encoding)}


def _check(message: Exec) -> None:
    if not any(message.argv[:1]):
        raise CommandFailed.invalid("argv names no program; its first member must")
    if message.timeout > TIMEOUT_LIMIT:
        raise CommandFailed.invalid(
            f"a program may take no longer than {TIMEOUT_LIMIT} s; give it less time, or make a service of it"
        )


def _bytes(text: str, encoding: str) -> bytes:
    """What *text* stands for.

    :raises CommandFailed: it is not encoded like that.
    """
    if encoding == "text":
        return text.encode("utf-8", "replace")
    try:
        return binascii.a2b_base64(fields.BASE64.check(text))
    except ValueError:
        raise CommandFailed.invalid("input is no base64; write it so, or say that its encoding is text") from None


def _end(status: int) -> dict[str, Any]:
    return {"exit_status": status if status >= 0 else None, "signal": -status if status < 0 else None}


def _said(output: bytes, errors: bytes, encoding: str) -> dict[str, Any]:
    limit = OUTPUT_LIMITS[encoding]
    return {
        "output": _text(output, encoding),
        "error_output": _text(errors, encoding),
        "truncated": max(len(output), len(errors)) > limit,
    }


def _text(output: bytes, encoding: str) -> str:
    """As much of *output* as travels, encoded; a character that the limit cuts through is left out."""
    kept = output[: OUTPUT_LIMITS[encoding]]
    if encoding == "base64":
        return binascii.b2a_base64(kept, newline=False).decode("ascii")
    return codecs.getincrementaldecoder("utf-8")("replace").decode(kept, final=kept == output)
