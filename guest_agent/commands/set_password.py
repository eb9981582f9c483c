"""set-password: a user's password is set by ``chpasswd``, by the rules of the machine.

It reads the user's name and the password from standard input. The password goes nowhere else: into no argument list, no
environment, no log, no error, and what chpasswd prints is thrown away since it could repeat it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Optional

from common.characters import REPLACEMENT, clean
from common.messages import SetPassword
from guest_agent import processes

from . import CommandFailed, Machine, accounts

#: Bytes that a password may have; crypt(3) takes no more.
PASSWORD_LIMIT = 511

#: What would be read as another line, and what stands for characters that were lost on the way.
_UNFIT = frozenset(f"\n\r{REPLACEMENT}")

#: What crypt(3) makes of passwords, but for what it made when there was no ``$``. A password that was not hashed, which
#: nobody could log in with, is none, nor is what locks an account or lets everybody in.
_HASH = re.compile(r"\$[0-9a-z]{1,16}\$[!-~]{1,494}", re.ASCII)
_NO_HASH = frozenset(":;*!\\")


def available(machine: Machine) -> Optional[str]:
    """None where this is root, and chpasswd is there."""
    why = accounts.available(machine)
    if why is None and processes.find("chpasswd", machine.root) is None:
        return "chpasswd is not installed; install it"
    return why


def run(machine: Machine, message: SetPassword) -> Mapping[str, Any]:
    """Set the password.

    :raises CommandFailed: there is no such user, it can't be that password, or chpasswd does not take it.
    """
    _check(message)
    account = accounts.find(machine, message.user)
    pair = f"{account.name}:{message.password}\n".encode()
    elsewhere = [] if machine.root == "/" else ["-R", machine.root]
    argv = ["chpasswd", *elsewhere, *(["-e"] if message.crypted else [])]
    finished = machine.run(argv, input=pair, deadline=machine.deadline, output_limit=0)
    if finished.status != 0:
        raise CommandFailed(f"chpasswd {finished.how}; the guest's own log may say why")
    return {}


def _check(message: SetPassword) -> None:
    """See that the password can be set and be used.

    :raises CommandFailed: it can't.
    """
    password = message.password
    if _UNFIT.intersection(clean(password)):
        raise CommandFailed.invalid("the password has a line break or a character that can't be sent; leave that out")
    if message.crypted and (not _HASH.fullmatch(password) or _NO_HASH.intersection(password)):
        raise CommandFailed.invalid(
            "what is given as crypted is no hash as crypt(3) makes it ($...); hash it, or send it as it is"
        )
    if not 0 < len(password.encode()) <= PASSWORD_LIMIT:
        raise CommandFailed.invalid(f"the password is empty or longer than {PASSWORD_LIMIT} bytes; choose another")
