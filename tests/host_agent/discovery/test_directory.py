from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Optional

import asyncinotify
import pytest

from host_agent.discovery import PORTS, Added, Event, Removed
from host_agent.discovery.directory import DirectoryDiscovery, NoInotify, guest_name
from tests.host_agent.guests import make_socket
from tests.host_agent.parts import NOBODY, another_user, run, until

LEGACY, CURRENT = PORTS
NEW_STYLE = "/run/libvirt/qemu/channel"


@pytest.mark.parametrize(
    ("directory", "subdirectory", "name"),
    [
        ("/x", "domain-3-web", "web"),
        ("/x", "domain-12-domain-3-web", "domain-3-web"),
        ("/x", "web", "web"),
        ("/x", "3-web", "3-web"),
        ("/x", "domain-web", "domain-web"),
        ("/x", "domain-3-", "domain-3-"),
        ("/x", "domain--web", "domain--web"),
        (NEW_STYLE, "3-web", "web"),
        (NEW_STYLE, "3-4-web", "4-web"),
        (NEW_STYLE, "domain-3-web", "web"),
        (NEW_STYLE, "web", "web"),
        (NEW_STYLE + "/target", "3-web", "3-web"),
        ("/run/user/1000/libvirt/qemu/channel", "3-web", "web"),
        ("/x", "domain-1-Zürich 2", "Zürich 2"),
        ("/x", "domain-1-\u202eevil", "\u202eevil"),
        ("/x", "domain-1-a\x1b[31mb", None),
        ("/x", "domain-1-a\nb", None),
        ("/x", "domain-1-a\x7f", None),
        ("/x", "domain-1-a\x9b", None),
        ("/x", "domain-1-\udcff", None),
    ],
)
def test_a_guest_is_called_like_its_vm(directory: str, subdirectory: str, name: Optional[str]) -> None:
    assert guest_name(directory, subdirectory) == name


class Watched:
    """A running discovery, and what it reported."""

    def __init__(self, *directories: Path) -> None:
        self.events: list[Event] = []
        self.discovery = DirectoryDiscovery(map(str, directories), self.events.append)

    @contextlib.asynccontextmanager
    async def run(self) -> AsyncIterator[Watched]:
        self.discovery.open()
        task = asyncio.ensure_future(self.discovery.run())
        # From here on everything comes from the kernel: the task waits for its events.
        await asyncio.sleep(0)
        try:
            yield self
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            self.discovery.close()

    @property
    def ports(self) -> dict[str, str]:
        """What the events add up to."""
        known: dict[str, str] = {}
        for event in self.events:
            if isinstance(event, Added):
                known[event.name] = event.path
            else:
                assert known.pop(event.name) == event.path
        return known

    async def until(self, **expected: Path) -> None:
        wanted = {name: str(path) for name, path in expected.items()}
        await until(lambda: self.ports == wanted)


def test_what_is_there_at_the_start_is_reported_before_anything_is_awaited(tmp_path: Path) -> None:
    make_socket(tmp_path / "domain-1-web" / LEGACY)
    make_socket(tmp_path / "domain-2-db" / CURRENT)
    watched = Watched(tmp_path)
    watched.discovery.open()
    watched.discovery.close()
    assert watched.events == [
        Added("web", str(tmp_path / "domain-1-web" / LEGACY)),
        Added("db", str(tmp_path / "domain-2-db" / CURRENT)),
    ]


