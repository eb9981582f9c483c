"""docs/extending.md does what it says: its blocks make an API version 6 of a copy of the source tree, which then works.

A block stands below a line that says to which file it belongs, and where in it. The one of the section on private messages
is a module of a vendor's own, and touches nothing of ours.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import Any, Callable, NamedTuple, Optional

import pytest

from common import catalogue, codec, errors, events, messages
from common.catalogue import CATALOGUE, Catalogue
from common.session import GuestSession, HostSession
from common.versions import Version, newest
from host_agent.client import Client, ClientError
from host_agent.demo import emulator
from host_agent.exits import Exit

ROOT = pathlib.Path(__file__).parent.parent
PAGE = ROOT / "docs" / "extending.md"
PRIVATE = "## Private messages"

#: What a copy of the source tree has.
TREE = ("common", "docs", "guest_agent", "host_agent", "packaging", "tests", "README.md", "pyproject.toml", "setup.cfg")

#: What a new version takes, apart from documents and tests: rows, classes, a collector and a command.
PLACES = {
    "common/catalogue.py",
    "common/messages.py",
    "common/versions.py",
    "guest_agent/collectors/__init__.py",
    "guest_agent/collectors/boot.py",
    "guest_agent/commands/__init__.py",
    "guest_agent/commands/count_processes.py",
    "guest_agent/schedule.py",
}

#: The tests that compare what is printed, sampled or said with the tables, and those of the new modules.
TABLE_TESTS = (
    "tests/common/test_answers.py",
    "tests/common/test_catalogue.py",
    "tests/common/test_messages.py",
    "tests/common/test_settings.py",
    "tests/common/test_versions.py",
    "tests/guest_agent/collectors/test_boot.py",
    "tests/guest_agent/collectors/test_collectors.py",
    "tests/guest_agent/commands/test_commands.py",
    "tests/guest_agent/commands/test_count_processes.py",
    "tests/guest_agent/test_options.py",
    "tests/guest_agent/test_schedule.py",
    "tests/host_agent/test_refusals.py",
    "tests/packaging/test_defaults.py",
    "tests/test_comparison.py",
    "tests/test_docs.py",
    "tests/test_layering.py",
)

#: The programs that write what is printed of the tables, and what they write to.
WRITERS = ("packaging/defaults.py", "docs/tables.py")
WRITTEN = ("packaging/etc/", "packaging/man/settings/", "docs/protocol.md", "docs/configuration.md")

VM = "web-1"
NEW = {"boot-id", "count-processes"}

#: When a test gives up waiting, in seconds. Nothing is asserted about time.
PATIENCE = 30.0

_HEAD = re.compile(
    r"^`(?P<path>[^`]+)`, (?P<place>new|at its end|(?:below|in place of) (?P<ticks>`+)(?P<anchor>[^\n]+?)(?P=ticks)):\n"
    r"\n```\w*\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)


class Block(NamedTuple):
    """A piece of *path*: ``new``, ``at its end``, or ``below`` or ``in place of`` the one line that begins with *anchor*."""

    path: str
    place: str
    anchor: Optional[str]
    text: str


def blocks(text: str) -> list[Block]:
    return [
        Block(found["path"], found["place"].partition(" `")[0], found["anchor"], found["text"])
        for found in _HEAD.finditer(text)
    ]


def apply(block: Block, tree: pathlib.Path) -> None:
    path = tree / block.path
    if block.place == "new":
        assert not path.exists(), f"{block.path} is there already"
        path.write_text(block.text, encoding="utf-8")
        return
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    if block.anchor is None:
        lines.append(f"\n\n{block.text}")
    else:
        found = [number for number, line in enumerate(lines) if line.lstrip().startswith(block.anchor)]
        assert len(found) == 1, f"{block.path}: {len(found)} lines begin with {block.anchor}"
        lines[found[0]] = block.text if block.place == "in place of" else lines[found[0]] + block.text
    path.write_text("".join(lines), encoding="utf-8")


def page() -> tuple[str, str]:
    """What the page says of released messages, and of private ones."""
    released, heading, private = PAGE.read_text(encoding="utf-8").partition(f"\n{PRIVATE}\n")
    assert heading
    return released, private


def environment(tree: pathlib.Path) -> dict[str, str]:
    """That of a program of *tree*; what is covered there is not our code."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("COVERAGE_", "PYTEST_"))}
    return {**kept, "PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"}


