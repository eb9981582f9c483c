"""Certificates for tests, made by the program ``openssl`` as an operator makes them."""

from __future__ import annotations

import dataclasses
import shutil
import subprocess
from pathlib import Path

import pytest

from host_agent.config import Peer
from host_agent.handoff.security import TLS, Security

_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1")

#: What the certificates are for where a test does not care: this machine.
HERE = "IP:127.0.0.1,DNS:localhost"


def openssl(*arguments: str, text: str = "") -> None:
    """Run ``openssl``; a test that needs it is left out where it is missing."""
    program = shutil.which("openssl")
    if program is None:
        pytest.skip("openssl is missing: apt-get install openssl")
    subprocess.run([program, *arguments], input=text, capture_output=True, text=True, check=True)


class Authority:
    """A CA whose files are in *place*."""

    def __init__(self, place: Path, name: str = "ca", days: int = 30) -> None:
        self._place = place
        self.certificate, self._key, request = (str(place / f"{name}{end}.pem") for end in ("", "-key", "-request"))
        openssl("req", *_KEY, "-nodes", "-subj", f"/CN={name}", "-keyout", self._key, "-out", request)
        said = "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign,cRLSign\n"
        signed = ("-signkey", self._key, "-extfile", "/dev/stdin", "-out", self.certificate)
        openssl("x509", "-req", "-in", request, "-days", str(days), *signed, text=said)

    def issue(
        self, name: str, names: str = HERE, days: int = 30, usage: str = "serverAuth,clientAuth", passphrase: str = ""
    ) -> Security:
        """A certificate for *names*, and its key, of a host that trusts this CA."""
        certificate, key, request = (str(self._place / f"{name}{end}.pem") for end in ("", "-key", "-request"))
        protection = ("-passout", f"pass:{passphrase}") if passphrase else ("-nodes",)
        openssl("req", *_KEY, *protection, "-subj", f"/CN={name}", "-keyout", key, "-out", request)
        said = f"extendedKeyUsage={usage}\n" + (f"subjectAltName={names}\n" if names else "")
        signed = ("-CA", self.certificate, "-CAkey", self._key, "-CAcreateserial", "-extfile", "/dev/stdin")
        openssl("x509", "-req", "-in", request, "-days", str(days), *signed, "-out", certificate, text=said)
        return Security(TLS, certificate, key, self.certificate)


def with_peers(security: Security, *peers: Peer) -> Security:
    """The same, letting in only these."""
    return dataclasses.replace(security, peers=peers)


def trusting(security: Security, authority: Authority) -> Security:
    """The same, of a host that trusts another CA."""
    return dataclasses.replace(security, ca=authority.certificate)
