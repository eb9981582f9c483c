"""What happens in a soak, and when: a plan that one number determines, so that it can be repeated. Pure.

A soak is a row of *storms*. In each, guests do whatever guests may do, operators and worse use the control API, and one
thing happens to the daemon itself. After each everything calms down, and what must hold is looked at.

The daemon's life is as long as possible, for what grows slowly: only the last two storms of a life end it.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from typing import Any, Callable, NamedTuple, Optional

from tests.bench.speech import FLOODS

from .guests import SAYINGS

#: What a guest may announce; None: it knows no versions. Some are higher than any that there is.
VERSIONS = (None, 0, 1, 2, 3, 3, 4, 5, 5, 99)

#: What the daemon may be told to support at most; None: it knows no versions.
MAXIMA = (5, 5, 5, 5, 4, 3, 2, 1, 0, None)

#: What ends a daemon's life, …
ENDINGS = ("restart", "kill")

#: … and what it survives. What can't be had on a machine is left out.
ADVERSITIES = ("reload", "disk", "libvirt", "none")

#: At most so many guests flood in one storm: each takes as much of this machine as it gets.
_FLOODS = 3

#: So long guests take for a command that is to outlive the daemon, in seconds, where a storm is long enough.
_SLOW = 8.0

#: A disturbance concerns at most this share of all guests.
_SHARE = 0.05


class Step(NamedTuple):
    """Something that is done.

    :ivar at: seconds from the beginning of the storm.
    :ivar whom: ``guests`` (a fleet's command), ``domains`` (those of libvirt) or ``daemon``.
    :ivar do: what is done.
    """

    at: float
    whom: str
    do: str
    arguments: dict[str, Any]


class Storm(NamedTuple):
    """A storm, its *number* from 0 on, with its steps in order."""

    number: int
    adversity: str
    seconds: float
    steps: tuple[Step, ...]

    @property
    def text(self) -> str:
        """For people who want to know what exactly was done."""
        lines = [f"storm {self.number}: {self.adversity}, {self.seconds:g} s"]
        for step in self.steps:
            said = " ".join(f"{name}={value}" for name, value in step.arguments.items())
            lines.append(f"  {step.at:7.2f}  {step.whom}: {step.do} {said}".rstrip())
        return "\n".join(lines)


class Scale(NamedTuple):
    """How large everything is.

    :ivar guests: how many guests there are, …
    :ivar domains: … and how many of libvirt's besides.
    :ivar seconds: how long a storm is.
    :ivar intensity: how many disturbances there are in a second.
    :ivar life: how many storms a daemon lives for.
    :ivar adversities: what it survives, of ``ADVERSITIES``.
    """

    guests: int = 2000
    domains: int = 0
    seconds: float = 20.0
    intensity: float = 4.0
    life: int = 6
    adversities: tuple[str, ...] = ADVERSITIES


def storms(seed: int, scale: Scale) -> Iterator[Storm]:
    """All storms of a soak, without end."""
    for number in itertools.count():
        draw = random.Random(f"{seed}/{number}")
        adversity = _adversity(number, scale)
        steps = [*_disturbances(draw, number, scale), *_misfortunes(draw, adversity, scale)]
        if scale.domains:
            steps += _domains(draw, scale)
        yield Storm(number, adversity, scale.seconds, tuple(sorted(steps, key=lambda step: step.at)))


def versions(seed: int, name: str, count: int) -> list[Optional[int]]:
    """What the *count* guests of the fleet *name* announce first."""
    draw = random.Random(f"{seed}/versions/{name}")
    return [draw.choice(VERSIONS) for _ in range(count)]


def _adversity(number: int, scale: Scale) -> str:
    position = number % scale.life
    ending = position - (scale.life - len(ENDINGS))
    if ending >= 0:
        return ENDINGS[ending]
    lived = number // scale.life * (scale.life - len(ENDINGS)) + position
    return scale.adversities[lived % len(scale.adversities)]


# ---- What guests do ----


def _disturbances(draw: random.Random, number: int, scale: Scale) -> Iterator[Step]:
    for _ in range(_FLOODS):
        yield _step(draw, scale, "behave", draw.randrange(scale.guests), 1, flood=draw.choice(sorted(FLOODS)))
    for turn in range(int(scale.intensity * scale.seconds)):
        disturb = _DISTURBANCES[draw.randrange(len(_DISTURBANCES))]
        count = draw.randint(1, max(1, int(scale.guests * _SHARE)))
        first = draw.randrange(scale.guests - count + 1)
        do, arguments = disturb(draw, f"{number}-{turn}")
        yield _step(draw, scale, do, first, count, **arguments)
    # What vanished comes back in between, too.
    for share in (0.4, 0.8):
        yield Step(share * scale.seconds, "guests", "return_all", {"first": 0, "count": scale.guests})


def _step(draw: random.Random, scale: Scale, do: str, first: int, count: int, **arguments: Any) -> Step:
    at = round(draw.uniform(0.0, scale.seconds), 2)
    return Step(at, "guests", do, {"first": first, "count": count, **arguments})


_Disturbance = Callable[[random.Random, str], tuple[str, dict[str, Any]]]

_DISTURBANCES: tuple[_Disturbance, ...] = (
    lambda draw, mark: ("remove", {}),
    lambda draw, mark: ("return_all", {}),
    lambda draw, mark: ("hang_up", {}),
    lambda draw, mark: ("restart", {}),
    lambda draw, mark: ("rename", {"suffix": f"-{mark}"}),
    lambda draw, mark: ("move", {}),
    lambda draw, mark: ("say", {"what": draw.choice(sorted(SAYINGS))}),
    lambda draw, mark: ("delay", {"seconds": draw.choice((0.0, 0.5, 2.0, 5.0))}),
    lambda draw, mark: ("behave", {"version": draw.choice(VERSIONS)}),
    lambda draw, mark: ("behave", {"turns_to": draw.choice(VERSIONS), "turns_every": draw.choice((1, 2, 5))}),
    lambda draw, mark: ("behave", {"silent": draw.random() < 0.5}),
    lambda draw, mark: ("behave", {"deaf": draw.random() < 0.5}),
    lambda draw, mark: ("behave", {"garbage": draw.random() < 0.7}),
    lambda draw, mark: ("behave", {"answers": draw.random() < 0.5}),
)


# ---- What happens to the daemon ----


def _misfortunes(draw: random.Random, adversity: str, scale: Scale) -> Iterator[Step]:
    """The steps of *adversity*. A second thing may come with it, such as a reload before a kill."""
    times = sorted(round(draw.uniform(0.1, 0.9) * scale.seconds, 2) for _ in range(3))
    if adversity == "reload" or draw.random() < 0.3:
        yield Step(times[0], "daemon", "reload", {"maximum": draw.choice(MAXIMA)})
        yield Step(times[1], "daemon", "reload_in_error", {})
        yield Step(times[2], "daemon", "reload_twice", {"maxima": [draw.choice(MAXIMA), draw.choice(MAXIMA)]})
    if adversity == "disk":
        yield Step(times[0], "daemon", "fill_disk", {})
        yield Step(round(0.95 * scale.seconds, 2), "daemon", "free_disk", {})
    if adversity == "libvirt":
        yield Step(times[0], "domains", "stop_libvirt", {"kill": draw.random() < 0.5})
        yield Step(times[2], "domains", "start_libvirt", {})
    if adversity in ENDINGS:
        # Half of the guests take their time, so that commands are in flight when the daemon ends.
        seconds = min(_SLOW, 0.6 * scale.seconds)
        slow = {"first": 0, "count": scale.guests // 2, "seconds": seconds}
        yield Step(max(0.0, round(times[1] - seconds / 2, 2)), "guests", "delay", slow)
        yield Step(times[1], "daemon", adversity, {"pause": draw.choice((0.0, 0.5))})


# ---- What happens to libvirt's domains ----


def _domains(draw: random.Random, scale: Scale) -> Iterator[Step]:
    for turn in range(int(scale.seconds)):
        at = round(draw.uniform(0.0, scale.seconds), 2)
        do = draw.choice(("destroy", "start", "rename", "restart"))
        yield Step(at, "domains", do, {"number": draw.randrange(scale.domains), "mark": f"{turn}"})
