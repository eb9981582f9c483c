"""A soak: who takes part, storm after storm, and after each a calm in which what must hold is looked at."""

from __future__ import annotations

import contextlib
import functools
import os
import random
import resource
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Callable, NamedTuple, Optional

from common.versions import newest
from host_agent.journal import BURST, PERIOD
from tests.bench.stage import HOST_CORE
from tests.bench.table import percentile

from .calm import Calm, Growth
from .crowd import Crowd
from .figures import Figure, Outcome
from .guests import COMPLETIONS_SINCE
from .ledger import Ledger
from .operators import HANG, Crew, Faults, Follower, Nuisance, Operator, Prober
from .plan import Scale, Step, Storm, storms
from .subject import Disk, Level, Subject

#: What the clients of the control API and a reload may hold for a moment, in descriptors.
SPARE_DESCRIPTORS = 16

#: Threads besides those of the event loop's pool: the first one, the state's, libvirt's two, and one to spare.
OWN_THREADS = 5

#: What may grow in a daemon's life after its first storm, in KiB: the events it keeps, ids of commands that timed out; …
GROWTH = 8 * 1024

#: … and for each guest: its history, lines of its journal, names that it made up, facts that it did not have before.
GROWTH_OF_GUEST = 8

#: So many topics a guest has in the log.
_TOPICS = 8

#: What the daemon supports when a storm begins.
_NEWEST = int(newest())

#: So many clients of the control API behave badly.
_NUISANCES = 3


class Options(NamedTuple):
    """What a soak is to be.

    :ivar seconds: after so many seconds no other storm begins; None: as many as are to be.
    :ivar storms: so many; None: as long as there is time.
    :ivar period: seconds between two heartbeats of a guest.
    :ivar settings: lines of the daemon's configuration.
    :ivar operators: how many there are, …
    :ivar timeouts: … and how long they wait for a completion, in seconds.
    :ivar log: where the daemon's log is left.
    :ivar say: told how it goes, line by line.
    """

    seed: int
    scale: Scale = Scale()
    seconds: Optional[float] = 300.0
    storms: Optional[int] = None
    period: float = 5.0
    settings: tuple[str, ...] = ()
    operators: int = 16
    timeouts: tuple[float, ...] = (0.5, 1.0, 3.0, 10.0)
    log: Optional[Path] = None
    say: Callable[[str], None] = functools.partial(print, flush=True)


class _Tally:
    """What is added up over all storms."""

    def __init__(self) -> None:
        self.storms = 0
        self.outcomes: Counter[str] = Counter()
        self.commands = 0
        self.survived = 0
        self.excused = 0
        self.calming: list[float] = []
        self.stopping: list[float] = []
        self.full = 0