def run(tree: pathlib.Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Python with these *arguments* on the code of *tree*."""
    return subprocess.run(
        [sys.executable, *arguments], cwd=tree, env=environment(tree), capture_output=True, text=True, check=False
    )


def files(tree: pathlib.Path) -> dict[str, bytes]:
    """What is in *tree*, by path."""
    paths = [each for top in TREE for each in (tree / top, *(tree / top).rglob("*")) if each.is_file()]
    return {str(each.relative_to(tree)): each.read_bytes() for each in paths if "__pycache__" not in each.parts}


@pytest.fixture(scope="module")
def extended(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A copy of the source tree with all that the page adds."""
    tree = tmp_path_factory.mktemp("extended")
    for top in TREE:
        if (ROOT / top).is_dir():
            shutil.copytree(ROOT / top, tree / top, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / top, tree / top)
    for block in blocks(page()[0]):
        apply(block, tree)
    for writer in WRITERS:
        written = run(tree, writer)
        assert (written.returncode, written.stderr) == (0, "")
    return tree


# ---- The page ----


def test_no_block_of_the_page_is_without_its_place() -> None:
    for part in page():
        assert len(blocks(part)) == len(re.findall(r"^```(?!sh$)\w+$", part, re.MULTILINE))
    assert all(f"python {writer} " in page()[0] for writer in WRITERS)


@pytest.mark.parametrize("anchor", ["no-such-line", "def "])
def test_a_place_that_is_not_one_line_is_noticed(tmp_path: pathlib.Path, anchor: str) -> None:
    (tmp_path / "module.py").write_text("def a(): ...\ndef b(): ...\n", encoding="utf-8")
    with pytest.raises(AssertionError, match=f"lines begin with {anchor}"):
        apply(Block("module.py", "below", anchor, "x\n"), tmp_path)


def test_a_version_takes_rows_classes_a_collector_and_a_command_and_nothing_else(extended: pathlib.Path) -> None:
    before, after = files(ROOT), files(extended)
    changed = {path for path in before.keys() | after.keys() if before.get(path) != after.get(path)}
    named = {block.path for block in blocks(page()[0])}
    assert named <= changed
    assert {path for path in changed - named if not path.startswith(WRITTEN)} == set()
    assert {path for path in changed if path.startswith(("common/", "guest_agent/", "host_agent/"))} == PLACES


@pytest.mark.once
def test_the_tables_of_the_extended_tree_agree(extended: pathlib.Path) -> None:
    tested = run(extended, "-m", "pytest", "-q", "-p", "no:cacheprovider", *TABLE_TESTS)
    assert tested.returncode == 0, tested.stdout


def test_the_extended_programs_know_the_version(extended: pathlib.Path) -> None:
    assert "guest API versions: 0-6" in run(extended, "-m", "guest_agent.main", "--version").stdout
    assert newest() == 5


# ---- The programs ----


class Side(NamedTuple):
    """A daemon or an agent: the code that it runs, and its options."""

    tree: pathlib.Path
    options: tuple[str, ...] = ()


class Conversation:
    """A daemon and an agent over an emulated port; both are real processes.

    :ivar names: the names of the messages that passed, in both directions.
    """

    def __init__(self, place: pathlib.Path, host: Side, guest: Side) -> None:
        self.names: set[str] = set()
        self._passing = threading.Lock()
        self._place = place
        self._host = host
        self._guest = guest
        self._client = Client(str(place / "control"))
        self._running = contextlib.ExitStack()

    def __enter__(self) -> Conversation:
        with contextlib.ExitStack() as running:
            port = running.enter_context(emulator.EmulatedPort(self._note))
            port.plug(self._place / "ports" / f"domain-1-{VM}")
            daemon = ("--directory", str(self._place / "ports"), "--control", str(self._place / "control"))
            running.enter_context(self._program("host_agent.main", self._host, *daemon))
            running.enter_context(self._program("guest_agent.main", self._guest, "--port", port.guest_path))
            self._running = running.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._running.close()

    def until(self, condition: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
        """The guest as the daemon describes it, once *condition* holds of that."""
        deadline = time.monotonic() + PATIENCE
        guest: Optional[dict[str, Any]] = None
        while guest is None or not condition(guest):
            assert time.monotonic() < deadline, self._said()
            time.sleep(0.01)
            with contextlib.suppress(ClientError):
                guest = self._client.guest(VM)
        return guest

    def send(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Send a command by the operator's program of the host."""
        control = ("--control", str(self._place / "control"))
        return run(self._host.tree, "-m", "host_agent.cli", *control, "send", "--json", VM, *words)

    def _note(self, direction: str, line: bytes, _: float) -> None:
        if line:
            with self._passing:
                self.names.add(codec.decode(line)[0])

    @contextlib.contextmanager
    def _program(self, module: str, side: Side, *arguments: str) -> Iterator[None]:
        with (self._place / f"{module}.log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", module, "--config", os.devnull, *arguments, *side.options],
                cwd=side.tree,
                env=environment(side.tree),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            yield
            process.terminate()
            process.wait(PATIENCE)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def _said(self) -> str:
        return "\n".join(log.read_text(encoding="utf-8") for log in self._place.glob("*.log"))


@pytest.fixture
def place() -> Iterator[pathlib.Path]:
    """A directory whose path is short enough for sockets in it."""
    directory = pathlib.Path(tempfile.mkdtemp(prefix="va-"))
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


def agreed_on(version: int) -> Callable[[dict[str, Any]], bool]:
    """Both sides are there, and the guest has told all that it tells at *version*."""

    def condition(guest: dict[str, Any]) -> bool:
        told = {"capabilities", "fqdn"} | ({"boot-id"} if version >= 6 else set())
        api: Mapping[str, Any] = guest["api"]
        return (api["agreed"], api["in_use"]) == (version, version) and told <= guest["facts"].keys()

    return condition


def test_a_daemon_and_an_agent_of_the_new_version_tell_and_do_what_it_brings(
    extended: pathlib.Path, place: pathlib.Path
) -> None:
    own_name = pathlib.Path("/proc/self/comm").read_text(encoding="utf-8").rstrip("\n")
    with Conversation(place, Side(extended), Side(extended)) as both:
        guest = both.until(agreed_on(6))
        counted = both.send("count-processes", f"name={own_name}")
        wrong = both.send("count-processes", "name=a-name-of-16-byte")
    boot = pathlib.Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
    assert _fact(guest, "boot-id") == {"id": boot}
    completion = json.loads(counted.stdout)["completion"]
    assert (counted.returncode, completion["done"]) == (Exit.OK, True)
    assert completion["result"]["count"] >= 1
    assert wrong.returncode == Exit.GUEST_FAILED
    assert "the kernel keeps 1 to 15 bytes of one" in wrong.stdout + wrong.stderr
    assert both.names >= NEW


@pytest.mark.parametrize(
    ("host_limit", "guest_is_new", "guest_limit", "remedy"),
    [
        ((), False, (), f"upgrade vmaccord-guest-agent in {VM}, or raise its max-api-version"),
        ((), True, ("--max-api-version", "5"), f"upgrade vmaccord-guest-agent in {VM}, or raise its max-api-version"),
        (("--max-api-version", "5"), True, (), "upgrade vmaccord-host-agent here, or raise its max-api-version"),
    ],
    ids=["released guest", "limited guest", "limited host"],
)
def test_below_the_new_version_nothing_of_it_is_sent_and_the_refusal_says_who_must_upgrade(
    extended: pathlib.Path,
    place: pathlib.Path,
    host_limit: tuple[str, ...],
    guest_is_new: bool,
    guest_limit: tuple[str, ...],
    remedy: str,
) -> None:
    guest = Side(extended if guest_is_new else ROOT, guest_limit)
    with Conversation(place, Side(extended, host_limit), guest) as both:
        both.until(agreed_on(5))
        refused = both.send("count-processes", "name=x")
    assert refused.returncode == Exit.REFUSED_BY_VERSION
    assert "count-processes needs 6" in refused.stderr
    assert refused.stderr.endswith(f": {remedy}\n")
    assert not both.names & NEW


def test_a_released_daemon_is_told_nothing_of_the_new_version(extended: pathlib.Path, place: pathlib.Path) -> None:
    with Conversation(place, Side(ROOT), Side(extended)) as both:
        both.until(agreed_on(5))
        unknown = both.send("count-processes", "name=x")
        answered = both.send("load")
    assert unknown.returncode == Exit.USAGE
    assert answered.returncode == Exit.OK
    assert not both.names & NEW


def _fact(guest: Mapping[str, Any], name: str) -> Any:
    return guest["facts"][name]["value"]


# ---- Private messages ----


@pytest.fixture
def vendor(tmp_path: pathlib.Path) -> ModuleType:
    """The vendor's module of the page."""
    (block,) = blocks(page()[1])
    apply(block, tmp_path)
    spec = importlib.util.spec_from_file_location("example_org", tmp_path / block.path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Talk:
    """Two sessions back to back, each with its table; the guest says what it lets the host do.

    :ivar to_guest: the names of what the host has written; ``to_host`` likewise.
    :ivar heard: what the host was told, and ``asked`` the guest.
    """

    def __init__(self, host: Catalogue, guest: Catalogue, offers: Mapping[str, bool]) -> None:
        self.host = HostSession(newest(), "host-1", catalogue=host)
        self.guest = GuestSession(newest(), "agent-1", catalogue=guest)
        self.to_guest: list[str] = []
        self.to_host: list[str] = []
        self.heard: list[events.Event] = []
        self.asked: list[events.Event] = []
        self._offers = offers
        self.host.connected(0.0)
        self.guest.opened(0.0)
        self.exchange()

    def exchange(self) -> None:
        """Carry lines both ways until both are silent."""
        while True:
            to_guest = self.host.data_to_send()
            self.guest.receive_data(to_guest, 0.0)
            self._answer()
            to_host = self.guest.data_to_send()
            self.host.receive_data(to_host, 0.0)
            self.heard += self.host.events()
            self.to_guest += _names(to_guest)
            self.to_host += _names(to_host)
            if not to_guest and not to_host:
                return

    def received(self, name: str) -> list[events.MessageReceived]:
        """What has come to either side under that *name*."""
        both = (*self.asked, *self.heard)
        return [each for each in both if isinstance(each, events.MessageReceived) and each.name == name]

    def _answer(self) -> None:
        for event in self.guest.events():
            self.asked.append(event)
            if isinstance(event, events.HeartbeatWanted):
                self.guest.send_heartbeat(None, None)
            elif isinstance(event, events.FactsWanted) and "capabilities" in event.names:
                self.guest.send(messages.Capabilities(commands=self._offers, features=()))


def _names(lines: bytes) -> list[str]:
    return [codec.decode(line)[0] for line in lines.splitlines() if line]


DUMP, ALARM = "example.org/dump", "example.org/alarm"


def test_a_vendor_adds_rows_to_the_released_ones_at_no_version_of_its_own(vendor: ModuleType) -> None:
    rows = vendor.CATALOGUE.rows
    assert rows[: len(CATALOGUE.rows)] == CATALOGUE.rows
    assert [(row.name, row.since) for row in rows[len(CATALOGUE.rows) :]] == [(DUMP, Version.V4), (ALARM, Version.V4)]
    assert not any("/" in row.name for row in CATALOGUE.rows)


def test_two_sides_of_a_vendor_speak_its_messages(vendor: ModuleType) -> None:
    talk = Talk(vendor.CATALOGUE, vendor.CATALOGUE, {DUMP: True})
    talk.host.send(vendor.Dump("sales"), reply_id="r1")
    talk.exchange()
    (asked,) = talk.received(DUMP)
    assert (asked.message, asked.reply_id) == (vendor.Dump("sales"), "r1")
    talk.guest.send(vendor.Alarm("no room"))
    talk.guest.send(messages.Completion("r1", True, {"path": "/var/dump"}))
    talk.exchange()
    assert [each.message for each in talk.received(ALARM)] == [vendor.Alarm("no room")]
    assert [each.message for each in talk.received("completion")] == [messages.Completion("r1", True, {"path": "/var/dump"})]


@pytest.mark.parametrize(("offers", "want"), [({"echo": True}, errors.Want.NOT_OFFERED), ({DUMP: False}, errors.Want.OFF)])
def test_a_guest_that_does_not_offer_it_is_sent_no_byte_of_a_private_command(
    vendor: ModuleType, offers: Mapping[str, bool], want: errors.Want
) -> None:
    talk = Talk(vendor.CATALOGUE, CATALOGUE, offers)
    with pytest.raises(errors.Disabled) as refused:
        talk.host.send(vendor.Dump("sales"))
    talk.exchange()
    assert refused.value.want is want
    assert DUMP not in talk.to_guest


@pytest.mark.parametrize("version", [each for each in Version if each < Version.V4])
def test_below_the_version_of_capabilities_there_are_no_private_messages(vendor: ModuleType, version: Version) -> None:
    talk = Talk(vendor.CATALOGUE, vendor.CATALOGUE, {DUMP: True})
    talk.host.support(version, 0.0)
    talk.exchange()
    with pytest.raises(errors.VersionTooLow):
        talk.host.send(vendor.Dump("sales"))
    with pytest.raises(errors.VersionTooLow):
        talk.guest.send(vendor.Alarm("no room"))


def test_a_released_host_takes_no_harm_from_a_guest_that_offers_more_and_is_sent_nothing_private(vendor: ModuleType) -> None:
    talk = Talk(CATALOGUE, vendor.CATALOGUE, {DUMP: True, "echo": True})
    assert talk.host.capabilities == messages.Capabilities({"echo": True}, ())
    with pytest.raises(errors.NotInCatalogue):
        talk.host.require(DUMP)
    talk.host.require("echo")
    assert ALARM not in talk.to_host
    assert talk.host.counters.dropped == {}


def test_a_private_message_that_comes_all_the_same_costs_its_own_line(vendor: ModuleType) -> None:
    talk = Talk(CATALOGUE, CATALOGUE, {})
    talk.host.receive_data(codec.encode(ALARM, {"text": "no room"}) + codec.encode("fqdn", {"fqdn": "web-1.example"}), 0.0)
    talk.guest.receive_data(codec.encode(DUMP, {"database": "sales", "reply_id": "r1"}) + codec.encode("load", {}), 0.0)
    talk.exchange()
    assert talk.host.counters.dropped == {"unknown": 1}
    assert talk.host.counters.dropped_names == {ALARM: 1}
    assert [each.message for each in talk.received("fqdn")] == [messages.Fqdn("web-1.example")]
    (rejected,) = (each for each in talk.asked if isinstance(each, events.CommandRejected))
    assert (rejected.name, rejected.reply_id, rejected.code) == (DUMP, "r1", messages.Code.UNSUPPORTED)
    assert len(talk.received("load")) == 1


def test_a_vendor_s_row_is_found_by_its_sessions_only(vendor: ModuleType) -> None:
    direction = catalogue.Direction.TO_GUEST
    assert vendor.CATALOGUE.find(direction, DUMP).message_class is vendor.Dump
    assert CATALOGUE.find(direction, DUMP) is None
