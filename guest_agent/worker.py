"""Workers: what may hang, or needs a large module, is done in a forked process that is gone afterwards.

So the agent itself stays small, has one thread and never blocks. A worker reports plain values (None, booleans, numbers,
strings, bytes, and tuples, lists and dicts of those) over a pipe, as it goes. Whoever started it reads them when the pipe
becomes readable, and ends the worker when it takes too long.

A worker gives up every descriptor but its pipe and the standard ones: a port that a forgotten child holds could not be
opened again. Asked to leave, it ends the programs that it started.
"""

from __future__ import annotations

import contextlib
import gc
import marshal
import os
import signal
import sys
import time
from collections.abc import Iterator
from typing import Any, Callable, NoReturn, Optional

from .trail import trail

#: Reports one value.
Report = Callable[[Any], None]

#: What a worker does; its exit status is 0, or that of SystemExit.
Job = Callable[[Report], None]

#: No value is larger than this on the pipe, in bytes.
VALUE_LIMIT = 4 * 1024 * 1024

#: How many bytes of the pipe one call reads at most.
READ_LIMIT = 1024 * 1024

#: A process that has closed its pipe is gone a moment later, unless the kernel holds it: so often one call asks, and so
#: long it rests in between, in seconds.
_REAPINGS, _REST = 20, 0.001

_HEAD = 4
_UNEXPECTED = 1

#: After so long, in seconds, whatever can't raise an error is over.
_MOMENT = 0.001
_STANDARD_ERROR = 2
_READ_SIZE = 65536
_FOR_THE_AGENT = (signal.SIGINT, signal.SIGHUP)
_SIGNALS = (signal.SIGTERM, *_FOR_THE_AGENT)


class Worker:
    """A child process that does *job*.

    :ivar silent: whether it has closed its pipe: there is nothing more to wait for on it, only to ask again for the status.
    :ivar status: its exit status, negative for the signal that ended it; None while it has not gone.
    :raises OSError: the system has no room for another process.
    """

    def __init__(self, job: Job) -> None:
        self.silent = False
        self.status: Optional[int] = None
        self._received = bytearray()
        self._pipe, write_end = os.pipe()
        try:
            self.pid = _fork(job, write_end)
        except OSError:
            os.close(self._pipe)
            raise
        finally:
            os.close(write_end)
        os.set_blocking(self._pipe, False)

    def fileno(self) -> int:
        """What to wait on: readable when ``reports`` has something new, or the worker has ended."""
        return self._pipe

    def reports(self) -> list[Any]:
        """What it has reported since the last call."""
        with contextlib.suppress(BlockingIOError):
            self._read()
        return list(self._values())

    def end(self) -> None:
        """Ask it to leave, so that it ends what it started; ``status`` tells when it has gone."""
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it in any case, unless the kernel itself holds it."""
        self._signal(signal.SIGKILL)

    def close(self) -> None:
        """Give the pipe back, once nobody waits on it any more."""
        os.close(self._pipe)

    def _read(self) -> None:
        for _ in range(READ_LIMIT // _READ_SIZE):
            read = os.read(self._pipe, _READ_SIZE)
            if not read:
                self.silent = True
                self._reap()
                return
            self._received += read

    def _signal(self, number: signal.Signals) -> None:
        if self.status is None:
            os.kill(self.pid, number)

    def _reap(self) -> None:
        for _ in range(_REAPINGS):
            if self.status is not None:
                return
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.status = os.waitstatus_to_exitcode(status)
            else:
                time.sleep(_REST)

    def _values(self) -> Iterator[Any]:
        while len(self._received) >= _HEAD:
            size = int.from_bytes(self._received[:_HEAD], "big")
            if len(self._received) < _HEAD + size:
                return
            yield marshal.loads(self._received[_HEAD : _HEAD + size])  # noqa: S302 - from our own child
            del self._received[: _HEAD + size]


def keep_only(*descriptors: int) -> None:
    """Close all but these and the standard ones, as a child that was forked has to.

    Objects that the parent forgot must not close them later, when they are somebody else's.
    """
    gc.freeze()
    for name in os.listdir("/proc/self/fd"):
        if int(name) > _STANDARD_ERROR and int(name) not in descriptors:
            with contextlib.suppress(OSError):
                os.close(int(name))


def _fork(job: Job, write_end: int) -> int:
    """Start the child; no signal reaches it before it has its own way with them."""
    _flush()
    held_back_before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        pid = os.fork()
        if pid == 0:
            _live(job, write_end)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, held_back_before)
    return pid


def _live(job: Job, write_end: int) -> NoReturn:
    """The child's whole life. Nothing in it may run on what is the parent's."""
    status = _UNEXPECTED
    try:
        _take_signals()
        keep_only(write_end)
        status = _do(job, lambda value: _report(write_end, value))
        _flush()
    except (BrokenPipeError, SystemExit):
        status = _UNEXPECTED  # nobody is there any more, or wants to know any more
    except BaseException as error:  # noqa: BLE001 - see above
        status = _UNEXPECTED
        _lament(error)
    finally:
        os._exit(status)


def _do(job: Job, report: Report) -> int:
    """The exit status of *job*; SIGTERM ends it by way of SystemExit, so that it can end what it started."""
    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        job(report)
    except SystemExit as leaving:
        return leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
    finally:
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    return 0


def _report(write_end: int, value: Any) -> None:
    content = marshal.dumps(value)
    if len(content) > VALUE_LIMIT:
        raise ValueError(f"{len(content)} bytes are too much to report")
    remaining = memoryview(len(content).to_bytes(_HEAD, "big") + content)
    while remaining:
        remaining = remaining[os.write(write_end, remaining) :]


def _take_signals() -> None:
    """Leave on SIGTERM, and take no notice of what is meant for the agent."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGTERM, _leave)
    signal.signal(signal.SIGALRM, _leave)
    sys.unraisablehook = _leave_a_moment_later
    for number in _FOR_THE_AGENT:
        signal.signal(number, _take_no_notice)


def _leave(*_: object) -> None:
    signal.signal(signal.SIGTERM, _take_no_notice)
    raise SystemExit(_UNEXPECTED)


def _leave_a_moment_later(dropped: Any) -> None:
    """Python drops what is raised where nothing can be, as in the callback of a weak reference: raise it behind that."""
    if isinstance(dropped.exc_value, SystemExit):
        signal.setitimer(signal.ITIMER_REAL, _MOMENT)
    elif dropped.exc_value is not None:
        _lament(dropped.exc_value)


def _take_no_notice(*_: object) -> None:
    """Unlike SIG_IGN, this is not passed on to the programs that are started."""


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()


def _lament(error: BaseException) -> None:
    """Say what happened; without the error's text, which may quote a password."""
    with contextlib.suppress(OSError):
        os.write(_STANDARD_ERROR, f"a worker failed, please report it: {trail(error)}\n".encode("utf-8", "replace"))
