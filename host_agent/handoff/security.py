"""What keeps a hand-off between the hosts it is meant for: TLS, with a certificate of the same CA on both sides.

Whoever calls checks that the certificate of who answers is for the address that was called. Whoever answers checks that the
certificate of who calls is for the address of a peer, where peers are named. Only subject alternative names count.

Files are read whenever a context is made, so a certificate that was replaced counts with the next connection. That blocks:
inside an event loop, contexts and complaints are made in an executor.

Every error is a sentence that says whose fault it is. Nothing here knows of connections.
"""

from __future__ import annotations

import contextlib
import dataclasses
import ipaddress
import os
import ssl
import stat
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NoReturn, Optional

from host_agent.exits import Exit, Failure

if TYPE_CHECKING:
    from host_agent.config import Configuration, Peer

#: How hand-offs are protected: the words of the configuration.
TLS, PLAIN_TEXT = "tls", "plain-text"

#: What is wrong with a certificate, by OpenSSL's number of it, and what to do.
_FAULTS: Mapping[int, str] = {
    9: "is not valid yet: set the clocks of both hosts",
    10: "has expired, or its CA has: have a new one issued",
    26: "is not for this: have one issued whose extended key usage is both serverAuth and clientAuth",
    62: "is for another name: have one issued with the right subjectAltName, or correct the address in [handoff] peers",
    64: "is for another address: have one issued with the right subjectAltName, or correct the address in [handoff] peers",
}

#: OpenSSL's numbers of all the ways in which a certificate is not one of the CA.
_NOT_OF_THE_CA = frozenset({2, 7, 18, 19, 20, 21, 30})

#: The reasons for which a peer refuses our certificate, by TLS's words for them, and what to do.
_REFUSALS: Mapping[str, str] = {
    "CERTIFICATE_EXPIRED": "it has expired, or the clock there is wrong: have a new one issued",
    "UNKNOWN_CA": "it is not of the CA that is trusted there: give both hosts certificates of the same CA",
    "DECRYPT_ERROR": "it is not of the CA that is trusted there: give both hosts certificates of the same CA",
    "BAD_CERTIFICATE": "it is for another name, or not valid yet there: its subjectAltName must have "
    "the address in [handoff] peers there, and both clocks must agree",
    "UNSUPPORTED_CERTIFICATE": "have one issued whose extended key usage is both serverAuth and clientAuth",
    "CERTIFICATE_UNKNOWN": "the log there says why",
    "CERTIFICATE_REVOKED": "have a new one issued",
    "CERTIFICATE_REQUIRED": "it was not shown: see that [handoff] certificate is for clients as well",
    "ACCESS_DENIED": "the log there says why",
}

#: The alert of who does not speak TLS 1.3, if any.
_NOT_SPOKEN = "PROTOCOL_VERSION"


class SecurityError(Failure):
    """The files that the configuration names can't be used."""

    status = Exit.BAD_CONFIGURATION


