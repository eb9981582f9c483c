"""The commands that a host may give, one module each.

A module has two functions. ``available(machine)`` says why the command can't work on this machine, in one sentence, or None;
it runs nothing and asks nobody. ``run(machine, message)`` carries the command out: it returns the completion's result, or
raises ``CommandFailed``. It blocks, and so belongs into a worker; the modules are imported there only.

What comes from the host is hostile. No part of a command line and no name of a file is taken from it, but by the commands
that are dangerous (so the table calls them) for that reason, and are off until the configuration turns each of them on. What
a user is to read is made one bounded line of; credentials reach nothing but the one program that needs them.
"""

from __future__ import annotations

import importlib
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Callable, NamedTuple, Optional

from common.catalogue import CATALOGUE, Direction
from common.messages import Code, Message
from guest_agent import hooks, processes

_DISKS_PATIENCE = 3600.0

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
    :ivar read_roots: the directories below which files may be read; ``write_roots``: below which they may be written.
    :ivar freeze_limit: seconds that file systems may be frozen at most.
    :ivar state_directory: where it is noted what is frozen; never on a file system that can be.
    """

    login_helper: Optional[str]
    hooks_directory: str
    hooks_deadline: float
    deadline: float
    root: str = "/"
    run: processes.Run = processes.run
    run_later: processes.RunLater = processes.run_later
    owner: int = 0
    read_roots: Sequence[str] = ()
    write_roots: Sequence[str] = ()
    freeze_limit: float = 600.0
    state_directory: str = "/run/vmaccord-guest"


class CommandFailed(Exception):
    """A command could not be carried out, or only in part; the text is one sentence, without secrets.

    :ivar members: what the result has all the same.
    :ivar notes: further lines for the log, which are none of the host's business.
    :ivar code: why, in a word that programs understand.
    """

    def __init__(
        self,
        sentence: str,
        members: Optional[Mapping[str, Any]] = None,
        notes: Sequence[str] = (),
        code: Code = Code.FAILED,
    ) -> None:
        super().__init__(sentence)
        self.members = members or {}
        self.notes = notes
        self.code = code

    @classmethod
    def invalid(cls, sentence: str) -> CommandFailed:
        """The failure of a command whose arguments ask for what can't be."""
        return cls(sentence, code=Code.INVALID_ARGUMENTS)


def _patience(machine: Machine, _: Any) -> float:
    return machine.deadline + MARGIN


def _patience_with_hooks(machine: Machine, _: Any) -> float:
    return machine.hooks_deadline * hooks.LIMIT + MARGIN


def _patience_with_disks(_: Machine, __: Any) -> float:
    """A large disk may take long to be told what it need not keep."""
    return _DISKS_PATIENCE


def _patience_of_its_own(_: Machine, message: Any) -> float:
    return float(message.timeout) + MARGIN


def _nothing(_: Any) -> str:
    return ""


class Command(NamedTuple):
    """One command.

    :ivar name: its name on the wire.
    :ivar module: what carries it out; None: the agent's loop answers it.
    :ivar judge: the module that says whether it can work, where the loop answers it; None: it always can.
    :ivar patience: gives the seconds that its worker may take on a machine for a message.
    :ivar parallel: how many of this name run at once.
    :ivar subject: what the log says of a message beside its name; never what may be secret.
    """

    name: str
    module: Optional[str]
    patience: Callable[[Machine, Any], float] = _patience
    parallel: int = 1
    subject: Callable[[Any], str] = _nothing
    judge: Optional[str] = None

    def available(self, machine: Machine) -> Optional[str]:
        """Why it can't work on *machine*, in a sentence; None where it can."""
        judge = self.module or self.judge
        if judge is None:
            return None
        why: Optional[str] = _imported(judge).available(machine)
        return why

    def run(self, machine: Machine, message: Message) -> Mapping[str, Any]:
        """Carry it out, in a worker.

        :returns: further members of the completion.
        :raises CommandFailed: it was not carried out, or only in part.
        """
        try:
            members: Mapping[str, Any] = _imported(str(self.module)).run(machine, message)
        except processes.ProgramTimedOut as error:
            raise CommandFailed(str(error), code=Code.TIMED_OUT) from None
        except processes.ProgramError as error:
            raise CommandFailed(str(error)) from None
        except OSError as error:
            raise CommandFailed(f"{error.filename or self.name}: {error.strerror or error}") from None
        return members


def _imported(module: str) -> Any:
    return importlib.import_module(f"{__name__}.{module}")


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
        Command("filesystem-freeze", None, judge="filesystem_freeze"),
        Command("filesystem-thaw", None),
        Command("filesystem-status", None),
        Command("filesystem-trim", "filesystem_trim", _patience_with_disks),
        Command("set-time", "set_time"),
        Command("suspend", "suspend", subject=lambda message: message.mode),
        Command("load", "load"),
        Command("users", "users"),
        Command("exec", "execute", _patience_of_its_own, parallel=4, subject=lambda message: "".join(message.argv[:1])),
        Command("ssh-keys", "ssh_keys", subject=lambda message: f"{message.operation} those of {message.user}"),
        Command("set-password", "set_password", subject=lambda message: f"that of {message.user}"),
        Command("file-read", "file_read", subject=lambda message: message.path),
        Command("file-write", "file_write", subject=lambda message: message.path),
    )
}


def dangerous() -> frozenset[str]:
    """The names of the commands that are off until the configuration turns each of them on."""
    return frozenset(row.name for row in CATALOGUE.names(Direction.TO_GUEST).values() if row.dangerous)


def permitted(allow: Collection[str], block: Collection[str], enable: Collection[str] = ()) -> frozenset[str]:
    """The names of the commands that the host may give.

    :param allow: those that it may give; when empty: all, but for the dangerous ones.
    :param block: those that it may not give, even if allowed.
    :param enable: the dangerous ones that it may give, as it may those that *allow* names.
    """
    harmless = frozenset(COMMANDS).difference(dangerous())
    return frozenset(allow or harmless).union(enable).intersection(COMMANDS).difference(block)
