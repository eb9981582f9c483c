from __future__ import annotations

import io
import json
import os
import queue
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from host_agent import cli
from host_agent.cli import freezing
from host_agent.client import Client
from host_agent.exits import Exit
from tests.host_agent.operators import EVIL, problem
from tests.host_agent.parts import ROOT

from .commanded import CommandedDaemon, able, done, failed

FREEZE, THAW, STATUS = "filesystem-freeze", "filesystem-thaw", "filesystem-status"

FROZEN = ["/", "/srv/a b"]


class OwnTime:
    """Passes only while somebody sleeps."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.naps = 0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.naps += 1


class Typed(NamedTuple):
    status: int
    out: str
    err: str


@pytest.fixture
def daemon(place: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[CommandedDaemon]:
    with CommandedDaemon(place / "control.sock") as running:
        running.said = {each: [done(mountpoints=FROZEN)] for each in (FREEZE, THAW)}
        running.said[STATUS] = [done(state="thawed", mountpoints=[], thaws_in_s=None)]
        monkeypatch.setenv("VMACCORD_CONTROL", running.path)
        yield running


@pytest.fixture
def own_time(monkeypatch: pytest.MonkeyPatch) -> OwnTime:
    clock = OwnTime()
    monkeypatch.setattr(freezing, "time", clock)
    return clock


@pytest.fixture(autouse=True)
def nothing_of_it_stays() -> Iterator[None]:
    """Whatever happens, signals do afterwards what they did before."""
    before = [signal.getsignal(number) for number in freezing.SIGNALS]
    yield
    assert [signal.getsignal(number) for number in freezing.SIGNALS] == before


@pytest.fixture(autouse=True)
def no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever runs the tests may do so in the foreground of a terminal."""
    monkeypatch.setattr(freezing, "_is_in_foreground", lambda otherwise: otherwise)


def deeds(daemon: CommandedDaemon) -> list[str]:
    """Which commands were sent that do something."""
    return [each for each in daemon.commands if each != STATUS]


def typed(capfd: pytest.CaptureFixture[str], *words: str, thaw_after: float = 30) -> Typed:
    """Type ``vmaccord freeze web-1`` with these *words*."""
    status = cli.main(["freeze", "web-1", "--thaw-after", str(thaw_after), *words])
    return Typed(status, *capfd.readouterr())


def shell(script: str) -> tuple[str, ...]:
    return ("--", "sh", "-c", script)


# ---- How it should be ----


