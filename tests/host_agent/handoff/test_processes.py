"""Two hosts that have nothing in common but a cable: their daemons are processes, and so is ``vmaccord``."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, Optional

from host_agent.client import Client
from host_agent.exits import Exit
from host_agent.handoff.security import Security
from tests.host_agent.guests import SimulatedVm, speaking
from tests.host_agent.parts import NEWEST, PATIENCE, ROOT, run, until_true, wait_for

from .certificates import Authority
from .namespaces import Host, two_hosts

PORT = 5405


class Said(NamedTuple):
    status: int
    out: str
    err: str


class Process:
    """``vmaccord-host`` on a host of its own, with its certificate in files of its own."""

    def __init__(self, place: Path, host: Host, peer: str, security: Security) -> None:
        place.mkdir()
        self.place = place
        self.control = str(place / "control.sock")
        self.files = [place / name for name in ("cert.pem", "key.pem", "ca.pem")]
        self.show(security)
        certificate, key, ca = self.files
        (place / "host.conf").write_text(
            f"[host]\ndirectory = {place}/ports\ncontrol = {self.control}\nstate = {place}/state.sqlite\n"
            f"[handoff]\nlisten = {host.address}:{PORT}\npeers = {peer}\n"
            f"certificate = {certificate}\nkey = {key}\nca = {ca}\n"
        )
        self._log = place / "log"
        words = (*host.inside, sys.executable, "-m", "host_agent.main", "--config", str(place / "host.conf"))
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(words, stdout=log, stderr=log, cwd=ROOT)

    def __enter__(self) -> Process:
        wait_for(lambda: "ready: " in self.log or self._process.poll() is not None)
        assert self._process.poll() is None, self.log
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait(PATIENCE)

    @property
    def log(self) -> str:
        return self._log.read_text(encoding="utf-8")

    def show(self, security: Optional[Security]) -> None:
        """Have this certificate from now on; None: none."""
        if security is None:
            self.files[0].unlink()
            return
        for source, file in zip((security.certificate, security.key, security.ca), self.files):
            shutil.copy(source, file)

    async def vmaccord(self, *words: str) -> Said:
        """What the program says."""
        environment = {**os.environ, "VMACCORD_CONTROL": self.control}
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "host_agent.cli", *words),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            cwd=ROOT,
        )
        out, err = await process.communicate()
        assert process.returncode is not None
        return Said(process.returncode, out.decode(), err.decode())


class Certificates:
    """What two hosts may show each other."""

    def __init__(self, place: Path, addresses: tuple[str, str]) -> None:
        place.mkdir()
        authority, foreign = Authority(place), Authority(place, "foreign")
        self.good = [authority.issue(f"good-{each}", f"IP:{each}") for each in addresses]
        self.expired = [authority.issue(f"expired-{each}", f"IP:{each}", days=-1) for each in addresses]
        self.foreign = [foreign.issue(f"foreign-{each}", f"IP:{each}") for each in addresses]


@contextlib.contextmanager
def two_processes(place: Path) -> Iterator[tuple[Process, Process, Certificates]]:
    with two_hosts() as (one, two):
        certificates = Certificates(place / "certificates", (one.address, two.address))
        with (
            Process(place / "a", one, f"b={two.address}:{PORT}", certificates.good[0]) as a,
            Process(place / "b", two, f"a={one.address}:{PORT}", certificates.good[1]) as b,
        ):
            yield a, b, certificates


def test_a_guest_goes_to_another_host_only_if_each_trusts_the_others_certificate(place: Path) -> None:
    async def scenario(a: Process, b: Process, certificates: Certificates) -> None:
        (good, other_good), (expired, other_expired) = certificates.good, certificates.expired
        foreign, other_foreign = certificates.foreign
        cases: list[tuple[Optional[Security], Optional[Security], tuple[str, ...]]] = [
            (foreign, other_good, ("is not of the CA in",)),
            (expired, other_good, ("refuses this host's certificate", "it has expired")),
            (None, other_good, (f"[handoff] certificate {a.files[0]}: No such file or directory; put it there",)),
            (other_good, other_good, ("b refuses", "name it in [handoff] peers here")),
            (good, other_foreign, ("the certificate of b (192.0.2.2:5405) is not of the CA in",)),
            (good, other_expired, ("the certificate of b (192.0.2.2:5405) has expired",)),
            (good, None, ("b (192.0.2.2:5405) ended the connection instead of shaking hands: see",)),
            (good, good, ("the certificate of b (192.0.2.2:5405) is for another",)),
        ]
        async with SimulatedVm(a.place / "ports" / "web", speaking()):
            await until_agreed(a)
            for ours, theirs, sentence in cases:
                a.show(ours)
                b.show(theirs)
                status, out, err = await a.vmaccord("handoff", "send", "web", "--to", "b")
                assert (status, out) == (Exit.HANDOFF_FAILED, ""), err
                assert err.startswith("vmaccord: ")
                assert err.count("\n") == 1
                assert all(each in err for each in sentence), err
                assert await handoff(a) == {"state": "here", "peer": None}
                assert await guests(b) == []
            a.show(good)
            b.show(other_good)
            came = await a.vmaccord("handoff", "send", "web", "--to", "b")
            assert came == (Exit.OK, "web: handed over to b (protocol 1, session spec 2)\n", "")
            assert await handoff(a) == {"state": "moved", "peer": "b"}
            assert await guests(b) == ["web"]
            assert "web: taken over from a, protocol version 1, session spec 2" in b.log
            assert (await a.vmaccord("handoff", "send", "web", "--to", "b")).status == Exit.MOVED
        assert "Traceback" not in a.log + b.log

    with two_processes(place) as (a, b, certificates):
        run(scenario(a, b, certificates))


async def until_agreed(host: Process) -> None:
    async def agreed() -> bool:
        return any(each["api"]["agreed"] == NEWEST for each in await asyncio.to_thread(Client(host.control).guests))

    await until_true(agreed)


async def handoff(host: Process) -> object:
    return (await asyncio.to_thread(Client(host.control).guest, "web"))["handoff"]


async def guests(host: Process) -> list[str]:
    return [each["name"] for each in await asyncio.to_thread(Client(host.control).guests)]