class Soak:
    """Everything that takes part, in the directory *place*. Use as a context manager."""

    def __init__(self, options: Options, place: Path) -> None:
        self._options = options
        self._place = place
        self._began_at = time.monotonic()
        self._tally = _Tally()
        self._faults = Faults()
        self._ledger = Ledger()
        self._growth = Growth()
        #: Since when the daemon has been told to support less than completions need.
        self._low_since: Optional[float] = None
        self._closing = contextlib.ExitStack()

    def __enter__(self) -> Soak:
        with contextlib.ExitStack() as opened:
            self._open(opened)
            self._closing = opened.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.close()

    def _open(self, opened: contextlib.ExitStack) -> None:
        options = self._options
        # Facts, changes of versions and the journal of the state file.
        self._disk = Disk(self._place / "state", 4096 + 32 * options.scale.guests)
        opened.callback(self._disk.close)
        self._crowd = opened.enter_context(Crowd(self._place, options.seed, options.scale, options.period))
        self._subject = Subject(self._place, HOST_CORE, list(self._settings()))
        opened.callback(self._subject.end)
        self._subject.start()
        self._follower = Follower(self._subject.client, self._ledger, self._faults)
        self._follower.start()
        opened.callback(self._follower.end)
        self._prober = Prober(self._subject, self._faults)
        self._crew = opened.enter_context(Crew(self._faults))
        self._employ()
        self._quiet = Calm(self._subject, self._crowd, self._follower)

    def _settings(self) -> Iterator[str]:
        yield f"state = {self._disk.place / 'state.sqlite'}"
        if self._crowd.libvirt is not None:
            yield f"libvirt = {self._crowd.libvirt}"
        yield from self._options.settings

    def _employ(self) -> None:
        options, subject = self._options, self._subject
        self._crew.employ("prober", self._prober.turn)
        for number in range(options.operators):
            draw = random.Random(f"{options.seed}/operator/{number}")
            operator = Operator(draw, options.timeouts, subject, lambda: self._crowd.names, self._ledger)
            self._crew.employ(f"operator {number}", operator.turn)
        for number in range(_NUISANCES):
            draw = random.Random(f"{options.seed}/nuisance/{number}")
            nuisance = Nuisance(draw, subject, lambda: self._crowd.names, self._faults)
            self._crew.employ(f"nuisance {number}", nuisance.turn)

    # ---- The course of things ----

    def play(self) -> Outcome:
        """Everything; returns what it brought.

        :raises Gone: somebody who takes part has ended, or what was waited for did not come.
        """
        self._report("start", 0.0, self._calm())
        for storm in storms(self._options.seed, self._options.scale):
            if self._is_over(storm.number):
                break
            self._play(storm)
        self._quiet.wait_for_state()
        return Outcome(list(self._figures()), self._faults.texts)

    def _is_over(self, number: int) -> bool:
        options = self._options
        if options.storms is not None:
            return number >= options.storms
        return options.seconds is not None and time.monotonic() - self._began_at >= options.seconds

    def _play(self, storm: Storm) -> None:
        began_at = time.monotonic()
        self._blow(storm, began_at)
        blown = time.monotonic() - began_at
        level = self._calm()
        self._growth.look(level, self._crowd.total("connected"))
        self._tally.storms += 1
        self._report(f"{storm.number} {storm.adversity}", blown, level)

    def _blow(self, storm: Storm, began_at: float) -> None:
        self._reload(_NEWEST)
        self._crew.work()
        for step in storm.steps:
            time.sleep(max(0.0, began_at + step.at - time.monotonic()))
            if step.whom == "daemon":
                self._take(step)
            else:
                self._crowd.take(step)
        time.sleep(max(0.0, began_at + storm.seconds - time.monotonic()))

    # ---- What happens to the daemon ----

    def _take(self, step: Step) -> None:
        misfortunes: dict[str, Callable[..., None]] = {
            "reload": self._reload,
            "reload_twice": self._reload_twice,
            "reload_in_error": self._subject.reload_in_error,
            "restart": self._restart,
            "kill": self._kill,
            "fill_disk": self._disk.fill,
            "free_disk": self._free_disk,
        }
        misfortunes[step.do](**step.arguments)

    def _reload(self, maximum: Optional[int]) -> None:
        """Completions can't be understood by a daemon that is told to support less, also those that are on their way."""
        is_low = maximum is None or maximum < COMPLETIONS_SINCE
        if self._low_since is None and is_low:
            self._low_since = time.monotonic()
        elif self._low_since is not None and not is_low:
            self._ledger.note_gap(self._low_since, time.monotonic())
            self._low_since = None
        if maximum != self._subject.maximum:
            self._subject.reload(maximum)

    def _reload_twice(self, maxima: Sequence[Optional[int]]) -> None:
        """The second one comes while the first one is at work, and counts."""
        for maximum in maxima:
            self._reload(maximum)

    def _restart(self, pause: float) -> None:
        self._tally.stopping.append(self._subject.stop())
        self._go_on(pause, clean=not self._disk.full)

    def _kill(self, pause: float) -> None:
        self._subject.kill()
        self._go_on(pause, clean=False)

    def _go_on(self, pause: float, clean: bool) -> None:
        time.sleep(pause)
        self._ledger.note_end(self._subject.start_again(clean))

    def _free_disk(self) -> None:
        self._tally.full += self._quiet.failing() is not None
        self._disk.free()

    # ---- Calm ----

    def _calm(self) -> Level:
        """Let everything become calm, and look at what must hold; what the daemon takes then."""
        began_at = time.monotonic()
        self._disk.free()
        self._crowd.calm()
        if not self._crew.rest(2 * HANG):
            self._faults.add(["a client of the control API did not come to an end"])
        self._quiet.wait()
        self._tally.calming.append(time.monotonic() - began_at)
        self._settle_commands()
        self._faults.add(self._quiet.refusals())
        # They were looked at one by one.
        self._ledger.settle(self._crowd.replies())
        self._faults.add(self._crowd.mistakes())
        self._faults.add(f"logged: {line}" for line in self._subject.read_log())
        self._faults.add(self._subject.faults)
        self._subject.faults.clear()
        return self._subject.level()

    def _settle_commands(self) -> None:
        if self._low_since is not None:
            self._ledger.note_gap(self._low_since, time.monotonic())
        verdict = self._ledger.settle(self._crowd.replies())
        self._faults.add(verdict.wrong)
        tally = self._tally
        tally.outcomes += verdict.outcomes
        tally.commands += verdict.commands
        tally.survived += verdict.survived
        tally.excused += verdict.excused

    # ---- What is told ----

    def _report(self, title: str, blown: float, level: Level) -> None:
        faults = f"{self._faults.count} FAULTS" if self._faults.count else "no faults"
        self._options.say(
            f"{title:<12} {blown:5.1f} s, calm after {self._tally.calming[-1]:4.1f} s; {self._tally.commands} commands, "
            f"{level.descriptors} fds, {level.threads} threads, {level.resident / 1024:.0f} MiB; {faults}"
        )

    def _figures(self) -> Iterator[Figure]:
        yield from self._figures_of_course()
        yield from self._figures_of_daemon()
        yield Figure("faults", self._faults.count, bound=0)

    def _figures_of_course(self) -> Iterator[Figure]:
        tally = self._tally
        outcomes = ", ".join(f"{count} {name}" for name, count in tally.outcomes.most_common())
        yield Figure("storms", tally.storms)
        yield Figure("longest until calm", max(tally.calming), "s", note="all guests agreed, all commands ended")
        yield Figure("calls", sum(tally.outcomes.values()), note=outcomes)
        yield Figure("commands that guests heard", tally.commands)
        yield Figure("completed over a restart", tally.survived)
        yield Figure("not to be judged", tally.excused, note="around a kill, a full disk, a lower version or lost events")
        yield Figure("disk full", tally.full, note="" if self._disk.can_be_full else "left out: nothing can be mounted")
        yield Figure("events", self._follower.count)
        if tally.stopping:
            yield Figure("longest stop", max(tally.stopping), "s")

    def _figures_of_daemon(self) -> Iterator[Figure]:
        growth, peaks, waits = self._growth, self._prober.peaks, self._prober.waits
        pool = min(32, (os.cpu_count() or 1) + 4)
        minutes = (time.monotonic() - self._began_at) / PERIOD + 1
        yield Figure("descriptors gained in a life", growth.descriptors, bound=SPARE_DESCRIPTORS)
        yield Figure("threads", growth.threads, bound=OWN_THREADS + pool, note=f"{pool} of them the event loop's pool")
        bound = GROWTH + GROWTH_OF_GUEST * self._crowd.count
        yield Figure("memory gained in a life", growth.resident, "KiB", bound=bound)
        yield Figure("memory at most", peaks[2], "KiB", note=f"{peaks[0]} descriptors, {peaks[1]} threads")
        bound = round(self._crowd.count * _TOPICS * (BURST + 1) * minutes)
        yield Figure("log", self._subject.log_lines, "lines", bound=bound, note=f"{self._subject.log_bytes // 1024} KiB")
        for name, share in (("half", 0.5), ("99 %", 0.99), ("all", 1.0)):
            yield Figure(f"GET /v1/host, {name} within", 1000 * (percentile(waits, share) or 0.0), "ms")


def play(options: Options) -> Outcome:
    """Play a soak in a directory of its own.

    :raises Gone: somebody who takes part has ended, or what was waited for did not come.
    """
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    with _empty_place() as place:
        try:
            with Soak(options, place) as soak:
                return soak.play()
        finally:
            if options.log is not None:
                shutil.copyfile(place / "daemon.log", options.log)


@contextlib.contextmanager
def _empty_place() -> Iterator[Path]:
    """A directory with a short path, as those of sockets are limited."""
    place = Path(tempfile.mkdtemp(prefix="soak-"))
    # libvirtd runs as another user, and must get to what is below.
    place.chmod(0o755)
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)
