"""Let thousands of guests, good and bad ones, loose on the real daemon, for minutes or hours: ``make soak``.

Everything follows from one number, the seed, which is printed: the same seed does the same again.
"""

from __future__ import annotations

import argparse
import itertools
import os
import secrets
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Optional

from tests.bench.processes import Gone
from tests.bench.stage import GUESTS_CORE

from . import domains, figures, run
from .plan import ADVERSITIES, Scale, storms
from .run import Options

#: How long a daemon lives, in storms: where there are hours it lives for about half of one.
_LIFE, _LONG_LIFE = 6, 60

_LONG = 30.0

#: The environment's variable for how long it takes, where the command line says nothing.
MINUTES_VARIABLE = "VMACCORD_SOAK_MINUTES"


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """Play it; 0: everything held."""
    parsed = _parser().parse_args(arguments)
    options = _options(parsed)
    if parsed.plan:
        for storm in itertools.islice(storms(options.seed, options.scale), parsed.storms or options.scale.life):
            print(storm.text)
        return 0
    os.sched_setaffinity(0, {GUESTS_CORE})
    # Whoever ends the soak ends all that it has started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("soak: told to stop"))
    print(_heading(parsed, options), flush=True)
    try:
        outcome = run.play(options)
    except Gone as error:
        print(f"soak: {error}\nsoak: {_again(parsed, options)}", file=sys.stderr)
        return 1
    print(f"\n{figures.draw(outcome.figures)}")
    for fault in outcome.faults:
        print(f"soak: {fault}", file=sys.stderr)
    if outcome.failed:
        print(f"soak: {_again(parsed, options)}", file=sys.stderr)
    return 1 if outcome.failed else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=(__doc__ or "").partition("\n")[0])
    add = parser.add_argument
    minutes = float(os.environ.get(MINUTES_VARIABLE) or 5)
    add("--minutes", type=float, default=minutes, help=f"how long (default: {MINUTES_VARIABLE}, or 5)")
    add("--storms", type=int, help="how many storms, instead of how long")
    add("--guests", type=int, default=Scale().guests, help="how many guests (default: %(default)s)")
    add("--domains", type=int, default=20, help="how many guests of libvirt besides (default: %(default)s)")
    add("--seconds", type=float, default=Scale().seconds, help="how long a storm is (default: %(default)g)")
    add("--seed", type=int, help="do the same as the soak that said this number")
    add("--log", type=Path, metavar="FILE", help="leave the daemon's log there")
    add("--plan", action="store_true", help="only show what would be done")
    return parser


def _options(parsed: argparse.Namespace) -> Options:
    left_out = domains.missing() is not None or not parsed.domains
    scale = Scale(
        guests=parsed.guests,
        domains=0 if left_out else parsed.domains,
        seconds=parsed.seconds,
        life=_LIFE if parsed.minutes <= _LONG else _LONG_LIFE,
        adversities=tuple(each for each in ADVERSITIES if not (left_out and each == "libvirt")),
    )
    seed = secrets.randbelow(1_000_000) if parsed.seed is None else parsed.seed
    # Who vanishes is forgotten soon and who flooded is heard soon, so that a calm does not take minutes.
    settings = ("forget-after = 10", "drain = 2", "[limits]", "message-rate = 2000")
    return Options(seed, scale, seconds=60 * parsed.minutes, storms=parsed.storms, settings=settings, log=parsed.log)


def _heading(parsed: argparse.Namespace, options: Options) -> str:
    libvirt = f"{options.scale.domains} domains of libvirt"
    if not options.scale.domains:
        libvirt = f"no libvirt: {domains.missing() or 'not wanted'}"
    return f"soak: {options.scale.guests} guests, {libvirt}; {_again(parsed, options)}"


def _again(parsed: argparse.Namespace, options: Options) -> str:
    """How to do the same again."""
    scale = options.scale
    length = f"--minutes {parsed.minutes:g}" if options.storms is None else f"--storms {options.storms}"
    return (
        f"again: python -m tests.soak --seed {options.seed} --guests {scale.guests} --domains {scale.domains} "
        f"--seconds {scale.seconds:g} {length}"
    )


if __name__ == "__main__":
    sys.exit(main())
