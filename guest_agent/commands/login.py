"""login: a helper program of the administrator's choice logs a user in.

It reads the user's name and the password, a line each, from standard input; status 0 means that it worked. The credentials
go nowhere else: into no argument list, no environment, no log, no error, and the helper's output is thrown away since it
could repeat them. Only a program that nobody but root can have a say in gets them.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from typing import Any, Optional

from common.messages import Login
from guest_agent import processes

from . import CommandFailed, Machine

#: What could make more lines of the two, or fewer.
_BREAKS = frozenset("\n\r\0")

#: Bytes that the name and the password may have together.
CREDENTIALS_LIMIT = 4096


def available(machine: Machine) -> Optional[str]:
    """None where there is a helper that may be trusted with passwords."""
    if machine.login_helper is None:
        return "no login-helper is configured; name one in [commands]"
    try:
        why = _why_unfit(machine.login_helper, machine.owner)
    except OSError as error:
        why = f"{machine.login_helper}: {error.strerror}"
    return None if why is None else f"the login-helper can't be used: {why}"


def run(machine: Machine, message: Login) -> Mapping[str, Any]:
    """Have the helper log the user in.

    :raises CommandFailed: there is no helper, or it does not.
    """
    why = available(machine)
    if why is not None or machine.login_helper is None:
        raise CommandFailed(str(why))
    finished = machine.run([machine.login_helper], input=_lines(message), deadline=machine.deadline, output_limit=0)
    if finished.status != 0:
        raise CommandFailed(f"the login-helper {finished.how}")
    return {}


def _lines(message: Login) -> bytes:
    if _BREAKS.intersection(message.username + message.password):
        raise CommandFailed("the user's name or the password has a line break or NUL; neither can be logged in with")
    lines = f"{message.username}\n{message.password}\n".encode("utf-8", "replace")
    if len(lines) > CREDENTIALS_LIMIT:
        raise CommandFailed(f"the user's name and the password are longer than {CREDENTIALS_LIMIT} bytes together")
    return lines


def _why_unfit(path: str, owner: int) -> Optional[str]:
    why = processes.why_untrusted(path, owner)
    if why is not None:
        return why
    mode = os.stat(path).st_mode
    if not stat.S_ISREG(mode) or not mode & stat.S_IXUSR:
        return f"{path} is no executable file"
    return None