@dataclasses.dataclass(frozen=True)
class Security:
    """How this host's hand-offs are protected.

    :ivar mode: ``TLS`` or ``PLAIN_TEXT``; the files matter to the first only.
    :ivar peers: whose certificates are let in; none: all of the CA.
    """

    mode: str
    certificate: str = ""
    key: str = ""
    ca: str = ""
    peers: tuple[Peer, ...] = ()

    @classmethod
    def of(cls, configuration: Configuration) -> Security:
        """What *configuration* asks for."""
        return cls(
            configuration.handoff_security,
            configuration.handoff_certificate,
            configuration.handoff_key,
            configuration.handoff_ca,
            configuration.handoff_peers,
        )

    @property
    def encrypted(self) -> bool:
        """Whether there is any."""
        return self.mode == TLS

    # ---- Contexts ----

    def server_context(self) -> ssl.SSLContext:
        """How to answer. Blocks.

        :raises SecurityError: a file can't be used.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        # Nothing is resumed; and a ticket that nobody reads makes the kernel reset the connection at its end.
        context.num_tickets = 0
        return self._prepared(context)

    def client_context(self) -> ssl.SSLContext:
        """How to call. Blocks.

        :raises SecurityError: a file can't be used.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.hostname_checks_common_name = False
        return self._prepared(context)

    def _prepared(self, context: ssl.SSLContext) -> ssl.SSLContext:
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.verify_mode = ssl.CERT_REQUIRED
        for name, path in (("certificate", self.certificate), ("key", self.key), ("ca", self.ca)):
            _check_readable(name, path)
        try:
            context.load_cert_chain(self.certificate, self.key, self._refuse_passphrase)
        except OSError as error:
            if getattr(error, "reason", None) == "KEY_VALUES_MISMATCH":
                raise SecurityError(
                    f"[handoff] key {self.key} is not that of certificate {self.certificate}: name two that belong together"
                ) from None
            raise SecurityError(
                f"[handoff] certificate {self.certificate} and key {self.key} can't be used: each must be one, in a PEM file"
            ) from None
        try:
            context.load_verify_locations(self.ca)
        except OSError:
            raise SecurityError(f"[handoff] ca {self.ca} has no certificate: it must be a PEM file of one") from None
        return context

    def _refuse_passphrase(self) -> NoReturn:
        raise SecurityError(f"[handoff] key {self.key} has a passphrase: store it without one, for the daemon's user only")

    # ---- This host's own files ----

    def complaints(self) -> Iterator[str]:
        """What is wrong with the files, a sentence each. Blocks."""
        if not self.encrypted:
            return
        try:
            self._introduce_to_itself()
        except SecurityError as error:
            yield str(error)
        if _is_open_to_all(self.key):
            yield f"[handoff] key {self.key} can be read by every user: take that away with chmod o-rwx"

    def _introduce_to_itself(self) -> None:
        """Have this host shake hands with itself: what its own peers would find wrong is found.

        :raises SecurityError: something is.
        """
        client_context, there, back = self.client_context(), ssl.MemoryBIO(), ssl.MemoryBIO()
        client_context.check_hostname = False
        client = client_context.wrap_bio(back, there)
        server = self.server_context().wrap_bio(there, back, server_side=True)
        try:
            for side in (client, server, client, server):
                _go_on(side)
        except ssl.SSLError as error:
            raise SecurityError(f"[handoff] certificate {self.certificate} {self._fault(error)}") from None

    # ---- Peers ----

    def known_as(self, names: Iterable[str]) -> Optional[str]:
        """What the peer is called here whose certificate is for *names*; None: it is none of the peers."""
        theirs = set(map(_normal, names))
        return next((peer.name for peer in self.peers if _normal(peer.address.host) in theirs), None)

    def explain(self, error: OSError, peer: str) -> str:
        """The sentence for an *error* of the connection with *peer*."""
        if isinstance(error, ssl.SSLCertVerificationError):
            return f"the certificate of {peer} {self._fault(error)}"
        if not isinstance(error, ssl.SSLError):
            return f"{peer}: {os.strerror(error.errno) if error.errno else error}"
        reason = str(error.reason or error)
        _, _, alert = reason.partition("ALERT_")
        if alert in _REFUSALS:
            return f"{peer} refuses this host's certificate ({self.certificate}): {_REFUSALS[alert]}"
        if alert and alert != _NOT_SPOKEN:
            return f"{peer} breaks TLS off ({_words(alert)}): look into its log, or upgrade the older of both hosts"
        if reason == "PEER_DID_NOT_RETURN_A_CERTIFICATE":
            return f"{peer} shows no certificate: name one there, of this host's CA, in [handoff] certificate"
        return f"{peer} does not speak TLS 1.3 ({_words(reason)}): see that [handoff] security is tls on both hosts"

    def _fault(self, error: ssl.SSLError) -> str:
        number = getattr(error, "verify_code", 0)
        if number in _NOT_OF_THE_CA:
            return f"is not of the CA in {self.ca}: have one issued by that, or name the CA that all hosts share"
        if number in _FAULTS:
            return _FAULTS[number]
        return (
            f"can't be used ({getattr(error, 'verify_message', None) or _words(str(error.reason))}): have another one issued"
        )


def names_of(certificate: Optional[Mapping[str, Any]]) -> tuple[str, ...]:
    """The DNS names and IP addresses that a peer's *certificate* is for, as ``ssl`` tells it."""
    names = (certificate or {}).get("subjectAltName", ())
    return tuple(_normal(name) for kind, name in names if kind in ("DNS", "IP Address"))


def _normal(name: str) -> str:
    """*name* in the one way to write it."""
    try:
        return str(ipaddress.ip_address(name.strip()))
    except ValueError:
        return name.lower().rstrip(".")


def _words(reason: str) -> str:
    return reason.lower().replace("_", " ")


def _check_readable(name: str, path: str) -> None:
    """:raises SecurityError: the file can't be read."""
    try:
        with open(path, "rb") as file:
            file.read(1)
    except OSError as error:
        raise SecurityError(
            f"[handoff] {name} {path}: {error.strerror}; put it there, readable for the user of vmaccord-host"
        ) from None


def _is_open_to_all(path: str) -> bool:
    try:
        return bool(os.stat(path).st_mode & stat.S_IRWXO)
    except OSError:
        return False


def _go_on(side: ssl.SSLObject) -> None:
    """Shake hands until the other side must say something."""
    with contextlib.suppress(ssl.SSLWantReadError):
        side.do_handshake()
