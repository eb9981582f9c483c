"""ssh-keys: the public keys in a user's ``.ssh/authorized_keys`` are listed, added to or removed from.

The file is the user's, who may have put anything in its place. So everything is done with that user's rights, by which
nothing is read or written that the user could not; no symbolic link below the home directory is followed, only a regular
file of the user's own is read, and a new one takes its place at once. But for the lines that are added or removed it stays
as it was, byte for byte.

A key is known by its type and its base64, whatever options or comment stand around it. Options, which can run programs, are
left where they are and are not taken from the host. Where sshd is configured to look for keys elsewhere, these are not seen.
"""

from __future__ import annotations

import binascii
import contextlib
import errno
import io
import os
import stat
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Optional

from common import codec
from common.errors import ProtocolError
from common.fields import BASE64
from common.messages import SshKeys

from . import CommandFailed, Machine, accounts
from .accounts import Account

#: The types that sshd knows, but for those that it has given up.
TYPES = (
    "ssh-ed25519",
    "ssh-rsa",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "sk-ssh-ed25519@openssh.com",
    "sk-ecdsa-sha2-nistp256@openssh.com",
)

DIRECTORY = ".ssh"
FILE = "authorized_keys"

#: The new file, until it takes the old one's place.
NEW_FILE = ".authorized_keys.vmaccord"

#: Bytes that the file may have, before and afterwards.
FILE_LIMIT = 1024 * 1024

#: Keys that may be given at once, and characters of each.
KEYS_LIMIT = 256
KEY_LIMIT = 8192

#: Stands for what else is on the line that has an answer: as long, and with as many members.
_ROOM = " ," * 1024

_KNOWN = frozenset(kind.encode() for kind in TYPES)
_QUOTE, _BACKSLASH, _BLANKS = b'"'[0], b"\\"[0], b" \t"
_NOT_FOLLOWED = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC


class _Key(NamedTuple):
    """What a key is known by."""

    kind: bytes
    base64: bytes


def available(machine: Machine) -> Optional[str]:
    """None where this is root, and there are users."""
    return accounts.available(machine)


def run(machine: Machine, message: SshKeys) -> Mapping[str, Any]:
    """List, add or remove keys.

    :returns: ``keys``, the lines of the file that are no comments; or how many were ``added`` or ``removed``.
    :raises CommandFailed: there is no such user, what is given is no key, or the file can't be used.
    """
    given = {} if message.operation == "list" else _read_given(message.keys or ())
    account = accounts.find(machine, message.user)
    with accounts.acting_as(account), _telling_of(account):
        if message.operation == "list":
            return {"keys": _listed(account)}
        if message.operation == "add":
            return {"added": _add(account, given)}
        return {"removed": _remove(account, given)}


def _listed(account: Account) -> list[str]:
    lines = [line.decode("utf-8", "replace").strip() for line in _lines(_read(account))]
    keys = [line for line in lines if line and not line.startswith("#")]
    try:
        codec.decode(codec.encode("completion", {"keys": keys, "room": _ROOM}))
    except ProtocolError:
        raise CommandFailed(f"there are more keys than fit into an answer ({len(keys)}); remove some") from None
    return keys


def _add(account: Account, given: Mapping[_Key, bytes]) -> int:
    content = _read(account)
    there = {_key(line) for line in _lines(content)}
    lines = [line for key, line in given.items() if key not in there]
    if lines:
        joint = b"\n" if content and not content.endswith(b"\n") else b""
        _write(account, content + joint + b"".join(lines))
    return len(lines)


def _remove(account: Account, given: Collection[_Key]) -> int:
    lines = _lines(_read(account))
    kept = [line for line in lines if _key(line) not in given]
    if len(kept) < len(lines):
        _write(account, b"".join(kept))
    return len(lines) - len(kept)


# ---- Keys ----


def _read_given(keys: Sequence[str]) -> Mapping[_Key, bytes]:
    """The keys of a message, each with the line that is to stand for it.

    :raises CommandFailed: one is none, or there are none or too many. What was given instead is not repeated: it may be
        the private key.
    """
    if not 0 < len(keys) <= KEYS_LIMIT:
        raise CommandFailed.invalid(f"{len(keys)} keys are given; give 1 to {KEYS_LIMIT}")
    read: dict[_Key, bytes] = {}
    for number, text in enumerate(map(str.strip, keys), 1):
        words = text.split(None, 2)
        if len(words) < 2 or len(text) > KEY_LIMIT or not text.isprintable() or not _fits(*words[:2]):
            raise CommandFailed.invalid(
                f"key {number} is no public key; give TYPE BASE64 [COMMENT] on one line, TYPE being {', '.join(TYPES)}"
            )
        read.setdefault(_Key(words[0].encode(), words[1].encode()), f"{' '.join(words)}\n".encode())
    return read


