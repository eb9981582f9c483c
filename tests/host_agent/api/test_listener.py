from __future__ import annotations

import fcntl
import os
import socket
import stat
from pathlib import Path

import pytest

from host_agent.api import listener as listener_module
from host_agent.api.listener import ControlSocketError, Listener
from host_agent.exits import Exit
from tests.host_agent.parts import NOBODY, another_user


def test_the_socket_is_there_for_its_owner_only(place: Path) -> None:
    before = os.umask(0)
    try:
        listener = Listener(str(place / "a/b/control.sock"))
        status = os.stat(listener.path)
        assert stat.S_ISSOCK(status.st_mode)
        assert stat.S_IMODE(status.st_mode) == 0o600
        assert os.umask(0) == 0
    finally:
        os.umask(before)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(listener.path)
    listener.close()
    assert not os.path.exists(listener.path)


def test_a_socket_left_by_a_dead_daemon_is_replaced(place: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(place / "control.sock"))
    listener = Listener(str(place / "control.sock"))
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(listener.path)
    listener.close()


def test_a_live_socket_is_left_alone(place: Path) -> None:
    first = Listener(str(place / "control.sock"))
    with pytest.raises(ControlSocketError, match="in use by another daemon; stop that one or name another path"):
        Listener(first.path)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(first.path)
    first.close()


def test_a_live_socket_with_a_full_queue_is_left_alone(place: Path) -> None:
    with socket.socket(socket.AF_UNIX) as busy, socket.socket(socket.AF_UNIX) as client:
        busy.bind(str(place / "control.sock"))
        busy.listen(0)
        client.connect(str(place / "control.sock"))
        with pytest.raises(ControlSocketError, match="in use by another daemon"):
            Listener(str(place / "control.sock"))


def test_a_file_is_never_removed(place: Path) -> None:
    (place / "control.sock").write_text("precious")
    with pytest.raises(ControlSocketError, match="something else than a socket is there"):
        Listener(str(place / "control.sock"))
    assert (place / "control.sock").read_text() == "precious"


def test_a_daemon_that_is_just_starting_is_not_disturbed(place: Path) -> None:
    directory = os.open(place, os.O_RDONLY)
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)
        with pytest.raises(ControlSocketError, match="another daemon is just starting there; try again"):
            Listener(str(place / "control.sock"))
    finally:
        os.close(directory)


def test_the_socket_of_a_successor_is_not_removed(place: Path) -> None:
    first = Listener(str(place / "control.sock"))
    os.rename(first.path, place / "moved")
    second = Listener(first.path)
    first.close()
    assert os.path.exists(second.path)
    second.close()
    second.close()


@pytest.mark.parametrize("length", [108, 109, 300])
def test_a_path_that_no_socket_can_have_is_refused(length: int) -> None:
    with pytest.raises(ControlSocketError, match="longer than 107 bytes; name a shorter one with --control") as caught:
        Listener("/" + "x" * (length - 1))
    assert caught.value.status is Exit.CONTROL_SOCKET


def test_the_longest_path_is_possible(place: Path) -> None:
    path = str(place / "x")
    path += "x" * (listener_module.PATH_LIMIT - len(path))
    Listener(path).close()


def test_a_directory_that_cannot_be_made_is_refused(place: Path) -> None:
    (place / "file").touch()
    with pytest.raises(ControlSocketError, match=r"file/control.sock: .*; name another one with --control"):
        Listener(str(place / "file/control.sock"))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_a_directory_of_another_user_is_refused(place: Path) -> None:
    os.chown(place, NOBODY + 1, -1)
    place.chmod(0o777)
    with another_user(), pytest.raises(ControlSocketError, match="belongs to another user"):
        Listener(str(place / "control.sock"))


def test_a_name_that_cannot_be_bound_leaves_nothing_behind(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: socket.socket, path: str) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(socket.socket, "bind", refuse)
    with pytest.raises(ControlSocketError, match="Permission denied; name another one with --control"):
        Listener(str(place / "control.sock"))


def test_a_socket_for_several_users_is_open_to_all_from_the_first_moment(place: Path) -> None:
    before = os.umask(0o077)
    try:
        listener = Listener(str(place / "control.sock"), shared=True)
        assert stat.S_IMODE(os.stat(listener.path).st_mode) == 0o666
        assert os.umask(0o077) == 0o077
    finally:
        os.umask(before)
    listener.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
@pytest.mark.parametrize(("shared", "mode"), [(False, 0o700), (True, 0o755)])
def test_the_directory_that_an_ordinary_user_has_made_is_as_open_as_the_socket(place: Path, shared: bool, mode: int) -> None:
    place.chmod(0o777)
    with another_user():
        listener = Listener(str(place / "a/control.sock"), shared)
    assert stat.S_IMODE(os.stat(place / "a").st_mode) == mode
    listener.close()


def test_a_socket_is_opened_to_all_and_closed_to_them_again(place: Path) -> None:
    listener = Listener(str(place / "control.sock"))
    for shared, mode in ((True, 0o666), (True, 0o666), (False, 0o600)):
        listener.share(shared)
        assert stat.S_IMODE(os.stat(listener.path).st_mode) == mode
    listener.close()


def test_the_permissions_of_a_successor_and_of_nothing_are_left_alone(place: Path) -> None:
    first = Listener(str(place / "control.sock"))
    os.rename(first.path, place / "moved")
    with pytest.raises(ControlSocketError, match="No such file or directory; start the daemon again"):
        first.share(True)
    second = Listener(first.path)
    first.share(True)
    assert stat.S_IMODE(os.stat(second.path).st_mode) == 0o600
    first.close()
    second.close()