def test_a_command_runs_while_the_guest_is_frozen(
    daemon: CommandedDaemon, place: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    proof = place / "proof"
    seen: list[bool] = []
    for command in (FREEZE, THAW):
        daemon.meanwhile[command] = lambda: seen.append(proof.exists())
    status, out, err = typed(capfd, *shell(f"echo out; echo err >&2; touch {proof}"))
    assert (status, out) == (0, "out\n")
    said = r"vmaccord: web-1: frozen for at most 30 s: /, /srv/a b\nerr\nvmaccord: web-1: thawed after [0-9]+\.[0-9] s\n"
    assert re.fullmatch(said, err)
    assert seen == [False, True]
    assert daemon.sent(FREEZE) == {"name": FREEZE, "arguments": {"thaw_after": 30.0}, "timeout": 60.0, "wait": True}
    assert daemon.sent(THAW)["arguments"] == {}


def test_what_is_to_be_frozen_and_how_long_that_may_take_can_be_said(
    daemon: CommandedDaemon, capfd: pytest.CaptureFixture[str]
) -> None:
    words = ("--mountpoint", "/srv/a b", "--mountpoint", "/", "--timeout", "5", *shell("exit 0"))
    assert typed(capfd, *words, thaw_after=1.5).status == 0
    assert daemon.sent(FREEZE)["arguments"] == {"thaw_after": 1.5, "mountpoints": ["/srv/a b", "/"]}
    assert [daemon.sent(command)["timeout"] for command in (FREEZE, THAW)] == [5.0, 5.0]


def test_the_command_knows_the_guest_and_what_is_frozen_and_no_name_pretends_to_be_two(
    daemon: CommandedDaemon, capfd: pytest.CaptureFixture[str]
) -> None:
    mountpoints = ["/srv/a b", "/x\n/etc", "/nul\0", "\ud800", EVIL]
    daemon.said.update({each: [done(mountpoints=mountpoints)] for each in (FREEZE, THAW)})
    came = typed(capfd, *shell(r'printf "%s\n" "$VMACCORD_GUEST" "$VMACCORD_MOUNTPOINTS"'))
    assert came.status == 0
    assert came.out.splitlines() == ["web-1", "/srv/a b", "/x\\n/etc", "/nul\\x00", "\\ud800", "\\x1b[31m\\u202e[bold]"]
    assert "\x1b" not in came.err


@pytest.mark.parametrize(("script", "status"), [("exit 0", 0), ("exit 3", 3), ("kill -9 $$", 137)])
def test_the_status_is_that_of_the_command(
    daemon: CommandedDaemon, script: str, status: int, capfd: pytest.CaptureFixture[str]
) -> None:
    assert typed(capfd, *shell(script)).status == status
    assert deeds(daemon) == [FREEZE, THAW]


def test_as_json_the_last_line_of_standard_error_says_what_became_of_it(
    daemon: CommandedDaemon, capfd: pytest.CaptureFixture[str]
) -> None:
    came = typed(capfd, "--json", *shell("echo out; exit 3"))
    assert came.out == "out\n"
    report = json.loads(came.err.splitlines()[-1])
    assert report.pop("frozen_s") >= 0
    assert report == {
        "guest": "web-1",
        "mountpoints": FROZEN,
        "thawed": FROZEN,
        "signal": None,
        "problem": None,
        "exit_status": 3,
    }


# ---- What is in vain ----


def test_a_program_that_is_not_there_is_said_before_anything_is_frozen(
    daemon: CommandedDaemon, capfd: pytest.CaptureFixture[str]
) -> None:
    said = "vmaccord: no program '/nonexistent/\\x1b' can be run here: nothing was frozen\n"
    assert typed(capfd, "--", "/nonexistent/\x1b") == Typed(Exit.USAGE, "", said)
    assert deeds(daemon) == []


def test_a_program_that_can_not_be_run_after_all_does_not_leave_the_guest_frozen(
    daemon: CommandedDaemon, place: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    script = place / "script"
    script.write_text("#!/nonexistent/interpreter\n", encoding="utf-8")
    script.chmod(0o755)
    came = typed(capfd, "--", str(script))
    assert came.status == Exit.USAGE
    assert f"{script} can't be run: No such file or directory" in came.err
    assert deeds(daemon) == [FREEZE, THAW]


@pytest.mark.parametrize("command", ["filesystem_freeze", "filesystem_thaw"])
def test_a_guest_that_could_not_be_frozen_or_not_thawed_is_not_asked_to(
    daemon: CommandedDaemon, command: str, capfd: pytest.CaptureFixture[str]
) -> None:
    daemon.guests = [able(**{command: "name it in enable"})]
    assert typed(capfd, *shell("exit 0")) == Typed(Exit.REFUSED_BY_CAPABILITY, "", "vmaccord: name it in enable\n")
    assert deeds(daemon) == []


def test_where_there_is_no_daemon_nothing_is_tried(place: Path, own_time: OwnTime) -> None:
    assert cli.main(["--control", str(place / "none"), "freeze", "g", "--thaw-after", "9", *shell("")]) == Exit.UNREACHABLE
    assert own_time.naps == 0


@pytest.mark.parametrize(
    ("said", "status", "text"),
    [
        (problem("version-too-low", 409, "upgrade it"), Exit.REFUSED_BY_VERSION, "vmaccord: upgrade it\n"),
        (failed("frozen", "frozen by another"), Exit.GUEST_FAILED, "frozen by another\n"),
    ],
)
def test_a_guest_that_surely_did_not_freeze_is_not_thawed_for_it_can_be_frozen_for_another(
    daemon: CommandedDaemon, said: Any, status: Exit, text: str, capfd: pytest.CaptureFixture[str]
) -> None:
    daemon.said[FREEZE] = [said]
    came = typed(capfd, *shell("echo ran"))
    assert (came.status, came.out) == (status, "")
    assert came.err.endswith(text)
    assert deeds(daemon) == [FREEZE]


@pytest.mark.parametrize(
    ("said", "status"),
    [
        (problem("timed-out", 504, "no answer"), Exit.TIMED_OUT),
        (problem("stopping", 503, "stops"), Exit.UNREACHABLE),
        ((200, {}), Exit.UNEXPECTED),
        (done(mountpoints=[]), Exit.GUEST_FAILED),
        (done(mountpoints={"/": 1}), Exit.GUEST_FAILED),
        (done(), Exit.GUEST_FAILED),
    ],
)
def test_a_guest_that_may_have_frozen_is_thawed(
    daemon: CommandedDaemon, said: Any, status: Exit, capfd: pytest.CaptureFixture[str]
) -> None:
    daemon.said[FREEZE] = [said]
    came = typed(capfd, *shell("echo ran"))
    assert (came.status, came.out) == (status, "")
    assert deeds(daemon) == [FREEZE, THAW]


@pytest.mark.parametrize(("left", "when"), [(12.4, "in 12 s"), (None, "by itself"), ("\x1b", "by itself")])
def test_what_is_frozen_already_is_not_frozen_and_not_thawed(
    daemon: CommandedDaemon, left: Any, when: str, capfd: pytest.CaptureFixture[str]
) -> None:
    daemon.said[STATUS] = [done(state="frozen", mountpoints=["/"], thaws_in_s=left)]
    said = f"vmaccord: web-1: frozen already, by somebody else: try again when it thaws, {when}\n"
    assert typed(capfd, *shell("echo ran")) == Typed(Exit.GUEST_FAILED, "", said)
    assert deeds(daemon) == []


def test_a_guest_that_can_not_be_asked_whether_it_is_frozen_is_frozen(
    daemon: CommandedDaemon, capfd: pytest.CaptureFixture[str]
) -> None:
    daemon.guests = [able(filesystem_status="blocked")]
    assert typed(capfd, *shell("echo ran"))[:2] == (0, "ran\n")
    assert daemon.commands == [FREEZE, THAW]


@pytest.mark.parametrize(
    ("said", "status", "sentence"),
    [
        (problem("disabled", 409, "turn it on"), Exit.REFUSED_BY_CAPABILITY, "turn it on"),
        (failed("failed", "a hook failed"), Exit.GUEST_FAILED, "web-1: filesystem-freeze failed: a hook failed"),
    ],
)
def test_as_json_it_is_said_also_where_nothing_was_frozen(
    daemon: CommandedDaemon, said: Any, status: Exit, sentence: str, capfd: pytest.CaptureFixture[str]
) -> None:
    daemon.said[FREEZE] = [said]
    came = typed(capfd, "--json", *shell("echo ran"))
    assert (came.status, came.out) == (status, "")
    remark, report = came.err.splitlines()
    assert remark == f"vmaccord: {sentence}"
    assert json.loads(report) == {
        "guest": "web-1",
        "mountpoints": [],
        "thawed": [],
        "frozen_s": 0.0,
        "signal": None,
        "problem": sentence,
        "exit_status": status,
    }


def test_mountpoints_that_are_too_many_for_a_variable_are_not_in_it_and_that_is_said(
    daemon: CommandedDaemon, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("VMACCORD_MOUNTPOINTS", "/of/another")
    many = [f"/{number:0100}" for number in range(2000)]
    daemon.said.update({each: [done(mountpoints=many)] for each in (FREEZE, THAW)})
    came = typed(capfd, *shell("echo ${VMACCORD_MOUNTPOINTS-none}"))
    assert came[:2] == (0, "none\n")
    assert "2000 mountpoints are too many for a variable: VMACCORD_MOUNTPOINTS is not set\n" in came.err


# ---- The guest thawed before ----


@pytest.mark.parametrize("lost", [problem("timed-out", 504, "no answer"), problem("stopping", 503, "stops"), (200, {})])
def test_what_a_lost_attempt_may_have_thawed_is_not_said_to_have_thawed_before(
    daemon: CommandedDaemon, own_time: OwnTime, lost: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    daemon.said[THAW] = [lost, problem("not-connected", 503, "not yet"), done(mountpoints=["/"])]
    came = typed(capfd, *shell("exit 0"))
    assert came.status == Exit.GUEST_FAILED
    assert came.err.splitlines()[-1].startswith(
        "vmaccord: web-1: whether /srv/a b was frozen until the end is not known; what it made may be inconsistent"
    )


@pytest.mark.parametrize(("thawed", "early"), [([], "/, /srv/a b"), (["/"], "/srv/a b"), (["/other"], "/, /srv/a b")])
def test_a_guest_that_had_thawed_before_is_a_failure_whatever_the_command_says(
    daemon: CommandedDaemon, thawed: list[str], early: str, capfd: pytest.CaptureFixture[str]
) -> None:
    daemon.said[THAW] = [done(mountpoints=thawed)]
    came = typed(capfd, *shell("exit 3"))
    assert came.status == Exit.GUEST_FAILED
    assert came.err.splitlines()[-1] == (
        f"vmaccord: web-1 had thawed {early} before sh ended; what it made may be inconsistent: "
        "do it again, with a longer --thaw-after if it needs more time"
    )
    assert json.loads(typed(capfd, "--json", *shell("")).err.splitlines()[-1])["exit_status"] == Exit.GUEST_FAILED


def test_a_command_that_runs_for_long_is_warned_of(
    daemon: CommandedDaemon, place: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    gate = place / "gate"
    remarks: list[str] = []

    def remark(text: str) -> None:
        remarks.append(text)
        if "still runs" in text:
            gate.touch()

    monkeypatch.setattr(freezing, "WARN_AT", 0.0)
    monkeypatch.setattr(freezing, "_remark", remark)
    assert typed(capfd, *shell(f"until [ -e {gate} ]; do sleep 0.01; done")).status == 0
    assert remarks[1] == "web-1 thaws by itself in 30 s, and sh still runs: it should hurry"


# ---- The guest moves to another host ----


def moved(**members: Any) -> Any:
    return problem("moved", 410, "web-1 moved to b: ask there", to="b", **members)


@pytest.mark.parametrize("members", [{}, {"reply_id": "r-2"}])
def test_a_guest_that_moves_while_it_is_frozen_is_said_to_thaw_there_by_itself(
    daemon: CommandedDaemon, own_time: OwnTime, members: dict[str, str], capfd: pytest.CaptureFixture[str]
) -> None:
    moving = problem("moving", 409, "web-1 is just being handed over")
    daemon.said[THAW] = [moving, moved(**members)]
    came = typed(capfd, *shell("echo ran"))
    assert (came.status, came.out) == (Exit.MOVED, "ran\n")
    assert deeds(daemon) == [FREEZE, THAW, THAW]
    assert own_time.naps == 1
    *_, trying, said = came.err.splitlines()
    assert trying.endswith("trying again: web-1 is just being handed over")
    assert said.startswith(
        "vmaccord: web-1 moved to b before it was thawed, and thaws there by itself, within 30 s; "
        "what it made may be inconsistent"
    )


def test_a_guest_that_moves_while_it_freezes_is_not_expected_here_any_more(
    daemon: CommandedDaemon, own_time: OwnTime, capfd: pytest.CaptureFixture[str]
) -> None:
    daemon.said.update({FREEZE: [moved(reply_id="r-1")], THAW: [moved()]})
    came = typed(capfd, "--json", *shell("echo ran"))
    assert (came.status, came.out) == (Exit.MOVED, "")
    assert deeds(daemon) == [FREEZE, THAW]
    assert "web-1 moved to b before it was thawed, and thaws there by itself, within 30 s" in came.err
    assert json.loads(came.err.splitlines()[-1])["exit_status"] == Exit.MOVED


def test_of_a_guest_that_has_moved_nothing_is_asked(daemon: CommandedDaemon, capfd: pytest.CaptureFixture[str]) -> None:
    daemon.guests[0]["obstacles"][FREEZE] = {"kind": "moved", "detail": "web-1 moved to b: ask there"}
    came = typed(capfd, *shell("echo ran"))
    assert (came.status, came.out) == (Exit.MOVED, "")
    assert deeds(daemon) == []


# ---- Signals ----


@pytest.mark.parametrize("number", freezing.SIGNALS)
def test_a_signal_ends_the_command_and_thaws(
    daemon: CommandedDaemon, number: signal.Signals, capfd: pytest.CaptureFixture[str]
) -> None:
    came = typed(capfd, "--json", *shell(f"kill -{number.value} $PPID; exec sleep 1000"))
    assert came.status == 128 + number
    assert deeds(daemon) == [FREEZE, THAW]
    *_, remark, report = came.err.splitlines()
    assert remark == f"vmaccord: web-1: ended by {number.name}"
    assert json.loads(report)["signal"] == number.name


def test_a_command_that_goes_on_after_a_signal_is_waited_for_while_the_guest_is_thawed(
    daemon: CommandedDaemon, place: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    gate = place / "gate"
    daemon.meanwhile[THAW] = gate.touch
    wait = f"trap 'echo told' TERM; kill -TERM $PPID; until [ -e {gate} ]; do sleep 0.01; done"
    # Once it is thawed there is a second signal, by which it ends.
    came = typed(capfd, *shell(f"{wait}; trap 'echo ends; exit 7' TERM; kill -TERM $PPID; while :; do sleep 0.01; done"))
    assert (came.status, came.out) == (128 + signal.SIGTERM, "told\nends\n")
    assert deeds(daemon) == [FREEZE, THAW]


@pytest.mark.parametrize("number", freezing.SIGNALS)
def test_a_signal_while_the_guest_is_asked_to_freeze_thaws_it(
    daemon: CommandedDaemon, number: signal.Signals, capfd: pytest.CaptureFixture[str]
) -> None:
    daemon.meanwhile[FREEZE] = lambda: os.kill(os.getpid(), number)
    came = typed(capfd, *shell("echo ran"))
    assert (came.status, came.out) == (128 + number, "")
    assert deeds(daemon)[:2] == [FREEZE, THAW]


@pytest.mark.parametrize(
    ("said", "commands"),
    [(done(mountpoints=FROZEN), [FREEZE, THAW, THAW]), (failed("failed", "thawed meanwhile"), [FREEZE, THAW])],
)
def test_a_guest_that_freezes_after_it_was_thawed_is_thawed_again(
    daemon: CommandedDaemon, said: Any, commands: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    thawed: queue.SimpleQueue[None] = queue.SimpleQueue()

    def interrupt() -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        thawed.get()

    daemon.said[FREEZE] = [said]
    daemon.meanwhile = {FREEZE: interrupt, THAW: lambda: thawed.put(None)}
    assert typed(capfd, *shell("echo ran")).status == 128 + signal.SIGTERM
    assert deeds(daemon) == commands


def test_a_guest_that_never_says_whether_it_froze_is_waited_for_no_longer_than_it_would_be_frozen(
    daemon: CommandedDaemon, capfd: pytest.CaptureFixture[str]
) -> None:
    end: queue.SimpleQueue[None] = queue.SimpleQueue()

    def interrupt() -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        end.get()

    daemon.meanwhile[FREEZE] = interrupt
    assert typed(capfd, *shell("echo ran"), thaw_after=1).status == 128 + signal.SIGTERM
    assert deeds(daemon) == [FREEZE, THAW, THAW]
    end.put(None)


def test_a_signal_just_before_the_command_keeps_it_from_running(
    daemon: CommandedDaemon, capfd: pytest.CaptureFixture[str]
) -> None:
    class Late(queue.SimpleQueue[Any]):
        """Something happens as soon as somebody looks away."""

        def get(self, *arguments: Any, **more: Any) -> Any:
            first = super().get(*arguments, **more)
            self.put(signal.SIGHUP)
            return first

    wanted = freezing.Wanted("web-1", ["false"], (), 30.0, 60.0)
    report = freezing._Freeze(Client(daemon.path), wanted, Late()).run()
    assert (report.signal, report.exit_status, report.mountpoints) == ("SIGHUP", 128 + signal.SIGHUP, ())
    assert deeds(daemon) == [FREEZE, THAW]


def test_a_signal_that_is_ignored_stays_ignored(daemon: CommandedDaemon, capfd: pytest.CaptureFixture[str]) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert typed(capfd, *shell("kill -HUP $PPID; echo ran"))[:2] == (0, "ran\n")
    finally:
        signal.signal(signal.SIGHUP, before)


def test_where_the_terminal_is_gone_the_guest_is_thawed_all_the_same(
    daemon: CommandedDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(5, "Input/output error")

    monkeypatch.setattr(sys, "stderr", Gone())
    assert cli.main(["freeze", "web-1", "--thaw-after", "30", *shell("kill -HUP $PPID; exec sleep 1000")]) == 129
    assert deeds(daemon) == [FREEZE, THAW]


@pytest.mark.parametrize("before", [True, False])
def test_after_a_signal_an_answer_is_waited_for_no_longer_than_the_guest_can_be_frozen(
    daemon: CommandedDaemon, before: bool, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    end: queue.SimpleQueue[None] = queue.SimpleQueue()

    def thaw() -> None:
        if not before:
            os.kill(os.getpid(), signal.SIGINT)
        end.get()

    monkeypatch.setattr(freezing, "GRACE", 0.0)
    daemon.meanwhile[THAW] = thaw
    script = "kill -INT $PPID; exec sleep 1000" if before else "exit 0"
    came = typed(capfd, *shell(script), thaw_after=1)
    end.put(None)
    assert came.status == (128 + signal.SIGINT if before else Exit.GUEST_FAILED)
    assert "vmaccord: SIGINT: thawing web-1 ...\n" in came.err
    assert "web-1 could not be thawed, and has thawed by itself: it does not answer" in came.err


#: Starts a program that leads the session of the terminal that it has as its standard input.
LEADING = "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.executable, sys.argv[1:])"

#: Says who sent it SIGINT, and whether there was a second one before the gate is there.
COUNTING = """
import os, signal, sys, time
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
print("ready", flush=True)
sent = signal.sigwaitinfo([signal.SIGINT])
while not os.path.exists(sys.argv[1]):
    time.sleep(0.01)
print(sent.si_pid, len(signal.sigpending()))
"""


def test_what_the_terminal_sends_to_the_command_is_not_sent_to_it_twice(daemon: CommandedDaemon, place: Path) -> None:
    gate = place / "gate"
    daemon.meanwhile[THAW] = gate.touch
    ours, theirs = os.openpty()
    words = ("-m", "host_agent.cli", "freeze", "web-1", "--thaw-after", "30")
    counting = ("--", sys.executable, "-c", COUNTING, str(gate))
    with (
        open(ours, "wb", 0) as keyboard,
        open(theirs, "rb", 0) as seat,
        subprocess.Popen(
            [sys.executable, "-c", LEADING, sys.executable, *words, *counting],
            stdin=seat,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            cwd=ROOT,
        ) as process,
    ):
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        keyboard.write(b"\x03")
        assert process.stdout.read() == b"0 0\n"
    assert process.returncode == 128 + signal.SIGINT


# ---- The daemon is away ----


def test_a_daemon_that_is_restarted_is_asked_again(
    daemon: CommandedDaemon, place: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    class Restarting(OwnTime):
        def sleep(self, seconds: float) -> None:
            if not self.naps:
                daemon.start("run-2")
            super().sleep(seconds)

    monkeypatch.setattr(freezing, "time", Restarting())
    daemon.said[THAW] = [problem("not-connected", 503, "not yet"), failed("busy", "a moment"), done(mountpoints=FROZEN)]
    remarks: list[str] = []

    def remark(text: str) -> None:
        remarks.append(text)
        if "frozen for" in text:
            daemon.stop()

    monkeypatch.setattr(freezing, "_remark", remark)
    assert typed(capfd, *shell("echo ran"))[:2] == (0, "ran\n")
    assert deeds(daemon) == [FREEZE, THAW, THAW, THAW]
    (trying,) = [remark for remark in remarks if "trying again" in remark]
    assert trying.startswith(
        f"web-1 can't be thawed yet, and will thaw by itself in 30 s; trying again: no daemon at {place}"
    )


def test_a_daemon_that_stays_away_leaves_the_guest_to_thaw_by_itself_and_that_is_said(
    daemon: CommandedDaemon, own_time: OwnTime, capfd: pytest.CaptureFixture[str]
) -> None:
    daemon.said[THAW] = [problem("unresponsive", 503, "web-1 is silent")]
    came = typed(capfd, *shell("echo ran"))
    assert (came.status, came.out) == (Exit.GUEST_FAILED, "ran\n")
    assert own_time.now == 1030.0
    assert 10 < own_time.naps < 30
    assert came.err.splitlines()[-1].startswith(
        "vmaccord: web-1 could not be thawed, and has thawed by itself: web-1 is silent; what it made may be inconsistent"
    )


def test_that_a_guest_could_not_be_thawed_is_said_also_where_nothing_else_came_of_it(
    daemon: CommandedDaemon, own_time: OwnTime, capfd: pytest.CaptureFixture[str]
) -> None:
    daemon.said.update({FREEZE: [problem("stopping", 503, "stops")], THAW: [failed("failed", "no")]})
    came = typed(capfd, *shell("echo ran"))
    assert (came.status, came.out) == (Exit.UNREACHABLE, "")
    assert came.err.splitlines()[-2:] == [
        "vmaccord: web-1 could not be thawed, and has thawed by itself: no",
        "vmaccord: stops",
    ]
