from __future__ import annotations

import asyncio
import json

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from host_agent.api import problems


async def answer_of(error: Exception) -> web.Response:
    async def handler(request: web.Request) -> web.StreamResponse:
        raise error

    answer = await problems.explain(make_mocked_request("GET", "/x"), handler)
    assert isinstance(answer, web.Response)
    return answer


def document(answer: web.Response) -> dict[str, object]:
    assert answer.content_type == "application/problem+json"
    assert answer.text is not None
    found: dict[str, object] = json.loads(answer.text)
    assert list(found) == ["type", "title", "status", "detail"]
    assert found["status"] == answer.status
    return found


def test_a_problem_is_a_document_with_a_stable_type() -> None:
    answer = problems.problem(problems.NO_SUCH_GUEST, 404, "no guest is called 'x'")
    assert document(answer) == {
        "type": "about:vmaccord/no-such-guest",
        "title": "No such guest",
        "status": 404,
        "detail": "no guest is called 'x'",
    }


@pytest.mark.parametrize(
    ("error", "problem_type"),
    [
        (web.HTTPNotFound(), "about:vmaccord/no-such-resource"),
        (web.HTTPMethodNotAllowed("POST", ["GET"]), "about:vmaccord/method-not-allowed"),
        (web.HTTPBadRequest(), "about:vmaccord/bad-request"),
    ],
)
def test_errors_of_the_server_are_documents_too(error: web.HTTPException, problem_type: str) -> None:
    assert document(asyncio.run(answer_of(error)))["type"] == problem_type


def test_an_unexpected_error_is_a_document_and_the_log_has_the_rest(caplog: pytest.LogCaptureFixture) -> None:
    answer = asyncio.run(answer_of(ZeroDivisionError("secret")))
    assert answer.status == 500
    assert document(answer)["type"] == "about:vmaccord/unexpected"
    assert "secret" not in str(answer.text)
    assert "secret" in caplog.text
