"""The description of the control API is held against the server: schemathesis asks it what the description allows, and what
it does not, and looks whether the answers are as described.

It needs schemathesis, which one environment of tox has; that sets ``VMACCORD_SCHEMATHESIS``.
"""

from __future__ import annotations

import asyncio
import gc
import importlib
import os
import threading
from collections.abc import Iterator
from typing import Any

import hypothesis
import pytest
from aiohttp import web

from host_agent.api import openapi
from host_agent.api.application import make_application
from tests.host_agent.api.parts import Daemon, Port, as_root
from tests.host_agent.parts import PATIENCE

if "VMACCORD_SCHEMATHESIS" not in os.environ:
    pytest.skip("asked for by VMACCORD_SCHEMATHESIS only", allow_module_level=True)

requests: Any = importlib.import_module("requests")
schemathesis: Any = importlib.import_module("schemathesis")
checks: Any = importlib.import_module("schemathesis.specs.openapi.checks")

# What they load is large and stays; no test after which memory is looked through must pay for it.
gc.freeze()

SCHEMA = schemathesis.openapi.from_dict(openapi.document())

#: By path: what can't be held against its answers. No schema says which bytes are a session.
UNCHECKED = {"/v1/sessions": [checks.positive_data_acceptance]}

#: So many questions for each thing that can be asked.
BUDGET = hypothesis.settings(
    max_examples=250, deadline=None, derandomize=True, suppress_health_check=list(hypothesis.HealthCheck), database=None
)


class Served(threading.Thread):
    """The control API over TCP, in a thread and a loop of its own; whoever asks is root."""

    def __init__(self) -> None:
        super().__init__()
        self.url = ""
        self.ready = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._ending = asyncio.Event()

    def run(self) -> None:
        self._loop.run_until_complete(self._serve())
        self._loop.run_until_complete(self._loop.shutdown_default_executor())
        self._loop.close()

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._ending.set)
        self.join(PATIENCE)

    async def _serve(self) -> None:
        daemon = Daemon()
        Port(daemon, "web")
        runner = web.AppRunner(make_application(daemon, identify=as_root), access_log=None)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.url = "http://{}:{}".format(*runner.addresses[0])
        self.ready.set()
        await self._ending.wait()
        await daemon.commands.drain(0)
        await runner.cleanup()


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    served = Served()
    served.start()
    assert served.ready.wait(PATIENCE)
    yield served.url
    served.stop()


def ask(case: Any, url: str) -> None:
    if "name" in case.path_parameters and case.method == "POST":
        case.path_parameters["name"] = "web"
    case.call_and_validate(base_url=url, excluded_checks=UNCHECKED.get(case.operation.path))


def begin_to_follow(case: Any, url: str) -> None:
    question = case.as_transport_kwargs(base_url=url)
    with requests.request(**question, stream=True, timeout=PATIENCE) as answer:
        if case.method == "GET":
            described = case.operation.definition.raw["responses"][str(answer.status_code)]
            assert answer.headers["Content-Type"].split(";")[0] in described["content"]
        else:
            assert answer.status_code == (204 if case.method == "OPTIONS" else 405)


test_answers_are_as_described = SCHEMA.exclude(path="/v1/events").parametrize()(BUDGET(ask))

test_streams_begin_as_described = SCHEMA.include(path="/v1/events").parametrize()(BUDGET(begin_to_follow))
