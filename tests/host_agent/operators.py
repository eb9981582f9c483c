"""For the tests of the operator's side: a daemon's control API that says what a test wants it to, on a real socket."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pty
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Optional, TextIO

import pytest
from aiohttp import web

import host_agent
from common import versions
from common.catalogue import CATALOGUE, Row
from common.handoff import Spec2, files

from .guests import ACCEPTING_TURNS

#: What a guest is called to whom a terminal would obey.
EVIL = "\x1b[31m\u202e[bold]"


def described(name: str = "web-1", state: str = "responsive", **api: Any) -> dict[str, Any]:
    """A guest as the control API describes it."""
    is_open = state in ("connected", "responsive", "unresponsive")
    usual = {
        "agreed": 3 if is_open else None,
        "supported": 3,
        "advertised": 3 if is_open else None,
        "in_use": 3 if is_open else None,
        "changes": 1,
        "last_reason": "first agreement of this connection",
        "last_change_s": 7200.0,
    }
    agreed = {**usual, **api}["agreed"]
    return {
        "name": name,
        "uuid": None,
        "channel": {
            "path": None if state == "absent" else f"/ports/{name}/port",
            "state": state,
            "since_s": 75.0,
            "throttled": False,
        },
        "api": {**usual, **api},
        "heard_s": 1.4,
        "frozen": None,
        "handoff": {"state": "here", "peer": None},
        "commands": [],
        "history": [],
        "facts": {},
        "capabilities": None,
        "obstacles": {row.name: obstacle(name, state, agreed, row) for row in CATALOGUE.rows if row.is_command},
        "counters": {"lines": 3, "dropped": {}, "dropped_names": {}},
    }


def obstacle(name: str, state: str, agreed: Optional[int], command: Row) -> Optional[dict[str, Any]]:
    """Why *command* can't be sent to a guest that stands so, in the form that the daemon has for it."""
    if state == "responsive" and agreed is not None and command.since <= agreed:
        return None
    kind = "version-too-low" if state == "responsive" else "not-connected"
    return {"kind": kind, "detail": f"{name} can't be sent {command.name}: {kind}"}


def described_host(**changes: Any) -> dict[str, Any]:
    """A daemon as the control API describes it, in which nothing is wrong."""
    return {
        "version": host_agent.release(),
        "host_id": "run-1",
        "started_s": 100.0,
        "api": {"supported": int(versions.newest()), "versions": [int(each) for each in versions.Version]},
        "directories": [],
        "libvirt": [],
        "fixed": {},
        "guests": 1,
        "descriptors": {"limit": 524_288, "used": 20},
        "state": None,
        "handoff": {"listen": [], "failing": None, "peers": []},
        "you": {"user": "root", "uid": 0, "role": "operator"},
        **changes,
    }


def problem(kind: str, status: int, detail: str, **members: Any) -> tuple[int, dict[str, Any]]:
    """An answer that says no."""
    return status, {"type": f"about:vmaccord/{kind}", "title": "x", "status": status, "detail": detail, **members}


