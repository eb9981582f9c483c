"""The commands that a host may give, one module each.

A module has two functions. ``available(machine)`` says why the command can't work on this machine, in one sentence, or None;
it runs nothing and asks nobody. ``run(machine, message)`` carries the command out: it returns further members of the
completion, or raises ``CommandFailed``. It blocks, and so belongs into a worker; the modules are imported there only.

What comes from the host is hostile. No part of a command line and no name of a file is taken from it; what a user is to
read is made one bounded line of; credentials are seen by the login helper alone.
"""

from __future__ import annotations

import importlib
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Callable, NamedTuple, Optional

from common.messages import Message
from guest_agent import hooks, processes

#: Seconds that a worker may take beyond what its command may take, to say how that went.
MARGIN = 5.0


class Machine(NamedTuple):
    """What commands act on.

    :ivar root: where the machine's file system begins.
    :ivar login_helper: the program that logs users in; None: there is none.
    :ivar hooks_directory: where the directories of the lifecycle events' hooks are.
    :ivar hooks_deadline: seconds that each hook may take.
    :ivar deadline: seconds that a command may take.
    :ivar run: runs a program.
    :ivar run_later: has a program run, whatever happens to the agent.
    :ivar owner: the user as whom the agent may do everything; beside root's, hooks and helper may be that user's.
    """

    login_helper: Optional[str]
    hooks_directory: str
    hooks_deadline: float
    deadline: float
    root: str = "/"
    run: processes.Run = processes.run
    run_later: processes.RunLater = processes.run_later
    owner: int = 0


class CommandFailed(Exception):
    """A command could not be carried out, or only in part; the text is one sentence, without secrets.

    :ivar members: further members of the completion.
    :ivar notes: further lines for the log, which are none of the host's business.
    """

    def __init__(self, sentence: str, members: Optional[Mapping[str, Any]] = None, notes: Sequence[str] = ()) -> None:
        super().__init__(sentence)
        self.members = members or {}
        self.notes = notes


def _patience(machine: Machine) -> float:
    return machine.deadline + MARGIN


def _patience_with_hooks(machine: Machine) -> float:
    return machine.hooks_deadline * hooks.LIMIT + MARGIN


class Command(NamedTuple):
    """One command.

    :ivar name: its name on the wire.
    :ivar module: what carries it out; None: the agent's loop answers it.
    :ivar patience: gives the seconds that its worker may take on a machine.
    """

    name: str
    module: Optional[str]
    patience: Callable[[Machine], float] = _patience

    def available(self, machine: Machine) -> Optional[str]:
        """Why it can't work on *machine*, in a sentence; None where it can."""
        if self.module is None:
            return None
        why: Optional[str] = self._imported().available(machine)
        return why

    def run(self, machine: Machine, message: Message) -> Mapping[str, Any]:
        """Carry it out, in a worker.

        :returns: further members of the completion.
        :raises CommandFailed: it was not carried out, or only in part.
        """
        try:
            members: Mapping[str, Any] = self._imported().run(machine, message)
        except processes.ProgramError as error:
            raise CommandFailed(str(error)) from None
        except OSError as error:
            raise CommandFailed(f"{error.filename or self.name}: {error.strerror or error}") from None
        return members

    def _imported(self) -> Any:
        return importlib.import_module(f"{__name__}.{self.module}")


COMMANDS: Mapping[str, Command] = {
    command.name: command
    for command in (
        Command("echo", None),
        Command("hibernate", "hibernate"),
        Command("lifecycle-event", "lifecycle_event", _patience_with_hooks),
        Command("lock-screen", "lock_screen"),
        Command("log-off", "log_off"),
        Command("login", "login"),
        Command("set-number-of-cpus", "set_number_of_cpus"),
        Command("shutdown", "shutdown"),
    )
}


def permitted(allow: Collection[str], block: Collection[str]) -> frozenset[str]:
    """The names of the commands that the host may give.

    :param allow: those that it may give; when empty: all.
    :param block: those that it may not give, even if allowed.
    """
    return frozenset(allow or COMMANDS).intersection(COMMANDS).difference(block)
