"""The control API from the outside: one blocking client, on which the operator's commands stand."""

from __future__ import annotations

import http.client
import json
import os
import socket
import stat
import urllib.parse
from typing import Any

from . import paths
from .exits import Exit, Failure
from .text import printable

#: An answer that takes longer than this, in seconds, does not come.
TIMEOUT = 10.0

_NO_SUCH_GUEST = "about:vmaccord/no-such-guest"


class ClientError(Failure):
    """A question was not answered."""


class DaemonUnreachable(ClientError):
    """No daemon answers on the control socket."""

    status = Exit.UNREACHABLE


class NoSuchGuest(ClientError):
    """The daemon knows no guest of that name."""

    status = Exit.NO_SUCH_GUEST


class UnexpectedAnswer(ClientError):
    """Something answers on the control socket, but not as the daemon does."""


def find_control() -> str:
    """The control socket of the daemon of this user, in whatever environment that was started.

    :raises DaemonUnreachable: there is none at any place where it is by default.
    """
    places = paths.control_places()
    for place in places:
        if _is_trusted_socket(place):
            return place
    raise DaemonUnreachable(_no_daemon(" or ".join(map(printable, places))))


class Client:
    """Asks the daemon whose control socket is *control*.

    Every method raises DaemonUnreachable or UnexpectedAnswer where there is no answer.
    """

    def __init__(self, control: str, timeout: float = TIMEOUT) -> None:
        self._control = control
        self._timeout = timeout

    def host(self) -> dict[str, Any]:
        """The daemon itself."""
        return self._object(self._get("/v1/host"))

    def guests(self) -> list[dict[str, Any]]:
        """All guests, by name."""
        document = self._get("/v1/guests")
        if isinstance(document, list):
            return [self._object(each) for each in document]
        raise self._unexpected("the answer has another form than expected")

    def guest(self, name: str) -> dict[str, Any]:
        """One guest.

        :raises NoSuchGuest: the daemon knows none of that name.
        """
        if not name or "/" in name or "\0" in name:
            raise _no_such_guest(name)
        status, document = self._ask("/v1/guests/" + _quote(name))
        if status == 404 and isinstance(document, dict) and document.get("type") == _NO_SUCH_GUEST:
            raise _no_such_guest(name)
        return self._object(self._accept(status, document))

    def _get(self, path: str) -> Any:
        return self._accept(*self._ask(path))

    def _ask(self, path: str) -> tuple[int, Any]:
        connection = _UnixConnection(self._control, self._timeout)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())
        except (http.client.HTTPException, ValueError):
            raise self._unexpected("the answer is no JSON over HTTP") from None
        except OSError as error:
            raise DaemonUnreachable(self._advice(error)) from None
        finally:
            connection.close()

    def _accept(self, status: int, document: Any) -> Any:
        if status == 200:
            return document
        detail = document.get("detail") if isinstance(document, dict) else None
        raise self._unexpected(f"status {status}: {detail}")

    def _object(self, document: Any) -> dict[str, Any]:
        if isinstance(document, dict):
            return document
        raise self._unexpected("the answer has another form than expected")

    def _unexpected(self, text: str) -> UnexpectedAnswer:
        return UnexpectedAnswer(printable(f"{self._control}: {text}; does vmaccord-host of this release listen there?"))

    def _advice(self, error: OSError) -> str:
        where = printable(self._control)
        if isinstance(error, PermissionError):
            return f"{where}: permission denied; run as the user that vmaccord-host runs as"
        if isinstance(error, (socket.timeout, BlockingIOError)):
            return f"{where}: the daemon does not answer; look at its log"
        reason = error.strerror or str(error)
        return _no_daemon(f"{where} ({reason})")


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def _is_trusted_socket(path: str) -> bool:
    """Whether a socket of this user or the service's is at *path*: where all may write anybody could have made another."""
    try:
        status = os.lstat(path)
    except OSError:
        return False
    return stat.S_ISSOCK(status.st_mode) and status.st_uid in {os.geteuid(), paths.service_user()}


def _no_daemon(where: str) -> str:
    return f"no daemon at {where}: start vmaccord-host, or name its control socket with --control"


def _no_such_guest(name: str) -> NoSuchGuest:
    return NoSuchGuest(f"no guest is called {name!r}: 'vmaccord list' shows all")


def _quote(name: str) -> str:
    # A step of dots alone would be taken for the step upwards.
    return urllib.parse.quote(name, safe="", errors="surrogateescape").replace(".", "%2E")
