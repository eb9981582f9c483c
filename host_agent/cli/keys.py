"""``vmaccord ssh-keys``: the public keys with which users of a guest may log in by SSH.

A private key is never sent anywhere, however its file is called.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Optional

from host_agent.client import Answer, Client
from host_agent.text import printable

from . import sending, views
from .arguments import BadArgument

#: No file of public keys is longer, in bytes.
FILE_LIMIT = 256 * 1024

_COMMAND = "ssh-keys"

#: A public key as files of OpenSSH have it; which types there are is known to the guest.
_KEY = re.compile(r"[A-Za-z0-9@.-]+[ \t]+[A-Za-z0-9+/]+={0,2}(?:[ \t].*)?")

_PRIVATE = re.compile(r"-----BEGIN .*PRIVATE KEY")


def ssh_keys(
    client: Client, guest: str, operation: str, user: str, files: Sequence[str], timeout: Optional[float], as_json: bool
) -> None:
    """Carry out *operation*, ``list``, ``add`` or ``remove``, on the keys of *user*.

    :param files: where the keys stand that are to be added or removed; ``-`` is standard input.
    :param timeout: seconds within which the guest must answer; None: the usual time.
    :raises BadArgument: they are no files of public keys.
    :raises ClientError: it was not carried out.
    :raises GuestFailed: the guest says that it could not do it.
    """
    arguments: dict[str, Any] = {"user": user, "operation": operation}
    if operation != "list":
        arguments["keys"] = _read(files)
    answer = client.send(guest, _COMMAND, arguments, timeout)
    sending.tell(answer, lambda given: _text(given, operation, user), as_json)


def _read(files: Iterable[str]) -> list[str]:
    """The keys in *files*, each once."""
    keys = list(dict.fromkeys(key for name in files for key in _keys(name)))
    if not keys:
        raise BadArgument(
            "no public key is given; name a file that has one, as ~/.ssh/id_ed25519.pub, or - for standard input"
        )
    return keys


def _keys(name: str) -> Iterator[str]:
    text = sending.read_text(name, FILE_LIMIT)
    if _PRIVATE.search(text):
        raise BadArgument(
            f"{printable(name)} is a private key, which must stay where it is; name the file that ends in .pub"
        )
    for number, line in enumerate(map(str.strip, text.splitlines()), 1):
        if line and not line.startswith("#"):
            if not _KEY.fullmatch(line):
                raise BadArgument(f"{printable(name)}, line {number}: no public key; a line is TYPE BASE64 [COMMENT]")
            yield line


def _text(answer: Answer, operation: str, user: str) -> str:
    said = answer.result
    whose = f"{views.name(answer.guest)}: {printable(user)}"
    if operation == "list":
        keys = said.get("keys")
        shown = [views.whole(key) for key in keys if isinstance(key, str)] if isinstance(keys, list) else []
        return "\n".join(shown) or f"{whose} has no keys"
    done = "added" if operation == "add" else "removed"
    number = said.get(done)
    return f"{whose}: {number if type(number) is int else 'no number of'} {'key' if number == 1 else 'keys'} {done}"
