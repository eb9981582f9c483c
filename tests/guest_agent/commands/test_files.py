"""Opening files below directories: a real tree, and a real attacker who changes it all the time."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import socket
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

import pytest

from common.messages import Code
from guest_agent.commands import CommandFailed, files
from tests.guest_agent.parts import wait_until

INSIDE = b"inside"
SECRET = b"secret"

#: As often as this an attacker must have been seen at work, and have been too late or too early.
SEEN = 50

#: So few descriptors are enough for a walk, and for who tests it.
FEW = 100


@pytest.fixture
def srv(root: Path) -> Path:
    """The directory below which files may be opened, with ``a/b/file`` in it; ``/etc/b/file`` is outside."""
    for directory, content in ((root / "srv" / "a", INSIDE), (root / "etc", SECRET)):
        (directory / "b").mkdir(parents=True)
        (directory / "b" / "file").write_bytes(content)
    return root / "srv"


@pytest.fixture
def area(root: Path) -> files.Area:
    return files.Area(str(root), ("/var/lib/other", "/srv"), "read")


@pytest.fixture(autouse=True)
def _no_descriptor_is_left() -> Iterator[None]:
    before = set(os.listdir("/proc/self/fd"))
    yield
    assert set(os.listdir("/proc/self/fd")) == before


@contextlib.contextmanager
def attacker(attack: Callable[[], None]) -> Iterator[None]:
    """A process that does this over and over."""
    pid = os.fork()
    if not pid:
        with contextlib.suppress(BaseException):
            while True:
                attack()
        os._exit(1)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def swapping(path: Path, target: Path) -> Callable[[], None]:
    """An attack: *path* becomes a link to *target*, and what it was again."""
    aside, link = path.with_name("aside"), path.with_name("link")
    link.symlink_to(target)

    def attack() -> None:
        path.rename(aside)
        link.rename(path)
        path.rename(link)
        aside.rename(path)

    return attack


def read(area: files.Area, path: str) -> bytes:
    with area.opened(path, os.O_RDONLY) as descriptor:
        return os.read(descriptor, 100)


def why_not(area: files.Area, path: str, flags: int = os.O_RDONLY) -> CommandFailed:
    with pytest.raises(CommandFailed) as raised, area.opened(path, flags):
        pass
    return raised.value


# ---- What may be opened ----


@pytest.mark.parametrize("path", ["/srv/a/b/file", "//srv/./a//b/file", "/srv/a/./b/./file"])
def test_a_file_below_a_directory_is_opened(area: files.Area, srv: Path, path: str) -> None:
    assert read(area, path) == INSIDE


def test_below_the_root_directory_is_everything(area: files.Area, srv: Path) -> None:
    assert read(area._replace(directories=("/",)), "/etc/b/file") == SECRET


@pytest.mark.parametrize("path", ["/etc/b/file", "/srvb/file", "/srv", "/srv/", "/", "/sr"])
def test_what_is_not_below_a_directory_is_refused(area: files.Area, srv: Path, path: str) -> None:
    failed = why_not(area, path)
    assert failed.code is Code.INVALID_ARGUMENTS
    assert str(failed) == f"{path} is not below a directory that read in [files] names; name one there"


@pytest.mark.parametrize("path", ["srv/a/b/file", "", "/srv/../etc/b/file", "/srv/a/../../etc/b/file", "/srv/.."])
def test_a_path_that_is_relative_or_goes_upwards_is_refused(area: files.Area, srv: Path, path: str) -> None:
    failed = why_not(area, path)
    assert failed.code is Code.INVALID_ARGUMENTS
    assert str(failed) == f"{path} is no absolute path without ..; give it from / on"


@pytest.mark.parametrize("name", ["\0", "\ud800"], ids=ascii)
def test_a_name_that_no_file_can_have_is_refused(area: files.Area, srv: Path, name: str) -> None:
    failed = why_not(area, f"/srv/{name}/file")
    assert (failed.code, str(failed)) == (Code.INVALID_ARGUMENTS, "/srv/ can't be the name of a file")


def test_what_does_not_exist_is_said_so_where_the_way_ends(area: files.Area, srv: Path) -> None:
    assert str(why_not(area, "/srv/a/x/y/file")) == "/srv/a/x: No such file or directory"
    assert str(why_not(area, "/srv/a/b/x\n")) == "/srv/a/b/x: No such file or directory"
    assert str(why_not(area, "/srv/a/b/file/x")) == "/srv/a/b/file is no directory"
    assert "File name too long" in str(why_not(area, "/srv/" + "x" * 1000))


@pytest.fixture
def _few_descriptors() -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (FEW, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.usefixtures("_few_descriptors")
def test_a_way_that_is_longer_than_descriptors_last_is_gone_to_its_end(area: files.Area, srv: Path) -> None:
    way = "d/" * 2 * FEW
    (srv / way).mkdir(parents=True)
    (srv / way / "file").write_bytes(INSIDE)
    assert read(area, f"/srv/{way}file") == INSIDE


# ---- Links ----


def test_a_link_in_the_place_of_a_file_is_not_followed(area: files.Area, srv: Path) -> None:
    (srv / "link").symlink_to("a/b/file")
    assert str(why_not(area, "/srv/link")) == "/srv/link is a symbolic link, and none is followed"


def test_a_link_in_the_place_of_a_directory_is_not_followed(area: files.Area, srv: Path) -> None:
    (srv / "link").symlink_to("a")
    assert str(why_not(area, "/srv/link/b/file")) == "/srv/link is a symbolic link, and none is followed"


def test_a_link_in_the_place_of_the_configured_directory_is_not_followed(area: files.Area, srv: Path) -> None:
    srv.rename(srv.with_name("real"))
    srv.symlink_to("real")
    assert str(why_not(area, "/srv/a/b/file")) == "/srv is a symbolic link, and none is followed"


@pytest.mark.parametrize("flags", [os.O_RDONLY, os.O_WRONLY, os.O_WRONLY | os.O_CREAT])
def test_a_file_that_has_another_name_may_be_one_from_elsewhere(area: files.Area, srv: Path, root: Path, flags: int) -> None:
    os.link(root / "etc" / "b" / "file", srv / "a" / "linked")
    failure = why_not(area, "/srv/a/linked", flags)
    assert str(failure).startswith("/srv/a/linked has more than one name (hard links)")
    assert "put a copy in its place" in str(failure)
    (root / "etc" / "b" / "file").unlink()
    assert read(area, "/srv/a/linked") == SECRET


def test_links_of_the_kernel_are_not_followed_either() -> None:
    area = files.Area("/", ("/proc",), "read")
    assert "is a symbolic link" in str(why_not(area, "/proc/self/fd/0"))
    assert f"/proc/{os.getpid()}/root is a symbolic link" in str(why_not(area, f"/proc/{os.getpid()}/root/etc/passwd"))


def test_a_link_that_leads_nowhere_makes_no_file(area: files.Area, srv: Path) -> None:
    (srv / "link").symlink_to(srv / "made")
    assert "is a symbolic link" in str(why_not(area, "/srv/link", os.O_WRONLY | os.O_CREAT))
    assert not (srv / "made").exists()


@pytest.mark.parametrize("flags", [os.O_RDONLY, os.O_RDWR | os.O_CREAT], ids=["reading", "writing"])
@pytest.mark.parametrize(
    ("swapped", "target"), [("a", "etc"), ("a/b", "etc/b"), ("a/b/file", "etc/b/file"), (".", "etc")], ids=str
)
def test_who_swaps_links_in_while_we_walk_leads_us_nowhere(
    area: files.Area, root: Path, srv: Path, swapped: str, target: str, flags: int
) -> None:
    (root / "etc" / "a").symlink_to(root / "etc")
    seen = {"ours": 0, "link": 0}

    def look() -> None:
        try:
            with area.opened("/srv/a/b/file", flags) as descriptor:
                content = os.read(descriptor, 100)
                assert content == INSIDE or (not content and flags & os.O_CREAT)
                seen["ours"] += 1
        except CommandFailed as failure:
            seen["link"] += "is a symbolic link" in str(failure)

    with attacker(swapping(srv / swapped, root / target)):
        wait_until(lambda: min(seen.values()) >= SEEN, look)
    assert (root / "etc" / "b" / "file").read_bytes() == SECRET


@pytest.mark.parametrize("swapped", ["srv", "a", "b", "file"])
def test_what_was_looked_at_is_what_is_opened(
    area: files.Area, root: Path, srv: Path, monkeypatch: pytest.MonkeyPatch, swapped: str
) -> None:
    (root / "etc" / "a").symlink_to(root / "etc")
    way = {"srv": "srv", "a": "srv/a", "b": "srv/a/b", "file": "srv/a/b/file"}[swapped]
    target = {"srv": "etc", "a": "etc", "b": "etc/b", "file": "etc/b/file"}[swapped]
    find = files._Walk._find

    def find_and_swap(walk: Any, name: str, *others: Any) -> int:
        found = find(walk, name, *others)
        if name == swapped:
            (root / way).rename(root / "aside")
            (root / way).symlink_to(root / target)
        return found

    monkeypatch.setattr(files._Walk, "_find", find_and_swap)
    assert read(area, "/srv/a/b/file") == INSIDE


# ---- What is no regular file ----


def test_a_pipe_is_not_waited_at(area: files.Area, srv: Path) -> None:
    os.mkfifo(srv / "pipe")
    for flags in (os.O_RDONLY, os.O_WRONLY | os.O_CREAT):
        assert str(why_not(area, "/srv/pipe", flags)) == "/srv/pipe is no regular file"


def test_a_device_is_not_even_opened(area: files.Area, srv: Path) -> None:
    nobodys = os.makedev(4095, 4095)
    for kind, name in ((stat.S_IFCHR, "characters"), (stat.S_IFBLK, "blocks")):
        try:
            os.mknod(srv / name, kind | 0o600, nobodys)
        except PermissionError:
            pytest.skip("only root can make devices")
        assert str(why_not(area, f"/srv/{name}")) == f"/srv/{name} is no regular file"


def test_neither_a_socket_nor_a_directory_is_a_file(area: files.Area, srv: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(srv)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("socket")
        assert str(why_not(area, "/srv/socket")) == "/srv/socket is no regular file"
    assert str(why_not(area, "/srv/a")) == "/srv/a is no regular file"


def test_who_swaps_a_pipe_in_does_not_make_us_wait(area: files.Area, srv: Path) -> None:
    path, pipe, aside = srv / "a" / "b" / "file", srv / "a" / "b" / "pipe", srv / "a" / "b" / "aside"
    os.mkfifo(pipe)
    seen = {"ours": 0, "pipe": 0}

    def attack() -> None:
        path.rename(aside)
        pipe.rename(path)
        path.rename(pipe)
        aside.rename(path)

    def look() -> None:
        try:
            seen["ours"] += read(area, "/srv/a/b/file") == INSIDE
        except CommandFailed as failure:
            seen["pipe"] += "is no regular file" in str(failure)

    with attacker(attack):
        wait_until(lambda: min(seen.values()) >= SEEN, look)


# ---- Files that are made ----


def test_a_file_that_is_made_is_for_its_owner_alone(area: files.Area, srv: Path) -> None:
    with area.opened("/srv/new", os.O_WRONLY | os.O_CREAT) as descriptor:
        os.write(descriptor, b"x")
    status = (srv / "new").stat()
    assert (stat.S_IMODE(status.st_mode), status.st_uid, status.st_size) == (0o600, os.geteuid(), 1)


def test_a_file_that_exists_stays_whose_and_what_it_is(area: files.Area, srv: Path) -> None:
    path = srv / "a" / "b" / "file"
    path.chmod(0o640)
    with area.opened("/srv/a/b/file", os.O_WRONLY | os.O_CREAT):
        pass
    assert (stat.S_IMODE(path.stat().st_mode), path.read_bytes()) == (0o640, INSIDE)


def test_no_directory_is_made(area: files.Area, srv: Path) -> None:
    assert str(why_not(area, "/srv/x/file", os.O_WRONLY | os.O_CREAT)) == "/srv/x: No such file or directory"


def test_a_file_that_comes_and_goes_meanwhile_is_opened_or_made(area: files.Area, srv: Path) -> None:
    path = srv / "file"
    seen = {"theirs": 0, "ours": 0}

    def attack() -> None:
        path.write_bytes(b"theirs")
        path.unlink(missing_ok=True)

    def look() -> None:
        with area.opened("/srv/file", os.O_RDWR | os.O_CREAT) as descriptor:
            seen["theirs" if os.read(descriptor, 100) else "ours"] += 1
        path.unlink(missing_ok=True)

    with attacker(attack):
        wait_until(lambda: min(seen.values()) >= SEEN, look)


def test_nobody_can_keep_us_looking_for_ever(area: files.Area, srv: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_ATTEMPTS", 0)
    why = "/srv/file is made and taken away all the time; try again"
    assert str(why_not(area, "/srv/file", os.O_WRONLY | os.O_CREAT)) == why


# ---- Whether anything can be opened ----


def test_an_area_without_directories_is_closed(area: files.Area) -> None:
    why = area._replace(directories=()).why_closed()
    assert why == "no directory is configured for it; name one in read in [files]"


def test_an_area_is_open_where_all_its_directories_can_be_entered(area: files.Area, root: Path, srv: Path) -> None:
    assert area.why_closed() == "/var: No such file or directory; correct read in [files]"
    (root / "var" / "lib" / "other").mkdir(parents=True)
    assert area.why_closed() is None
    srv.rename(srv.with_name("real"))
    srv.symlink_to("real")
    assert area.why_closed() == "/srv is a symbolic link, and none is followed; correct read in [files]"
