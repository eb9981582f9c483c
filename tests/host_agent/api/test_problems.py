from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from host_agent.api import problems
from host_agent.api.problems import Problem
from host_agent.client import failures


def answer_to(error: Exception, method: str = "GET", path: str = "/x") -> web.Response:
    async def fail(request: web.Request) -> web.StreamResponse:
        raise error

    answer = asyncio.run(problems.explain(make_mocked_request(method, path), fail))
    assert isinstance(answer, web.Response)
    return answer


def document(answer: web.Response) -> dict[str, Any]:
    assert answer.content_type == "application/problem+json"
    assert answer.text is not None
    found: dict[str, Any] = json.loads(answer.text)
    assert list(found)[:4] == ["type", "title", "status", "detail"]
    assert found["status"] == answer.status
    return found


def test_a_problem_is_a_document_with_a_stable_type() -> None:
    assert document(answer_to(Problem("no-such-guest", "no guest is called 'x'"))) == {
        "type": "about:vmaccord/no-such-guest",
        "title": "No such guest",
        "status": 404,
        "detail": "no guest is called 'x'",
    }


def test_a_problem_says_more_to_programs() -> None:
    found = document(answer_to(Problem("timed-out", "no answer", reply_id="abc-1")))
    assert (found["status"], found["reply_id"]) == (504, "abc-1")


@pytest.mark.parametrize(
    ("error", "status", "kind"),
    [
        (web.HTTPNotFound(), 404, "no-such-resource"),
        (web.HTTPMethodNotAllowed("POST", ["GET"]), 405, "method-not-allowed"),
        (web.HTTPRequestEntityTooLarge(1, 2), 413, "too-large"),
        (web.HTTPBadRequest(), 400, "bad-request"),
        (web.HTTPExpectationFailed(), 400, "bad-request"),
    ],
)
def test_errors_of_the_library_are_documents_too(error: web.HTTPException, status: int, kind: str) -> None:
    found = document(answer_to(error))
    assert (found["status"], found["type"]) == (status, f"about:vmaccord/{kind}")


def test_what_a_client_sent_is_said_back_short_and_printable() -> None:
    answer = answer_to(web.HTTPMethodNotAllowed("\x1b[31m", ["GET"]), "\x1b[31m", "/" + "x" * 5000)
    detail = document(answer)["detail"]
    assert detail.isprintable()
    assert len(detail) < 300
    assert answer.headers["Allow"] == "GET, OPTIONS"


def test_an_unexpected_error_is_a_document_and_the_log_has_the_rest(caplog: pytest.LogCaptureFixture) -> None:
    answer = answer_to(ZeroDivisionError("secret"))
    assert answer.status == 500
    assert document(answer)["type"] == "about:vmaccord/unexpected"
    assert "secret" not in str(answer.text)
    assert "secret" in caplog.text


def test_every_problem_that_the_client_knows_is_in_the_table() -> None:
    known = {each.kind for each in kinds_below(failures.Problem)}
    assert {"no-such-guest", "timed-out"} <= known <= set(problems.TYPES)


def kinds_below(base: type[failures.Problem]) -> list[type[failures.Problem]]:
    below = [kind for each in base.__subclasses__() for kind in kinds_below(each)]
    return [*below, base] if base.kind else below
