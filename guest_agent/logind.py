"""Listening to logind (or elogind) over the system bus: users come, go and lock their screens; the machine shuts down.

The listener lives as long as the agent, so it never blocks: jeepney makes and reads the bus's messages, the socket is ours,
and a step of the conversation is taken whenever the bus has said something. Asking logind questions belongs into workers.
The modules that this takes are imported only where there is a logind.

The bus delivers what any of its users sends to this connection. So a signal counts only if it comes from the connection
that owns logind's name, as the bus itself says; and a message that is too large to be any of logind's ends the
conversation before it is taken in.
"""

from __future__ import annotations

import enum
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Optional

if TYPE_CHECKING:
    import socket

    from jeepney import Message

#: Where the system bus listens, relative to the root.
BUS = "run/dbus/system_bus_socket"

#: What exists where logind runs, relative to the root.
SEATS = "run/systemd/seats"

#: logind's name on the bus, and where it is asked.
SERVICE = "org.freedesktop.login1"
MANAGER = "/org/freedesktop/login1"

#: The state of a session whose user has left.
ENDED = "closing"

#: What logind answers when a session ended meanwhile.
GONE = frozenset({"org.freedesktop.login1.NoSuchSession", "org.freedesktop.DBus.Error.UnknownObject"})

#: In a second of its timestamps.
MICROSECONDS = 1_000_000

_BUS_NAME = "org.freedesktop.DBus"
_BUS_PATH = "/org/freedesktop/DBus"
_PROPERTIES = "org.freedesktop.DBus.Properties"

#: Properties of a session that matter here; others, as how long it has been idle, change often.
_TELLING = frozenset({"Active", "LockedHint", "State"})

_OF_MANAGER = f"type='signal',sender='{SERVICE}',interface='{SERVICE}.Manager'"
_OF_SESSIONS = f"type='signal',sender='{SERVICE}',path_namespace='/org/freedesktop/login1/session'"

#: What is listened to. The last one tells who logind is, and whether it was restarted.
_RULES = (
    f"{_OF_MANAGER},member='SessionNew'",
    f"{_OF_MANAGER},member='SessionRemoved'",
    f"{_OF_MANAGER},member='PrepareForShutdown'",
    f"{_OF_SESSIONS},interface='{_PROPERTIES}',member='PropertiesChanged',arg0='{SERVICE}.Session'",
    f"type='signal',sender='{_BUS_NAME}',member='NameOwnerChanged',arg0='{SERVICE}'",
)

#: No message that is taken in is larger, in bytes.
_MESSAGE_LIMIT = 64 * 1024

_CHUNK = 4096

#: How often one call reads.
_READS = 16


class Notice(enum.Enum):
    """What logind tells."""

    SESSIONS_CHANGED = "a session began, ended, or is another than before"
    SHUTTING_DOWN = "the machine shuts down"


class LogindGone(Exception):
    """There is no listening to logind any more; the text is a clause that says why."""


def available(root: str) -> bool:
    """Whether there is a system bus, and a logind to be found on it."""
    return all(os.path.exists(os.path.join(root, path)) for path in (BUS, SEATS))


def connect(root: str) -> Optional[Logind]:
    """A listener; None where there is no logind.

    :raises LogindGone: it can't be listened to.
    """
    return Logind(os.path.join(root, BUS)) if available(root) else None


