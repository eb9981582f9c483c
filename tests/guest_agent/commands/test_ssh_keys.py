"""ssh-keys: on real files of a real user, who is up to no good. Where the tests run as root, a worker becomes that user."""

from __future__ import annotations

import base64
import errno
import os
import socket
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable, NamedTuple, Optional

import pytest

from common.messages import Code, SshKeys
from guest_agent.commands import COMMANDS, CommandFailed, Machine, accounts, ssh_keys
from guest_agent.commands.ssh_keys import FILE_LIMIT, KEYS_LIMIT

from .forked import NOBODY, in_worker, only_root

#: Whose keys these are: where the tests run as root, somebody who may do nothing.
UID = os.geteuid() or NOBODY
GID = os.getegid() or NOBODY


def made_up(number: int, kind: str = "ssh-ed25519", size: int = 32) -> str:
    """A key of which nobody has the private half."""
    blob = len(kind).to_bytes(4, "big") + kind.encode() + size.to_bytes(4, "big") + number.to_bytes(size, "big")
    return f"{kind} {base64.b64encode(blob).decode()}"


ONE, TWO, THREE = (made_up(number) for number in (1, 2, 3))


class Answer(NamedTuple):
    """What became of a command."""

    problem: Optional[str]
    result: Any
    code: str


class User:
    """Somebody who has a home directory, and whatever is put into it.

    :ivar home: everything in it belongs to the user who puts it there.
    """

    def __init__(self, machine: Machine, root: Path) -> None:
        self._machine = machine
        self.home = root / "home" / "alice"
        self.home.mkdir(parents=True)
        os.chown(self.home, UID, GID)
        (root / "etc").mkdir()
        (root / accounts.USERS).write_text(f"alice:x:{UID}:{GID}::/home/alice:/bin/sh\n", "ascii")

    @property
    def directory(self) -> Path:
        return self.home / ssh_keys.DIRECTORY

    @property
    def file(self) -> Path:
        return self.directory / ssh_keys.FILE

    def has(self, content: bytes) -> None:
        """The file has this in it."""
        self.does(lambda: self.directory.mkdir(0o700, exist_ok=True), lambda: self.file.write_bytes(content))

    def does(self, *deeds: Callable[[], object]) -> None:
        """Something that the user may do."""

        def do_as_user() -> None:
            with accounts.acting_as(accounts.find(self._machine, "alice")):
                for deed in deeds:
                    deed()

        in_worker(do_as_user)

    def asked(self, operation: str, *keys: str) -> Answer:
        """What the host gets to know."""
        message = SshKeys(user="alice", operation=operation, keys=keys or None)

        def carried_out() -> tuple[Any, ...]:
            before = (os.geteuid(), os.getegid(), os.getgroups())
            try:
                answer = Answer(None, COMMANDS["ssh-keys"].run(self._machine, message), "")
            except CommandFailed as failure:
                answer = Answer(str(failure), dict(failure.members), failure.code.value)
            assert (os.geteuid(), os.getegid(), os.getgroups()) == before
            return tuple(answer)

        return Answer(*in_worker(carried_out))

    def result(self, operation: str, *keys: str) -> Any:
        answer = self.asked(operation, *keys)
        assert answer.problem is None, answer.problem
        return answer.result

    def problem(self, operation: str, *keys: str) -> str:
        answer = self.asked(operation, *keys)
        assert answer.problem is not None
        assert (answer.result, answer.code) == ({}, Code.FAILED.value)
        return answer.problem


@pytest.fixture
def root() -> Iterator[Path]:
    """One that other users may enter, too."""
    with tempfile.TemporaryDirectory() as name:
        path = Path(name)
        path.chmod(0o755)
        yield path


@pytest.fixture
def user(machine: Machine, root: Path) -> User:
    return User(machine, root)


@pytest.fixture
def secret(root: Path) -> Path:
    """What only root may read, or, where nobody is root, what would be there if it were written through."""
    path = root / "shadow"
    path.touch(0o600)
    path.write_bytes(b"root:secret\n")
    return path


# ---- What it is for ----


def test_a_user_without_keys_has_none(user: User) -> None:
    assert user.result("list") == {"keys": []}
    assert user.result("remove", ONE) == {"removed": 0}
    assert not user.directory.exists()
    user.does(user.directory.mkdir)
    assert user.result("list") == {"keys": []}


