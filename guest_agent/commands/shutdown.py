"""shutdown: the guest powers off or reboots after a number of seconds, and its users are told why.

logind is asked first: it knows of seconds, warns users again and again, and lets programs end in order. That is how it goes
on Debian, Red Hat's and SUSE's distributions and Arch, and on Alpine with elogind. Where logind can't be asked or refuses,
``wall`` tells the users once, and ``poweroff`` or ``reboot`` (of busybox, sysvinit or systemd: all have these two, and only
these mean the same everywhere) is started when the time has come, by a process that waits for that beside the agent.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Mapping
from typing import Any, Optional

from common.messages import Shutdown
from guest_agent import processes

from . import CommandFailed, Machine, logind

#: How far ahead a shutdown may be, in seconds.
TIMEOUT_LIMIT = 7 * 24 * 3600

_MICROSECONDS = 1_000_000


def available(machine: Machine) -> Optional[str]:
    """None where this is root, and logind can be asked or the programs are there."""
    if os.geteuid() != machine.owner:
        return "only root may shut the machine down; run the agent as root"
    if logind.available(machine) is None:
        return None
    missing = [program for program in ("poweroff", "reboot") if processes.find(program, machine.root) is None]
    if not missing:
        return None
    return f"logind can't be asked, and {' and '.join(missing)} is not installed; install either"


def run(machine: Machine, message: Shutdown) -> Mapping[str, Any]:
    """Have the guest powered off or rebooted.

    :raises CommandFailed: it can't be.
    """
    if message.timeout > TIMEOUT_LIMIT:
        raise CommandFailed(f"a shutdown can't be further ahead than {TIMEOUT_LIMIT} s; ask for it later")
    action = "reboot" if message.reboot == "True" else "poweroff"
    text = processes.one_line(message.message)
    try:
        _ask_logind(machine, action, message.timeout, text)
    except CommandFailed as failure:
        _run_program(machine, action, message.timeout, text, failure)
    return {}


def _ask_logind(machine: Machine, action: str, timeout: int, text: str) -> None:
    """Half of the time may be spent on it; the other half is for doing without."""
    with logind.Logind(machine, machine.deadline / 2) as connection:
        now = time.clock_gettime(time.CLOCK_REALTIME)  # what logind counts in
        connection.call("SetWallMessage", "sb", text, True)
        connection.call("ScheduleShutdown", "st", action, int((now + timeout) * _MICROSECONDS))


def _run_program(machine: Machine, action: str, timeout: int, text: str, why_not_logind: CommandFailed) -> None:
    try:
        if text:
            with contextlib.suppress(processes.ProgramError):
                machine.run(["wall"], input=f"{text}\n".encode(), deadline=machine.deadline / 4)
        if timeout:
            machine.run_later([action], delay=timeout, deadline=machine.deadline / 4)
            return
        finished = machine.run([action], deadline=machine.deadline / 4)
    except processes.ProgramError as error:
        raise CommandFailed(f"{why_not_logind}; {error}") from None
    if finished.status != 0:
        raise CommandFailed(f"{why_not_logind}; {action} {finished.how}")