class Logind:
    """A listener at the system bus.

    :param path: where the bus listens.
    :raises LogindGone: it can't be reached.
    """

    def __init__(self, path: str) -> None:
        import socket

        try:
            from jeepney import Parser
            from jeepney.auth import Authenticator
        except ImportError:
            raise LogindGone("Python's package jeepney is missing; install it (python3-jeepney)") from None
        self._authenticator = Authenticator()
        self._parser: Any = Parser()
        self._serial = 0
        self._owner_asked = 0
        self._owner: Optional[str] = None
        self._unsent = bytearray(self._authenticator.data_to_send())
        self._socket: socket.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            self._socket.connect(path)
            self._flush()
        except OSError as error:
            self._socket.close()
            raise LogindGone(f"{path} can't be reached: {error.strerror or error}") from None

    def fileno(self) -> int:
        """What to wait on: readable when ``receive`` has something to do."""
        return self._socket.fileno()

    def receive(self) -> list[Notice]:
        """Take the next steps of the conversation; what logind has told, each notice once.

        :raises LogindGone: the bus has gone, or does not do what is asked of it.
        """
        notices: list[Notice] = []
        try:
            self._flush()
            for _ in range(_READS):
                data = self._socket.recv(_CHUNK)
                if data:
                    notices += self._follow(data)
                elif notices:
                    break  # they count; that the bus has gone shows again at the next call
                else:
                    raise LogindGone("the system bus closed the connection")
        except BlockingIOError:
            pass
        except OSError as error:
            raise LogindGone(f"the system bus can't be read: {error.strerror}") from None
        return list(dict.fromkeys(notices))

    def close(self) -> None:
        """Give the connection back."""
        self._socket.close()

    def _flush(self) -> None:
        while self._unsent:
            del self._unsent[: self._socket.send(self._unsent)]

    def _follow(self, data: bytes) -> Iterator[Notice]:
        if not self._authenticator.authenticated:
            self._authenticate(data)
            return
        self._parser.add_data(data)
        try:
            while (message := self._parser.get_next_message()) is not None:
                yield from self._notices(message)
        except LogindGone:
            raise
        except Exception as error:  # noqa: BLE001 - whatever is wrong with a message, it costs no more than the conversation
            raise LogindGone(f"the system bus sends what makes no sense ({type(error).__name__})") from None
        if self._parser.bytes_desired() > _MESSAGE_LIMIT:
            raise LogindGone("the system bus delivers a message that is too large to be logind's")

    # ---- The beginning ----

    def _authenticate(self, data: bytes) -> None:
        from jeepney import AuthenticationError
        from jeepney.auth import BEGIN

        try:
            self._authenticator.feed(data)
        except AuthenticationError:
            raise LogindGone("the system bus does not let this agent in; run it as root") from None
        if self._authenticator.authenticated:
            self._unsent += BEGIN
            self._ask("Hello")
            for rule in _RULES:
                self._ask("AddMatch", rule)
            self._owner_asked = self._ask("GetNameOwner", SERVICE)
            self._flush()

    def _ask(self, method: str, *arguments: str) -> int:
        """Ask something of the bus; the serial number of the question."""
        from jeepney import DBusAddress, new_method_call

        self._serial += 1
        bus = DBusAddress(_BUS_PATH, _BUS_NAME, _BUS_NAME)
        message = new_method_call(bus, method, "s" * len(arguments) or None, arguments)
        self._unsent += message.serialise(self._serial)
        return self._serial

    # ---- What is told ----

    def _notices(self, message: Message) -> Iterator[Notice]:
        from jeepney import HeaderFields, MessageType

        fields = message.header.fields
        sender, member = fields.get(HeaderFields.sender), fields.get(HeaderFields.member)
        kind = message.header.message_type
        if sender == _BUS_NAME:
            yield from self._heed_bus(kind, member, fields.get(HeaderFields.reply_serial), message.body)
        elif kind is MessageType.signal and sender is not None and sender == self._owner:
            yield from _told(member, message.body)

    def _heed_bus(self, kind: Any, member: Optional[str], answered: Optional[int], body: Any) -> Iterator[Notice]:
        """What the bus itself says; nobody else can send in its name."""
        from jeepney import MessageType

        if kind is MessageType.signal and member == "NameOwnerChanged":
            _, _, owner = body
            self._owner = owner or None
            yield Notice.SESSIONS_CHANGED
        elif kind is MessageType.method_return and answered == self._owner_asked:
            (self._owner,) = body
        elif kind is MessageType.error and answered != self._owner_asked:
            raise LogindGone("the system bus refuses to tell of logind's signals")


def _told(member: Optional[str], body: Any) -> Iterator[Notice]:
    """What a signal of logind tells."""
    if member == "PrepareForShutdown":
        if body == (True,):
            yield Notice.SHUTTING_DOWN
    elif member == "PropertiesChanged":
        _, changed, invalidated = body
        if not _TELLING.isdisjoint([*changed, *invalidated]):
            yield Notice.SESSIONS_CHANGED
    else:
        yield Notice.SESSIONS_CHANGED
