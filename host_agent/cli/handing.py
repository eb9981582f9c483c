"""``vmaccord handoff``: a guest goes to another host, or into a file and out of it; what was carried is shown to people.

A file is written whole or not at all, and only its owner may read it. ``inspect`` asks no daemon.
"""

from __future__ import annotations

import contextlib
import os
import stat
import sys
import tempfile
from typing import Any, Optional

from common.handoff import conversions, documents, files
from common.handoff.errors import HandoffError
from host_agent.client import Answer, Client, InvalidSession, WouldLose
from host_agent.text import printable

from . import sending, terminal, views
from .arguments import BadArgument
from .looking import print_json

#: What stands for standard input, or standard output.
_STANDARD = "-"


def send(client: Client, guest: str, to: Optional[str], allow_loss: bool, as_json: bool) -> None:
    """``vmaccord handoff send``.

    :raises ClientError: it was not handed over, or nobody knows.
    """
    try:
        handed = client.hand_over(guest, to, allow_loss)
    except WouldLose as error:
        peer = "the peer that awaits it" if to is None else printable(to)
        raise _naming_all(error, guest, f"a session spec of {peer}", f"upgrade {peer}") from None
    if as_json:
        print_json(handed._asdict())
        return
    spoken = f"protocol {handed.protocol}, session spec {handed.spec}"
    print(f"{views.name(guest)}: handed over to {printable(handed.to)} ({spoken})")
    if handed.lost:
        print(f"{views.name(guest)}: not carried: {views.listed(views.by_weight(handed.lost))}", file=sys.stderr)


def cancel(client: Client, guest: str, force: bool, as_json: bool) -> None:
    """``vmaccord handoff cancel``."""
    _tell(client.cancel_handoff(guest, force), f"{views.name(guest)}: stays here", as_json)


def expect(client: Client, guest: str, uuid: Optional[str], seconds: Optional[float], as_json: bool) -> None:
    """``vmaccord handoff expect``."""
    document = client.expect(guest, uuid, seconds)
    _tell(document, f"{views.name(guest)}: awaited for {views.duration(document['patience'])}", as_json)


def begin(client: Client, guest: str, timeout: Optional[float], as_json: bool) -> None:
    """``vmaccord handoff begin``.

    :raises ClientError: the guest was not told, or did not answer.
    :raises GuestFailed: it says that it could not make itself ready.
    """
    document = client.migrate(guest, "begin", timeout)
    answer = Answer(guest, "before_migration", 0, None, document["completion"], document["round_trip_s"])
    if as_json:
        print_json(document)
    elif answer.completion is None:
        print(f"{views.name(guest)}: not told, for less than API 3 is agreed with it")
    elif not answer.failed:
        print(views.answer(answer))
    if answer.failed:
        raise sending.failure(answer)


def end(client: Client, guest: str, stage: str, as_json: bool) -> None:
    """``vmaccord handoff failed`` and ``vmaccord handoff arrived``."""
    said = "that its migration failed" if stage == "failed" else "that it has migrated, as soon as it can be told"
    _tell(client.migrate(guest, stage), f"{views.name(guest)}: told {said}", as_json)


def list_handoffs(client: Client, as_json: bool) -> None:
    """``vmaccord handoff list``."""
    documents = client.handoffs()
    if as_json:
        print_json(documents)
    elif documents:
        terminal.print_table(views.HANDOFF_HEADERS, views.handoffs(documents))
    else:
        print("no guest is being handed over, and none is awaited", file=sys.stderr)


# ---- Files ----


def export(client: Client, guest: str, output: str, spec: Optional[int], allow_loss: bool, as_json: bool) -> None:
    """``vmaccord export``.

    :raises ClientError: it can't be exported.
    :raises BadArgument: the file can't be written.
    """
    if as_json and output == _STANDARD:
        raise BadArgument("--json and --output - both mean standard output; leave one out")
    try:
        content = client.export(guest, spec, allow_loss)
    except WouldLose as error:
        asked = "the session spec" if spec is None else f"session spec {spec}"
        raise _naming_all(error, guest, asked, "take a newer --spec") from None
    if output == _STANDARD:
        sys.stdout.buffer.write(content)
        sys.stdout.buffer.flush()
        return
    write_file(output, content)
    text = f"{views.name(guest)}: exported to {printable(output)}; it is still a guest of this host"
    _tell({"guest": guest, "file": output, "bytes": len(content)}, text, as_json)


def take_in(client: Client, file: str, as_json: bool) -> None:
    """``vmaccord import``.

    :raises BadArgument: the file can't be read.
    :raises ClientError: it is no session, or the guest can't be taken.
    """
    document = client.take_in(sending.read_bytes(file, files.FILE_LIMIT))
    _tell(document, f"{views.name(document['guest'])}: is a guest of this host now", as_json)


def inspect(file: str, as_json: bool) -> None:
    """``vmaccord inspect``: asks nobody.

    :raises BadArgument: the file can't be read.
    :raises InvalidSession: it is no session, or one that can't be used.
    """
    content = sending.read_bytes(file, files.FILE_LIMIT)
    try:
        container = files.read_container(content)
    except HandoffError as error:
        raise InvalidSession(f"{sending.called(file)}: {error}") from None
    number = documents.number_of(container.spec)
    if as_json:
        print_json({"spec": number, "session": container.spec.to_members()})
    else:
        shown = {**conversions.convert(container.spec).to_members(), **container.vm.to_members()}
        print(views.session(number, shown))


def write_file(path: str, content: bytes) -> None:
    """Write *content* to the file at *path*: all of it, or the file is as it was. Only its owner may read it.

    :raises BadArgument: it can't be written.
    """
    try:
        _replace(os.path.realpath(path), content)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "no file can be called so"
        raise BadArgument(f"{printable(path)}: {why}; name a file that can be written") from None


def _replace(path: str, content: bytes) -> None:
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise BadArgument(f"{printable(path)}: no regular file; name another one, or - for standard output")
    descriptor, temporary = tempfile.mkstemp(prefix=".vmaccord-", dir=os.path.dirname(path))
    try:
        with open(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def _naming_all(error: WouldLose, guest: str, spec: str, remedy: str) -> WouldLose:
    """*error* with the names of all that would be lost, of which the daemon's sentence has the first."""
    if not error.names:
        return error
    if not error.names:
        return error
    names = ", ".join(views.by_weight(error.names))
    text = f"{views.name(guest)}: {spec} has no place for {names}: {remedy}, or go on with --allow-loss"
    return WouldLose(text, error.document)


def _tell(document: dict[str, Any], text: str, as_json: bool) -> None:
    if as_json:
        print_json(document)
    else:
        print(text)