def test_the_first_key_makes_directory_and_file_for_that_user_alone(user: User) -> None:
    assert user.result("add", f"{ONE} alice@example.org") == {"added": 1}
    assert user.file.read_text("ascii") == f"{ONE} alice@example.org\n"
    for path, mode in ((user.directory, 0o700), (user.file, 0o600)):
        status = path.stat()
        assert (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid) == (mode, UID, GID)
    assert os.listdir(user.directory) == [ssh_keys.FILE]


def test_what_was_added_is_listed_and_what_was_removed_is_not(user: User) -> None:
    assert user.result("add", ONE, f"{TWO} of Zoë", THREE) == {"added": 3}
    assert user.result("list") == {"keys": [ONE, f"{TWO} of Zoë", THREE]}
    assert user.result("remove", TWO, made_up(4)) == {"removed": 1}
    assert user.result("list") == {"keys": [ONE, THREE]}


@pytest.mark.parametrize(
    "there",
    [
        ONE,
        f"{ONE} comment",
        f"  \t{ONE}",
        f"no-pty {ONE}",
        f'command="echo \\"{TWO}\\" #",no-pty\t{ONE} comment',
        f'from="a b" {ONE}\r',
        ONE.replace(" ", "\t"),
    ],
)
def test_a_key_is_known_whatever_stands_around_it(user: User, there: str) -> None:
    user.has(f"{there}\n".encode())
    assert user.result("add", f"{ONE} another comment") == {"added": 0}
    assert user.file.read_bytes() == f"{there}\n".encode()
    assert user.result("list") == {"keys": [there.strip()]}
    assert user.result("remove", ONE) == {"removed": 1}
    assert user.file.read_bytes() == b""


@pytest.mark.parametrize(
    "there", [f"# {ONE}", f"#{ONE}", f'command="{ONE}" {TWO}', f'x="{ONE}', "ssh-ed25519", "", f"x {TWO}"]
)
def test_what_only_looks_like_the_key_is_not_it(user: User, there: str) -> None:
    user.has(f"{there}\n".encode())
    assert user.result("remove", ONE) == {"removed": 0}
    assert user.result("add", ONE) == {"added": 1}
    assert user.file.read_bytes() == f"{there}\n{ONE}\n".encode()


def test_the_same_key_is_added_once(user: User) -> None:
    assert user.result("add", ONE, f"{ONE} again", ONE) == {"added": 1}
    inode = user.file.stat().st_ino
    assert user.result("add", ONE) == {"added": 0}
    assert user.file.stat().st_ino == inode


def test_a_key_that_is_there_twice_is_removed_twice(user: User) -> None:
    user.has(f"{ONE}\n{TWO}\nno-pty {ONE}".encode())
    assert user.result("remove", ONE) == {"removed": 2}
    assert user.file.read_bytes() == f"{TWO}\n".encode()


ODD = b"\xff\xfe\0 #\r\n\n \t\n# comment\r\nunknown-type AAAA\n" + b'options="' + b"x" * 5000


@pytest.mark.parametrize("end", [b"", b"\n"])
def test_everything_else_stays_as_it_is_byte_for_byte(user: User, end: bytes) -> None:
    user.has(ODD + end)
    user.result("add", ONE)
    assert user.file.read_bytes() == ODD + b"\n" + f"{ONE}\n".encode()
    user.result("remove", ONE)
    assert user.file.read_bytes() == ODD + b"\n"
    user.has(f"{ONE}\r\n".encode() + ODD + end)
    user.result("remove", ONE)
    assert user.file.read_bytes() == ODD + end


# ---- What the host may give ----


@pytest.mark.parametrize("kind", ssh_keys.TYPES)
def test_keys_of_all_types_are_taken(user: User, kind: str) -> None:
    key = made_up(1, kind, 512)
    assert user.result("add", f" {key}  with  a comment \n") == {"added": 1}
    assert user.result("list") == {"keys": [f"{key} with  a comment"]}


