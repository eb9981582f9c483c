"""Domains of a real libvirtd that has its test driver run them: they come, go and are renamed, and nothing is emulated.

Their ports are those of a fleet. The driver keeps domains in memory: when libvirtd ends they are gone, and are defined anew,
with the UUIDs that they had, when it runs again.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import random
import shutil
import uuid
from pathlib import Path
from typing import Any, Optional

from tests.bench.fleet import PORT_NAME, name_of
from tests.vm.libvirtd import Libvirtd

_XML = """\
<domain type='test'>
  <name>{name}</name>
  <uuid>{uuid}</uuid>
  <memory>1024</memory>
  <os><type>hvm</type></os>
  <devices>
    <channel type='unix'>
      <source mode='bind' path='{path}'/>
      <target type='virtio' name='{port}'/>
    </channel>
  </devices>
</domain>
"""


def missing() -> Optional[str]:
    """Why libvirt can't take part here; None: it can."""
    if importlib.util.find_spec("libvirt") is None:
        return "Python's libvirt is missing"
    return None if shutil.which("libvirtd") and shutil.which("virsh") else "libvirtd or virsh is missing"


class Daemon(Libvirtd):
    """libvirtd with its test driver."""

    @property
    def test_uri(self) -> str:
        """The test driver's."""
        return self.uri.replace("qemu+unix:///session", "test+unix:///default")

    def kill(self) -> None:
        """End it without warning."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


class Domains:
    """*count* domains, whose ports are those of a fleet below *ports*.

    :ivar names: what the domains are called now.
    """

    def __init__(self, place: Path, ports: Path, count: int, seed: int) -> None:
        place.mkdir()
        self._library = importlib.import_module("libvirt")
        self._library.registerErrorHandler(lambda _, __: None, None)
        self._daemon = Daemon(place)
        self._ports = ports
        draw = random.Random(f"{seed}/domains")
        self._uuids = [str(uuid.UUID(int=draw.getrandbits(128), version=4)) for _ in range(count)]
        self.names = [f"virtual-{number}" for number in range(count)]
        #: Held as long as libvirtd runs: its test driver forgets everything when nobody is connected.
        self._connection: Any = None

    @property
    def uri(self) -> str:
        """By this the daemon under test finds them."""
        return self._daemon.test_uri

    # ---- What is done to them ----

    def start_libvirt(self) -> None:
        """Start libvirtd with all domains, if it does not run."""
        if self._connection is not None:
            return
        self._daemon.start()
        self._connection = self._library.open(self.uri)
        for number in range(len(self.names)):
            self.start(number)

    def stop_libvirt(self, kill: bool = False) -> None:
        """Let libvirtd, and all that it knows, go away."""
        self._leave()
        if kill:
            self._daemon.kill()
        else:
            self._daemon.stop()

    def start(self, number: int, mark: str = "") -> None:
        """Start a domain that does not run."""
        domain = self._find(number) or self._connection.defineXML(self._xml(number))
        if not domain.isActive():
            domain.create()

    def destroy(self, number: int, mark: str = "") -> None:
        """End a domain that runs."""
        domain = self._find(number)
        if domain is not None and domain.isActive():
            domain.destroy()

    def restart(self, number: int, mark: str = "") -> None:
        """End it, and start it at once."""
        self.destroy(number)
        self.start(number)

    def rename(self, number: int, mark: str) -> None:
        """Call a domain otherwise, which can only be done to one that does not run."""
        self.destroy(number)
        self.names[number] = f"virtual-{number}-{mark}"
        domain = self._find(number)
        if domain is not None and domain.name() != self.names[number]:
            domain.rename(self.names[number])
        self.start(number)

    def do(self, what: str, arguments: dict[str, Any]) -> None:
        """Do one of the above; nothing can be done to a domain while libvirtd does not run."""
        if self._connection is not None or what == "start_libvirt":
            getattr(self, what)(**arguments)

    def calm(self) -> None:
        """Have all of them run."""
        self.start_libvirt()
        for number in range(len(self.names)):
            self.start(number)

    def close(self) -> None:
        """End everything."""
        self._leave()
        self._daemon.stop()

    # ---- With libvirt ----

    def _leave(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _find(self, number: int) -> Any:
        try:
            return self._connection.lookupByUUIDString(self._uuids[number])
        except self._library.libvirtError:
            return None

    def _xml(self, number: int) -> str:
        path = os.path.join(self._ports, f"domain-1-{name_of(number)}", PORT_NAME)
        return _XML.format(name=self.names[number], uuid=self._uuids[number], path=path, port=PORT_NAME)
