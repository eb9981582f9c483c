"""Users: real ones are only looked up; to act as one, a worker becomes nobody."""

from __future__ import annotations

import contextlib
import os
import pwd
from pathlib import Path

import pytest

from common.messages import Code
from guest_agent.commands import CommandFailed, Machine, accounts
from guest_agent.commands.accounts import Account

from .forked import NOBODY, in_worker, only_root

USERS = """\
root:x:0:0:root:/root:/bin/bash
alice:x:1000:100:Alice,,,:/home/alice:/bin/bash
too:few:1001
strange:x:-1:x:::
homeless:x:1002:1002:::
"""


@pytest.fixture
def users(root: Path) -> Path:
    (root / "etc").mkdir()
    path = root / accounts.USERS
    path.write_text(USERS, "ascii")
    return path


@pytest.mark.usefixtures("users")
def test_a_user_of_a_root_of_its_own_is_read_there(machine: Machine, root: Path) -> None:
    assert accounts.find(machine, "alice") == Account("alice", 1000, 100, (100,), str(root / "home/alice"))
    assert accounts.find(machine, "homeless").home == ""


def test_a_user_of_this_machine_is_asked_of_the_c_library(machine: Machine) -> None:
    known = pwd.getpwuid(os.geteuid())
    found = accounts.find(machine._replace(root="/"), known.pw_name)
    assert (found.name, found.uid, found.gid, found.home) == (known.pw_name, known.pw_uid, known.pw_gid, known.pw_dir)
    assert known.pw_gid in found.groups


@pytest.mark.usefixtures("users")
@pytest.mark.parametrize(
    "name", ["", "bob", "ALICE", "too", "strange", "root:x", "alice\n", "alice\0", "\ud800", "x" * 5000]
)
@pytest.mark.parametrize("here", [True, False])
def test_who_is_no_user_is_told_in_one_bounded_line(machine: Machine, name: str, here: bool) -> None:
    with pytest.raises(CommandFailed, match=r"^there is no user '.{0,500}'; name one of the guest's$") as raised:
        accounts.find(machine._replace(root="/") if here else machine, name)
    assert raised.value.code is Code.INVALID_ARGUMENTS


@only_root
def test_acting_as_a_user_is_having_those_rights_and_no_others_for_a_while() -> None:
    def told() -> object:
        os.setgroups([0, 4711])
        before = (os.geteuid(), os.getegid(), os.getgroups())
        with (
            contextlib.suppress(ZeroDivisionError),
            accounts.acting_as(Account("nobody", NOBODY, NOBODY, (NOBODY, 12), "/")),
        ):
            during = (os.geteuid(), os.getegid(), sorted(os.getgroups()))
            raise ZeroDivisionError
        return before == (os.geteuid(), os.getegid(), os.getgroups()), during

    assert in_worker(told) == (True, (NOBODY, NOBODY, [12, NOBODY]))


@only_root
def test_the_user_can_not_read_what_only_root_may(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.touch(0o600)

    def told() -> bool:
        with accounts.acting_as(Account("nobody", NOBODY, NOBODY, (NOBODY,), "/")), pytest.raises(PermissionError):
            secret.read_bytes()
        return secret.read_bytes() == b""

    assert in_worker(told)


def test_who_is_not_root_acts_as_nobody_else_but_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with accounts.acting_as(Account("alice", 1000, 100, (), "/")):
        pass
    with (
        pytest.raises(CommandFailed, match="only root can act as bob"),
        accounts.acting_as(Account("bob", 1001, 100, (), "/")),
    ):
        pytest.fail("acted as bob")


def test_users_are_to_be_had_by_root_where_there_are_any(machine: Machine, root: Path) -> None:
    assert accounts.available(machine) == "this machine has no users (there is no /etc/passwd)"
    (root / "etc").mkdir()
    (root / accounts.USERS).touch()
    assert accounts.available(machine) is None
    other = machine._replace(owner=os.geteuid() + 1)
    assert "only root may change what belongs to users" in str(accounts.available(other))
