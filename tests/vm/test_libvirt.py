"""The daemon finds its guests through a real libvirt, whatever becomes of the domain, its port and libvirt's daemon."""

from __future__ import annotations

import importlib.util
import pathlib
import shutil
import tempfile
from collections.abc import Iterator
from typing import Any, Callable, Optional

import pytest

from host_agent.client import Client, ClientError
from host_agent.demo.stage import NO_CONFIGURATION, Process
from host_agent.demo.vm import packages
from host_agent.demo.vm.machine import Emulator
from tests.needs import or_left_out

from .hosts import wait_for
from .libvirtd import Domain, Libvirtd
from .scene import GuestCrashed

pytestmark = [pytest.mark.vm, pytest.mark.timeout(300)]

#: Longer than what libvirt makes of it for the directory of the domain's sockets.
LONG_NAME = "a-name-longer-than-twenty-characters"


class Daemon:
    """The shipped daemon, which asks libvirt for its guests."""

    def __init__(self, directory: pathlib.Path, uri: str) -> None:
        self._control = directory / "control"
        self._client = Client(str(self._control))
        self._uri = uri
        self._process = Process(directory / "daemon.log")

    def start(self) -> None:
        """Start it, and wait until it answers."""
        options = ("--libvirt", self._uri, "--control", str(self._control))
        self._process.start("host_agent.main", *NO_CONFIGURATION, *options)
        wait_for("the daemon answers", lambda: self._ask(self._client.host) is not None, self.said)

    def stop(self) -> None:
        """Stop it."""
        self._process.stop()

    def guest(self, name: str) -> Optional[dict[str, Any]]:
        """What it says of a guest, if it knows it."""
        return self._ask(lambda: self._client.guest(name))

    def await_libvirt(self, connected: bool) -> None:
        """Wait until it is connected to libvirt, or is not."""

        def holds() -> bool:
            host = self._ask(self._client.host)
            return host is not None and [each["connected"] for each in host["libvirt"]] == [connected]

        wait_for(f"connected to libvirt: {connected}", holds, self.said)

    def await_guest(self, name: str, what: str, holds: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Wait until what it says of a guest *holds*."""

        def look() -> bool:
            guest = self.guest(name)
            return guest is not None and holds(guest)

        wait_for(f"{name} {what}", look, lambda: f"{self.said()}\n{self.guest(name)}")
        guest = self.guest(name)
        assert guest is not None
        return guest

    def await_agreement(self, domain: Domain, pushes: int = -1) -> dict[str, Any]:
        """Wait until the guest in *domain*, by its name and UUID, agreed on API 3, after so many *pushes* once more."""

        def agreed(guest: dict[str, Any]) -> bool:
            said = (guest["uuid"], guest["channel"]["state"], guest["api"]["agreed"], guest["api"]["in_use"])
            return said == (domain.uuid, "responsive", 3, 3) and guest["counters"]["pushes"] > pushes

        return self.await_guest(domain.name, "has agreed on API 3", agreed)

    def await_absence(self, name: str) -> None:
        """Wait until the guest has no port."""
        self.await_guest(name, "has no port", lambda guest: guest["channel"]["state"] == "absent")

    def said(self) -> str:
        """Its last log lines."""
        return f"--- daemon\n{self._process.said()}"

    def _ask(self, question: Callable[[], dict[str, Any]]) -> Optional[dict[str, Any]]:
        try:
            return question()
        except ClientError:
            return None


@pytest.fixture
def place() -> Iterator[pathlib.Path]:
    """A directory with a short path."""
    with tempfile.TemporaryDirectory(prefix="lv-") as directory:
        yield pathlib.Path(directory)


@pytest.fixture
def libvirtd(place: pathlib.Path, tmp_path: pathlib.Path) -> Iterator[Libvirtd]:
    with or_left_out():
        if importlib.util.find_spec("libvirt") is None:
            raise packages.Unavailable("Python's libvirt is missing: pip install 'vmaccord[libvirt]'")
        libvirtd = Libvirtd(place)
    try:
        libvirtd.start()
        yield libvirtd
    finally:
        libvirtd.stop()
        shutil.copyfile(libvirtd.log, tmp_path / "libvirtd.log")


@pytest.fixture
def domain(libvirtd: Libvirtd, place: pathlib.Path, emulator: Emulator, tmp_path: pathlib.Path) -> Iterator[Domain]:
    domain = Domain(libvirtd, place / "domain", LONG_NAME, emulator.program, emulator.image)
    try:
        yield domain
    finally:
        domain.close()
        if domain.console.exists():
            shutil.copyfile(domain.console, tmp_path / "console")
    if domain.crash:
        raise GuestCrashed(f"the guest's own kernel crashed, its console is kept in {tmp_path}\n{domain.crash}")


@pytest.fixture
def daemon(libvirtd: Libvirtd, tmp_path: pathlib.Path) -> Iterator[Daemon]:
    daemon = Daemon(tmp_path, libvirtd.uri)
    try:
        daemon.start()
        yield daemon
    finally:
        daemon.stop()


def test_a_guest_is_found_through_libvirt_whatever_becomes_of_its_domain(
    libvirtd: Libvirtd, domain: Domain, daemon: Daemon
) -> None:
    daemon.await_libvirt(connected=True)
    domain.boot()
    domain.guest.start_agent("--max-api-version", "3")
    first = daemon.await_agreement(domain)
    assert LONG_NAME not in first["channel"]["path"]

    domain.unplug_port()
    daemon.await_absence(LONG_NAME)
    domain.plug_port()
    plugged = daemon.await_agreement(domain, first["counters"]["pushes"])

    domain.save()
    daemon.await_absence(LONG_NAME)
    domain.restore()
    restored = daemon.await_agreement(domain, plugged["counters"]["pushes"])
    assert restored["channel"]["path"] != first["channel"]["path"]

    libvirtd.stop()
    daemon.await_libvirt(connected=False)
    daemon.await_guest(LONG_NAME, "is heard", lambda guest: guest["counters"]["lines"] > restored["counters"]["lines"])
    libvirtd.start()
    daemon.await_libvirt(connected=True)
    unmoved = daemon.await_agreement(domain)
    assert unmoved["counters"]["pushes"] == restored["counters"]["pushes"]

    domain.destroy()
    daemon.await_absence(LONG_NAME)
    domain.rename("web-1")
    domain.boot()
    domain.guest.start_agent("--max-api-version", "3")
    renamed = daemon.await_agreement(domain, unmoved["counters"]["pushes"])
    assert renamed["uuid"] == first["uuid"]
    assert daemon.guest(LONG_NAME) is None

    libvirtd.stop()
    daemon.await_libvirt(connected=False)
    domain.kill()
    libvirtd.start()
    daemon.await_absence("web-1")
