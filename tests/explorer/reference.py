"""Small models of the deployed peers (API 0–3), built from the documented facts of their wire, weaknesses included.

They have the interface of our sessions, so that the explorer can put either on either end. ``supported=None`` is a peer
from before versions.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Optional

from common import codec, errors, events, messages, versions
from common.catalogue import CATALOGUE, Direction
from common.versions import Version


class _Lines:
    """Lines in and out, as both deployed peers treat them: what can't be read is ignored."""

    def __init__(self, supported: Optional[Version]) -> None:
        self.supported = supported
        self.partial = b""
        self._out: list[bytes] = []
        self._events: list[events.Event] = []

    def receive_data(self, data: bytes, now: float) -> None:
        *lines, self.partial = (self.partial + data).split(b"\n")
        for line in lines:
            try:
                name, arguments = codec.decode(line)
            except errors.MalformedLine:
                continue
            self._receive(name, arguments)

    def data_to_send(self) -> bytes:
        data, self._out = b"".join(self._out), []
        return data

    def events(self) -> list[events.Event]:
        happened, self._events = self._events, []
        return happened

    def _receive(self, name: str, arguments: Mapping[str, Any]) -> None:
        raise NotImplementedError

    def _write(self, name: str, **arguments: object) -> None:
        self._out.append(codec.encode(name, arguments))


class ReferenceHost(_Lines):
    """Stores the result of every heartbeat, pushes it only when it differs from the stored one and is not 0."""

    def __init__(self, supported: Optional[Version], handed_over: int = 0) -> None:
        super().__init__(supported)
        self.agreed = versions.negotiate(supported, handed_over)

    def connected(self, now: float) -> None:
        self.partial = b""
        if self.supported is None:
            self._write("refresh")
        else:
            self._write("refresh", apiVersion=int(self.supported))

    def _receive(self, name: str, arguments: Mapping[str, Any]) -> None:
        if name != "heartbeat":
            return
        result = versions.negotiate(self.supported, versions.read(arguments.get("apiVersion")))
        if result != self.agreed:
            self.agreed = result
            if result:
                self._write("api-version", apiVersion=int(result))

    def send(self, message: messages.Message) -> None:
        row = CATALOGUE.row_of(Direction.TO_GUEST, message)
        if row is None or row.since > self.agreed:
            raise errors.SendRefused
        self._write(row.name, **message.to_arguments())


class ReferenceGuest(_Lines):
    """Says 0 in its first heartbeat, follows pushes, falls to 0 only at a refresh without a version."""

    def __init__(self, supported: Optional[Version]) -> None:
        super().__init__(supported)
        self.in_use = Version.V0
        self._said_zero = False

    def opened(self, now: float) -> None:
        self._write("session-startup")

    def host_gone(self) -> None:
        self._out.clear()

    def host_came(self, now: float) -> None:
        pass

    def tick(self, now: float) -> None:
        self._events.append(events.HeartbeatWanted())

    def send_heartbeat(self, free_ram: Optional[str], memory_stat: Optional[Mapping[str, int]]) -> None:
        if self.supported is None:
            self._write("heartbeat")
        else:
            self._write("heartbeat", apiVersion=int(self.supported) if self._said_zero else 0)
        self._said_zero = True

    def allows(self, name: str) -> bool:
        row = CATALOGUE.find(Direction.TO_HOST, name)
        return row is not None and row.since <= self.in_use

    def send(self, message: messages.Message) -> None:
        row = CATALOGUE.row_of(Direction.TO_HOST, message)
        if row is None or row.since > self.in_use:
            raise errors.SendRefused
        self._write(row.name, **message.to_arguments())

    def _receive(self, name: str, arguments: Mapping[str, Any]) -> None:
        if name == "refresh":
            if "apiVersion" not in arguments:
                self.in_use = Version.V0
            self._want_facts()
        elif name == "api-version" and self.supported is not None:
            before, self.in_use = self.in_use, versions.negotiate(self.supported, arguments["apiVersion"])
            if self.in_use != before:
                self._want_facts()

    def _want_facts(self) -> None:
        self._events.append(events.FactsWanted(CATALOGUE.facts(up_to=self.in_use)))
