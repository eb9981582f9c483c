"""A logind for tests: a private bus (the real dbus-daemon), and a process on it that owns logind's name.

Run as a program it is that process: it reads what to do from its standard input, a JSON list a line, and says each time
when it has done it.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from jeepney import DBusAddress, HeaderFields, MessageType, message_bus, new_error, new_method_return, new_signal
from jeepney.io.blocking import DBusConnection, open_dbus_connection

from guest_agent import logind

ROOT = Path(__file__).resolve().parent.parent.parent

_CONFIGURATION = """<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>system</type>
  <listen>unix:path={path}</listen>
  <policy context="default">
    <allow user="*"/>
    <allow own="*"/>
    <allow send_type="method_call"/>
    <allow send_type="signal"/>
    <allow send_requested_reply="true"/>
    <allow receive_type="method_call"/>
    <allow receive_type="signal"/>
    <allow receive_requested_reply="true"/>
  </policy>
</busconfig>
"""

MANAGER = "/org/freedesktop/login1"
SESSION = f"{MANAGER}/session/c1"

#: The session of this id is listed, and ends before it is asked about.
GONE = "gone"


class Bus:
    """A private system bus below *root*."""

    def __init__(self, root: Path, program: str) -> None:
        self.path = root / logind.BUS
        self.path.parent.mkdir(parents=True, exist_ok=True)
        (root / logind.SEATS).mkdir(parents=True, exist_ok=True)
        configuration = root / "bus.conf"
        configuration.write_text(_CONFIGURATION.format(path=self.path), encoding="ascii")
        self._process = subprocess.Popen(
            [program, f"--config-file={configuration}", "--nofork", "--print-address"], stdout=subprocess.PIPE
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline()

    def close(self) -> None:
        _end(self._process)


class Login1:
    """The process that is logind on a bus; *name* is the name that it owns."""

    def __init__(self, bus: Bus, name: str = logind.SERVICE) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.guest_agent.login1", str(bus.path), name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=ROOT,
            # Killed, it would leave half a file of coverage behind.
            env={name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")},
        )
        self._hear()

    def sessions(self, *sessions: dict[str, Any]) -> None:
        """Answer with these: the properties of each session."""
        self._say("sessions", list(sessions))

    def emit(self, path: str, interface: str, member: str, signature: str, *body: Any, to: str = "") -> None:
        """Send a signal; with *to*, to that connection only."""
        self._say("emit", path, interface, member, signature, list(body), to)

    def close(self) -> None:
        _end(self._process)

    def _say(self, *words: Any) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(words).encode() + b"\n")
        self._process.stdin.flush()
        self._hear()

    def _hear(self) -> None:
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == b"done\n"


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    with process:
        pass


# ---- The process ----


class _Service:
    def __init__(self, connection: DBusConnection) -> None:
        self._connection = connection
        self._orders = open(0, "rb", buffering=0)  # noqa: SIM115 - for as long as the process lives
        self._sessions: list[dict[str, Any]] = []

    def serve(self) -> None:
        import selectors

        print("done", flush=True)
        selector = selectors.DefaultSelector()
        selector.register(0, selectors.EVENT_READ)
        selector.register(self._connection.sock, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fd == 0:
                    self._obey(*json.loads(self._orders.readline()))
                    print("done", flush=True)
                else:
                    self._answer(self._connection.receive())

    def _obey(self, what: str, *arguments: Any) -> None:
        if what == "sessions":
            (self._sessions,) = arguments
            return
        path, interface, member, signature, body, to = arguments
        signal = new_signal(DBusAddress(path, interface=interface), member, signature or None, tuple(body))
        if to:
            signal.header.fields[HeaderFields.destination] = to
        self._connection.send(signal)

    def _answer(self, call: Any) -> None:
        if call.header.message_type is not MessageType.method_call:
            return
        member = call.header.fields[HeaderFields.member]
        if member == "ListSessions":
            rows = [(each["Id"], 0, each["Name"], each["Seat"], _path(each)) for each in self._sessions]
            self._connection.send(new_method_return(call, "a(susso)", (rows,)))
        elif member == "GetAll":
            path = call.header.fields[HeaderFields.path]
            wanted = next((each for each in self._sessions if _path(each) == path and each["Id"] != GONE), None)
            if wanted is None:
                self._connection.send(new_error(call, f"{logind.SERVICE}.NoSuchSession", "s", ("it has gone",)))
            else:
                self._connection.send(new_method_return(call, "a{sv}", (_variants(wanted),)))


def _path(session: dict[str, Any]) -> str:
    return f"{MANAGER}/session/{session['Id']}"


def _variants(session: dict[str, Any]) -> dict[str, tuple[str, Any]]:
    """The properties with the types that logind gives them."""
    types = {str: "s", bool: "b", int: "t"}
    values: dict[str, tuple[str, Any]] = {name: (types[type(value)], value) for name, value in session.items()}
    return {**values, "Seat": ("(so)", (session["Seat"], "/"))}


def _main(path: str, name: str) -> None:
    with open_dbus_connection(f"unix:path={path}") as connection:
        connection.send_and_get_reply(message_bus.RequestName(name))
        with contextlib.suppress(ConnectionResetError):
            _Service(connection).serve()


if __name__ == "__main__":
    os.environ.pop("DBUS_SESSION_BUS_ADDRESS", None)
    _main(*sys.argv[1:])
