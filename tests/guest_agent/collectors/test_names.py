"""Names of the machine."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from guest_agent.collectors import names


def call_it(node: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "uname", lambda: os.uname_result(("Linux", node, "6.1", "#1", "x86_64")))


def fqdn(root: Path, hosts: str) -> str:
    (root / "etc").mkdir()
    (root / "etc/hosts").write_text(hosts, encoding="utf-8")
    return names.fqdn(str(root)).fqdn


def test_the_host_name_is_the_kernels() -> None:
    assert names.host_name().name == os.uname().nodename


def test_a_host_name_with_a_domain_is_the_fqdn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    call_it("vm.example.com", monkeypatch)
    assert fqdn(tmp_path, "127.0.1.1 vm.other.org vm\n") == "vm.example.com"


@pytest.mark.parametrize(
    "hosts",
    [
        "127.0.1.1 vm.example.com vm\n",
        "# vm.comment.org\n127.0.0.1 localhost\n10.0.0.1\tvm  vm.example.com # vm.remark.org\n",
        "10.0.0.9 vm2.example.com vmx\n\n10.0.0.1 vm.example.com",
    ],
)
def test_the_domain_is_taken_from_the_hosts_file(hosts: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    call_it("vm", monkeypatch)
    assert fqdn(tmp_path, hosts) == "vm.example.com"


@pytest.mark.parametrize("hosts", ["", "127.0.0.1 localhost vm vm.\n", "vm.example.com\n", "# vm.example.com\n"])
def test_without_a_known_domain_the_host_name_stands_alone(
    hosts: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    call_it("vm", monkeypatch)
    assert fqdn(tmp_path, hosts) == "vm"


def test_no_name_server_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def ask(*_: object) -> None:
        pytest.fail("asked a name server")

    for name in ("getfqdn", "gethostbyname", "gethostbyaddr", "getaddrinfo", "getnameinfo"):
        monkeypatch.setattr(socket, name, ask)
    call_it("vm", monkeypatch)
    assert fqdn(tmp_path, "127.0.0.1 localhost\n") == "vm"
    assert names.host_name().name == "vm"


def test_a_hosts_file_that_can_not_be_read_as_text_still_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    call_it("vm", monkeypatch)
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/hosts").write_bytes(b"\xff\xfe x\n\0\n10.0.0.1 vm.example.com\n")
    assert names.fqdn(str(tmp_path)).fqdn == "vm.example.com"


def test_without_a_hosts_file_the_host_name_stands_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    call_it("vm", monkeypatch)
    assert names.fqdn(str(tmp_path)).fqdn == "vm"
