"""HTTP over the control socket, as a client: one question, one connection; what fails is a ``ClientError``."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
from collections.abc import Mapping
from typing import Any, Optional

from host_agent.text import printable

from .failures import ClientError, DaemonUnreachable, UnexpectedAnswer, read_problem

#: Over a Unix socket nobody looks at it, but HTTP wants one.
_HOST = "localhost"


class Stream:
    """An answer that is read as it comes, line by line."""

    def __init__(self, connection: UnixConnection, answer: http.client.HTTPResponse) -> None:
        self.content_type = answer.headers.get_content_type()
        self._connection = connection
        self._answer = answer

    def read_line(self, limit: int) -> Optional[str]:
        """The next line without its end; None: the answer ended, broke off, or was silent for too long.

        :raises ValueError: the line is longer than *limit* bytes.
        """
        try:
            line = self._answer.readline(limit)
        except (http.client.HTTPException, OSError):
            return None
        if len(line) == limit:
            raise ValueError(f"a line is longer than {limit} bytes")
        return line.decode("utf-8", "replace").rstrip("\r\n") if line.endswith(b"\n") else None

    def interrupt(self) -> None:
        """End it from another thread: whoever waits in ``read_line`` gets None."""
        self._connection.interrupt()

    def close(self) -> None:
        """End it."""
        self._answer.close()
        self._connection.close()


class Transport:
    """Asks whoever listens on the socket at *control*.

    :param timeout: seconds of silence after which an answer does not come.
    """

    def __init__(self, control: str, timeout: float) -> None:
        self.control = control
        self._timeout = timeout

    def ask(self, method: str, path: str, document: Optional[object] = None, wait: float = 0.0) -> Any:
        """Ask, and read the answer as JSON; see ``fetch``."""
        try:
            return json.loads(self.fetch(method, path, document, wait))
        except (ValueError, RecursionError):
            raise self.unexpected("the answer is no JSON") from None

    def fetch(self, method: str, path: str, document: Optional[object] = None, wait: float = 0.0) -> bytes:
        """Ask, and read the whole answer.

        :param document: what the question carries: bytes as they are, anything else as JSON.
        :param wait: seconds that the answer may take beyond the usual time.
        :raises ClientError: there is none, or it says no.
        """
        connection = UnixConnection(self.control, self._timeout + wait)
        with contextlib.closing(connection), self._explained():
            return self._open(connection, method, path, document, {}).read()

    def stream(self, path: str, headers: Mapping[str, str], silence: float) -> Stream:
        """Ask for an answer that does not end by itself.

        :param silence: seconds of silence after which it is over.
        :raises ClientError: there is none, or it says no.
        """
        connection = UnixConnection(self.control, self._timeout)
        try:
            with self._explained():
                answer = self._open(connection, "GET", path, None, headers)
                connection.wait_no_longer_than(silence)
            return Stream(connection, answer)
        except BaseException:
            connection.close()
            raise

    def unexpected(self, text: str) -> UnexpectedAnswer:
        """The error where an answer is not as the daemon's are."""
        return UnexpectedAnswer(printable(f"{self.control}: {text}; does vmaccord-host of this release listen there?"))

    def _open(
        self,
        connection: UnixConnection,
        method: str,
        path: str,
        document: Optional[object],
        headers: Mapping[str, str],
    ) -> http.client.HTTPResponse:
        body, content_type = _carried(document)
        connection.request(method, path, body, {**content_type, **headers})
        answer = connection.getresponse()
        if answer.status != 200:
            raise self._problem(answer.status, answer.read())
        return answer

    def _problem(self, status: int, body: bytes) -> ClientError:
        document: Any = None
        with contextlib.suppress(ValueError, RecursionError):
            document = json.loads(body)
        detail = document.get("detail") if isinstance(document, dict) else None
        return read_problem(document) or self.unexpected(f"status {status}: {detail}")

    @contextlib.contextmanager
    def _explained(self) -> Any:
        try:
            yield
        except (http.client.RemoteDisconnected, http.client.IncompleteRead):
            where = printable(self.control)
            raise DaemonUnreachable(f"{where}: the daemon hung up before it had answered: see whether it runs") from None
        except http.client.HTTPException:
            raise self.unexpected("the answer is no HTTP") from None
        except OSError as error:
            raise DaemonUnreachable(self._advice(error)) from None

    def _advice(self, error: OSError) -> str:
        where = printable(self.control)
        if isinstance(error, PermissionError):
            return (
                f"{where}: permission denied; run as root or as the user that vmaccord-host runs as, "
                "or let it name a group of yours (operator-group, viewer-group)"
            )
        if isinstance(error, (socket.timeout, BlockingIOError)):
            return f"{where}: the daemon does not answer; look at its log"
        return no_daemon(f"{where} ({error.strerror or error})")


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: str, timeout: float) -> None:
        super().__init__(_HOST, timeout=timeout)
        self._path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)

    def connect(self) -> None:
        """Connect, once."""
        self.sock = self._socket
        self.wait_no_longer_than(self.timeout)
        self._socket.connect(self._path)

    def wait_no_longer_than(self, seconds: Optional[float]) -> None:
        """From now on, this long a silence is an error."""
        self._socket.settimeout(seconds)

    def interrupt(self) -> None:
        """Let nobody wait for the peer any more; from any thread."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close it."""
        super().close()
        self._socket.close()


def _carried(document: Optional[object]) -> tuple[Optional[bytes], Mapping[str, str]]:
    """The body that carries *document*, and the header that says what it is."""
    if document is None:
        return None, {}
    if isinstance(document, bytes):
        return document, {"Content-Type": "application/octet-stream"}
    return json.dumps(document).encode(), {"Content-Type": "application/json"}


def no_daemon(where: str) -> str:
    """The sentence where no daemon runs."""
    return f"no daemon at {where}: start vmaccord-host, or name its control socket with --control"