def _fits(kind: str, base64: str) -> bool:
    """Whether *base64* is a key of the type *kind*, which it begins with."""
    try:
        blob = binascii.a2b_base64(BASE64.check(base64))
    except ValueError:
        return False
    head = len(kind).to_bytes(4, "big") + kind.encode()
    return kind in TYPES and blob.startswith(head) and len(blob) > len(head)


def _lines(content: bytes) -> list[bytes]:
    """The lines as sshd sees them, each with its end."""
    return list(io.BytesIO(content))


def _key(line: bytes) -> Optional[_Key]:
    """The key on *line*; None where there is none of a known type."""
    line = line.lstrip(_BLANKS)
    if line.startswith(b"#"):
        return None
    for candidate in (line, _behind_options(line)):
        words = candidate.split(None, 2)
        if len(words) > 1 and words[0] in _KNOWN:
            return _Key(*words[:2])
    return None


def _behind_options(line: bytes) -> bytes:
    """*line* from its first blank on that is not between quotation marks."""
    quoted, previous = False, 0
    for position, byte in enumerate(line):
        if byte == _QUOTE and previous != _BACKSLASH:
            quoted = not quoted
        elif byte in _BLANKS and not quoted:
            return line[position:]
        previous = byte
    return b""


# ---- The user's file ----


def _path(account: Account) -> str:
    return os.path.join(account.home, DIRECTORY, FILE)


@contextlib.contextmanager
def _telling_of(account: Account) -> Iterator[None]:
    """What the system refuses is told as a sentence.

    :raises CommandFailed: instead of an OSError.
    """
    try:
        yield
    except OSError as error:
        linked = error.errno in (errno.ELOOP, errno.ENOTDIR)
        why = "it is or lies in a symbolic link, which is not followed, or no directory" if linked else error.strerror
        raise CommandFailed(f"{_path(account)} can't be used: {why}") from None


def _read(account: Account) -> bytes:
    """What the file has; nothing where there is none.

    :raises OSError: it can't be read.
    :raises CommandFailed: it is no file, belongs to somebody else, or is too large.
    """
    try:
        with _directory(account) as directory:
            descriptor = os.open(FILE, _NOT_FOLLOWED | os.O_NONBLOCK, dir_fd=directory)
    except FileNotFoundError:
        return b""
    with open(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise CommandFailed(f"{_path(account)} is no regular file; let it be one")
        _require_own(status, account)
        content = file.read(FILE_LIMIT + 1)
    if len(content) > FILE_LIMIT:
        raise CommandFailed(f"{_path(account)} is larger than {FILE_LIMIT} bytes; remove from it what nobody needs")
    return content


def _write(account: Account, content: bytes) -> None:
    """Have the file hold *content*: all of it, or what it held before.

    :raises OSError: it can't be written.
    :raises CommandFailed: the directory belongs to somebody else, or the file would be too large.
    """
    if len(content) > FILE_LIMIT:
        raise CommandFailed(f"{_path(account)} would be larger than {FILE_LIMIT} bytes; remove keys first")
    with _directory(account, make=True) as directory:
        _remove_new(directory)
        try:
            _write_new(directory, content)
            os.rename(NEW_FILE, FILE, src_dir_fd=directory, dst_dir_fd=directory)
        except BaseException:
            _remove_new(directory)
            raise
        os.fsync(directory)


def _write_new(directory: int, content: bytes) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with open(os.open(NEW_FILE, flags, 0o600, dir_fd=directory), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _remove_new(directory: int) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(NEW_FILE, dir_fd=directory)


@contextlib.contextmanager
def _directory(account: Account, make: bool = False) -> Iterator[int]:
    """A descriptor of the directory of keys.

    :param make: whether it is made where there is none.
    :raises OSError: there is none, or it can't be used.
    :raises CommandFailed: it belongs to somebody else, or there is no home directory.
    """
    descriptor = _open_directory(account, make)
    try:
        _require_own(os.fstat(descriptor), account)
        yield descriptor
    finally:
        os.close(descriptor)


def _open_directory(account: Account, make: bool) -> int:
    home = _open_home(account)
    try:
        if make:
            with contextlib.suppress(FileExistsError):
                os.mkdir(DIRECTORY, 0o700, dir_fd=home)
        return os.open(DIRECTORY, _NOT_FOLLOWED | os.O_DIRECTORY, dir_fd=home)
    finally:
        os.close(home)


def _open_home(account: Account) -> int:
    """A descriptor of the home directory. The way there is root's, who may have put links on it.

    :raises CommandFailed: there is no such directory.
    """
    try:
        return os.open(account.home, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise CommandFailed(f"the home directory of {account.name} can't be used: {error.strerror}") from None


def _require_own(status: os.stat_result, account: Account) -> None:
    if status.st_uid != account.uid:
        sentence = f"it or its directory belongs to user {status.st_uid}; let it belong to {account.name}"
        raise CommandFailed(f"{_path(account)} can't be used: {sentence}")
