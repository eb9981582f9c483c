from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bench.stage import HOST_CORE
from tests.soak import domains
from tests.soak.crowd import Crowd
from tests.soak.plan import Scale, Step
from tests.soak.subject import Subject

pytestmark = pytest.mark.skipif(domains.missing() is not None, reason=f"left out: {domains.missing()}")


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory with a short path, that others may look into."""
    with tempfile.TemporaryDirectory(prefix="soak-") as directory:
        Path(directory).chmod(0o755)
        yield Path(directory)


def states(subject: Subject) -> dict[str, str]:
    return {each["name"]: each["channel"]["state"] for each in subject.client.guests(facts=False)}


def test_domains_come_and_go_with_libvirt(place: Path) -> None:
    with Crowd(place, 1, Scale(guests=1, domains=2), period=0.1) as crowd:
        subject = Subject(place, HOST_CORE, [f"libvirt = {crowd.libvirt}"])
        try:
            subject.start()
            subject.wait_for("all guests", lambda: states(subject) == dict.fromkeys(crowd.names, "responsive"))
            crowd.take(Step(0.0, "domains", "destroy", {"number": 0}))
            subject.wait_for("its end", lambda: states(subject)["virtual-0"] == "absent")
            crowd.take(Step(0.0, "domains", "stop_libvirt", {"kill": True}))
            crowd.take(Step(0.0, "domains", "start", {"number": 0}))
            crowd.calm()
            subject.wait_for("all guests", lambda: states(subject) == dict.fromkeys(crowd.names, "responsive"))
            crowd.take(Step(0.0, "domains", "rename", {"number": 1, "mark": "b"}))
            crowd.calm()
            assert crowd.names == ["g00000", "virtual-0", "virtual-1-b"]
            subject.wait_for("all guests", lambda: states(subject) == dict.fromkeys(crowd.names, "responsive"))
        finally:
            subject.end()
