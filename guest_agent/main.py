"""The command ``vmaccord-guest``: configuration, log, signals, exit status. The work is in ``agent``.

A worker reads the command line and the configuration, so that what this takes is not kept for as long as the agent runs.
Signals that come meanwhile mean what they mean later.
"""

from __future__ import annotations

import contextlib
import select
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Callable, NoReturn, Optional

from . import log, port, surroundings
from .agent import Agent
from .config import Configuration
from .exits import Exit
from .notify import Notifier
from .trail import trail
from .worker import Report, Worker

PROGRAM = "vmaccord-guest"


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """Run the program and return its exit status."""
    sys.dont_write_bytecode = True  # what is imported while its own file system is frozen would wait for the thaw
    again: list[bool] = []
    try:
        with _handling({signal.SIGTERM: _leave, signal.SIGINT: _leave, signal.SIGHUP: lambda: again.append(True)}):
            status, configuration = _begin(arguments)
            if status < 0:
                return _failed(Exit.UNEXPECTED, f"reading the configuration was ended by signal {-status}")
            if configuration is not None:
                _work(configuration, arguments, again)
    except KeyboardInterrupt:
        return Exit.OK
    except port.PortMissing as error:
        return _failed(Exit.NO_PORT, str(error))
    except port.PortUnusable as error:
        return _failed(Exit.PORT_UNUSABLE, str(error))
    except Exception as error:  # noqa: BLE001 - people get a sentence, whatever happens
        return _failed(Exit.UNEXPECTED, f"unexpected error, please report it: {trail(error)}")
    return status


def _begin(arguments: Optional[Sequence[str]]) -> tuple[int, Optional[Configuration]]:
    """The configuration to run with, unless the command line asks for something else."""

    def job(report: Report) -> None:
        from . import options

        options.begin(arguments, report)

    worker = Worker(job)
    reported: list[Any] = []
    try:
        while worker.status is None:
            select.select([worker], [], [])
            reported += worker.reports()
    finally:
        worker.end()
        worker.close()
    return worker.status, Configuration.from_plain(reported[0]) if reported else None


def _work(configuration: Configuration, arguments: Optional[Sequence[str]], again: Sequence[bool]) -> None:
    """Run the agent; *again*: the configuration is to be read once more, because SIGHUP came while it was read."""

    def reload(report: Report) -> None:
        from . import options

        options.reload(arguments, report)

    agent = Agent(
        configuration,
        log.standard_error(configuration.log_level),
        surroundings.here(),
        reload=reload,
        clock=time.monotonic,
        notifier=Notifier(),
    )
    try:
        with _signals(agent):
            if again:
                agent.reload()
            agent.run()
    finally:
        agent.close()


@contextlib.contextmanager
def _signals(agent: Agent) -> Iterator[None]:
    """Let SIGTERM and SIGINT end the loop, also when they come just before it waits, and SIGHUP reload the configuration."""
    descriptor_before = signal.set_wakeup_fd(agent.wakeup_descriptor, warn_on_full_buffer=False)
    try:
        with _handling({signal.SIGTERM: agent.stop, signal.SIGINT: agent.stop, signal.SIGHUP: agent.reload}):
            yield
    finally:
        signal.set_wakeup_fd(descriptor_before)


@contextlib.contextmanager
def _handling(actions: Mapping[signal.Signals, Callable[[], object]]) -> Iterator[None]:
    """Have signals do these *actions*."""
    before = {number: signal.signal(number, lambda *_, act=act: act()) for number, act in actions.items()}
    try:
        yield
    finally:
        for number, action in before.items():
            signal.signal(number, action)


def _leave() -> NoReturn:
    raise KeyboardInterrupt


def _failed(status: Exit, text: str) -> Exit:
    print(f"{PROGRAM}: {text}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