def test_sockets_that_come_and_go_are_noticed(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with Watched(tmp_path).run() as watched:
            port = tmp_path / "domain-1-web" / CURRENT
            make_socket(port)
            await watched.until(web=port)
            port.unlink()
            await watched.until()
            make_socket(port)
            await watched.until(web=port)
            shutil.rmtree(port.parent)
            await watched.until()
            make_socket(port)
            await watched.until(web=port)

    run(scenario())


def test_many_guests_that_come_at_once_are_all_found(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with Watched(tmp_path).run() as watched:
            ports = {f"vm{number}": tmp_path / f"domain-{number}-vm{number}" / CURRENT for number in range(200)}
            for port in ports.values():
                make_socket(port)
            await watched.until(**ports)
            assert len(watched.events) == 200
            for port in ports.values():
                shutil.rmtree(port.parent)
            await watched.until()

    run(scenario())


def test_the_legacy_port_is_preferred_where_both_exist(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with Watched(tmp_path).run() as watched:
            make_socket(tmp_path / "web" / CURRENT)
            await watched.until(web=tmp_path / "web" / CURRENT)
            make_socket(tmp_path / "web" / LEGACY)
            await watched.until(web=tmp_path / "web" / LEGACY)
            (tmp_path / "web" / LEGACY).unlink()
            await watched.until(web=tmp_path / "web" / CURRENT)
            assert not [event for event in watched.events if isinstance(event, Removed)]

    run(scenario())


def test_a_renamed_sub_directory_is_another_vm(tmp_path: Path) -> None:
    async def scenario() -> None:
        make_socket(tmp_path / "domain-1-web" / CURRENT)
        async with Watched(tmp_path).run() as watched:
            (tmp_path / "domain-1-web").rename(tmp_path / "domain-1-db")
            await watched.until(db=tmp_path / "domain-1-db" / CURRENT)
            (tmp_path / "domain-1-db" / CURRENT).unlink()
            await watched.until()
            make_socket(tmp_path / "domain-1-db" / LEGACY)
            await watched.until(db=tmp_path / "domain-1-db" / LEGACY)

    run(scenario())


def test_sub_directories_that_swap_their_names_are_still_followed(tmp_path: Path) -> None:
    async def scenario() -> None:
        make_socket(tmp_path / "a" / CURRENT)
        make_socket(tmp_path / "b" / LEGACY)
        async with Watched(tmp_path).run() as watched:
            (tmp_path / "a").rename(tmp_path / "c")
            (tmp_path / "b").rename(tmp_path / "a")
            (tmp_path / "c").rename(tmp_path / "b")
            await watched.until(a=tmp_path / "a" / LEGACY, b=tmp_path / "b" / CURRENT)
            (tmp_path / "a" / LEGACY).unlink()
            await watched.until(b=tmp_path / "b" / CURRENT)
            make_socket(tmp_path / "a" / CURRENT)
            make_socket(tmp_path / "b" / LEGACY)
            await watched.until(a=tmp_path / "a" / CURRENT, b=tmp_path / "b" / LEGACY)

    run(scenario())


def kernel_watches() -> int:
    """How many watches the kernel keeps for this process."""
    described = [each.read_text(encoding="ascii") for each in Path("/proc/self/fdinfo").iterdir() if each.exists()]
    return sum(text.count("inotify wd:") for text in described)


def test_no_watch_is_left_behind_for_what_is_gone(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with Watched(tmp_path / "ports").run() as watched:
            make_socket(tmp_path / "ports/last" / CURRENT)
            await watched.until(last=tmp_path / "ports/last" / CURRENT)
            at_rest = kernel_watches()
            for _ in range(3):
                make_socket(tmp_path / "ports/web" / CURRENT)
                await watched.until(web=tmp_path / "ports/web" / CURRENT, last=tmp_path / "ports/last" / CURRENT)
                (tmp_path / "ports/web").rename(tmp_path / "away")
                make_socket(tmp_path / "ports/web" / LEGACY)
                await watched.until(web=tmp_path / "ports/web" / LEGACY, last=tmp_path / "ports/last" / CURRENT)
                assert kernel_watches() == at_rest + 1
                shutil.rmtree(tmp_path / "ports/web")
                shutil.rmtree(tmp_path / "away")
                await watched.until(last=tmp_path / "ports/last" / CURRENT)
                assert kernel_watches() == at_rest
            (followed,) = watched.discovery._directories
            assert set(followed._watches) == set(followed._ports) == set(followed._names.values()) == {"last"}
            (tmp_path / "ports").rename(tmp_path / "away")
            await watched.until()
            assert kernel_watches() == at_rest - 2

    run(scenario())


def test_what_is_no_socket_is_no_port(tmp_path: Path) -> None:
    async def scenario() -> None:
        (tmp_path / "file").mkdir()
        (tmp_path / "file" / CURRENT).touch()
        (tmp_path / "link").mkdir()
        make_socket(tmp_path / "elsewhere")
        (tmp_path / "link" / CURRENT).symlink_to(tmp_path / "elsewhere")
        make_socket(tmp_path / "real" / CURRENT)
        (tmp_path / "linked").symlink_to(tmp_path / "real")
        make_socket(tmp_path / "other" / "some-other-port")
        async with Watched(tmp_path).run() as watched:
            assert watched.ports == {"real": str(tmp_path / "real" / CURRENT)}
            (tmp_path / "file" / CURRENT).unlink()
            make_socket(tmp_path / "file" / CURRENT)
            await watched.until(real=tmp_path / "real" / CURRENT, file=tmp_path / "file" / CURRENT)

    run(scenario())


def test_what_looks_like_a_port_and_is_none_is_one_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    ports = tmp_path / "ports"
    for name in ("file", "link", "pipe"):
        (ports / name).mkdir(parents=True)
    (ports / "file" / CURRENT).touch()
    make_socket(tmp_path / "elsewhere" / CURRENT)
    (ports / "link" / LEGACY).symlink_to(tmp_path / "elsewhere" / CURRENT)
    os.mkfifo(ports / "pipe" / CURRENT)
    (ports / "linked").symlink_to(tmp_path / "elsewhere")
    (ports / "no-directory").touch()
    (ports / "leads-nowhere").symlink_to(tmp_path / "nowhere")
    expected = [
        f"{ports}/file/{CURRENT}: is a regular file, no socket: ignored; remove it",
        f"{ports}/link/{LEGACY}: is a symbolic link, no socket: ignored; remove it",
        f"{ports}/linked: is a symbolic link to a directory: ignored; make the VM's directory itself here",
        f"{ports}/pipe/{CURRENT}: is something else, no socket: ignored; remove it",
    ]

    async def scenario() -> None:
        async with Watched(ports).run() as watched:
            for each in ("file", "link", "pipe"):
                (ports / each).chmod(0o700)
            make_socket(ports / "real" / CURRENT)
            await watched.until(real=ports / "real" / CURRENT)
            watched.discovery._directories[0]._attach()
            assert caplog.messages == expected
            for each in ("file", "link", "pipe"):
                shutil.rmtree(ports / each)
            (ports / "linked").unlink()
            (ports / "real" / CURRENT).unlink()
            await watched.until()
            assert watched.discovery._directories[0]._told == set()

    run(scenario())


def test_a_directory_that_is_not_there_is_said_once_each_time(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    ports = tmp_path / "a/ports"

    async def scenario() -> None:
        async with Watched(ports).run() as watched:
            (tmp_path / "a").mkdir()
            make_socket(ports / "web" / CURRENT)
            await watched.until(web=ports / "web" / CURRENT)
            shutil.rmtree(ports)
            await watched.until()

    run(scenario())
    assert caplog.messages == [f"{ports}: does not exist yet: waiting for it"] * 2


def test_a_directory_that_does_not_exist_yet_is_waited_for(tmp_path: Path) -> None:
    async def scenario() -> None:
        directory = tmp_path / "a/b/c"
        async with Watched(directory).run() as watched:
            (tmp_path / "a").mkdir()
            (tmp_path / "unrelated").mkdir()
            await asyncio.sleep(0)
            make_socket(directory / "web" / CURRENT)
            await watched.until(web=directory / "web" / CURRENT)

    run(scenario())


def test_a_tree_that_is_moved_into_place_is_found(tmp_path: Path) -> None:
    async def scenario() -> None:
        make_socket(tmp_path / "new/b/web" / CURRENT)
        async with Watched(tmp_path / "a/b").run() as watched:
            (tmp_path / "new").rename(tmp_path / "a")
            await watched.until(web=tmp_path / "a/b/web" / CURRENT)

    run(scenario())


def test_a_directory_removed_and_made_again_is_followed_again(tmp_path: Path) -> None:
    async def scenario() -> None:
        port = tmp_path / "a/b/web" / CURRENT
        make_socket(port)
        async with Watched(tmp_path / "a/b").run() as watched:
            for _ in range(3):
                shutil.rmtree(tmp_path / "a")
                await watched.until()
                make_socket(port)
                await watched.until(web=port)

    run(scenario())


def test_a_directory_whose_ancestor_is_moved_away_is_gone(tmp_path: Path) -> None:
    async def scenario() -> None:
        port = tmp_path / "a/b/web" / CURRENT
        make_socket(port)
        async with Watched(tmp_path / "a/b").run() as watched:
            (tmp_path / "a").rename(tmp_path / "old")
            await watched.until()
            make_socket(tmp_path / "old/b/db" / CURRENT)
            make_socket(port)
            await watched.until(web=port)

    run(scenario())


def test_a_directory_moved_away_is_gone_and_its_successor_is_followed(tmp_path: Path) -> None:
    async def scenario() -> None:
        port = tmp_path / "ports/web" / CURRENT
        make_socket(port)
        async with Watched(tmp_path / "ports").run() as watched:
            (tmp_path / "ports").rename(tmp_path / "old")
            await watched.until()
            make_socket(port)
            await watched.until(web=port)

    run(scenario())


def test_a_file_in_place_of_the_directory_is_waited_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        (tmp_path / "ports").touch()
        async with Watched(tmp_path / "ports").run() as watched:
            (tmp_path / "ports").unlink()
            make_socket(tmp_path / "ports/web" / CURRENT)
            await watched.until(web=tmp_path / "ports/web" / CURRENT)

    run(scenario())
    assert caplog.messages == [f"{tmp_path}/ports: is no directory: waiting for one in its place"]


def test_of_two_sub_directories_with_one_name_the_newest_socket_counts(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        old, new = tmp_path / "domain-3-web" / CURRENT, tmp_path / "domain-4-web" / CURRENT
        make_socket(old)
        os.utime(old, ns=(0, 0))
        async with Watched(tmp_path).run() as watched:
            make_socket(new)
            await watched.until(web=new)
            new.unlink()
            await watched.until(web=old)

    run(scenario())
    assert "web: 2 sockets claim this name, the newest is used" in caplog.text


def test_one_name_in_two_directories_is_one_guest(tmp_path: Path) -> None:
    async def scenario() -> None:
        make_socket(tmp_path / "a/domain-1-web" / CURRENT)
        os.utime(tmp_path / "a/domain-1-web" / CURRENT, ns=(0, 0))
        async with Watched(tmp_path / "a", tmp_path / "b").run() as watched:
            make_socket(tmp_path / "b/domain-1-web" / CURRENT)
            await watched.until(web=tmp_path / "b/domain-1-web" / CURRENT)
            shutil.rmtree(tmp_path / "b")
            await watched.until(web=tmp_path / "a/domain-1-web" / CURRENT)

    run(scenario())


def test_one_directory_below_another_is_no_problem(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with Watched(tmp_path / "a", tmp_path / "a/target").run() as watched:
            make_socket(tmp_path / "a/target/web" / CURRENT)
            make_socket(tmp_path / "a/db" / CURRENT)
            await watched.until(web=tmp_path / "a/target/web" / CURRENT, db=tmp_path / "a/db" / CURRENT)

    run(scenario())


def test_new_permissions_of_a_socket_are_reported_again(tmp_path: Path) -> None:
    async def scenario() -> None:
        port = tmp_path / "web" / CURRENT
        make_socket(port)
        async with Watched(tmp_path).run() as watched:
            port.chmod(0o600)
            await until(lambda: watched.events[1:])
            assert watched.events == [Added("web", str(port))] * 2

    run(scenario())


def test_a_name_with_control_characters_is_refused_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        async with Watched(tmp_path).run() as watched:
            make_socket(tmp_path / "domain-1-\x1b[31m" / CURRENT)
            (tmp_path / "domain-1-\x1b[31m").chmod(0o755)
            make_socket(tmp_path / "web" / CURRENT)
            await watched.until(web=tmp_path / "web" / CURRENT)

    run(scenario())
    assert len(caplog.messages) == 1
    assert caplog.messages[0].endswith("is no VM name; ignored")
    assert "\x1b" not in caplog.text


def test_an_overflow_of_the_queue_leads_to_a_look_at_everything(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    limit = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text(encoding="ascii"))

    async def scenario() -> None:
        gone, come = tmp_path / "gone" / CURRENT, tmp_path / "come" / CURRENT
        make_socket(gone)
        noise = tmp_path / "gone" / "noise"
        async with Watched(tmp_path).run() as watched:
            for _ in range(limit // 2 + 10):
                noise.touch()
                noise.unlink()
            shutil.rmtree(gone.parent)
            make_socket(come)
            await watched.until(come=come)

    run(scenario())
    assert "too many changes at once" in caplog.text


@pytest.fixture
def unprivileged(place: Path) -> Iterator[None]:
    """An ordinary user, to whom permissions apply."""
    if os.geteuid() != 0:
        yield
        return
    os.chown(place, NOBODY, NOBODY)
    with another_user():
        yield


@pytest.mark.usefixtures("unprivileged")
def test_an_unreadable_sub_directory_is_one_warning_and_followed_once_it_is_readable(
    place: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        make_socket(place / "web" / CURRENT)
        (place / "web").chmod(0)
        async with Watched(place).run() as watched:
            (place / "web").chmod(0o100)
            make_socket(place / "db" / CURRENT)
            await watched.until(db=place / "db" / CURRENT)
            (place / "web").chmod(0o700)
            await watched.until(db=place / "db" / CURRENT, web=place / "web" / CURRENT)

    run(scenario())
    assert caplog.messages == [f"{place}/web: Permission denied: guests there can't be found until this user may read it"]


@pytest.mark.usefixtures("unprivileged")
def test_sockets_that_cannot_be_looked_at_are_one_warning(place: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        make_socket(place / "web" / CURRENT)
        (place / "web").chmod(0o400)
        async with Watched(place).run() as watched:
            assert watched.events == []
            (place / "web").chmod(0o700)
            await watched.until(web=place / "web" / CURRENT)

    run(scenario())
    assert len(caplog.messages) == 1


@pytest.mark.usefixtures("unprivileged")
def test_an_unreadable_directory_is_one_warning_and_followed_once_it_is_readable(
    place: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        make_socket(place / "ports/web" / CURRENT)
        (place / "ports").chmod(0)
        async with Watched(place / "ports").run() as watched:
            (place / "ports").chmod(0o700)
            await watched.until(web=place / "ports/web" / CURRENT)

    run(scenario())
    assert len(caplog.messages) == 1


@pytest.mark.usefixtures("unprivileged")
def test_a_directory_below_one_that_may_not_be_read_is_said_once(place: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        (place / "closed").mkdir(mode=0o100)
        async with Watched(place / "closed/ports").run() as watched:
            (place / "closed").chmod(0o700)
            make_socket(place / "closed/ports/web" / CURRENT)
            await watched.until(web=place / "closed/ports/web" / CURRENT)

    run(scenario())
    assert caplog.messages == [
        f"{place}/closed/ports: can't be waited for: this user may not read {place}/closed; start as another user"
    ]


def test_a_kernel_that_gives_no_instance_is_a_failure_that_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(asyncinotify, "Inotify", refuse)
    watched = Watched(tmp_path)
    with pytest.raises(NoInotify, match=r"raise fs\.inotify\.max_user_instances with sysctl"):
        watched.discovery.open()
    watched.discovery.close()


def test_a_kernel_that_gives_no_more_watches_is_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    add_watch = asyncinotify.Inotify.add_watch

    def limited(self: asyncinotify.Inotify, path: str, mask: asyncinotify.Mask) -> asyncinotify.Watch:
        if os.path.dirname(path) == str(tmp_path):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return add_watch(self, path, mask)

    monkeypatch.setattr(asyncinotify.Inotify, "add_watch", limited)
    make_socket(tmp_path / "a" / CURRENT)
    make_socket(tmp_path / "b" / CURRENT)
    caplog.set_level(logging.WARNING)
    watched = Watched(tmp_path)
    watched.discovery.open()
    watched.discovery.close()
    assert watched.events == []
    assert caplog.messages == [
        f"{tmp_path}: no more directories can be watched: raise fs.inotify.max_user_watches with sysctl"
    ]
