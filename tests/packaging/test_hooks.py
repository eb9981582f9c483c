"""libvirt's hook: what it has the daemon told, and that it never stands in the way of a migration."""

from __future__ import annotations

import os
import pathlib
import shutil
import subprocess

import pytest

from host_agent.demo.vm import packages
from tests.needs import or_left_out

from .parts import GIVE_UP, PACKAGING

HOOK = PACKAGING / "libvirt/hooks/qemu"

UUID = "dbac105e-7ae8-4dce-acc8-16d15f4453ce"

#: More than fits in a pipe at once.
XML = f"""\
<domain type='qemu' id='1'>
  <name>web</name>
  <uuid>{UUID}</uuid>
  <sysinfo type='smbios'>
    <system>
      <entry name='uuid'>{UUID}</entry>
    </system>
  </sysinfo>
  <metadata>
    <uuid>00000000-0000-0000-0000-000000000000</uuid>
  </metadata>
{"  <!-- a long description -->" * 10_000}
</domain>
"""

#: A program that notes what it was called with, an argument a line, and does what it is told to.
STAND_IN = """\
#!/bin/sh
printf '%s\\n' "$(basename "$0")" "$@" '' >>"$NOTES"
[ "$(basename "$0")" = logger ] || eval "$BEHAVIOUR"
"""

AWAIT = ["vmaccord", "handoff", "expect", "--for", "86400", "--uuid", UUID, "--", "web"]
GIVE_UP_AWAITING = ["vmaccord", "handoff", "expect", "--for", "1", "--uuid", UUID, "--", "web"]
SEND = ["vmaccord", "handoff", "send", "--", "web"]


def call(place: pathlib.Path, *arguments: str, xml: str = XML, behaviour: str = ":") -> list[list[str]]:
    """Call the hook as libvirt does, and wait for all that it has started; what was called."""
    for name in ("vmaccord", "logger"):
        (place / name).write_text(STAND_IN, encoding="utf-8")
        (place / name).chmod(0o755)
    notes = place / "notes"
    environment = {"PATH": f"{place}:{os.environ['PATH']}", "LC_ALL": "C", "NOTES": str(notes), "BEHAVIOUR": behaviour}
    reading, writing = os.pipe()
    with open(reading, "rb") as running:
        try:
            done = subprocess.run(
                [HOOK, *arguments],
                input=xml.encode(),
                capture_output=True,
                env=environment,
                pass_fds=[writing],
                timeout=GIVE_UP,
                check=False,
            )
        finally:
            os.close(writing)
        assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
        assert running.read() == b""  # they all have ended
    calls = notes.read_text(encoding="utf-8").split("\n\n")[:-1] if notes.exists() else []
    return [each.split("\n") for each in calls]


@pytest.mark.parametrize(
    ("arguments", "calls"),
    [
        # The destination.
        (("web", "migrate", "begin", "-"), [AWAIT]),
        (("web", "release", "end", "failed"), [GIVE_UP_AWAITING]),
        # The source; before libvirt 10.5 and since then.
        (("web", "release", "end", "-"), [GIVE_UP_AWAITING, SEND]),
        (("web", "release", "end", "migrated"), [GIVE_UP_AWAITING, SEND]),
        # A VM that does not move.
        *(
            (("web", "release", "end", reason), [GIVE_UP_AWAITING])
            for reason in ("unknown", "shutdown", "destroyed", "crashed", "saved", "from snapshot", "daemon")
        ),
        *(
            (("web", operation, "begin", "-"), [])
            for operation in ("prepare", "start", "started", "restore", "reconnect", "attach")
        ),
        (("web", "stopped", "end", "-"), []),
        (("web", "of-the-future"), []),
    ],
)
def test_the_daemon_is_told_what_libvirt_tells(
    arguments: tuple[str, ...], calls: list[list[str]], tmp_path: pathlib.Path
) -> None:
    assert call(tmp_path, *arguments) == calls


@pytest.mark.parametrize(
    ("domain", "guest"),
    [
        ("a-name-longer-than-twenty-characters", "a-name-longer-than-t"),
        ("größer-als-zwanzig-zeichen", "größer-als-zwanzig-z"),
        ("exactly-twenty-chars", "exactly-twenty-chars"),
        ("--for", "--for"),
        ("$(false) *\\n", "$(false) *\\n"),
    ],
)
def test_a_guest_is_called_as_its_directory_is(domain: str, guest: str, tmp_path: pathlib.Path) -> None:
    assert call(tmp_path, domain, "release", "end", "migrated")[-1] == [*SEND[:-1], guest]


def test_without_a_uuid_the_name_must_do(tmp_path: pathlib.Path) -> None:
    calls = call(tmp_path, "web", "migrate", "begin", "-", xml="")
    assert calls == [["vmaccord", "handoff", "expect", "--for", "86400", "--", "web"]]


def test_a_daemon_that_refuses_is_told_of_in_the_system_s_log_and_migrations_go_on(tmp_path: pathlib.Path) -> None:
    calls = call(tmp_path, "web", "migrate", "begin", "-", behaviour="echo printed; echo 'no daemon' >&2; exit 3")
    said = f"{' '.join(AWAIT)}: printed\nno daemon".split("\n")
    assert calls == [AWAIT, ["logger", "-t", "vmaccord-hook", "-p", "daemon.info", "--", *said]]


def test_a_daemon_that_does_not_answer_is_not_waited_for(tmp_path: pathlib.Path) -> None:
    short = tmp_path / "timeout"
    short.write_text(f'#!/bin/sh\nshift\nexec {shutil.which("timeout")} 0.1 "$@"\n', encoding="utf-8")
    short.chmod(0o755)
    calls = call(tmp_path, "web", "migrate", "begin", "-", behaviour="exec sleep 1000")
    assert calls[-1] == ["logger", "-t", "vmaccord-hook", "-p", "daemon.info", "--", f"{' '.join(AWAIT)}: "]


def test_shellcheck_has_nothing_to_say_of_it() -> None:
    with or_left_out():
        shellcheck = packages.program("shellcheck", "shellcheck")
    done = subprocess.run([shellcheck, HOOK], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_it_can_be_executed() -> None:
    assert os.access(HOOK, os.X_OK)
