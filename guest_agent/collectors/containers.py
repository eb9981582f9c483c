"""Containers that run in the guest, asked of Docker where that is there. Every member of the answer is checked."""

from __future__ import annotations

import json
import os
from typing import Any

from common.messages import Containers

#: Where Docker listens, relative to the root.
DOCKER_SOCKET = "run/docker.sock"


def containers(root: str) -> Containers:
    """The running containers; none where there is no Docker.

    :raises OSError: Docker does not answer.
    :raises ValueError: it answers something else than a list of containers.
    """
    path = os.path.join(root, DOCKER_SOCKET)
    if not os.path.exists(path):
        return Containers(containers=())
    # Only here: the modules behind it are large, and most guests run no Docker.
    from . import docker

    listed = json.loads(docker.get(path, "/containers/json"))
    if not isinstance(listed, list):
        raise ValueError("Docker's answer is no list")
    return Containers(containers=tuple(_container(each) for each in listed if isinstance(each, dict)))


def _container(listed: dict[str, Any]) -> dict[str, Any]:
    names = listed.get("Names")
    return {
        "id": _text(listed.get("Id")),
        "names": [each for each in names if isinstance(each, str)] if isinstance(names, list) else [],
        "image": _text(listed.get("Image")),
        "command": _text(listed.get("Command")),
        "status": _text(listed.get("Status")),
    }


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