@pytest.mark.parametrize(
    "key",
    [
        "",
        "ssh-ed25519",
        f'command="id" {ONE}',
        f"no-pty {ONE}",
        f"cert-authority {ONE}",
        f"# {ONE}",
        f"{ONE}\n{TWO}",
        f"{ONE} comment\n{TWO}",
        f"{ONE} comment\0",
        f"{ONE} \x1b[2J",
        f"{ONE} \ud800",
        f"{ONE} \u2028{TWO}",
        f"{ONE} {'x' * 8192}",
        ONE.replace("ssh-ed25519", "ssh-rsa"),
        ONE.replace("ssh-ed25519", "ssh-dss"),
        ONE[:-1],
        made_up(1, size=31).rstrip("="),
        f"{ONE}!",
        "ssh-ed25519 AAAA",
        f"ssh-ed25519 {base64.b64encode(b'nonsense').decode()}",
        f"ssh-ed25519 {ONE.split()[1][:20]}",
        "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEAAAAA\n-----END OPENSSH PRIVATE KEY-----\n",
    ],
)
@pytest.mark.parametrize("operation", ["add", "remove"])
def test_what_is_no_plain_public_key_is_refused_and_not_repeated(user: User, operation: str, key: str) -> None:
    answer = user.asked(operation, TWO, key)
    assert str(answer.problem).startswith(
        "key 2 is no public key; give TYPE BASE64 [COMMENT] on one line, TYPE being ssh-ed"
    )
    assert answer.code == Code.INVALID_ARGUMENTS.value
    assert not user.directory.exists()


@pytest.mark.parametrize("operation", ["add", "remove"])
@pytest.mark.parametrize("number", [0, KEYS_LIMIT + 1])
def test_there_must_be_keys_and_not_too_many(user: User, operation: str, number: int) -> None:
    answer = user.asked(operation, *map(made_up, range(number)))
    assert answer.problem == f"{number} keys are given; give 1 to {KEYS_LIMIT}"
    assert answer.code == Code.INVALID_ARGUMENTS.value


def test_as_many_as_may_be_given_are_added(user: User) -> None:
    assert user.result("add", *map(made_up, range(KEYS_LIMIT))) == {"added": KEYS_LIMIT}


def test_there_must_be_such_a_user(user: User, machine: Machine) -> None:
    with pytest.raises(CommandFailed, match="there is no user 'bob'"):
        ssh_keys.run(machine, SshKeys(user="bob", operation="list"))


# ---- What the user may have done ----


def test_a_directory_that_is_a_link_is_not_followed(user: User, root: Path) -> None:
    elsewhere = root / "elsewhere"
    elsewhere.mkdir(0o777)
    elsewhere.chmod(0o777)
    user.does(lambda: user.directory.symlink_to(elsewhere))
    for operation in ("add", "remove", "list"):
        assert "symbolic link, which is not followed" in user.problem(operation, ONE)
    assert os.listdir(elsewhere) == []


def test_a_file_that_is_a_link_is_not_followed(user: User, secret: Path) -> None:
    user.does(user.directory.mkdir, lambda: user.file.symlink_to(secret))
    for operation in ("add", "remove", "list"):
        assert "symbolic link, which is not followed" in user.problem(operation, ONE)
    assert secret.read_bytes() == b"root:secret\n"


def test_a_link_where_the_new_file_is_made_is_not_followed(user: User, secret: Path) -> None:
    user.does(user.directory.mkdir, lambda: (user.directory / ssh_keys.NEW_FILE).symlink_to(secret))
    assert user.result("add", ONE) == {"added": 1}
    assert secret.read_bytes() == b"root:secret\n"
    assert os.listdir(user.directory) == [ssh_keys.FILE]


@only_root
def test_a_hard_link_to_a_file_of_root_is_neither_read_nor_written(user: User, secret: Path) -> None:
    user.does(user.directory.mkdir)
    secret.chmod(0o666)
    os.link(secret, user.file)
    for operation in ("add", "remove", "list"):
        assert user.problem(operation, ONE).endswith("belongs to user 0; let it belong to alice")
    assert secret.read_bytes() == b"root:secret\n"
    secret.chmod(0o600)
    assert user.problem("list").endswith("can't be used: Permission denied")


