from __future__ import annotations

import argparse
import dataclasses
import os
import shutil
import ssl
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from common import settings
from host_agent import config
from host_agent.config import Address, Peer
from host_agent.exits import Exit
from host_agent.handoff.security import PLAIN_TEXT, TLS, Security, SecurityError, names_of
from tests.host_agent.handoff.certificates import Authority, trusting
from tests.host_agent.parts import NOBODY, another_user

PEERS = (Peer("one", Address("HOST-1.example.org", 7788)), Peer("two", Address("fd00::2", 7788)))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("certificates")


@pytest.fixture(scope="module")
def authority(place: Path) -> Authority:
    return Authority(place)


@pytest.fixture(scope="module")
def right(authority: Authority) -> Security:
    return authority.issue("right")


def complaint(security: Security) -> str:
    (text,) = security.complaints()
    return text


def test_the_files_of_a_host_that_fit_together_are_not_complained_of(right: Security) -> None:
    assert list(right.complaints()) == []


def test_tls_demands_a_certificate_on_both_sides_and_the_newest_version(right: Security) -> None:
    for context in (right.server_context(), right.client_context()):
        assert context.verify_mode is ssl.CERT_REQUIRED
        assert context.minimum_version is ssl.TLSVersion.TLSv1_3
    assert right.client_context().check_hostname
    assert right.encrypted


def test_plain_text_needs_no_files() -> None:
    assert list(Security(PLAIN_TEXT).complaints()) == []
    assert not Security(PLAIN_TEXT).encrypted


def test_an_expired_certificate_is_complained_of(authority: Authority) -> None:
    expired = authority.issue("expired", days=-1)
    text = f"[handoff] certificate {expired.certificate} has expired, or its CA has: have a new one issued"
    assert complaint(expired) == text


def test_a_certificate_of_an_expired_ca_is_complained_of(place: Path) -> None:
    assert "has expired, or its CA has" in complaint(Authority(place, "old", days=-1).issue("young"))


def test_a_certificate_of_another_ca_is_complained_of(right: Security, place: Path) -> None:
    other = Authority(place, "other")
    assert complaint(trusting(right, other)) == (
        f"[handoff] certificate {right.certificate} is not of the CA in {other.certificate}: "
        "have one issued by that, or name the CA that all hosts share"
    )
    namesake = Authority(place / "..", "ca")
    assert "is not of the CA in" in complaint(trusting(right, namesake))


def test_a_certificate_for_servers_only_is_complained_of(authority: Authority) -> None:
    text = complaint(authority.issue("server", usage="serverAuth"))
    assert text.endswith(" is not for this: have one issued whose extended key usage is both serverAuth and clientAuth")


def test_a_key_that_every_user_may_read_is_complained_of(authority: Authority) -> None:
    exposed = authority.issue("exposed")
    os.chmod(exposed.key, 0o604)
    assert complaint(exposed) == f"[handoff] key {exposed.key} can be read by every user: take that away with chmod o-rwx"
    os.chmod(exposed.key, 0o640)
    assert list(exposed.complaints()) == []


@pytest.mark.parametrize("name", ["certificate", "key", "ca"])
def test_a_file_that_is_missing_or_empty_or_no_pem_is_complained_of(right: Security, place: Path, name: str) -> None:
    changes: dict[str, Any] = {name: str(place / "none")}
    without = dataclasses.replace(right, **changes)
    missing = (
        f"[handoff] {name} {place}/none: No such file or directory; put it there, readable for the user of vmaccord-host"
    )
    assert complaint(without) == missing
    for content in ("", "no PEM"):
        (place / "wrong").write_text(content, encoding="utf-8")
        os.chmod(place / "wrong", 0o600)
        changes = {name: str(place / "wrong")}
        text = complaint(dataclasses.replace(right, **changes))
        assert "a PEM file" in text
        assert f"{name} {place}/wrong" in text


def test_the_key_of_another_certificate_is_complained_of(right: Security, authority: Authority) -> None:
    other = authority.issue("other-key")
    assert "is not that of certificate" in complaint(dataclasses.replace(right, key=other.key))


