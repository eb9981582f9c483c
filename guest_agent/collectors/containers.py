"""Containers that run in the guest, asked of Docker and podman where these are there. Slow: both are other programs.

Podman has no daemon, every question starts it: it is not asked while its storage shows that it has no containers. Only
what runs for root is seen. Every member of an answer is checked.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from common.messages import Containers

from . import prints

if TYPE_CHECKING:
    from guest_agent.processes import Run

#: Seconds that the podman program may take.
PATIENCE = 20.0

#: How much the podman program may say, in bytes.
OUTPUT_LIMIT = 4 * 1024 * 1024


def containers(root: str, run: Run) -> Containers:
    """The running containers of all engines; none where there is no engine.

    :param run: runs podman, where that does not listen on a socket.
    :raises OSError: an engine does not answer.
    :raises ValueError: it answers something else than a list of containers.
    :raises ProgramError: podman could not be run.
    """
    sockets, program = prints.engines(root)
    found = [each for path in sockets for each in _listed(_asked(path), path)]
    if program:
        found += _listed(_podman(run), "podman")
    return Containers(containers=tuple(found))


def _asked(path: str) -> bytes:
    # Only here: the modules behind it are large, and most guests run no containers.
    from . import docker

    return docker.get(path, "/containers/json")


def _podman(run: Run) -> bytes:
    command = ["podman", "--log-level", "error", "ps", "--format", "json"]
    finished = run(command, deadline=PATIENCE, output_limit=OUTPUT_LIMIT)
    if finished.status != 0:
        raise ValueError(f"podman ps {finished.how}; run it by hand to see why")
    return finished.output


def _listed(answer: bytes, engine: str) -> list[dict[str, Any]]:
    try:
        listed = json.loads(answer)
    except (ValueError, RecursionError):
        raise ValueError(f"{engine} does not answer in JSON") from None
    if listed is None:
        # That is how some write an empty list.
        return []
    if not isinstance(listed, list):
        raise ValueError(f"{engine} does not answer with a list")
    return [_container(each) for each in listed if isinstance(each, dict)]


def _container(listed: dict[str, Any]) -> dict[str, Any]:
    """A container as Docker's interface or one of podman's releases tells it."""
    return {
        "id": _text(listed.get("Id") or listed.get("ID")),
        "names": _texts(listed.get("Names")),
        "image": _text(listed.get("Image")),
        "command": " ".join(_texts(listed.get("Command"))),
        "status": _text(listed.get("Status") or listed.get("State")),
    }


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _texts(value: object) -> list[str]:
    if isinstance(value, str):
        return [value]
    return [each for each in value if isinstance(each, str)] if isinstance(value, list) else []