def test_what_else_the_file_is_linked_to_stays_as_it_is(user: User) -> None:
    user.has(b"# precious\n")
    precious = user.home / "precious"
    user.does(lambda: os.link(user.file, precious))
    assert user.result("add", ONE) == {"added": 1}
    assert precious.read_bytes() == b"# precious\n"


@only_root
def test_a_directory_of_another_user_is_not_used(user: User) -> None:
    user.directory.mkdir(0o777)
    user.directory.chmod(0o777)
    assert user.problem("add", ONE).endswith("belongs to user 0; let it belong to alice")
    assert os.listdir(user.directory) == []


@only_root
def test_where_the_user_may_not_write_nothing_is_written(user: User) -> None:
    os.chown(user.home, 0, 0)
    assert user.problem("add", ONE).endswith("can't be used: Permission denied")
    assert os.listdir(user.home) == []


def test_a_fifo_keeps_nobody_waiting(user: User) -> None:
    user.does(user.directory.mkdir, lambda: os.mkfifo(user.file))
    for operation in ("add", "remove", "list"):
        assert user.problem(operation, ONE).endswith("is no regular file; let it be one")


@pytest.mark.parametrize("place", ["directory", "file"])
def test_a_fifo_or_socket_in_place_of_anything_is_a_failure(user: User, place: str) -> None:
    def in_the_way() -> None:
        if place == "directory":
            os.mkfifo(user.directory)
            return
        user.directory.mkdir()
        os.chdir(user.directory)  # as the whole path is too long for a socket
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(ssh_keys.FILE)

    user.does(in_the_way)
    assert "can't be used: " in user.problem("add", ONE)


def test_a_directory_in_place_of_the_file_is_a_failure(user: User) -> None:
    user.does(user.directory.mkdir, lambda: user.file.mkdir())
    assert user.problem("list").endswith("can't be used: Is a directory")


def test_what_can_not_be_removed_from_the_new_files_place_is_a_failure(user: User) -> None:
    user.does(user.directory.mkdir, lambda: (user.directory / ssh_keys.NEW_FILE).mkdir())
    assert "can't be used: Is a directory" in user.problem("add", ONE)


def test_a_huge_file_is_not_read(user: User) -> None:
    user.has(b"")
    user.does(lambda: os.truncate(user.file, FILE_LIMIT + 1))
    for operation in ("add", "remove", "list"):
        assert f"is larger than {FILE_LIMIT} bytes" in user.problem(operation, ONE)
    user.does(lambda: os.truncate(user.file, FILE_LIMIT))
    assert user.result("remove", ONE) == {"removed": 0}
    assert "would be larger" in user.problem("add", ONE)
    assert user.file.stat().st_size == FILE_LIMIT


@pytest.mark.parametrize("content", [b"\xff" * 2**20, b"x,\n" * 20_000, b"x\n" * 20_000], ids=["long", "commas", "keys"])
def test_keys_that_no_answer_has_room_for_are_not_listed(user: User, content: bytes) -> None:
    user.has(content)
    assert "there are more keys than fit into an answer" in user.problem("list")
    assert user.result("remove", ONE) == {"removed": 0}


def test_without_a_home_directory_there_are_no_keys(user: User) -> None:
    user.home.rmdir()
    for operation in ("add", "remove", "list"):
        assert user.problem(operation, ONE) == "the home directory of alice can't be used: No such file or directory"


def test_the_way_to_the_home_directory_may_have_links(user: User, root: Path) -> None:
    (root / "home").rename(root / "var-home")
    (root / "home").symlink_to("var-home")
    assert user.result("add", ONE) == {"added": 1}
    assert user.result("list") == {"keys": [ONE]}


# ---- All or nothing ----


@pytest.mark.parametrize("step", ["fsync", "rename"])
def test_a_new_file_that_can_not_be_completed_leaves_the_old_one_and_nothing_else(
    user: User, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    user.has(b"# as it was\n")

    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, step, fail)
    assert user.problem("add", ONE).endswith("can't be used: No space left on device")
    assert user.file.read_bytes() == b"# as it was\n"
    assert os.listdir(user.directory) == [ssh_keys.FILE]


def test_it_is_available_where_there_are_users(machine: Machine, user: User, root: Path) -> None:
    assert ssh_keys.available(machine) is None
    (root / accounts.USERS).unlink()
    assert "no users" in str(ssh_keys.available(machine))