def test_a_key_with_a_passphrase_is_complained_of_and_nobody_is_asked_for_it(authority: Authority) -> None:
    assert "has a passphrase: store it without one" in complaint(authority.issue("locked", passphrase="open sesame"))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_a_key_that_the_daemon_may_not_read_is_complained_of(right: Security) -> None:
    with tempfile.TemporaryDirectory() as directory:
        private = shutil.copy(right.key, directory)
        os.chown(directory, NOBODY, NOBODY)
        theirs = dataclasses.replace(right, certificate=os.devnull, key=private, ca=os.devnull)
        with another_user():
            assert complaint(theirs) == (
                f"[handoff] key {private}: Permission denied; put it there, readable for the user of vmaccord-host"
            )


def test_files_that_can_not_be_used_end_a_program_as_a_wrong_configuration_does() -> None:
    with pytest.raises(SecurityError) as caught:
        Security(TLS, "/none", "/none", "/none").server_context()
    assert caught.value.status is Exit.BAD_CONFIGURATION


def test_what_the_configuration_says_counts() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--config")
    settings.add_options(parser, config.SETTINGS)
    loaded = config.load(parser.parse_args([]), "/none")
    cert, key, ca = (f"/etc/vmaccord/handoff/{name}.pem" for name in ("cert", "key", "ca"))
    assert Security.of(loaded) == Security(TLS, cert, key, ca)
    assert Security.of(dataclasses.replace(loaded, handoff_peers=PEERS)).peers == PEERS


# ---- Peers ----


@pytest.mark.parametrize(
    ("names", "known_as"),
    [
        (["host-1.example.org"], "one"),
        (["x", "Host-1.Example.Org."], "one"),
        (["FD00:0:0:0:0:0:0:2"], "two"),
        (["fd00::2\n"], "two"),
        (["host-1"], None),
        (["*.example.org"], None),
        (["one"], None),
        ([], None),
    ],
)
def test_a_peer_is_known_by_the_address_in_its_certificate(names: list[str], known_as: str) -> None:
    assert Security(TLS, peers=PEERS).known_as(names) == known_as


def test_of_a_certificate_only_alternative_names_of_hosts_count() -> None:
    alternative = (("DNS", "Host-1"), ("IP Address", "FD00:0:0:0:0:0:0:2"), ("email", "root@host-2"), ("URI", "x:y"))
    certificate = {"subject": ((("commonName", "host-3"),),), "subjectAltName": alternative}
    assert names_of(certificate) == ("host-1", "fd00::2")
    assert names_of({}) == names_of(None) == ()


# ---- Sentences ----


def errors() -> Iterator[tuple[OSError, str]]:
    def alert(reason: str) -> ssl.SSLError:
        error = ssl.SSLError(1, f"[SSL: {reason}]")
        error.reason = reason
        return error

    def unverified(number: int, message: str = "") -> ssl.SSLCertVerificationError:
        error = ssl.SSLCertVerificationError(1, "")
        error.verify_code, error.verify_message = number, message
        return error

    yield unverified(9), "the certificate of b is not valid yet: set the clocks of both hosts"
    yield unverified(23, "certificate revoked"), "the certificate of b can't be used (certificate revoked): have another one"
    yield (
        alert("SSLV3_ALERT_CERTIFICATE_EXPIRED"),
        "b refuses this host's certificate (/c): it has expired, or the clock there",
    )
    yield alert("TLSV13_ALERT_CERTIFICATE_REQUIRED"), "b refuses this host's certificate (/c): it was not shown"
    yield alert("TLSV1_ALERT_INTERNAL_ERROR"), "b breaks TLS off (internal error): look into its log, or upgrade"
    yield alert("TLSV1_ALERT_PROTOCOL_VERSION"), "b does not speak TLS 1.3 (tlsv1 alert protocol version): see that"
    yield (
        alert("WRONG_VERSION_NUMBER"),
        "b does not speak TLS 1.3 (wrong version number): see that [handoff] security is tls",
    )
    yield ConnectionResetError(104, "x"), "b: Connection reset by peer"
    yield OSError("closed"), "b: closed"


@pytest.mark.parametrize(("error", "sentence"), list(errors()), ids=lambda each: str(each)[:60])
def test_every_error_becomes_a_sentence(error: OSError, sentence: str) -> None:
    assert Security(TLS, "/c").explain(error, "b").startswith(sentence)