class FakeDaemon:
    """Listens at *path* in a thread of its own and answers by the contract of the control API.

    :ivar guests: the guests that it knows.
    :ivar asked: what it was asked: method, path with query, and body.
    :ivar answers: by the path behind ``/v1/guests/``: status and document to answer a POST with; by ``sessions`` an import.
    :ivar exported: the file of every guest.
    :ivar handoffs: those that are under way.
    """

    def __init__(self, path: Path, *guests: dict[str, Any]) -> None:
        self.path = str(path)
        self.guests = list(guests)
        self.host = described_host()
        self.asked: list[tuple[str, str, Any]] = []
        self.answers: dict[str, tuple[int, Any]] = {}
        self.exported = files.write(Spec2(name="web-1"))
        self.handoffs: list[dict[str, Any]] = []
        self.run = "run-1"
        self.told: list[tuple[str, dict[str, Any]]] = []
        self.streams = 0
        #: What a stream begins with, where it is not the stream of the contract.
        self.raw_stream: Optional[bytes] = None
        self.stream_type = "text/event-stream"
        self._loop = asyncio.new_event_loop()
        self._news: asyncio.Condition
        self._runner: Optional[web.AppRunner] = None
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> FakeDaemon:
        self._thread.start()
        self._call(self._start())
        return self

    def __exit__(self, *_: object) -> None:
        self._call(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def stop(self) -> None:
        """Go away, as a daemon that is restarted does."""
        self._call(self._stop())

    def start(self, run: str) -> None:
        """Come back, as another run."""
        self.run, self.told = run, []
        self._call(self._start())

    def tell(self, kind: str, **values: Any) -> None:
        """Something happens."""
        self._call(self._tell(kind, values))

    # ---- In its thread ----

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()

    def _call(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(30)

    async def _start(self) -> None:
        self._news = asyncio.Condition()
        application = web.Application()
        application.add_routes(
            [
                web.get("/v1/host", self._host),
                web.get("/v1/guests", self._all),
                web.get("/v1/events", self._events),
                web.get("/metrics", self._metrics),
                web.get("/openapi.json", self._openapi),
                web.get("/v1/guests/{name}", self._one),
                web.get("/v1/guests/{name}/session", self._export),
                web.delete("/v1/guests/{name}/{action}", self._act),
                web.post("/v1/guests/{name}/{action}", self._act),
                web.post("/v1/sessions", self._take_in),
                web.get("/v1/handoffs", self._handoffs),
                web.post("/v1/handoffs/expected", self._expect),
            ]
        )
        self._runner = web.AppRunner(application, access_log=None)
        await self._runner.setup()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path)
        await web.UnixSite(self._runner, self.path).start()

    async def _stop(self) -> None:
        runner, self._runner = self._runner, None
        if runner is not None:
            async with self._news:
                self._news.notify_all()
            await self._let_go()
            await runner.cleanup()
            await self._let_go()

    async def _let_go(self) -> None:
        """Let the loop hand over what it was just accepting, and close what was let go."""
        for _ in range(ACCEPTING_TURNS):
            await asyncio.sleep(0)

    async def _note(self, request: web.Request) -> None:
        as_json = request.content_type == "application/json"
        body = (await request.json() if as_json else await request.read()) if request.can_read_body else None
        self.asked.append((request.method, request.path_qs, body))

    async def _host(self, request: web.Request) -> web.Response:
        return web.json_response(self.host)

    async def _all(self, request: web.Request) -> web.Response:
        await self._note(request)
        hidden = {"obstacles", *(("facts", "capabilities", "counters") if request.query.get("facts") == "no" else ())}
        can = request.query.get("can")
        guests = [each for each in self.guests if can is None or each["obstacles"][can] is None]
        return web.json_response([{key: each[key] for key in each if key not in hidden} for each in guests])

    async def _one(self, request: web.Request) -> web.Response:
        await self._note(request)
        for each in self.guests:
            if each["name"] == request.match_info["name"]:
                return web.json_response(each)
        status, document = problem("no-such-guest", 404, f"no guest is called {request.match_info['name']!r}")
        return web.json_response(document, status=status)

    async def _act(self, request: web.Request) -> web.Response:
        await self._note(request)
        name, action = request.match_info["name"], request.match_info["action"]
        usual: dict[str, Any] = {"guest": name, "agreed": 3}
        if action == "handoff" and request.method == "POST":
            usual = {"guest": name, "to": "host-b", "protocol": 1, "spec": 2, "lost": []}
        elif action == "migration":
            begins = (await request.json())["stage"] == "begin"
            usual.update(completion={"done": True} if begins else None, round_trip_s=0.84 if begins else None)
        elif action == "commands":
            wanted = await request.json()
            has_completion = wanted["name"] == "lifecycle-event" and wanted["wait"]
            usual.update(
                name=wanted["name"],
                reply_id="run-1-1" if has_completion else None,
                completion={"done": True} if has_completion else None,
                round_trip_s=0.0125 if has_completion else None,
            )
        status, document = self.answers.get(f"{name}/{action}", (200, usual))
        return web.json_response(document, status=status)

    async def _export(self, request: web.Request) -> web.Response:
        await self._note(request)
        status, document = self.answers.get(f"{request.match_info['name']}/session", (200, None))
        if status != 200:
            return web.json_response(document, status=status)
        return web.Response(body=self.exported, content_type="application/octet-stream")

    async def _take_in(self, request: web.Request) -> web.Response:
        await self._note(request)
        status, document = self.answers.get("sessions", (200, {"guest": "web-1", "uuid": None}))
        return web.json_response(document, status=status)

    async def _handoffs(self, request: web.Request) -> web.Response:
        return web.json_response(self.handoffs)

    async def _expect(self, request: web.Request) -> web.Response:
        await self._note(request)
        return web.json_response({"uuid": None, "patience": 600.0, **await request.json()})

    async def _metrics(self, request: web.Request) -> web.Response:
        return web.Response(text="vmaccord_guests 1\n")

    async def _openapi(self, request: web.Request) -> web.Response:
        return web.json_response({"openapi": "3.1.0"})

    # ---- Events ----

    async def _tell(self, kind: str, values: dict[str, Any]) -> None:
        async with self._news:
            self.told.append((kind, {"at": 1_700_000_000.5, "guest": None, **values}))
            self._news.notify_all()

    async def _events(self, request: web.Request) -> web.StreamResponse:
        await self._note(request)
        self.streams += 1
        response = web.StreamResponse(headers={"Content-Type": self.stream_type})
        await response.prepare(request)
        if self.raw_stream is not None:
            await response.write(self.raw_stream)
            return response
        position = await self._begin(request, response)
        while True:
            for kind, values in self.told[position:]:
                position += 1
                if request.query.get("guest") in (None, values["guest"]):
                    await self._write(response, f"id: {self.run}-{position}\nevent: {kind}\ndata: {json.dumps(values)}\n\n")
            await self._write(response, f"id: {self.run}-{position}\n\n:\n\n")
            async with self._news:
                while self._runner is not None and len(self.told) <= position:
                    await self._news.wait()
            if self._runner is None:
                return response

    async def _begin(self, request: web.Request, response: web.StreamResponse) -> int:
        run, _, position = request.headers.get("Last-Event-ID", "").rpartition("-")
        if not run:
            return len(self.told) - min(len(self.told), int(request.query.get("recent", 0)))
        if run == self.run:
            return int(position)
        await self._write(response, f'id: {self.run}-0\nevent: lost\ndata: {{"count": null}}\n\n')
        return 0

    async def _write(self, response: web.StreamResponse, text: str) -> None:
        await response.write(text.encode())


class Drawn:
    """Reads everything that is drawn on a terminal, of which it has the other end."""

    _MARK = "(so far)"

    def __init__(self, descriptor: int, screen: TextIO) -> None:
        self._descriptor = descriptor
        self._screen = screen
        self._text = b""
        self._more = threading.Condition()
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def __call__(self) -> str:
        """What was drawn since the last call."""
        print(self._MARK, file=self._screen, flush=True)
        mark = f"{self._MARK}\r\n".encode()
        with self._more:
            assert self._more.wait_for(lambda: self._text.endswith(mark), 30)
            text, self._text = self._text[: -len(mark)], b""
        return text.decode()

    def close(self) -> None:
        """Read no more; nobody can draw any longer."""
        self._thread.join()
        os.close(self._descriptor)

    def _read(self) -> None:
        # A terminal on which nobody can draw any longer is an error to who reads from it.
        with contextlib.suppress(OSError):
            while read := os.read(self._descriptor, 4096):
                with self._more:
                    self._text += read
                    self._more.notify_all()


@contextlib.contextmanager
def terminal(monkeypatch: pytest.MonkeyPatch, **environment: str) -> Iterator[Drawn]:
    """Makes standard output a terminal; gives what reads everything that was drawn on it."""
    ours, theirs = pty.openpty()
    with open(theirs, "w", encoding="utf-8") as screen, monkeypatch.context() as patch:
        patch.delenv("NO_COLOR", raising=False)
        for name, value in {"TERM": "xterm", "COLUMNS": "150", "LINES": "30", **environment}.items():
            patch.setenv(name, value)
        patch.setattr(sys, "stdout", screen)
        drawn = Drawn(ours, screen)
        yield drawn
    drawn.close()
